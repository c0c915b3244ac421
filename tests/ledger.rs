//! Never lies: a run's ledger tells to the bit what it computed, and `annulus diff` where two runs part.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Ended, Job, Mpi, alone, card, under};
use std::path::Path;
use tempfile::tempdir;

fn train(mpi: Mpi, ranks: usize, out: &Path) -> Job {
    under(mpi, ranks)
        .args(["train", &card("lenet-mnist-quick.json"), "--out"])
        .args([out])
        .set("train.max_steps=40")
        .set("schedule={}")
        .set("data.test_limit=200")
        .set("comm.overlap=off")
        .set("comm.deadline_s=5")
        .set("checkpoint.every_steps=10")
        .set("ledger.hashes_every=10")
        .env("ANNULUS_ALLOW_FAULTS", "1")
}

fn diff(a: &Path, b: &Path) -> Ended {
    alone(&Mpi::Open.binary()).args(["diff"]).args([a, b]).run()
}

/// The lines of a ledger, but for those that say that the run was resumed.
fn lines(run: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(run.join("ledger.jsonl")).unwrap();
    text.lines().filter(|l| !l.contains("\"kind\":\"resume\"")).map(str::to_owned).collect()
}

#[test]
fn a_run_that_was_killed_and_resumed_has_the_ledger_of_one_that_was_not() {
    let folder = tempdir().unwrap();
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    train(Mpi::Open, 2, &whole).succeed();
    for (rank, step) in [(1, 5), (0, 17), (1, 36)] {
        let kill = format!("faults=[{{\"rank\":{rank},\"step\":{step},\"kind\":\"kill\"}}]");
        assert_ne!(train(Mpi::Mpich, 2, &broken).set(kill).run().code, 0);
    }
    train(Mpi::Open, 2, &broken).succeed();
    assert_eq!(lines(&whole).len(), 41);
    assert_eq!(lines(&whole), lines(&broken));
    let said = diff(&whole, &broken);
    assert_eq!(said.code, 0, "{}", said.all_output());
    assert!(said.stdout.contains("the runs are the same, bit for bit"), "{}", said.stdout);
}

#[test]
fn diff_names_the_field_the_step_and_the_tensor_in_which_two_runs_part() {
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (base, seed, late) = (path("base"), path("seed"), path("late"));
    train(Mpi::Open, 1, &base).succeed();
    train(Mpi::Open, 1, &seed).set("seed=7").succeed();
    let said = diff(&base, &seed);
    assert_eq!(said.code, 76, "{}", said.all_output());
    for part in ["seed was 42 and is 7", "step 1 differs in the samples of the batch", "the loss: "]
    {
        assert!(said.stdout.contains(part), "{part}: {}", said.stdout);
    }
    // One bit of one parameter, after step 25: the order stays the same, the next loss does not.
    let flip = "faults=[{\"rank\":0,\"step\":25,\"kind\":\"flip\"}]";
    train(Mpi::Open, 1, &late).set(flip).succeed();
    let said = diff(&base, &late);
    assert_eq!(said.code, 76, "{}", said.all_output());
    for part in [
        "the same in all that decides results",
        "step 26 differs in the loss: ",
        "differs after step 30",
        "the same after step 20",
    ] {
        assert!(said.stdout.contains(part), "{part}: {}", said.stdout);
    }
    assert!(!said.stdout.contains("order"), "{}", said.stdout);
}

#[test]
fn diff_refuses_what_it_cannot_read_with_file_and_line() {
    let folder = tempdir().unwrap();
    let (run, copy) = (folder.path().join("run"), folder.path().join("copy"));
    let missing = diff(&run, &copy);
    assert_eq!(missing.code, 66, "{}", missing.all_output());
    train(Mpi::Open, 1, &run).set("train.max_steps=3").succeed();
    std::fs::create_dir(&copy).unwrap();
    std::fs::copy(run.join("card.json"), copy.join("card.json")).unwrap();
    let no_ledger = diff(&run, &copy);
    assert_eq!(no_ledger.code, 66, "{}", no_ledger.all_output());
    let text = std::fs::read_to_string(run.join("ledger.jsonl")).unwrap();
    std::fs::write(copy.join("ledger.jsonl"), text.replace("\"step\":2,", "\"step\":?,")).unwrap();
    let damaged = diff(&run, &copy);
    assert_eq!(damaged.code, 65, "{}", damaged.all_output());
    assert!(damaged.stderr.contains("copy/ledger.jsonl, line 3: "), "{}", damaged.stderr);
    // A shorter run is another run, even where all it has is the same.
    let short: String = text.lines().take(3).map(|l| format!("{l}\n")).collect();
    std::fs::write(copy.join("ledger.jsonl"), short).unwrap();
    let shorter = diff(&run, &copy);
    assert_eq!(shorter.code, 76, "{}", shorter.all_output());
    assert!(
        shorter.stdout.contains("3 and 2 written down, 2 of them in both"),
        "{}",
        shorter.stdout
    );
}

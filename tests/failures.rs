//! Never hangs, never lies: whatever happens to one rank, the whole job ends soon, with a message
//! that names the rank, a non-zero exit code, and no process left (which `common` checks each time).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{BOTH, Ended, Mpi, card, under};
use std::time::Duration;
use tempfile::tempdir;

/// Three ranks; one of them suffers `kind` at step 20.
fn with_fault(mpi: Mpi, rank: usize, kind: &str) -> Ended {
    with_fault_and(mpi, rank, kind, &[])
}

fn with_fault_and(mpi: Mpi, rank: usize, kind: &str, sets: &[&str]) -> Ended {
    let folder = tempdir().unwrap();
    let job = under(mpi, 3)
        .args(["train", &card("lenet-mnist-quick.json"), "--out"])
        .args([folder.path().join("run")])
        .set("train.epochs=50")
        .set("train.max_steps=2000")
        .set("comm.deadline_s=2")
        .set(format!("faults=[{{\"rank\":{rank},\"step\":20,\"kind\":\"{kind}\"}}]"))
        .env("ANNULUS_ALLOW_FAULTS", "1");
    sets.iter().fold(job, |job, set| job.set(set)).run()
}

/// MPICH's launcher does not always pass a rank's own code on, but never makes it 0 here.
fn expect_code(mpi: Mpi, ended: &Ended, code: i32) {
    match mpi {
        Mpi::Open => assert_eq!(ended.code, code, "{}", ended.all_output()),
        Mpi::Mpich => assert_ne!(ended.code, 0, "{}", ended.all_output()),
    }
}

#[test]
fn a_panic_ends_the_job_and_names_rank_host_step_and_phase() {
    for mpi in BOTH {
        let ended = with_fault(mpi, 1, "panic");
        expect_code(mpi, &ended, 70);
        let said = ended.complaints().join("\n");
        assert!(said.contains("panic: rank 1/3 on "), "{said}");
        assert!(said.contains("step 20, "), "{said}");
        assert!(said.contains("ordered by the card's faults"), "{said}");
        assert!(ended.took < Duration::from_secs(3), "{:?}", ended.took);
    }
}

#[test]
fn an_error_on_one_rank_ends_the_job_with_its_code_and_words() {
    for mpi in BOTH {
        let ended = with_fault(mpi, 2, "error");
        expect_code(mpi, &ended, 74);
        let said = ended.complaints().join("\n");
        assert!(said.contains("error: rank 2/3 on ") && said.contains("step 20"), "{said}");
        assert!(ended.took < Duration::from_secs(3), "{:?}", ended.took);
    }
}

#[test]
fn a_killed_rank_and_one_that_leaves_early_never_pass_for_success() {
    for mpi in BOTH {
        let killed = with_fault(mpi, 1, "kill");
        assert_ne!(killed.code, 0, "{}", killed.all_output());
        assert!(!killed.stdout.contains("done: "), "{}", killed.stdout);
        assert!(killed.took < Duration::from_secs(4), "{:?}", killed.took);
    }
    // MPICH's launcher itself returns 0 when a rank exits early with 0: status.json tells.
    let left = with_fault(Mpi::Open, 1, "exit");
    assert_ne!(left.code, 0, "{}", left.all_output());
}

#[test]
fn a_stopped_rank_is_noticed_at_the_deadline_and_named_by_the_others() {
    for mpi in BOTH {
        let ended = with_fault(mpi, 1, "stop");
        expect_code(mpi, &ended, 69);
        let said = ended.complaints();
        assert!(!said.is_empty(), "{}", ended.all_output());
        for line in said {
            assert!(
                line.contains("nothing from rank 1 (") && line.contains("no sign of life"),
                "{line}"
            );
            assert!(line.contains("step 20, gradient reduction"), "{line}");
        }
        // Start-up, 20 steps, 2 s of deadline, half a second of roll call, and the end.
        assert!(ended.took < Duration::from_secs(7), "{:?}", ended.took);
    }
}

#[test]
fn a_skipped_collective_is_an_error_naming_both_sides_instead_of_a_hang() {
    for mpi in BOTH {
        let ended = with_fault(mpi, 0, "skip");
        expect_code(mpi, &ended, 70);
        let said = ended.complaints().join("\n");
        assert!(said.contains("not in the same collective: rank "), "{said}");
        assert!(said.contains("all_reduce(sum of "), "{said}");
        assert!(ended.took < Duration::from_secs(3), "{:?}", ended.took);
    }
}

#[test]
fn a_gradient_that_is_no_number_stops_all_ranks_at_the_same_step() {
    let overlapped =
        ["comm.overlap=on", "comm.first_bucket_mb=0.005", "comm.bucket_mb=0.02"].as_slice();
    for (mpi, sets) in BOTH.into_iter().flat_map(|mpi| [(mpi, [].as_slice()), (mpi, overlapped)]) {
        let ended = with_fault_and(mpi, 2, "nan", sets);
        expect_code(mpi, &ended, 77);
        let said = ended.complaints();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("step 20: ") && said[0].contains("NaN"), "{said:?}");
    }
}

#[test]
fn the_status_of_a_failed_run_says_why_and_is_never_completed() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("run");
    let ended = under(Mpi::Open, 2)
        .args(["train", &card("lenet-mnist-quick.json"), "--set", "optimizer.lr=1e30", "--out"])
        .args([&out])
        .run();
    assert_eq!(ended.code, 77, "{}", ended.all_output());
    let status = common::status(&out);
    assert_eq!((&status["state"], &status["exit_code"]), (&"failed".into(), &77.into()));
    assert!(status["reason"].as_str().unwrap().contains("diverged"));
    assert!(!out.join("model.safetensors").exists());
}

#[test]
fn ranks_with_different_cards_are_refused_with_both_values() {
    let binary = Mpi::Open.binary();
    let folder = tempdir().unwrap();
    let out = folder.path().join("run");
    let first = card("lenet-mnist-quick.json");
    let ended = under(Mpi::Open, 1)
        .args(["train", &first, "--out"])
        .args([&out])
        .args([":", "-n", "1"])
        .args([&binary])
        .args(["train", &first, "--set", "optimizer.lr=0.5", "--out"])
        .args([&out])
        .run();
    assert_eq!(ended.code, 78, "{}", ended.all_output());
    let said = ended.complaints();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("do not agree on the card: rank 0"), "{said:?}");
    assert!(said[0].contains("`\"lr\": 0.5,`"), "{said:?}");
}

#[test]
fn faults_in_a_card_are_refused_unless_allowed() {
    let folder = tempdir().unwrap();
    let ended = under(Mpi::Open, 2)
        .args(["train", &card("lenet-mnist-quick.json"), "--out"])
        .args([folder.path().join("run")])
        .set("faults=[{\"rank\":0,\"step\":1,\"kind\":\"kill\"}]")
        .run();
    assert_eq!(ended.code, 78, "{}", ended.all_output());
}

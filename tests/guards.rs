//! Never lies: what goes wrong with the numbers of one rank is found, named, and stops all of them, or is
//! skipped by all of them, as the card says.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{BOTH, Ended, Job, Mpi, card, metrics, status, under};
use std::path::Path;
use tempfile::tempdir;

/// A short job with `faults` on order.
fn with_faults(mpi: Mpi, ranks: usize, out: &Path, faults: &str) -> Job {
    under(mpi, ranks)
        .args(["train", &card("lenet-mnist-quick.json"), "--out"])
        .args([out])
        .set("train.max_steps=40")
        .set("data.test_limit=500")
        .set("comm.deadline_s=5")
        .set(format!("faults={faults}"))
        .env("ANNULUS_ALLOW_FAULTS", "1")
}

/// MPICH's launcher does not always pass a rank's own code on; the status does.
fn expect_code(mpi: Mpi, ended: &Ended, out: &Path, code: i32) {
    match mpi {
        Mpi::Open => assert_eq!(ended.code, code, "{}", ended.all_output()),
        Mpi::Mpich => assert_ne!(ended.code, 0, "{}", ended.all_output()),
    }
    let status = status(out);
    assert_eq!((&status["state"], &status["exit_code"]), (&"failed".into(), &code.into()));
}

#[test]
fn a_flipped_bit_is_found_within_n_steps_and_rank_tensor_and_value_are_named() {
    for (mpi, rank) in [(Mpi::Open, 1), (Mpi::Mpich, 0)] {
        let folder = tempdir().unwrap();
        let out = folder.path().join("run");
        let faults = format!("[{{\"rank\":{rank},\"step\":13,\"kind\":\"flip\"}}]");
        let ended = with_faults(mpi, 3, &out, &faults).set("guards.replicas_every=5").run();
        expect_code(mpi, &ended, &out, 76);
        let said = ended.complaints();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains(&format!("step 15: rank {rank} (")), "{said:?}");
        assert!(said[0].contains("differs from the 2 other ranks: fc2.weight"), "{said:?}");
        assert!(said[0].contains("value 600 of 1200 is "), "{said:?}");
        assert!(said[0].contains("They were the same after step 10."), "{said:?}");
        // Both versions are kept, and differ in that value alone: all ranks add the same gradients.
        let other = if rank == 0 { 1 } else { 0 };
        let version = |rank: usize| {
            let path = out.join(format!("faults/step-00000015-rank-{rank}.safetensors"));
            annulus::checkpoint::model_file::load(&path).unwrap().remove(0)
        };
        let (odd, right) = (version(rank), version(other));
        assert_eq!((odd.name.as_str(), odd.shape.as_slice()), ("fc2.weight", [10, 120].as_slice()));
        let differs = |i: &usize| odd.values[*i].to_bits() != right.values[*i].to_bits();
        assert_eq!((0..1200).filter(differs).collect::<Vec<_>>(), [600]);
    }
}

#[test]
fn of_two_ranks_that_differ_neither_is_blamed() {
    for mpi in BOTH {
        let folder = tempdir().unwrap();
        let out = folder.path().join("run");
        let faults = "[{\"rank\":1,\"step\":20,\"kind\":\"flip\"}]";
        let ended = with_faults(mpi, 2, &out, faults).set("guards.replicas_every=10").run();
        expect_code(mpi, &ended, &out, 76);
        let said = ended.complaints();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("step 20: the ranks differ and no majority tells"), "{said:?}");
        assert!(said[0].contains("fc2.weight"), "{said:?}");
    }
}

#[test]
fn a_flipped_bit_is_found_at_the_end_of_a_run_shorter_than_n_steps() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("run");
    let ended =
        with_faults(Mpi::Open, 3, &out, "[{\"rank\":2,\"step\":33,\"kind\":\"flip\"}]").run();
    expect_code(Mpi::Open, &ended, &out, 76);
    assert!(ended.stderr.contains("step 40: rank 2 ("), "{}", ended.stderr);
    assert!(!out.join("model.safetensors").exists());
}

fn fault(rank: usize, step: u64, kind: &str) -> String {
    format!("{{\"rank\":{rank},\"step\":{step},\"kind\":\"{kind}\"}}")
}

#[test]
fn a_gradient_that_is_no_number_names_rank_tensor_and_samples_and_stops_all_ranks() {
    for mpi in BOTH {
        let folder = tempdir().unwrap();
        let out = folder.path().join("run");
        let ended = with_faults(mpi, 3, &out, &format!("[{}]", fault(1, 20, "nan"))).run();
        expect_code(mpi, &ended, &out, 77);
        let said = ended.complaints();
        assert_eq!(said.len(), 1, "{said:?}");
        for part in
            ["step 20: ", "norm NaN, first on rank 1 (", "the gradient of ", "over samples "]
        {
            assert!(said[0].contains(part), "{part}: {said:?}");
        }
    }
}

#[test]
fn a_skipped_step_changes_nothing_is_written_down_and_survives_a_resume_bit_for_bit() {
    let folder = tempdir().unwrap();
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let nans = [fault(1, 12, "nan"), fault(0, 20, "nan")].join(",");
    let train = |mpi: Mpi, out: &Path, faults: &str| {
        with_faults(mpi, 2, out, faults)
            .set("guards.non_finite=skip")
            .set("guards.max_skips=2")
            .set("checkpoint.every_steps=10")
    };
    for mpi in BOTH {
        let ended = train(mpi, &whole, &format!("[{nans}]")).args(["--resume", "never"]).succeed();
        assert!(ended.stdout.contains("step 12 is skipped: the loss is "), "{}", ended.stdout);
        let skips = metrics(&whole, "skip");
        let steps: Vec<u64> = skips.iter().map(|s| s["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, [12, 20]);
        assert!(skips[0]["why"].as_str().unwrap().contains("first on rank 1 ("), "{skips:?}");
        assert!(skips[0]["grad_norm"].is_null());
        assert_eq!(metrics(&whole, "step").len(), 38);
        assert_eq!(metrics(&whole, "summary")[0]["skipped"], 2);
    }
    let killed = train(Mpi::Open, &broken, &format!("[{nans},{}]", fault(1, 26, "kill"))).run();
    assert_ne!(killed.code, 0);
    train(Mpi::Open, &broken, &format!("[{nans}]")).succeed();
    assert_eq!(status(&whole)["params_hash"], status(&broken)["params_hash"]);
    assert_eq!(metrics(&whole, "skip"), metrics(&broken, "skip"));
    assert_eq!(metrics(&broken, "summary")[0]["skipped"], 2);
}

#[test]
fn a_skipped_step_is_as_if_its_update_were_zero() {
    // Plain SGD without decay: a step skipped and a step never taken differ in nothing but the count.
    let folder = tempdir().unwrap();
    let (skipped, short) = (folder.path().join("skipped"), folder.path().join("short"));
    let train = |out: &Path, faults: &str, steps: u64| {
        with_faults(Mpi::Open, 2, out, faults)
            .set("guards.non_finite=skip")
            .set("optimizer={\"kind\":\"sgd\",\"lr\":0.05}")
            .set("schedule={}")
            .set(format!("train.max_steps={steps}"))
    };
    train(&skipped, &format!("[{}]", fault(1, 20, "nan")), 20).succeed();
    train(&short, "[]", 19).succeed();
    assert_eq!(status(&skipped)["params_hash"], status(&short)["params_hash"]);
}

#[test]
fn too_many_skips_in_a_row_stop_the_run() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("run");
    let nans: Vec<String> = (20..30).map(|step| fault(1, step, "nan")).collect();
    let ended = with_faults(Mpi::Open, 2, &out, &format!("[{}]", nans.join(",")))
        .set("guards.non_finite=skip")
        .set("guards.max_skips=3")
        .run();
    expect_code(Mpi::Open, &ended, &out, 77);
    assert!(ended.stderr.contains("step 22: "), "{}", ended.stderr);
    assert!(ended.stderr.contains("3 steps in a row"), "{}", ended.stderr);
}

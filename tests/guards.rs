//! Never lies: what goes wrong with the numbers of one rank is found, named, and stops all of them, or is
//! skipped by all of them, as the card says.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "guards/loss_scale.rs"]
mod loss_scale;

use common::{BOTH, Ended, Job, Mpi, card, metrics, status, under};
use serde_json::Value;
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
        assert!(said[0].contains("differs from the 2 other ranks: conv1.weight"), "{said:?}");
        assert!(said[0].contains("value 75 of 150 is "), "{said:?}");
        assert!(said[0].contains("They were the same after step 10."), "{said:?}");
        // Both versions are kept, and differ in that value alone: all ranks add the same gradients.
        let other = if rank == 0 { 1 } else { 0 };
        let version = |rank: usize| {
            let path = out.join(format!("faults/step-00000015-rank-{rank}.safetensors"));
            annulus::checkpoint::model_file::load(&path).unwrap().remove(0)
        };
        let (odd, right) = (version(rank), version(other));
        assert_eq!(
            (odd.name.as_str(), odd.shape.as_slice()),
            ("conv1.weight", [6, 1, 5, 5].as_slice())
        );
        let differs = |i: &usize| odd.values[*i].to_bits() != right.values[*i].to_bits();
        assert_eq!((0..150).filter(differs).collect::<Vec<_>>(), [75]);
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
        assert!(said[0].contains("conv1.weight"), "{said:?}");
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

/// A spike at step 30 of 40, on one rank of two: the mean loss is more than five times the true one.
fn with_spike(mpi: Mpi, out: &Path, action: &str) -> Job {
    let rule = format!("{{\"factor\":3,\"window\":5,\"action\":\"{action}\"}}");
    with_faults(mpi, 2, out, &format!("[{}]", fault(1, 30, "spike")))
        .set(format!("guards.spike={rule}"))
        .set("checkpoint.every_steps=14")
}

#[test]
fn a_loss_spike_warns_or_is_skipped_at_the_step_it_comes() {
    for mpi in BOTH {
        let folder = tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (warned, plain, skipped) = (path("warned"), path("plain"), path("skipped"));
        let said = with_spike(mpi, &warned, "warn").succeed().stdout;
        assert_eq!(said.matches("the median of the last 5 steps").count(), 1, "{said}");
        assert!(said.contains("warning: step 30: the loss is "), "{said}");
        // A warning changes nothing.
        with_faults(mpi, 2, &plain, "[]").succeed();
        assert_eq!(status(&warned)["params_hash"], status(&plain)["params_hash"]);
        let said = with_spike(mpi, &skipped, "skip").succeed().stdout;
        assert!(said.contains("step 30 is skipped: the loss is "), "{said}");
        assert_ne!(status(&skipped)["params_hash"], status(&plain)["params_hash"]);
        let skips = metrics(&skipped, "skip");
        assert_eq!((skips.len(), &skips[0]["step"]), (1, &30.into()));
    }
}

#[test]
fn the_losses_that_a_spike_is_measured_by_survive_a_resume() {
    let folder = tempdir().unwrap();
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    with_spike(Mpi::Open, &whole, "skip").succeed();
    // The last checkpoint before the kill is of step 28: two steps would not fill the window again.
    let faults = format!("faults=[{},{}]", fault(1, 30, "spike"), fault(1, 30, "kill"));
    assert_ne!(with_spike(Mpi::Open, &broken, "skip").set(faults).run().code, 0);
    let said = with_spike(Mpi::Open, &broken, "skip").succeed().stdout;
    assert!(said.contains("resumed from") && said.contains("step 30 is skipped"), "{said}");
    assert_eq!(status(&whole)["params_hash"], status(&broken)["params_hash"]);
}

/// The hashes of all tensors after each step, from the ledger.
fn hashes(out: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(out.join("ledger.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| !line["hashes"].is_null()).map(|line| line["hashes"].clone()).collect()
}

#[test]
fn a_rewind_goes_back_to_the_last_checkpoint_and_its_batches_leave_no_trace() {
    for mpi in BOTH {
        let folder = tempdir().unwrap();
        let out = folder.path().join("run");
        let said = with_spike(mpi, &out, "rewind").set("ledger.hashes_every=1").succeed().stdout;
        let expected = "back to the state after step 28: steps 29 to 30 leave no trace";
        assert!(said.contains(expected), "{said}");
        // Parameters and moments, and only there.
        let after = hashes(&out);
        assert_eq!(after.len(), 40);
        assert_eq!(after[30 - 1], after[28 - 1]);
        assert!(after[29 - 1] != after[28 - 1] && after[31 - 1] != after[28 - 1]);
        // The list of steps left out is in the checkpoints that follow.
        let state = std::fs::read_to_string(out.join("checkpoints/step-00000040/state.json"));
        let state: Value = serde_json::from_str(&state.unwrap()).unwrap();
        assert_eq!(state["state"]["guards"]["passed_over"], serde_json::json!([[29, 30]]));
        assert!(metrics(&out, "skip")[0]["why"].as_str().unwrap().contains(expected));
    }
}

#[test]
fn a_run_that_leaves_between_checkpoint_and_spike_rewinds_as_if_it_had_stayed() {
    let folder = tempdir().unwrap();
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let job = |out: &Path| {
        let faults = format!("faults=[{}]", fault(1, 8, "spike"));
        with_spike(Mpi::Open, out, "rewind").set(faults)
    };
    let said = job(&whole).succeed().stdout;
    assert!(said.contains("back to the state after step 0: steps 1 to 8 leave no trace"), "{said}");
    // Told to leave after its first step, where no rule asks for a checkpoint.
    std::fs::create_dir_all(&broken).unwrap();
    std::fs::write(broken.join("STOP"), "").unwrap();
    assert_eq!(job(&broken).run().code, 75);
    let said = job(&broken).succeed().stdout;
    assert!(said.contains("(step 1, ") && said.contains("steps 1 to 8 leave no trace"), "{said}");
    assert_eq!(status(&whole)["params_hash"], status(&broken)["params_hash"]);
}

#[test]
fn checkpoints_written_after_the_replicas_parted_are_set_aside_and_the_one_before_is_kept() {
    let folder = tempdir().unwrap();
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let job = |out: &Path, faults: &str| {
        with_faults(Mpi::Open, 3, out, faults)
            .set("guards.replicas_every=10")
            .set("checkpoint.every_steps=2")
            .set("checkpoint.every_epochs=0")
            .set("checkpoint.keep_last=1")
            .set("checkpoint.keep_best=false")
    };
    job(&whole, "[]").succeed();
    // Rank 0 writes checkpoints: those of steps 14 to 18 hold the flipped bit.
    let ended = job(&broken, "[{\"rank\":0,\"step\":13,\"kind\":\"flip\"}]").run();
    expect_code(Mpi::Open, &ended, &broken, 76);
    assert!(ended.stdout.contains("warning: set aside, they may hold what is wrong"), "{ended:?}");
    let said = job(&broken, "[]").succeed().stdout;
    assert!(said.contains("(step 10, "), "{said}");
    assert_eq!(status(&whole)["params_hash"], status(&broken)["params_hash"]);
    // Of another rank than 0 they are sound, and the newest is gone on from.
    let other = folder.path().join("other");
    let ended = job(&other, "[{\"rank\":2,\"step\":13,\"kind\":\"flip\"}]").run();
    expect_code(Mpi::Open, &ended, &other, 76);
    let said = job(&other, "[]").succeed().stdout;
    assert!(said.contains("(step 18, "), "{said}");
}

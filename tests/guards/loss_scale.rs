//! The loss scale: agreed by all ranks, part of checkpoints, without a trace where nothing overflows.

use super::*;

/// The loss scale of each step that was written down, taken or skipped, in order.
fn scales(out: &Path) -> Vec<(u64, u64)> {
    let lines = metrics(out, "step").into_iter().chain(metrics(out, "skip"));
    let mut scales: Vec<(u64, u64)> = lines
        .map(|line| (line["step"].as_u64().unwrap(), line["loss_scale"].as_u64().unwrap()))
        .collect();
    scales.sort_unstable();
    scales
}

#[test]
fn an_infinite_gradient_halves_the_loss_scale_of_all_ranks_and_leaves_the_same_step_out() {
    let folder = tempdir().unwrap();
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let infs = [fault(1, 12, "inf"), fault(2, 13, "inf"), fault(0, 30, "nan")].join(",");
    let train = |mpi: Mpi, out: &Path, faults: &str| {
        with_faults(mpi, 3, out, faults)
            .set("train.loss_scale={\"initial\":1024,\"growth_interval\":8}")
            .set("guards.replicas_every=1")
            .set("checkpoint.every_steps=10")
    };
    // Doubles after 8 good steps, halves after each bad one; 12, 13 and 30 are bad.
    let scale_of = |step: u64| match step {
        1..=8 => 1024,
        9..=12 => 2048,
        13 => 1024,
        14..=21 => 512,
        22..=29 => 1024,
        30 => 2048,
        31..=38 => 1024,
        _ => 2048,
    };
    let expected: Vec<(u64, u64)> = (1..=40).map(|step| (step, scale_of(step))).collect();
    for mpi in BOTH {
        let ended = train(mpi, &whole, &format!("[{infs}]")).args(["--resume", "never"]).succeed();
        let said = "step 12 is skipped: the loss is ";
        assert!(ended.stdout.contains(said), "{}", ended.stdout);
        let said = "norm inf with the loss scale 2048, which is 1024 from now on";
        assert!(ended.stdout.contains(said), "{}", ended.stdout);
        assert_eq!(scales(&whole), expected);
        let skips = metrics(&whole, "skip");
        let steps: Vec<u64> = skips.iter().map(|s| s["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, [12, 13, 30]);
        assert_eq!(metrics(&whole, "summary")[0]["skipped"], 3);
    }
    let killed = train(Mpi::Open, &broken, &format!("[{infs},{}]", fault(1, 16, "kill"))).run();
    assert_ne!(killed.code, 0);
    train(Mpi::Open, &broken, &format!("[{infs}]")).succeed();
    assert_eq!(scales(&broken), expected);
    assert_eq!(status(&whole)["params_hash"], status(&broken)["params_hash"]);
}

#[test]
fn gradients_that_stay_infinite_stop_all_ranks_after_so_many_skips_and_name_the_rank() {
    for mpi in BOTH {
        let folder = tempdir().unwrap();
        let out = folder.path().join("run");
        let faults: Vec<String> = (20..25).map(|step| fault(1, step, "inf")).collect();
        let ended = with_faults(mpi, 2, &out, &format!("[{}]", faults.join(",")))
            .set("train.loss_scale={}")
            .set("guards.max_skips=3")
            .run();
        expect_code(mpi, &ended, &out, 77);
        let said = ended.complaints();
        assert_eq!(said.len(), 1, "{said:?}");
        for part in [
            "step 22: ",
            "norm inf with the loss scale 16384, first on rank 1 (",
            "3 steps in a row are guards.max_skips",
        ] {
            assert!(said[0].contains(part), "{part}: {said:?}");
        }
    }
}

#[test]
fn sums_that_overflow_in_16_bits_end_with_a_scale_at_which_they_do_not() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("run");
    with_faults(Mpi::Open, 2, &out, "[]")
        .set("comm.algorithm=ring")
        .set("comm.wire=f16")
        .set("train.loss_scale={\"initial\":16777216}")
        .set("guards.max_skips=20")
        .succeed();
    let (skips, steps) = (metrics(&out, "skip").len(), metrics(&out, "step"));
    assert!((1..20).contains(&skips), "{skips} skipped");
    let last = steps.last().unwrap();
    assert!(last["loss_scale"].as_u64().unwrap() < 16_777_216, "{last}");
    assert!(last["loss"].as_f64().unwrap() < steps[0]["loss"].as_f64().unwrap(), "{last}");
}

#[test]
fn a_loss_scale_changes_no_bit_of_32_bit_training() {
    let folder = tempdir().unwrap();
    let hash = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let job = with_faults(Mpi::Open, 2, &out, "[]").set("train.clip_norm=0.5");
        more.iter().fold(job, |job, set| job.set(*set)).succeed();
        status(&out)["params_hash"].clone()
    };
    let scaled = hash("scaled", &["train.loss_scale={\"growth_interval\":5}"]);
    assert_eq!(hash("plain", &[]), scaled);
}

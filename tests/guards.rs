//! Never lies: what goes wrong with the numbers of one rank is found, named, and stops all of them, or is
//! skipped by all of them, as the card says.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{BOTH, Ended, Job, Mpi, card, status, under};
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

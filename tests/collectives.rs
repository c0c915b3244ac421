//! The collectives are exact over real MPI, and what does not fit together is refused at the start.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{BOTH, Mpi, alone, launched, under};

#[test]
fn every_collective_is_exact_over_both_mpis_at_2_to_5_ranks() {
    for mpi in BOTH {
        for ranks in 2..=5 {
            let ended = under(mpi, ranks).args(["doctor"]).succeed();
            assert!(ended.stdout.contains("checks of all-reduce"), "{}", ended.stdout);
            assert!(ended.stdout.contains("share memory"), "{}", ended.stdout);
            assert_eq!(ended.stdout.matches(": exact").count(), 5, "{}", ended.stdout);
        }
    }
}

#[test]
fn without_a_launcher_it_is_a_job_of_one_rank() {
    let ended = alone(&Mpi::Open.binary()).args(["doctor"]).succeed();
    assert!(ended.stdout.contains("none: one rank"), "{}", ended.stdout);
}

#[test]
fn a_launcher_of_another_mpi_is_refused_instead_of_training_many_times_side_by_side() {
    for (launcher, binary) in [(Mpi::Open, Mpi::Mpich), (Mpi::Mpich, Mpi::Open)] {
        let ended = launched(launcher, 2, &binary.binary()).args(["doctor"]).run();
        assert_eq!(ended.code, 78, "{}", ended.all_output());
        let said = ended.complaints().join("\n");
        assert!(said.contains("started 2 ranks, but MPI sees 1"), "{said}");
        assert_eq!(ended.complaints().len(), 1, "told once:\n{said}");
    }
}

#[test]
fn more_ranks_than_cores_are_noticed() {
    let ended = under(Mpi::Open, 9).args(["doctor"]).succeed();
    let cores = std::thread::available_parallelism().unwrap().get();
    if cores < 9 {
        assert!(ended.stdout.contains("more ranks than cores"), "{}", ended.stdout);
    }
}

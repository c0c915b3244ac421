//! What happens to a process: it dies, stops, runs out of memory, is slow.

use super::common::{self, BOTH, Mpi, hash, metrics, send, sign, status};
use super::{fault, train, train_long};
use std::time::{Duration, Instant};
use tempfile::tempdir;

/// Seconds that a job of one second may take when a rank of it dies, on a busy machine.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn a_rank_that_dies_in_any_part_of_a_step_ends_the_job_and_the_same_command_goes_on_bit_for_bit() {
    let folder = tempdir().unwrap();
    for (mpi, ranks) in [(Mpi::Open, 2), (Mpi::Mpich, 3)] {
        let whole = folder.path().join(format!("whole-{ranks}"));
        train(mpi, ranks, &whole).succeed();
        let broken = folder.path().join(format!("broken-{ranks}"));
        // Steps 16 and 32 end epochs, 14 and 28 are saved (by rank 0).
        for (rank, step, kind, at) in [
            (1, 5, "kill", "forward"),
            (0, 9, "segfault", "backward"),
            (ranks - 1, 12, "abort", "reduce"),
            (0, 14, "kill", "saving"),
            (1, 16, "kill", "evaluation"),
            (0, 23, "exit", "optimizer"),
            (ranks - 1, 28, "segfault", "forward"),
            (1, 32, "abort", "evaluation"),
            (0, 48, "kill", "optimizer"),
        ] {
            if mpi == Mpi::Mpich && kind == "exit" {
                // Its launcher takes a rank that leaves with 0 for one that has finished.
                continue;
            }
            let what = fault(rank, step, kind, &format!(",\"at\":\"{at}\""));
            let ended = train(mpi, ranks, &broken).set(what).run();
            assert_ne!(ended.code, 0, "{kind} {at}: {}", ended.all_output());
            assert!(ended.took < SOON, "{kind} {at}: {:?}", ended.took);
            assert!(!broken.join("model.safetensors").exists(), "{kind} {at}");
            assert_ne!(status(&broken)["state"], "completed", "{kind} {at}");
        }
        train(mpi, ranks, &broken).succeed();
        assert_eq!(hash(&whole), hash(&broken), "{mpi:?}");
        assert_eq!(common::story(&whole), common::story(&broken), "{mpi:?}");
    }
}

#[test]
fn a_rank_killed_at_any_step_of_the_ring_ends_the_job_and_the_same_command_goes_on_bit_for_bit() {
    let folder = tempdir().unwrap();
    for (mpi, ranks) in [(Mpi::Open, 3), (Mpi::Mpich, 4)] {
        let ring = |out: &std::path::Path| train(mpi, ranks, out).set("comm.algorithm=\"ring\"");
        let whole = folder.path().join(format!("whole-{ranks}"));
        ring(&whole).succeed();
        let broken = folder.path().join(format!("broken-{ranks}"));
        // On one host the headers go through shared memory: all messages are the ring's.
        for message in 0..2 * (ranks - 1) {
            let (rank, step) = (message % ranks, 5 + 6 * message as u64);
            let what = format!(",\"at\":\"reduce\",\"message\":{message}");
            let ended = ring(&broken).set(fault(rank, step, "kill", &what)).run();
            assert_ne!(ended.code, 0, "message {message}: {}", ended.all_output());
            assert!(ended.took < SOON, "message {message}: {:?}", ended.took);
            assert_ne!(status(&broken)["state"], "completed", "message {message}");
        }
        ring(&broken).succeed();
        assert_eq!(hash(&whole), hash(&broken), "{mpi:?}");
        assert_eq!(common::story(&whole), common::story(&broken), "{mpi:?}");
    }
}

#[test]
fn a_killed_rank_leaves_its_step_and_phase_behind_and_the_run_is_called_failed_by_the_next_start() {
    let phases = [("forward", "forward"), ("reduce", "gradient reduction")];
    for (mpi, (at, phase)) in BOTH.into_iter().zip(phases) {
        let folder = tempdir().unwrap();
        let out = folder.path().join("run");
        let slow = fault(1, 20, "slow", &format!(",\"at\":\"{at}\",\"seconds\":30"));
        let running = train(mpi, 3, &out).set(slow).set("comm.deadline_s=20").start();
        common::until("a sign of the phase", || sign(&out, 1)["phase"] == phase);
        let (pid, killed) = (sign(&out, 1)["pid"].as_u64().unwrap(), Instant::now());
        send("KILL", u32::try_from(pid).unwrap());
        let ended = running.end();
        assert!(killed.elapsed() < Duration::from_secs(3), "{:?}", killed.elapsed());
        assert_ne!(ended.code, 0, "{}", ended.all_output());
        let last = sign(&out, 1);
        assert_eq!((&last["step"], &last["phase"]), (&20.into(), &phase.into()), "{last}");
        let ended = train(mpi, 3, &out).succeed();
        assert!(ended.stdout.contains("resumed from"), "{}", ended.stdout);
        assert_eq!(metrics(&out, "step").len(), 48);
    }
}

#[test]
fn a_rank_without_memory_says_so_with_rank_step_and_size() {
    for mpi in BOTH {
        let folder = tempdir().unwrap();
        let out = folder.path().join("run");
        let ended = train(mpi, 2, &out).set(fault(1, 20, "memory", ",\"at\":\"backward\"")).run();
        match mpi {
            Mpi::Open => assert_eq!(ended.code, 70, "{}", ended.all_output()),
            Mpi::Mpich => assert_ne!(ended.code, 0, "{}", ended.all_output()),
        }
        let said = ended.complaints().join("\n");
        assert!(
            said.contains("error: rank 1/2 on ")
                && said.contains("step 20, backward: out of memory")
        );
        assert!(
            said.contains("(1073741824 bytes) asked for")
                && said.contains("Last checkpoint: step "),
            "{said}"
        );
        assert!(ended.took < SOON, "{:?}", ended.took);
    }
}

#[test]
fn a_reading_thread_that_dies_is_an_error_at_once_and_no_hang() {
    for mpi in BOTH {
        let folder = tempdir().unwrap();
        let out = folder.path().join("run");
        let ended = train(mpi, 3, &out).set(fault(2, 20, "loader", "")).run();
        assert_ne!(ended.code, 0, "{}", ended.all_output());
        let said = ended.complaints().join("\n");
        assert!(said.contains("panic: rank 2/3 on "), "{said}");
        assert!(said.contains("ordered by the card's faults"), "{said}");
        assert!(ended.took < SOON, "{:?}", ended.took);
    }
}

#[test]
fn a_rank_that_evaluates_for_longer_than_the_learned_deadline_is_waited_for() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("run");
    let slow = fault(1, 32, "slow", ",\"at\":\"evaluation\",\"seconds\":13");
    let ended = train(Mpi::Open, 2, &out).set(slow).set("comm.deadline_s=null").succeed();
    assert!(ended.took > Duration::from_secs(13), "{:?}", ended.took);
}

#[test]
fn nobody_waits_in_a_forward_pass_for_longer_than_the_learned_deadline() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("run");
    let slow = fault(1, 32, "slow", ",\"at\":\"forward\",\"seconds\":60");
    let ended = train(Mpi::Open, 2, &out).set(slow).set("comm.deadline_s=null").run();
    assert_eq!(ended.code, 69, "{}", ended.all_output());
    let said = ended.complaints().join("\n");
    assert!(said.contains("nothing from rank 1 (") && said.contains("step 32 forward"), "{said}");
    assert!(ended.took < Duration::from_secs(17), "{:?}", ended.took);
}

#[test]
fn eight_ranks_on_two_cores_raise_no_false_alarm() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("run");
    let ended = train(Mpi::Open, 8, &out).set("comm.deadline_s=null").succeed();
    assert!(!ended.all_output().contains("is slow"), "{}", ended.all_output());
    assert_eq!(metrics(&out, "step").len(), 48);
}

#[test]
fn ranks_do_not_outlive_a_launcher_that_was_killed() {
    for mpi in BOTH {
        let folder = tempdir().unwrap();
        let out = folder.path().join("run");
        let running = train_long(mpi, 3, &out).start();
        common::until("a step of rank 2", || sign(&out, 2)["step"].as_u64() > Some(5));
        let killed = Instant::now();
        running.signal_launcher("KILL");
        common::until("the end of all ranks", || common::ranks().is_empty());
        assert!(killed.elapsed() < Duration::from_secs(5), "{mpi:?}: {:?}", killed.elapsed());
        assert_ne!(running.end().code, 0);
    }
}

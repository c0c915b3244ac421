//! Signals, from whomever, in whatever number, at whatever moment.

use super::common::{self, BOTH, Mpi, hash, metrics, sign, status};
use super::{fault, train, train_long};
use std::path::Path;
use tempfile::tempdir;

/// The steps whose checkpoints there are, all whole.
fn saved(out: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(out.join("checkpoints")).unwrap().flatten();
    let mut steps: Vec<u64> = entries
        .filter_map(|entry| {
            let step = entry.file_name().to_str()?.strip_prefix("step-")?.parse().ok()?;
            assert!(entry.path().join("manifest.json").exists(), "{}", entry.path().display());
            Some(step)
        })
        .collect();
    steps.sort_unstable();
    steps
}

#[test]
fn a_signal_that_comes_twice_and_to_all_ranks_saves_once() {
    for mpi in BOTH {
        let folder = tempdir().unwrap();
        let out = folder.path().join("run");
        let running = train_long(mpi, 3, &out).set("checkpoint.every_steps=1000000").start();
        common::until("ten steps", || sign(&out, 0)["step"].as_u64() > Some(10));
        for pid in common::ranks() {
            common::send("USR1", pid);
            common::send("USR1", pid);
        }
        let ended = running.end();
        assert_eq!(ended.code, 75, "{mpi:?}: {}", ended.all_output());
        assert_eq!(saved(&out), [metrics(&out, "step").len() as u64]);
        assert_eq!(status(&out)["state"], "preempted");
    }
}

#[test]
fn a_signal_during_a_save_waits_for_it_and_saves_the_next_step() {
    let folder = tempdir().unwrap();
    let (whole, out) = (folder.path().join("whole"), folder.path().join("run"));
    train(Mpi::Open, 2, &whole).succeed();
    let slow = fault(0, 14, "slow", ",\"at\":\"saving\",\"seconds\":1");
    let running = train(Mpi::Open, 2, &out).set(slow).start();
    common::until("the save", || sign(&out, 0)["phase"] == "saving");
    let pid = u32::try_from(sign(&out, 0)["pid"].as_u64().unwrap()).unwrap();
    common::send("USR1", pid);
    common::send("USR1", pid);
    let ended = running.end();
    assert_eq!(ended.code, 75, "{}", ended.all_output());
    assert_eq!(saved(&out).last(), Some(&15), "the step after the save is the last");
    train(Mpi::Open, 2, &out).succeed();
    assert_eq!(hash(&whole), hash(&out));
}

#[test]
fn a_launcher_that_is_told_to_end_leaves_no_torn_file_and_a_status_that_says_it() {
    for mpi in BOTH {
        let folder = tempdir().unwrap();
        let (whole, out) = (folder.path().join("whole"), folder.path().join("run"));
        train(mpi, 2, &whole).succeed();
        // Open MPI's launcher passes the signal on after a second, and kills after another.
        let slow =
            |step: u64| format!("{{\"rank\":0,\"step\":{step},\"kind\":\"slow\",\"seconds\":0.1}}");
        let slow: Vec<String> = (10..40).map(slow).collect();
        let running = train(mpi, 2, &out).set(format!("faults=[{}]", slow.join(","))).start();
        common::until("step 10", || sign(&out, 0)["step"].as_u64() >= Some(10));
        running.signal_launcher("TERM");
        let ended = running.end();
        assert_ne!(ended.code, 0, "{mpi:?}: {}", ended.all_output());
        let status = status(&out);
        assert_eq!(status["state"], "interrupted", "{mpi:?}: {status} {}", ended.all_output());
        assert_eq!(saved(&out).last(), Some(&(metrics(&out, "step").len() as u64)));
        train(mpi, 2, &out).succeed();
        assert_eq!(hash(&whole), hash(&out));
    }
}

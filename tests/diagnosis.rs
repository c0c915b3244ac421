//! Whoever falls silent is named by every survivor, with where it was last; the report is on the disk,
//! and the status says what became of the run.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{BOTH, Job, Mpi, card, status, under};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use tempfile::tempdir;

fn train(mpi: Mpi, ranks: usize, out: &Path) -> Job {
    under(mpi, ranks)
        .args(["train", &card("lenet-mnist-quick.json"), "--out"])
        .args([out])
        .set("train.epochs=50")
        .set("train.max_steps=2000")
        .set("checkpoint.every_steps=10")
        .set("comm.deadline_s=2")
        .env("ANNULUS_ALLOW_FAULTS", "1")
}

fn fault(rank: usize, kind: &str) -> String {
    format!("faults=[{{\"rank\":{rank},\"step\":25,\"kind\":\"{kind}\"}}]")
}

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn every_survivor_names_the_stopped_rank_its_last_step_and_the_last_checkpoint() {
    for mpi in BOTH {
        let folder = tempdir().unwrap();
        let out = folder.path().join("run");
        let ended = train(mpi, 3, &out).set(fault(1, "stop")).run();
        assert_ne!(ended.code, 0);
        let said = ended.complaints();
        for survivor in [0, 2] {
            let mine = |line: &&&str| line.contains(&format!("error: rank {survivor}/3 on "));
            let line = said.iter().find(mine).unwrap_or_else(|| panic!("{survivor}: {said:?}"));
            let report = out.join(format!("faults/25-{survivor}.json"));
            for part in [
                ", step 25, gradient reduction, bucket 0: nothing from rank 1 (",
                "; rank 1's last sign: step ",
                "(the process is stopped",
                ". Last checkpoint: step 20. See ",
                report.to_str().unwrap(),
            ] {
                assert!(line.contains(part), "{part} is not in {line}");
            }
            let report = read(&report);
            assert_eq!(report["exit_code"], 69);
            assert_eq!(report["ranks"][1]["answered"], false);
            // The last of two beats a second; silent for the deadline, the roll call, and no longer.
            assert!(report["ranks"][1]["heartbeat"]["step"].as_u64() <= Some(25));
            let age = report["ranks"][1]["progress_age_s"].as_f64().unwrap();
            assert!((1.9..5.0).contains(&age), "{age}");
            assert_eq!(report["ranks"][2 - survivor]["answered"], true);
            assert_eq!(report["ranks"][2 - survivor]["place"]["step"], 25);
            let events = report["events"].as_array().unwrap();
            assert_eq!(events.len(), 64);
            assert_eq!(events[63]["phase"], "gradient reduction");
        }
        let status = status(&out);
        assert_eq!((&status["state"], &status["exit_code"]), (&"failed".into(), &69.into()));
        assert!(status["reason"].as_str().unwrap().contains("nothing from rank 1 ("), "{status}");
    }
}

#[test]
fn the_survivors_speak_for_rank_0_when_that_is_the_one_to_stop() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("run");
    let ended = train(Mpi::Open, 3, &out).set(fault(0, "stop")).run();
    assert_eq!(ended.code, 69, "{}", ended.all_output());
    let status = status(&out);
    assert_eq!((&status["state"], &status["exit_code"]), (&"failed".into(), &69.into()));
    let reason = status["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("as rank 1 (") && reason.contains("nothing from rank 0 ("),
        "{reason}"
    );
}

#[test]
fn a_run_that_was_killed_without_a_word_is_called_failed_by_the_next_start() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("run");
    let running = train(Mpi::Open, 2, &out).start();
    let heart = out.join("ranks/0001.json");
    common::until("a step of rank 1", || {
        std::fs::read(&heart).is_ok_and(|text| {
            serde_json::from_slice(&text).is_ok_and(|sign: Value| sign["step"].as_u64() > Some(10))
        })
    });
    running.kill();
    assert_eq!(status(&out)["state"], "running");
    assert_eq!(read(&heart)["rank"], 1, "the last sign stays");
    let ended = train(Mpi::Open, 2, &out).set("data.train_limit=5").run();
    assert_eq!(ended.code, 78, "another job is refused: {}", ended.all_output());
    let status = status(&out);
    assert_eq!(status["state"], "failed");
    assert!(status["reason"].as_str().unwrap().contains("ended without a word"), "{status}");
}

#[test]
fn a_run_that_ends_well_leaves_no_signs_and_no_reports() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("run");
    train(Mpi::Open, 2, &out).set("train.max_steps=10").succeed();
    assert_eq!(std::fs::read_dir(out.join("ranks")).unwrap().count(), 0);
    assert!(!out.join("faults").exists());
}

#[test]
fn a_rank_that_panics_leaves_a_report_as_well() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("run");
    let ended = train(Mpi::Open, 2, &out).set(fault(1, "panic")).run();
    assert_eq!(ended.code, 70, "{}", ended.all_output());
    let report = read(&out.join("faults/25-1.json"));
    assert!(report["reason"].as_str().unwrap().contains("ordered by the card's faults"));
    assert!(ended.stderr.contains("faults/25-1.json"), "{}", ended.stderr);
    assert!(ended.took < Duration::from_secs(3), "{:?}", ended.took);
}

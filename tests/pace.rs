//! The deadline follows from the pace of the run, and a rank that is slow is named and left alive.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{BOTH, Job, Mpi, card, under};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::tempdir;

/// No deadline in the card: it is learned.
fn train(mpi: Mpi, ranks: usize, out: &Path) -> Job {
    under(mpi, ranks)
        .args(["train", &card("mlp-mnist.json"), "--threads", "1", "--out"])
        .args([out])
        .set("train.epochs=50")
        .set("data.test_limit=100")
}

#[test]
fn a_rank_that_is_stopped_again_and_again_is_named_as_slow_and_the_run_goes_on() {
    let folder = tempdir().unwrap();
    // Large batches: a rank that is stopped while it waits for the other is not found slow.
    let job = train(Mpi::Open, 2, &folder.path().join("run"))
        .set("train.max_steps=200")
        .set("train.global_batch=1024");
    let ended = job.start().stutter(Duration::from_millis(300));
    assert_eq!(ended.code, 0, "{}", ended.all_output());
    let slow = |line: &&str| line.contains("is slow: over the last 20 steps it was busy for");
    let line = ended.stdout.lines().find(slow).unwrap_or_else(|| panic!("{}", ended.all_output()));
    assert!(line.contains("warning: rank ") && line.contains(" times as long as"), "{line}");
}

#[test]
fn a_rank_that_stops_is_named_ten_seconds_later_when_the_card_gives_no_deadline() {
    for mpi in BOTH {
        let folder = tempdir().unwrap();
        let out = folder.path().join("run");
        let began = Instant::now();
        let ended = train(mpi, 2, &out)
            .set("faults=[{\"rank\":1,\"step\":60,\"kind\":\"stop\"}]")
            .env("ANNULUS_ALLOW_FAULTS", "1")
            .run();
        assert_ne!(ended.code, 0);
        let said = ended.complaints().join("\n");
        let waited = said.split("nothing from rank 1 (").nth(1).unwrap_or_else(|| panic!("{said}"));
        let waited = waited.split(") for ").nth(1).and_then(|rest| rest.split(" s ").next());
        let waited: f64 = waited.unwrap_or_else(|| panic!("{said}")).parse().unwrap();
        assert!((10.0..12.0).contains(&waited), "{said}");
        assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    }
}

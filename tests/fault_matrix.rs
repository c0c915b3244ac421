//! One fault after another, each at its worst moment: the table in docs/FAULTS.md says which test is
//! about which fault. Every job here ends by itself, without a process left (`common` checks that), never
//! with code 0 unless its work is done, and what it leaves behind is enough to go on from.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "fault_matrix/files.rs"]
mod files;
#[path = "fault_matrix/process.rs"]
mod process;
#[path = "fault_matrix/signals.rs"]
mod signals;
#[path = "fault_matrix/start.rs"]
mod start;

use common::{Job, Mpi, card, under};
use std::path::Path;

/// LeNet-5, three epochs of 16 steps with an evaluation after each and a checkpoint every 7 steps.
const SETS: [&str; 10] = [
    "data.train_limit=1000",
    "data.test_limit=500",
    "train.global_batch=64",
    "train.epochs=3",
    "model.dropout=0.2",
    "checkpoint.every_steps=7",
    "checkpoint.every_epochs=0",
    "comm.overlap=\"off\"",
    "report.every_steps=1",
    "comm.deadline_s=2",
];

/// A job that does all that in about a second.
fn train(mpi: Mpi, ranks: usize, out: &Path) -> Job {
    with_sets(under(mpi, ranks), out)
}

fn with_sets(job: Job, out: &Path) -> Job {
    let job = job
        .args(["train", &card("lenet-mnist.json"), "--out"])
        .args([out])
        .env("ANNULUS_ALLOW_FAULTS", "1");
    SETS.iter().fold(job, |job, set| job.set(set))
}

/// As [`train`], and it goes on for minutes.
fn train_long(mpi: Mpi, ranks: usize, out: &Path) -> Job {
    train(mpi, ranks, out).set("train.epochs=2000").set("schedule={}")
}

/// A fault for `--set`; `more` are further fields.
fn fault(rank: usize, step: u64, kind: &str, more: &str) -> String {
    format!("faults=[{{\"rank\":{rank},\"step\":{step},\"kind\":\"{kind}\"{more}}}]")
}

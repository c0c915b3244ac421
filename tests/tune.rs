//! A search tries what its card says, can be killed at any moment, and ends with the same table; a trial that fails
//! is a row of it. The test of learning rates is the same at any number of ranks.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Job, Mpi, alone, card, hash, metrics, status, story, under, until};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::tempdir;

/// 12 steps of LeNet-5: about half a second with the start of the process.
const SETS: [&str; 5] = [
    "data.train_limit=512",
    "data.test_limit=128",
    "train.max_steps=12",
    "checkpoint.every_steps=3",
    "comm.overlap=\"off\"",
];

/// `annulus COMMAND` on a small card.
fn small(job: Job, command: &str) -> Job {
    let job = job.args([command, &card("lenet-mnist-quick.json")]);
    SETS.iter().fold(job, |job, set| job.set(set))
}

/// A search of `tune` in the folder `search` beside its file.
fn tune(job: Job, search: &Path, tune: &Value) -> Job {
    let space = search.with_extension("json");
    std::fs::write(&space, tune.to_string()).unwrap();
    let paths = ["--space".as_ref(), space.as_path(), "--out".as_ref(), search];
    small(job, "tune").args(paths)
}

fn annulus() -> Job {
    alone(&Mpi::Open.binary())
}

fn table(search: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(search.join("table.json")).unwrap()).unwrap()
}

fn run(search: &Path, trial: usize) -> PathBuf {
    search.join(format!("trials/{trial:04}"))
}

fn halving() -> Value {
    json!({
        "method": "halving",
        "trials": 4,
        "halving": {"by": "steps", "first": 4, "factor": 2},
        "objective": {"metric": "val_loss"},
        "space": {
            "optimizer.lr": {"log_uniform": [1e-4, 1e-2]},
            "train.global_batch": {"choice": [32, 64]},
        },
    })
}

#[test]
fn a_grid_tries_every_combination_and_a_trial_that_fails_is_a_row() {
    let folder = tempdir().unwrap();
    let search = folder.path().join("grid");
    // 1e30 is a rate after whose first step nothing is finite.
    let space = json!({
        "optimizer.lr": {"choice": [1e30, 0.005]},
        "train.global_batch": {"int": [32, 64], "points": 2},
    });
    let ended = tune(annulus(), &search, &json!({"method": "grid", "space": space})).succeed();
    let table = table(&search);
    let rows = table["rows"].as_array().unwrap();
    let told = |row: &Value| {
        let values = (row["values"]["optimizer.lr"].as_f64(), &row["values"]["train.global_batch"]);
        format!("{} {:?} {} {}", row["trial"], values.0.unwrap(), values.1, row["state"])
    };
    let mut all: Vec<String> = rows.iter().map(told).collect();
    all.sort();
    let expected = [
        "0 1e30 32 \"failed\"",
        "1 1e30 64 \"failed\"",
        "2 0.005 32 \"completed\"",
        "3 0.005 64 \"completed\"",
    ];
    assert_eq!(all, expected, "{}", ended.stdout);
    // The best first, the failed ones last, with code and reason.
    let accuracy = |i: usize| rows[i]["metric"].as_f64().unwrap();
    assert!(accuracy(0) >= accuracy(1) && rows[2]["metric"].is_null(), "{table}");
    assert_eq!(rows[2]["exit_code"], 77);
    assert!(rows[2]["reason"].as_str().unwrap().contains("rank 0"), "{table}");
    assert!(ended.stdout.contains("failed with 77"), "{}", ended.stdout);
    // Each trial is a run of its own with its values written down; the objective is in its metrics.
    let best = run(&search, rows[0]["trial"].as_u64().unwrap() as usize);
    let last = metrics(&best, "eval").pop().unwrap();
    assert_eq!(last["accuracy"], rows[0]["metric"]);
    let trial: Value =
        serde_json::from_slice(&std::fs::read(run(&search, 3).join("trial.json")).unwrap())
            .unwrap();
    assert_eq!(trial["set"], json!(["optimizer.lr=0.005", "train.global_batch=64"]));
    // The best card, trained by itself, is the best trial.
    let again = folder.path().join("again");
    let best_card = search.join("best.json");
    annulus().args(["train".as_ref(), best_card.as_path(), "--out".as_ref(), &again]).succeed();
    assert_eq!(hash(&again), hash(&best));
    assert!(std::fs::read_to_string(search.join("table.html")).unwrap().contains("<svg"));
}

#[test]
fn a_search_that_is_killed_or_told_to_leave_again_and_again_ends_with_the_same_table() {
    let folder = tempdir().unwrap();
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    tune(annulus(), &whole, &halving()).succeed();
    let table = |search: &Path| std::fs::read_to_string(search.join("table.json")).unwrap();
    let rows: Value = serde_json::from_str(&table(&whole)).unwrap();
    let states: Vec<&str> =
        rows["rows"].as_array().unwrap().iter().map(|row| row["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["completed", "given-up", "given-up", "given-up"]);
    let steps: Vec<u64> =
        rows["rows"].as_array().unwrap().iter().map(|row| row["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [12, 8, 4, 4]);
    // Moments from the first instant to well into the second comparison, killed or told by a signal.
    for (ms, signal, code) in [
        (150, "KILL", 0),
        (700, "KILL", 0),
        (900, "TERM", 75),
        (500, "KILL", 0),
        (1300, "INT", 130),
        (1000, "KILL", 0),
        (800, "KILL", 0),
    ] {
        let running = tune(annulus(), &broken, &halving()).start();
        std::thread::sleep(Duration::from_millis(ms));
        if signal == "KILL" {
            running.kill();
            continue;
        }
        running.signal_launcher(signal);
        let ended = running.end();
        // A slow machine may not have come to listening, a fast one may have come to the end.
        let heard = ended.stderr.contains("left before its end");
        assert!(!heard || ended.code == code, "{}", ended.all_output());
    }
    tune(annulus(), &broken, &halving()).succeed();
    assert_eq!(table(&broken), table(&whole));
    for file in ["table.csv", "table.html", "best.json"] {
        let of = |search: &Path| std::fs::read(search.join(file)).unwrap();
        assert_eq!(of(&broken), of(&whole), "{file}");
    }
    let best = rows["best"].as_u64().unwrap() as usize;
    assert_eq!(hash(&run(&broken, best)), hash(&run(&whole, best)));
    // The pauses left no trace in it: it is the run of its card.
    let again = folder.path().join("again");
    let best_card = whole.join("best.json");
    annulus().args(["train".as_ref(), best_card.as_path(), "--out".as_ref(), &again]).succeed();
    assert_eq!(hash(&again), hash(&run(&whole, best)));
    // Once more is no work and no other table.
    let ended = tune(annulus(), &whole, &halving()).succeed();
    assert!(!ended.stdout.contains("comparison 1 of"), "{}", ended.stdout);
    assert_eq!(table(&broken), table(&whole));
}

#[test]
fn a_run_that_pauses_ends_as_one_that_never_did() {
    let folder = tempdir().unwrap();
    let (whole, paused) = (folder.path().join("whole"), folder.path().join("paused"));
    // Nothing improves on the first evaluation by 10: it stops after three, if only those that were due count.
    let train = |out: &Path| {
        let job = small(under(Mpi::Open, 2), "train").args(["--out".as_ref(), out]);
        job.set("train.early_stopping={\"patience\":2,\"min_delta\":10}").set("train.max_steps=40")
    };
    train(&whole).succeed();
    // In mid-epoch; there again; at the end of an epoch of 4 steps, told in both ways.
    for (pause, step, evals) in [
        ("train.pause_at_step=3", 3, vec![3]),
        ("train.pause_at_step=3", 3, vec![3]),
        ("train.pause_at_epoch=2", 8, vec![3, 4, 8]),
    ] {
        let ended = train(&paused).set(pause).run();
        assert_eq!(ended.code, 75, "{}", ended.all_output());
        let found = status(&paused);
        assert_eq!((&found["state"], &found["step"]), (&json!("preempted"), &json!(step)));
        let steps: Vec<Value> =
            metrics(&paused, "eval").into_iter().map(|line| line["step"].clone()).collect();
        assert_eq!(steps, evals);
    }
    train(&paused).succeed();
    assert_eq!(hash(&paused), hash(&whole));
    let lines = |run: &Path| -> Vec<String> {
        let lines = story(run).into_iter();
        let due = |line: &String| !(line.contains("\"eval\"") && line.contains("\"step\":3,"));
        lines.filter(due).collect()
    };
    assert_eq!(lines(&paused), lines(&whole));
}

#[test]
fn a_trial_saves_itself_when_its_search_is_told_to_leave_or_is_gone() {
    let folder = tempdir().unwrap();
    let search = folder.path().join("long");
    let long = || {
        let one = json!({"trials": 2, "space": {"optimizer.lr": {"uniform": [0.001, 0.002]}}});
        tune(annulus(), &search, &one).set("train.max_steps=1000000").set("schedule={}")
    };
    let steps = || {
        let text = std::fs::read_to_string(run(&search, 0).join("metrics.jsonl"));
        text.unwrap_or_default().lines().count()
    };
    let began = |least: usize| until("a step of the trial", || steps() > least);
    for (signal, code) in [("TERM", 75), ("INT", 130)] {
        let before = steps();
        let running = long().start();
        began(before);
        running.signal_launcher(signal);
        let ended = running.end();
        assert_eq!(ended.code, code, "{}", ended.all_output());
        assert_eq!(status(&run(&search, 0))["state"], "preempted");
    }
    let before = steps();
    let running = long().start();
    began(before);
    running.signal_launcher("KILL");
    until("the trial leaves", || status(&run(&search, 0))["state"] == "interrupted");
    assert_ne!(running.end().code, 0);
}

#[test]
fn a_second_search_and_everything_that_makes_no_sense_is_refused_before_it_starts() {
    let folder = tempdir().unwrap();
    let search = folder.path().join("search");
    let random = json!({"trials": 2, "space": {"optimizer.lr": {"uniform": [0.001, 0.002]}}});
    let refused = |job: Job, code: i32, words: &str| {
        let ended = job.run();
        assert_eq!(ended.code, code, "{}", ended.all_output());
        assert!(ended.stderr.contains(words), "{}", ended.all_output());
        assert_eq!(ended.complaints().len(), 1, "{}", ended.stderr);
    };
    refused(small(annulus(), "tune"), 64, "nothing to search");
    refused(tune(annulus(), &search, &random).args(["--trial", "2"]), 64, "the trials are 0 to 1");
    let wrong = json!({"trials": 2, "space": {"optimizer.lr": {"uniform": [-1, 0.002]}}});
    refused(tune(annulus(), &search, &wrong), 78, "optimizer.lr=-1.0 the card is refused");
    let other = folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("thesis.txt"), "").unwrap();
    refused(tune(annulus(), &other, &random), 73, "holds other files");
    let launched = tune(annulus(), &search, &random).args(["--launch", "no-such-launcher -n 2"]);
    refused(launched, 66, "cannot start `no-such-launcher`");
    let listed =
        tune(annulus(), &folder.path().join("none"), &random).args(["--dry-run"]).succeed();
    assert!(listed.stdout.contains("trial 1  optimizer.lr"), "{}", listed.stdout);
    assert!(!folder.path().join("none").exists());

    // One search at a time; the lock is seen through the file that says who has it.
    let lock = search.join("lock");
    let held = std::fs::OpenOptions::new().read(true).write(true).open(&lock).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    for more in [&[][..], &["--trial", "0"]] {
        refused(tune(annulus(), &search, &random).args(more), 73, "is in use by");
    }
    drop(held);
    let another =
        json!({"trials": 2, "seed": 9, "space": {"optimizer.lr": {"uniform": [0.001, 0.002]}}});
    refused(tune(annulus(), &search, &another), 78, "another search");
}

#[test]
fn the_tasks_of_an_array_and_the_ranks_of_a_launcher_come_to_the_same_table() {
    let folder = tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let exact = |job: Job| job.set("reproducible.leaves=4");
    exact(tune(annulus(), &place("whole"), &halving())).succeed();
    // Each trial of the first comparison by itself, in another order; then those that go on.
    let array = place("array");
    for trial in ["3", "1", "0", "2", "0", "1", "2", "3", "0", "1", "2", "3"] {
        exact(tune(annulus(), &array, &halving())).args(["--trial", trial]).succeed();
    }
    exact(tune(annulus(), &array, &halving())).args(["--table"]).succeed();
    assert_eq!(table(&array), table(&place("whole")));
    // Two ranks: the search itself is started as two processes, and starts each trial as two.
    let ended = exact(tune(under(Mpi::Open, 2), &place("ranks"), &halving())).succeed();
    assert_eq!(ended.stdout.matches("comparison 1 of").count(), 4, "{}", ended.stdout);
    assert_eq!(status(&run(&place("ranks"), 0))["world_size"], 2);
    assert_eq!(table(&place("ranks")), table(&place("whole")));
}

#[test]
fn the_range_test_of_learning_rates_is_the_same_at_any_number_of_ranks() {
    let folder = tempdir().unwrap();
    let find = |job: Job, name: &str| {
        let out = folder.path().join(name);
        let job = small(job, "lr-find").args(["--steps", "40", "--to", "1e6"]);
        let job = job.set("reproducible.leaves=4").set("optimizer={\"kind\":\"sgd\"}");
        let job = job.args(["--out".as_ref(), out.as_path()]);
        let ended = job.succeed();
        assert!(ended.stdout.contains("--set optimizer.lr="), "{}", ended.stdout);
        let mut names: Vec<String> = std::fs::read_dir(&out)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["lr-find.html", "lr-find.json"], "no checkpoint, no run");
        let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
        (read("lr-find.json"), read("lr-find.html"))
    };
    let one = find(annulus(), "one");
    assert_eq!(find(under(Mpi::Open, 2), "two"), one);
    let found: Value = serde_json::from_str(&one.0).unwrap();
    let points = found["points"].as_array().unwrap();
    assert!(points.len() < 40 && found["end"] == "the loss diverged", "{found}");
    let of = |i: usize, name: &str| points[i][name].as_f64().unwrap();
    // The first step is taken at the first rate, and its loss is not smoothed by anything.
    assert_eq!((of(0, "lr"), of(0, "smoothed")), (1e-7, of(0, "loss")));
    // It ended with the first loss above four times the lowest, if not with one that is no number.
    let mut lowest = f64::INFINITY;
    for i in 0..points.len() - 1 {
        lowest = lowest.min(of(i, "smoothed"));
        assert!(of(i, "smoothed") <= 4.0 * lowest, "{i}: {found}");
    }
    assert!(found["suggestion"]["steepest"].as_f64().unwrap() > 1e-5, "{found}");
    // What belongs to a run stays as it is.
    let run = folder.path().join("run");
    small(annulus(), "train").args(["--out".as_ref(), run.as_path()]).succeed();
    let before = std::fs::read(run.join("status.json")).unwrap();
    let ended = small(annulus(), "lr-find").args(["--out".as_ref(), run.as_path()]).run();
    assert_eq!(ended.code, 73, "{}", ended.all_output());
    assert_eq!(std::fs::read(run.join("status.json")).unwrap(), before);
}

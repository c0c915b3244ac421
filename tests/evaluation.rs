//! Evaluation: when it happens, what it counts, and that it leaves the training alone.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Job, Mpi, card, hash, metrics, story, under};
use serde_json::Value;
use std::path::Path;
use tempfile::tempdir;

/// Epochs of 11 steps, of which the last has 43 samples; an uneven test set; dropout, augmentation and
/// momentum, which an evaluation in between could disturb.
const SETS: [&str; 11] = [
    "reproducible.leaves=6",
    "data.train_limit=1003",
    "data.test_limit=501",
    "data.augment=[{\"kind\":\"shift\",\"pixels\":2}]",
    "train.global_batch=96",
    "train.max_steps=30",
    "train.eval_batch=77",
    "model.dropout=0.2",
    "optimizer={\"kind\":\"sgd\",\"lr\":0.05,\"momentum\":0.9}",
    "report.every_steps=1",
    "comm.deadline_s=60",
];

fn train(ranks: usize, sets: &[&str], out: &Path) -> Job {
    let job = under(Mpi::Open, ranks)
        .args(["train", &card("lenet-mnist.json"), "--out"])
        .args([out])
        .env("ANNULUS_ALLOW_FAULTS", "1");
    SETS.iter().chain(sets).fold(job, |job, set| job.set(set))
}

/// Steps after which the run was evaluated.
fn evaluated(run: &Path) -> Vec<u64> {
    metrics(run, "eval").iter().map(|eval| eval["step"].as_u64().unwrap()).collect()
}

#[test]
fn evaluations_every_n_steps_leave_every_bit_of_the_training_alone() {
    let folder = tempdir().unwrap();
    let (seldom, often) = (folder.path().join("seldom"), folder.path().join("often"));
    train(2, &["train.eval_every_epochs=0"], &seldom).succeed();
    train(2, &["train.eval_every_steps=7"], &often).succeed();
    assert_eq!(evaluated(&seldom), [30]);
    assert_eq!(evaluated(&often), [7, 11, 14, 21, 22, 28, 30]);
    assert_eq!(hash(&seldom), hash(&often));
    let steps = |run: &Path| -> Vec<String> {
        story(run).into_iter().filter(|line| line.contains("\"kind\":\"step\"")).collect()
    };
    assert_eq!(steps(&seldom).len(), 30);
    assert_eq!(steps(&seldom), steps(&often));
}

#[test]
fn evaluations_by_steps_are_the_same_bits_at_1_2_and_3_ranks_and_after_a_kill() {
    // No evaluation improves by 10, so that the run stops after the fourth, in the middle of an epoch,
    // with the parameters of the first: only if the history survives the kills.
    let stop = "train.early_stopping={\"patience\":3,\"min_delta\":10}";
    let sets = ["train.eval_every_steps=7", stop, "checkpoint.every_steps=4"];
    let folder = tempdir().unwrap();
    let runs = [1, 2, 3].map(|ranks| folder.path().join(ranks.to_string()));
    for (i, run) in runs.iter().enumerate() {
        train(i + 1, &sets, run).succeed();
    }
    assert_eq!(evaluated(&runs[0]), [7, 11, 14, 21]);
    let broken = folder.path().join("broken");
    for (ranks, step) in [(2, 9), (3, 15), (2, 21)] {
        let kill = format!("faults=[{{\"rank\":1,\"step\":{step},\"kind\":\"kill\"}}]");
        assert_ne!(train(ranks, &[&sets[..], &[&kill]].concat(), &broken).run().code, 0);
    }
    train(1, &sets, &broken).succeed();
    for run in [&runs[1], &runs[2], &broken] {
        assert_eq!(hash(&runs[0]), hash(run));
        assert_eq!(story(&runs[0]), story(run));
    }
}

/// What the run's last evaluation came to, and its confusion matrix.
fn evaluation(run: &Path) -> (Value, String) {
    let read = |name: &str| std::fs::read_to_string(run.join(name)).unwrap();
    (serde_json::from_str(&read("evaluation.json")).unwrap(), read("confusion.csv"))
}

#[test]
fn counts_of_classes_are_the_same_at_any_rank_count_watched_and_after_a_kill() {
    let stop =
        "train.early_stopping={\"monitor\":\"val_f1_score\",\"patience\":1,\"min_delta\":10}";
    let sets = [
        "metrics={\"top_k\":3,\"auc\":true}",
        stop,
        "train.max_steps=60",
        "checkpoint.every_steps=5",
    ];
    let folder = tempdir().unwrap();
    let runs = [1, 2, 3].map(|ranks| folder.path().join(ranks.to_string()));
    for (i, run) in runs.iter().enumerate() {
        train(i + 1, &sets, run).succeed();
    }
    let broken = folder.path().join("broken");
    // After the evaluation that was the best: the table of classes is not in a checkpoint.
    let kill = "faults=[{\"rank\":1,\"step\":18,\"kind\":\"kill\"}]";
    assert_ne!(train(2, &[&sets[..], &[kill]].concat(), &broken).run().code, 0);
    train(3, &sets, &broken).succeed();
    let (eval, csv) = evaluation(&runs[0]);
    for run in [&runs[1], &runs[2], &broken] {
        assert_eq!(story(&runs[0]), story(run));
        assert_eq!((eval.clone(), csv.clone()), evaluation(run));
    }
    // The run stopped after its second evaluation, with the parameters of the first.
    assert_eq!(evaluated(&runs[0]), [11, 22]);
    let line = &metrics(&runs[0], "eval")[0];
    for name in
        ["loss", "accuracy", "top_k_accuracy", "precision", "recall", "f1_score", "auc", "correct"]
    {
        assert_eq!(eval[name], line[name], "{name}");
        assert!(eval[name].is_number(), "{name}");
    }
    let rows = eval["confusion"].as_array().unwrap();
    let count =
        |row: &Value| -> u64 { row.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum() };
    assert_eq!(rows.iter().map(count).sum::<u64>(), 501);
    let right: u64 = (0..10).map(|i| rows[i][i].as_u64().unwrap()).sum();
    assert_eq!(eval["correct"], right);
    assert_eq!(csv.lines().count(), 11);
}

#[test]
fn eval_shows_the_matrix_and_writes_what_the_run_has_written() {
    let folder = tempdir().unwrap();
    let (out, json) = (folder.path().join("run"), folder.path().join("eval.json"));
    train(2, &["metrics.top_k=3"], &out).succeed();
    let ended = under(Mpi::Open, 3)
        .arg_paths(["eval"], &[&out, &out.join("card.json")])
        .arg_paths(["--json"], &[&json])
        .succeed();
    let written: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(written, evaluation(&out).0);
    assert!(ended.stdout.contains("top_k_accuracy"), "{}", ended.stdout);
    assert!(ended.stdout.contains("precision  recall      f1  samples"), "{}", ended.stdout);
}

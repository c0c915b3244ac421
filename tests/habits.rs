//! Habits of training that depend on what was evaluated or on all steps before: they are the same at any number
//! of ranks and after any disturbance, and disturb nothing themselves.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use annulus::checkpoint::model_file::{self, Named};
use common::{Job, Mpi, card, hash, metrics, story, under};
use std::path::{Path, PathBuf};
use tempfile::{TempDir, tempdir};

/// Epochs of 11 steps, of which the last has 43 samples; an uneven test set; dropout, augmentation, momentum.
const SETS: [&str; 12] = [
    "reproducible.leaves=6",
    "data.train_limit=1003",
    "data.test_limit=501",
    "data.augment=[{\"kind\":\"shift\",\"pixels\":2}]",
    "train.global_batch=96",
    "train.max_steps=30",
    "train.eval_batch=77",
    "model.dropout=0.2",
    "optimizer={\"kind\":\"sgd\",\"lr\":0.04,\"momentum\":0.9}",
    "schedule={\"kind\":\"constant\"}",
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

/// Runs the job at 1, 2 and 3 ranks, and with a kill after each of these steps at 2, 3 and 1 ranks in turn: all
/// must be the same run. Gives a folder and one of the runs in it.
fn same_run(sets: &[&str], kills: &[u64]) -> (TempDir, PathBuf) {
    let folder = tempdir().unwrap();
    let runs = [1, 2, 3].map(|ranks| folder.path().join(ranks.to_string()));
    for (i, run) in runs.iter().enumerate() {
        train(i + 1, sets, run).succeed();
    }
    let (broken, often) = (folder.path().join("broken"), "checkpoint.every_steps=2");
    for (i, step) in kills.iter().enumerate() {
        let kill = format!("faults=[{{\"rank\":0,\"step\":{step},\"kind\":\"kill\"}}]");
        let job = train([2, 3, 1][i % 3], &[sets, &[often, &kill]].concat(), &broken);
        assert_ne!(job.run().code, 0);
    }
    train(2, &[sets, &[often]].concat(), &broken).succeed();
    for run in [&runs[1], &runs[2], &broken] {
        assert_eq!(hash(&runs[0]), hash(run), "{}", run.display());
        assert_eq!(story(&runs[0]), story(run), "{}", run.display());
    }
    let [one, ..] = runs;
    (folder, one)
}

fn model(run: &Path, name: &str) -> Vec<Named> {
    model_file::load(&run.join(name)).unwrap()
}

#[test]
fn a_plateau_lets_the_rate_drop_at_the_same_steps_after_the_warm_up() {
    // No evaluation improves on the first after the warm-up by 10.
    let schedule = "schedule={\"kind\":\"plateau\",\"warmup_steps\":5,\"plateau\":{\"factor\":0.5,\
                    \"patience\":2,\"min_delta\":10,\"cooldown\":1,\"min_lr\":0.005}}";
    let (_folder, run) = same_run(&[schedule, "train.eval_every_steps=4"], &[13, 20, 29]);
    // Evaluated after 4 (warm-up), 8, 11, 12 (drops), 16, 20 (drops), 22, 24 (drops to the least), 28 and 30.
    let rates: Vec<f64> =
        metrics(&run, "step").iter().map(|step| step["lr"].as_f64().unwrap()).collect();
    assert_eq!(rates[..5], [1.0, 2.0, 3.0, 4.0, 5.0].map(|n| 0.04 * n / 5.0));
    assert!(rates[5..12].iter().all(|lr| *lr == 0.04), "{rates:?}");
    assert!(rates[12..20].iter().all(|lr| *lr == 0.02), "{rates:?}");
    assert!(rates[20..24].iter().all(|lr| *lr == 0.01), "{rates:?}");
    assert!(rates[24..30].iter().all(|lr| *lr == 0.005), "{rates:?}");
}

#[test]
fn an_exponential_average_is_judged_and_delivered_and_leaves_the_training_alone() {
    let folder = tempdir().unwrap();
    let plain = folder.path().join("plain");
    train(2, &[], &plain).succeed();
    let ema = "train.ema={\"decay\":0.9}";
    let (_folder, run) = same_run(&[ema, "train.eval_every_steps=7"], &[10, 17, 23]);
    let (average, last) = (model(&run, "model.safetensors"), model(&run, "model-last.safetensors"));
    assert_eq!(last, model(&plain, "model.safetensors"));
    assert_ne!(average, last);
    // What was evaluated is what is delivered.
    let eval = under(Mpi::Open, 2)
        .arg_paths(["eval"], &[&run, &run.join("card.json")])
        .arg_paths(["--json"], &[&folder.path().join("eval.json")]);
    eval.succeed();
    let text = std::fs::read_to_string(folder.path().join("eval.json")).unwrap();
    let eval: serde_json::Value = serde_json::from_str(&text).unwrap();
    let evals = metrics(&run, "eval");
    assert_eq!(eval["loss"], evals.last().unwrap()["loss"]);
    assert_ne!(eval["loss"], metrics(&plain, "eval").last().unwrap()["loss"]);
    // The other way round: the parameters are judged, the average lies beside them.
    let beside = folder.path().join("beside");
    train(2, &["train.ema={\"decay\":0.9,\"evaluate\":false}"], &beside).succeed();
    assert_eq!(model(&beside, "model.safetensors"), last);
    assert_eq!(model(&beside, "model-average.safetensors"), average);
    let loss = |run: &Path| metrics(run, "eval").last().unwrap()["loss"].clone();
    assert_eq!(loss(&beside), loss(&plain));
}

#[test]
fn the_best_average_is_kept_where_early_stopping_restores_it() {
    let stop = "train.early_stopping={\"monitor\":\"val_loss\",\"patience\":2,\"min_delta\":10}";
    let sets = ["train.ema={\"decay\":0.9}", stop, "train.eval_every_steps=7"];
    let (folder, run) = same_run(&sets, &[9, 12]);
    // Evaluated after 7, 11 and 14 steps; none improves on the first.
    assert_eq!(metrics(&run, "eval").len(), 3);
    let seven = folder.path().join("seven");
    train(1, &[&sets[..1], &["train.max_steps=7"]].concat(), &seven).succeed();
    assert_eq!(hash(&seven), hash(&run));
}

#[test]
fn the_mean_of_parameters_is_that_of_the_runs_that_end_where_it_takes_them() {
    let swa = "train.swa={\"from_epoch\":2,\"every_steps\":4}";
    let (folder, run) = same_run(&[swa], &[15, 25, 28]);
    let ends = ["22", "26", "30"].map(|steps| {
        let end = folder.path().join(format!("end-{steps}"));
        train(1, &[&format!("train.max_steps={steps}")], &end).succeed();
        model(&end, "model.safetensors")
    });
    assert_eq!(model(&run, "model-last.safetensors"), ends[2]);
    for (i, mean) in model(&run, "model.safetensors").iter().enumerate() {
        for (j, value) in mean.values.iter().enumerate() {
            let sum: f64 = ends.iter().map(|end| f64::from(end[i].values[j])).sum();
            assert!((f64::from(*value) - sum / 3.0).abs() < 1e-6, "{} {j}", mean.name);
        }
    }
}

#[test]
fn an_l2_penalty_is_a_weight_decay_under_sgd_and_an_l1_penalty_is_the_same_at_any_rank_count() {
    let folder = tempdir().unwrap();
    let (decay, penalty) = (folder.path().join("decay"), folder.path().join("penalty"));
    let of = |field: &str| {
        format!("optimizer={{\"kind\":\"sgd\",\"lr\":0.04,\"momentum\":0.9,{field}}}")
    };
    train(2, &[&of("\"weight_decay\":0.25")], &decay).succeed();
    train(3, &[&of("\"l2\":0.125")], &penalty).succeed();
    assert_eq!(hash(&decay), hash(&penalty));
    let groups = "\"l1\":0.01,\"groups\":[{\"parameters\":[\"*.bias\"],\"l1\":0}]";
    let (_folder, run) = same_run(&[&of(groups), "train.clip_norm=0.5"], &[14]);
    assert_ne!(hash(&run), hash(&decay));
}

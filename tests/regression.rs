//! Numbers instead of classes: the losses are PyTorch's, and a card finds the line in generated data, the same
//! line at any number of ranks.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use annulus::checkpoint::model_file;
use annulus::config::{self, Model, ModelKind};
use annulus::model::{self, Pass};
use annulus::nn::{Distance, ParamBuilder, distance};
use annulus::optim;
use candle_core::{Device, Tensor};
use common::{Job, Mpi, card, hash, metrics, story, under};
use serde_json::Value;
use std::path::Path;
use tempfile::tempdir;

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn assert_close(what: &str, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0f32, |a, v| a.max(v.abs()));
    for (g, e) in got.iter().zip(expected) {
        assert!((g - e).abs() <= 1e-5 * largest, "{what}: {got:?}, PyTorch {expected:?}");
    }
}

/// The numbers are of `scripts/golden/make_regression.py`.
#[test]
fn ten_steps_of_linear_regression_are_those_of_pytorch_under_each_loss() {
    let golden: Value = serde_json::from_str(include_str!("golden/regression.json")).unwrap();
    for (name, kind) in
        [("mse", Distance::Squared), ("mae", Distance::Absolute), ("huber", Distance::Huber(0.7))]
    {
        let golden = &golden[name];
        let card: Model = serde_json::from_str(r#"{"kind":"mlp"}"#).unwrap();
        assert_eq!(card.kind, ModelKind::Mlp);
        let params = ParamBuilder::new(1, &Device::Cpu);
        let model = model::build(&card, &[3], 1, &params).unwrap();
        let set = params.finish(1 << 16, 1 << 20).unwrap();
        let place = |name: &str| usize::from(name.ends_with("bias"));
        for param in &set {
            let start = floats(&golden["start"][place(param.name())]);
            param.update(|values| values.copy_from_slice(&start)).unwrap();
        }
        let rule = r#"{"kind":"sgd","lr":0.05,"momentum":0.9}"#;
        let rule: config::Optimizer = serde_json::from_str(rule).unwrap();
        let lens: Vec<usize> = set.iter().map(|p| p.tensor().elem_count()).collect();
        let mut optimizer = optim::build(&rule, &lens).unwrap();
        let mut losses = Vec::new();
        for step in 0..10 {
            let x = Tensor::from_vec(floats(&golden["x"][step]), (8, 3), &Device::Cpu).unwrap();
            let pass = Pass { train: true, seed: 1, epoch: 0, samples: &[0, 1, 2, 3, 4, 5, 6, 7] };
            let targets = floats(&golden["targets"][step]);
            let each = distance(&model.forward(&x, &pass).unwrap(), &targets, kind).unwrap();
            let loss = (each.sum_all().unwrap() / 8.0).unwrap();
            set.grads().begin_step();
            loss.backward().unwrap();
            losses.push(loss.to_scalar::<f32>().unwrap());
            optimizer.begin_step(rule.lr);
            for (i, param) in set.iter().enumerate() {
                set.grads().read(i, |grad| {
                    param.update(|theta| optimizer.update(i, theta, grad, 1.0)).unwrap();
                });
            }
        }
        assert_close(&format!("{name}: losses"), &losses, &floats(&golden["losses"]));
        for param in &set {
            let end = floats(&golden["end"][place(param.name())]);
            assert_close(&format!("{name}: {}", param.name()), &param.to_vec().unwrap(), &end);
        }
    }
}

fn train(ranks: usize, sets: &[&str], out: &Path) -> Job {
    let job = under(Mpi::Open, ranks)
        .args(["train", &card("linear-regression-quick.json"), "--out"])
        .args([out])
        .env("ANNULUS_ALLOW_FAULTS", "1");
    sets.iter().fold(job, |job, set| job.set(set))
}

#[test]
fn the_card_finds_the_line_in_the_generated_numbers() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("run");
    let ended = train(2, &[], &out).succeed();
    assert!(ended.stdout.contains("one number to predict"), "{}", ended.stdout);
    assert!(ended.stdout.contains("done: test mean absolute error 0.1"), "{}", ended.stdout);
    assert!(!ended.stdout.contains("NaN"), "{}", ended.stdout);
    let model = model_file::load(&out.join("model.safetensors")).unwrap();
    let values: Vec<f32> = model.iter().flat_map(|named| named.values.clone()).collect();
    // y = 3 − 2a + 0.5b: the bias comes first by name.
    for (found, true_value) in values.iter().zip([3.0, -2.0, 0.5]) {
        assert!((found - true_value).abs() < 0.03, "{values:?}");
    }
    let last = metrics(&out, "eval").pop().unwrap();
    assert!(last["r2_score"].as_f64().unwrap() > 0.99, "{last}");
    // The loss is taken in 32 bits, the error in 64.
    let (loss, error) = (last["loss"].as_f64().unwrap(), last["mse"].as_f64().unwrap());
    assert!((loss - error).abs() < 1e-6 * error, "{last}");
    let root = error.sqrt();
    assert_eq!(last["rmse"].as_f64().unwrap(), root);
    assert!(last["accuracy"].is_null(), "{last}");
    let eval = under(Mpi::Open, 3).arg_paths(["eval"], &[&out, &out.join("card.json")]).succeed();
    assert!(eval.stdout.contains("r2_score         0.99"), "{}", eval.stdout);
    let ended = common::alone(&Mpi::Open.binary())
        .args(["inspect", &card("linear-regression-quick.json")])
        .succeed();
    assert!(ended.stdout.contains("labels are numbers to predict"), "{}", ended.stdout);
}

#[test]
fn numbers_are_predicted_with_the_same_bits_at_1_2_and_3_ranks_and_after_a_kill() {
    for loss in ["mae", "huber"] {
        let folder = tempdir().unwrap();
        let loss = format!("train.loss={loss}");
        let sets = [
            "reproducible.leaves=5",
            "train.eval_batch=37",
            "train.eval_every_steps=10",
            // An epoch takes milliseconds: a checkpoint after each would wait for the disk.
            "checkpoint.every_epochs=0",
            "checkpoint.every_steps=40",
            "comm.deadline_s=60",
            "train.early_stopping={\"monitor\":\"val_r2_score\",\"patience\":9}",
            "schedule={\"kind\":\"plateau\",\"plateau\":{\"monitor\":\"val_mae\",\"patience\":1}}",
            &loss,
        ];
        let runs = [1, 2, 3].map(|ranks| folder.path().join(ranks.to_string()));
        for (i, run) in runs.iter().enumerate() {
            train(i + 1, &sets, run).succeed();
        }
        let broken = folder.path().join("broken");
        let kill = "faults=[{\"rank\":1,\"step\":44,\"kind\":\"kill\"}]";
        assert_ne!(train(3, &[&sets[..], &[kill]].concat(), &broken).run().code, 0);
        train(2, &sets, &broken).succeed();
        for run in [&runs[1], &runs[2], &broken] {
            assert_eq!(hash(&runs[0]), hash(run));
            assert_eq!(story(&runs[0]), story(run));
        }
    }
}

#[test]
fn a_card_that_mixes_numbers_and_classes_is_refused_with_what_to_do() {
    for (set, expected) in [
        ("train.loss=cross-entropy", "train.loss: is missing; a `target` column needs `mse`"),
        ("data.classes=3", "data.classes: is 3; one number is predicted, so it must be 1"),
        ("train.label_smoothing=0.1", "train.label_smoothing: is for classes, not for numbers"),
        ("metrics.auc=true", "metrics.auc: is for classes"),
        ("checkpoint.monitor=val_accuracy", "checkpoint.monitor: is not counted: it is of classes"),
        ("train.huber_delta=2", "train.huber_delta: is used by train.loss `huber` only"),
        ("model.kind=lenet5", "model.kind: does not predict numbers; take `mlp`"),
    ] {
        let folder = tempdir().unwrap();
        let ended = train(1, &[set], folder.path()).run();
        assert_eq!(ended.code, 78, "{set}: {}", ended.all_output());
        assert!(ended.stderr.contains(expected), "{set}: {}", ended.stderr);
    }
    let folder = tempdir().unwrap();
    let file = folder.path().join("bad.csv");
    std::fs::write(&file, "a,b,y\n1,2,3\n1,2,x\n").unwrap();
    let set = format!("data.train.files=[\"{}\"]", file.display());
    let ended = train(1, &[&set], &folder.path().join("run")).run();
    assert_eq!(ended.code, 65, "{}", ended.all_output());
    assert!(ended.stderr.contains("line 3: column `y`: `x` is not a number"), "{}", ended.stderr);
}

//! The rank count is an execution detail: the same card at 1, 2, 3 and 4 ranks is the same run.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use annulus::checkpoint::model_file::{self, Named};
use common::{BOTH, Mpi, card, metrics, status, under};
use std::path::Path;
use tempfile::tempdir;

/// 1,003 samples in global batches of 96: the last batch has 43, and ranks have unequal parts.
///
/// The seed is one where no unit comes within rounding of its edge: where a ReLU or a maximum decides
/// between two values that differ in the last bit, ranks that add in another order may decide otherwise,
/// and a difference of 1e-7 becomes one of 1e-4 in a single step (seed 42 does so after 24 steps).
const UNEVEN: [&str; 4] =
    ["data.train_limit=1003", "train.global_batch=96", "train.epochs=100", "seed=7"];

/// A small GPT for one epoch and a bit of 36 steps.
const GPT: [&str; 7] = [
    "model.width=32",
    "model.layers=2",
    "train.global_batch=57",
    "train.max_steps=40",
    "data.test_limit=50",
    "optimizer={\"kind\":\"sgd\",\"momentum\":0.9,\"lr\":0.2}",
    "schedule={\"kind\":\"constant\"}",
];

/// A residual network for one epoch of 10 steps, the last with 3 samples, and a bit. The seed as for
/// `UNEVEN`: with 42 a ReLU decides otherwise at 4 ranks in step 7, and a bias near 0 ends 1 % away.
const RESNET: [&str; 7] = [
    "seed=7",
    "data.train_limit=183",
    "data.test_limit=51",
    "train.global_batch=20",
    "train.max_steps=15",
    // Adam divides by moments that begin near 0 and makes rounding larger.
    "optimizer={\"kind\":\"sgd\",\"momentum\":0.9,\"lr\":0.01}",
    "schedule={\"kind\":\"constant\"}",
];

/// An LSTM with dropout for an epoch of 36 steps and a bit; the last window has 22 of 24 labels.
const LSTM: [&str; 9] = [
    "data.text={\"context\":24,\"vocabulary\":\"characters\",\"holdout\":0.9718}",
    "model.width=32",
    "model.tied=false",
    "model.dropout=0.3",
    "train.global_batch=57",
    "train.max_steps=50",
    "data.test_limit=50",
    "optimizer={\"kind\":\"sgd\",\"momentum\":0.9,\"lr\":0.5}",
    "schedule={\"kind\":\"constant\"}",
];

/// A GRU that reads images from both ends, for several epochs of 10 steps, the last with 3 samples.
const GRU: [&str; 8] = [
    "data.train_limit=183",
    "data.test_limit=51",
    "model.width=24",
    "model.bidirectional=true",
    "train={\"global_batch\":20,\"max_steps\":50}",
    "optimizer={\"kind\":\"sgd\",\"momentum\":0.9,\"lr\":0.05}",
    "schedule={\"kind\":\"constant\"}",
    "model.layers=2",
];

fn train(mpi: Mpi, ranks: usize, sets: &[&str], out: &Path) -> Vec<Named> {
    let mut job = under(mpi, ranks).args(["train", &card("lenet-mnist.json"), "--out"]).args([out]);
    for set in UNEVEN.iter().chain(sets) {
        job = job.set(set);
    }
    job.set("data.test_limit=1001").succeed();
    assert_eq!(status(out)["state"], "completed");
    model_file::load(&out.join("model.safetensors")).unwrap()
}

/// Largest difference between two models, relative to the largest value of each tensor.
fn difference(a: &[Named], b: &[Named]) -> f64 {
    assert_eq!(a.len(), b.len());
    let mut worst = 0f64;
    for (x, y) in a.iter().zip(b) {
        let scale = x.values.iter().fold(0f32, |m, v| m.max(v.abs()));
        for (p, q) in x.values.iter().zip(&y.values) {
            worst = worst.max(f64::from((p - q).abs() / scale));
        }
    }
    worst
}

/// The losses per step of two runs agree to 1e-5.
fn same_losses(a: &Path, b: &Path) {
    let (a, b) = (metrics(a, "step"), metrics(b, "step"));
    assert_eq!(a.len(), b.len());
    for (x, y) in a.iter().zip(&b) {
        let (lx, ly) = (x["loss"].as_f64().unwrap(), y["loss"].as_f64().unwrap());
        assert!((lx - ly).abs() <= 1e-5 * lx.abs().max(1.0), "{x}\n{y}");
        assert_eq!(x["lr"], y["lr"]);
    }
}

/// All ranks ended with the same bits, as each of them reported.
fn same_bits_on_all_ranks(run: &Path, ranks: usize) {
    let status = status(run);
    let hashes = status["params_hashes"].as_array().unwrap();
    assert_eq!(hashes.len(), ranks);
    assert!(hashes.iter().all(|h| *h == status["params_hash"]), "{status}");
}

fn same_run_at_any_rank_count(mpi: Mpi, rank_counts: &[usize], sets: &[&str]) {
    let folder = tempdir().unwrap();
    let one = folder.path().join("1");
    let alone = train(mpi, 1, sets, &one);
    for &ranks in rank_counts {
        let out = folder.path().join(ranks.to_string());
        let together = train(mpi, ranks, sets, &out);
        let worst = difference(&alone, &together);
        assert!(worst < 1e-4, "{ranks} ranks differ by {worst:e} with {sets:?}");
        same_losses(&one, &out);
        same_bits_on_all_ranks(&out, ranks);
    }
}

#[test]
fn a_hundred_steps_are_the_same_at_1_2_3_and_4_ranks_under_both_mpis() {
    for mpi in BOTH {
        same_run_at_any_rank_count(mpi, &[2, 3, 4], &["train.max_steps=100"]);
    }
}

#[test]
fn ranks_without_a_single_sample_take_part() {
    // The last batch of each epoch has 3 samples for 5 ranks.
    let sets = ["data.train_limit=99", "train.global_batch=96", "train.max_steps=20"];
    same_run_at_any_rank_count(Mpi::Open, &[5], &sets);
}

#[test]
fn dropout_accumulation_clipping_and_every_optimizer_keep_the_promise() {
    let sgd = [
        "optimizer.kind=sgd",
        "optimizer.momentum=0.9",
        "optimizer.nesterov=true",
        "optimizer.weight_decay=0.01",
    ];
    let adam = ["optimizer", "optimizer.kind=adamw"]
        .map(|_| "optimizer={\"kind\":\"adamw\",\"lr\":0.001}");
    let common = [
        "model.dropout=0.3",
        "train.accumulate=3",
        "train.clip_norm=1.0",
        "train.max_steps=30",
        "optimizer.lr=0.01",
    ];
    same_run_at_any_rank_count(Mpi::Open, &[2, 3], &[&common[..], &sgd].concat());
    same_run_at_any_rank_count(Mpi::Open, &[3], &[&common[..4], &adam[..1]].concat());
    let lamb = [
        "optimizer={\"kind\":\"lamb\",\"lr\":0.01,\"weight_decay\":0.01,\"groups\":[{\"parameters\":\
         [\"*.bias\"],\"weight_decay\":0}]}",
        "schedule={\"kind\":\"one-cycle\"}",
    ];
    same_run_at_any_rank_count(Mpi::Open, &[3], &[&common[..4], &lamb].concat());
}

#[test]
fn a_gpt_weighs_each_token_alike_at_any_rank_count() {
    // 2,018 windows, of which the last has 22 of 24 labels: shares differ in windows and in tokens.
    let text = "{\"context\":24,\"vocabulary\":\"characters\",\"holdout\":0.9718}";
    let folder = tempdir().unwrap();
    let run = |mpi: Mpi, ranks: usize| {
        let out = folder.path().join(format!("{mpi:?}{ranks}"));
        let card = card("gpt-shakespeare.json");
        let job = under(mpi, ranks).args(["train", &card, "--out"]).args([&out]);
        let job = GPT.iter().fold(job, |job, set| job.set(set)).set(format!("data.text={text}"));
        job.succeed();
        same_bits_on_all_ranks(&out, ranks);
        (model_file::load(&out.join("model.safetensors")).unwrap(), out)
    };
    let (one, one_out) = run(Mpi::Open, 1);
    let eval = metrics(&one_out, "eval").pop().unwrap();
    assert_eq!(eval["count"], 50 * 24, "each token of the 50 windows counts once: {eval}");
    let [loss, perplexity] = ["loss", "perplexity"].map(|key| eval[key].as_f64().unwrap());
    assert!((loss.exp() - perplexity).abs() < 1e-9 * perplexity, "{eval}");
    // Divided by windows instead of tokens, the gradient would be 24 times as long: 16.
    let norm = metrics(&one_out, "step")[0]["grad_norm"].as_f64().unwrap();
    assert!(norm < 3.0, "{norm}");
    for (mpi, ranks) in [(Mpi::Open, 2), (Mpi::Open, 3), (Mpi::Mpich, 4)] {
        let (many, out) = run(mpi, ranks);
        let difference = difference(&one, &many);
        assert!(difference < 1e-4, "{ranks} ranks: {difference}");
        same_losses(&one_out, &out);
    }
}

/// Trains `job` at 1 to 4 ranks: parameters, losses and, among the ranks, bits agree.
fn same_at_1_to_4_ranks(job: &str, sets: &[&str]) {
    let folder = tempdir().unwrap();
    let run = |ranks: usize| {
        let out = folder.path().join(ranks.to_string());
        let job = under(Mpi::Open, ranks).args(["train", &card(job), "--out"]).args([&out]);
        sets.iter().fold(job, |job, set| job.set(set)).succeed();
        same_bits_on_all_ranks(&out, ranks);
        (model_file::load(&out.join("model.safetensors")).unwrap(), out)
    };
    let (one, one_out) = run(1);
    for ranks in [2, 3, 4] {
        let (many, out) = run(ranks);
        let difference = difference(&one, &many);
        assert!(difference < 1e-4, "{ranks} ranks: {difference}");
        same_losses(&one_out, &out);
    }
}

#[test]
fn a_resnet_is_the_same_at_1_2_3_and_4_ranks() {
    same_at_1_to_4_ranks("resnet8-mnist-quick.json", &RESNET);
}

#[test]
fn an_lstm_on_text_and_a_gru_on_images_are_the_same_at_1_2_3_and_4_ranks() {
    same_at_1_to_4_ranks("lstm-shakespeare.json", &LSTM);
    same_at_1_to_4_ranks("gru-mnist-quick.json", &GRU);
    // With carried states, the last batch of an epoch has another part for each rank than the others.
    let streams = "data.text={\"context\":24,\"vocabulary\":\"characters\",\"streams\":57,\"holdout\":0.9718}";
    same_at_1_to_4_ranks("lstm-shakespeare.json", &[&[streams], &LSTM[1..]].concat());
}

#[test]
fn micro_batches_change_memory_and_nothing_else() {
    let folder = tempdir().unwrap();
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    let a = train(Mpi::Open, 2, &["train.max_steps=25"], &whole);
    let b = train(Mpi::Open, 2, &["train.max_steps=25", "train.accumulate=5"], &parts);
    assert!(difference(&a, &b) < 1e-4);
    same_losses(&whole, &parts);
    // One reduction per step, not per micro-batch.
    let sent = |run: &Path| metrics(run, "summary")[0]["bytes_sent"].clone();
    assert_eq!(sent(&whole), sent(&parts));
}

#[test]
fn every_way_of_an_all_reduce_gives_the_same_run() {
    let folder = tempdir().unwrap();
    let run = |way: &str| {
        let out = folder.path().join(way);
        train(Mpi::Open, 3, &["train.max_steps=20", &format!("comm.algorithm={way}")], &out)
    };
    let auto = run("auto");
    for way in ["shared", "ring", "doubling", "mpi"] {
        let worst = difference(&auto, &run(way));
        assert!(worst < 1e-4, "{way} differs by {worst:e}");
    }
}

#[test]
fn reducing_gradients_during_the_backward_pass_changes_no_bit() {
    let folder = tempdir().unwrap();
    for mpi in BOTH {
        // Several small buckets, an uneven last batch, two micro-batches, three ranks on two cores.
        let hash = |overlap: &str| {
            let out = folder.path().join(format!("{mpi:?}-{overlap}"));
            let sets = [
                "train.max_steps=25",
                "train.accumulate=2",
                "comm.first_bucket_mb=0.005",
                "comm.bucket_mb=0.02",
                &format!("comm.overlap={overlap}"),
            ];
            train(mpi, 3, &sets, &out);
            status(&out)["params_hash"].clone()
        };
        let off = hash("off");
        assert!(off.is_string());
        assert_eq!(off, hash("on"));
        assert_eq!(off, hash("auto"));
    }
}

#[test]
fn sixteen_bits_on_the_wire_train_nearly_the_same() {
    let folder = tempdir().unwrap();
    let run = |wire: &str| {
        let out = folder.path().join(wire);
        let wire = format!("comm.wire={wire}");
        train(Mpi::Open, 3, &["train.max_steps=20", "comm.algorithm=ring", &wire], &out);
        same_bits_on_all_ranks(&out, 3);
        metrics(&out, "summary")[0].clone()
    };
    let (full, half) = (run("f32"), run("bf16"));
    let loss = |summary: &serde_json::Value| summary["loss"].as_f64().unwrap();
    assert!((loss(&full) - loss(&half)).abs() < 0.02 * loss(&full), "{full}\n{half}");
    assert_ne!(loss(&full), loss(&half), "nothing was rounded");
    let sent = |summary: &serde_json::Value| summary["bytes_sent"].as_f64().unwrap();
    let ratio = sent(&half) / sent(&full);
    assert!((0.49..0.52).contains(&ratio), "{ratio} of the bytes");
}

#[test]
fn evaluation_counts_each_test_sample_once_at_any_rank_count() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("run");
    train(Mpi::Open, 2, &["train.max_steps=30"], &out);
    let mut seen = Vec::new();
    for ranks in 1..=4 {
        let ended = under(Mpi::Open, ranks)
            .arg_paths(["eval"], &[&out])
            .args([card("lenet-mnist.json"), "--set".into(), "train.eval_batch=77".into()])
            .succeed();
        let (_, rest) = ended.stdout.split_once('(').unwrap();
        seen.push(rest.split_once(')').unwrap().0.to_owned());
    }
    assert!(seen[0].ends_with("/10000"), "{seen:?}");
    assert!(seen.iter().all(|s| *s == seen[0]), "{seen:?}");
}

#[test]
fn early_stopping_is_decided_by_all_ranks_together_and_keeps_the_best_model() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("run");
    let stop = "train.early_stopping={\"monitor\":\"val_loss\",\"patience\":2,\"min_delta\":0.001}";
    let sets = ["optimizer.lr=0.3", "schedule.kind=constant", stop, "train.epochs=60"];
    train(Mpi::Open, 3, &sets, &out);
    let evals = metrics(&out, "eval");
    assert!(evals.len() < 60, "never stopped");
    let losses: Vec<f64> = evals.iter().map(|e| e["loss"].as_f64().unwrap()).collect();
    let best = losses.iter().copied().fold(f64::INFINITY, f64::min);
    let summary = &metrics(&out, "summary")[0];
    assert!((summary["loss"].as_f64().unwrap() - best).abs() <= 0.001, "{summary} {losses:?}");
}

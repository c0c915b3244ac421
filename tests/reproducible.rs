//! Reproducible mode: the same bits at any number of ranks, and after any disturbance.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{BOTH, Job, Mpi, alone, card, hash, story, under};
use std::path::Path;
use std::time::Duration;
use tempfile::tempdir;

/// 1,003 samples in global batches of 96 and 10 leaves: a batch of 96 has leaves of 10 and 9 samples,
/// the last of an epoch, of 43, leaves of 5 and 4. Dropout, clipping and two optimizer moments are in it;
/// the test set of 501 samples is cut unevenly as well.
const UNEVEN: [&str; 11] = [
    "reproducible.leaves=10",
    "data.train_limit=1003",
    "data.test_limit=501",
    "train.global_batch=96",
    "train.epochs=100",
    "train.clip_norm=1",
    "train.eval_batch=77",
    "model.dropout=0.2",
    "optimizer={\"kind\":\"adamw\",\"lr\":0.002,\"weight_decay\":0.01}",
    "schedule={\"kind\":\"cosine\",\"warmup_steps\":5}",
    "report.every_steps=1",
];

/// A GPT of another shape: windows that overlap, of which the last is padded. `UNEVEN` comes before.
const TEXT: [&str; 8] = [
    "data.text={\"context\":24,\"stride\":17,\"vocabulary\":\"bytes\",\"holdout\":0.98}",
    "data.train_limit=2019",
    "data.test_limit=51",
    "train.eval_batch=7",
    "model.dropout=0",
    "model.width=16",
    "model.heads=2",
    "train.global_batch=57",
];

/// An LSTM on such a text, with dropout (of `UNEVEN`) between its layers.
const LSTM: [&str; 7] = [
    TEXT[0],
    TEXT[1],
    TEXT[2],
    TEXT[3],
    "model.width=20",
    "model.layers=2",
    "train.global_batch=57",
];

fn train(mpi: Mpi, ranks: usize, job: &str, sets: &[&str], out: &Path) -> Job {
    let job = under(mpi, ranks)
        .args(["train", &card(job), "--out"])
        .args([out])
        .env("ANNULUS_ALLOW_FAULTS", "1");
    UNEVEN.iter().chain(sets).fold(job, |job, set| job.set(set))
}

/// All tensors of the newest checkpoint, by file: parameters and optimizer state.
fn tensors(run: &Path) -> Vec<(String, Vec<u8>)> {
    let folders = std::fs::read_dir(run.join("checkpoints")).unwrap();
    let newest = folders
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .max()
        .expect("the run ends with a checkpoint");
    let mut found: Vec<(String, Vec<u8>)> = std::fs::read_dir(newest)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "safetensors"))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect();
    found.sort();
    found
}

/// Parameters, optimizer state, and every loss, accuracy and norm on the way are the same bits.
fn assert_same_bits(a: &Path, b: &Path) {
    assert_eq!(hash(a), hash(b), "{} and {}", a.display(), b.display());
    let (lines_a, lines_b) = (story(a), story(b));
    assert_eq!(lines_a.len(), lines_b.len());
    for (x, y) in lines_a.iter().zip(&lines_b) {
        assert_eq!(x, y);
    }
    let (files_a, files_b) = (tensors(a), tensors(b));
    assert!(files_a.len() >= 2, "model and optimizer");
    assert!(files_a == files_b, "the checkpoints of {} and {} differ", a.display(), b.display());
    // The ledgers agree step by step: samples, losses, norms, and each tensor every 100 steps.
    alone(&Mpi::Open.binary()).arg_paths(["diff"], &[a, b]).succeed();
}

/// Runs `job` at each number of ranks and compares it with one rank.
fn same_bits_at(job: &str, runs: &[(Mpi, usize)], sets: &[&str]) {
    let folder = tempdir().unwrap();
    let one = folder.path().join("1");
    train(Mpi::Open, 1, job, sets, &one).succeed();
    for &(mpi, ranks) in runs {
        let out = folder.path().join(format!("{mpi:?}-{ranks}"));
        train(mpi, ranks, job, sets, &out).succeed();
        assert_same_bits(&one, &out);
    }
}

#[test]
fn two_hundred_steps_of_lenet_are_the_same_bits_at_1_2_3_4_5_7_and_8_ranks() {
    let runs = [2, 3, 4, 5, 7, 8].map(|ranks| (Mpi::Open, ranks));
    same_bits_at("lenet-mnist.json", &runs, &["train.max_steps=200"]);
}

#[test]
fn two_hundred_steps_of_the_mlp_are_the_same_bits_at_1_2_3_4_5_7_and_8_ranks() {
    let runs = [2, 3, 4, 5, 7, 8].map(|ranks| (Mpi::Open, ranks));
    let sets = ["train.max_steps=200", "model.hidden=[48,32]", "train.global_batch=57"];
    same_bits_at("mlp-mnist.json", &runs, &sets);
}

#[test]
fn two_hundred_steps_of_a_gpt_on_text_are_the_same_bits_at_1_2_3_4_5_7_and_8_ranks() {
    let runs = [2, 3, 4, 5, 7, 8].map(|ranks| (Mpi::Open, ranks));
    let sets = [&TEXT[..], &["train.max_steps=200"]].concat();
    same_bits_at("gpt-shakespeare-quick.json", &runs, &sets);
}

#[test]
fn forty_steps_of_a_resnet_are_the_same_bits_at_1_2_3_4_and_5_ranks() {
    let runs = [2, 3, 4, 5].map(|ranks| (Mpi::Open, ranks));
    let sets = [
        "data.train_limit=203",
        "data.test_limit=51",
        "train.global_batch=27",
        "train.max_steps=40",
        "reproducible.leaves=7",
    ];
    same_bits_at("resnet8-mnist-quick.json", &runs, &sets);
}

#[test]
fn sixty_steps_of_recurrent_networks_are_the_same_bits_at_1_2_3_4_and_5_ranks() {
    let runs = [2, 3, 4, 5].map(|ranks| (Mpi::Open, ranks));
    same_bits_at(
        "lstm-shakespeare-quick.json",
        &runs,
        &[&LSTM[..], &["train.max_steps=60"]].concat(),
    );
    let both_ways = [
        "model.bidirectional=true",
        "model.width=24",
        "train.global_batch=57",
        "train.max_steps=60",
        "reproducible.leaves=7",
    ];
    same_bits_at("gru-mnist-quick.json", &runs, &both_ways);
}

#[test]
fn a_gpt_that_is_killed_and_goes_on_with_other_ranks_ends_with_the_same_bits() {
    same_bits_after_kills("gpt-shakespeare-quick.json", &TEXT);
}

#[test]
fn an_lstm_that_is_killed_and_goes_on_with_other_ranks_ends_with_the_same_bits() {
    same_bits_after_kills("lstm-shakespeare-quick.json", &LSTM);
}

#[test]
fn carried_states_survive_kills_and_other_rank_counts_bit_for_bit() {
    // 36 steps an epoch, the last with 7 of 57 streams.
    let text = "data.text={\"context\":24,\"streams\":57,\"holdout\":0.97}";
    let sets = [&[text, "data.train_limit=2002"], &LSTM[2..]].concat();
    same_bits_after_kills("lstm-shakespeare-quick.json", &sets);
}

/// Kills a job of 40 steps twice, goes on each time with another MPI or number of ranks, and compares it with
/// one that was not disturbed.
fn same_bits_after_kills(job: &str, sets: &[&str]) {
    let folder = tempdir().unwrap();
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let sets = [sets, &["train.max_steps=40", "checkpoint.every_steps=7"]].concat();
    train(Mpi::Open, 1, job, &sets, &whole).succeed();
    for (mpi, ranks, rank, step) in [(Mpi::Mpich, 3, 1, 10), (Mpi::Open, 2, 0, 26)] {
        let fault = format!("faults=[{{\"rank\":{rank},\"step\":{step},\"kind\":\"kill\"}}]");
        let sets = [&sets[..], &[fault.as_str()]].concat();
        let ended = train(mpi, ranks, job, &sets, &broken).run();
        assert_ne!(ended.code, 0, "{}", ended.all_output());
    }
    train(Mpi::Open, 4, job, &sets, &broken).succeed();
    assert_same_bits(&whole, &broken);
}

#[test]
fn lion_whose_steps_follow_signs_alone_is_the_same_bits_too() {
    let sets =
        ["train.max_steps=30", "optimizer={\"kind\":\"lion\",\"lr\":0.0005,\"weight_decay\":0.1}"];
    same_bits_at("lenet-mnist.json", &[(Mpi::Open, 3)], &sets);
}

/// Every transform, classes drawn equally often, smoothed labels.
const CHANGED: [&str; 4] = [
    "data.augment=[{\"kind\":\"shift\",\"pixels\":2},{\"kind\":\"crop\",\"pixels\":1},\
     {\"kind\":\"flip\"},{\"kind\":\"rotate\",\"degrees\":10},{\"kind\":\"elastic\"},\
     {\"kind\":\"jitter\",\"brightness\":0.2,\"contrast\":0.2},{\"kind\":\"erase\"},\
     {\"kind\":\"mixup\",\"probability\":0.3},{\"kind\":\"cutmix\",\"probability\":0.5}]",
    "data.sampling.kind=balanced",
    "train.label_smoothing=0.1",
    "checkpoint.every_steps=7",
];

#[test]
fn changed_images_are_the_same_at_1_2_and_3_ranks_and_after_kills() {
    let folder = tempdir().unwrap();
    let (one, broken) = (folder.path().join("1"), folder.path().join("broken"));
    let sets = [&CHANGED[..], &["train.max_steps=60"]].concat();
    train(Mpi::Open, 1, "lenet-mnist.json", &sets, &one).succeed();
    for (mpi, ranks) in [(Mpi::Open, 2), (Mpi::Mpich, 3)] {
        let out = folder.path().join(ranks.to_string());
        train(mpi, ranks, "lenet-mnist.json", &sets, &out).succeed();
        assert_same_bits(&one, &out);
    }
    for (ranks, rank, step) in [(3, 1, 10), (1, 0, 26), (2, 1, 47)] {
        let fault = format!("faults=[{{\"rank\":{rank},\"step\":{step},\"kind\":\"kill\"}}]");
        let sets = [&sets[..], &[fault.as_str()]].concat();
        let ended = train(Mpi::Open, ranks, "lenet-mnist.json", &sets, &broken).run();
        assert_ne!(ended.code, 0, "{}", ended.all_output());
    }
    train(Mpi::Open, 2, "lenet-mnist.json", &sets, &broken).succeed();
    assert_same_bits(&one, &broken);
    // The test would pass whatever the images were if nothing had changed them.
    let plain = folder.path().join("plain");
    let plain_sets = ["train.max_steps=60", CHANGED[3]];
    train(Mpi::Open, 1, "lenet-mnist.json", &plain_sets, &plain).succeed();
    assert_ne!(hash(&one), hash(&plain));
}

#[test]
fn the_other_mpi_messages_and_small_buckets_give_the_same_bits() {
    let sets = ["train.max_steps=40"];
    same_bits_at("lenet-mnist.json", &[(Mpi::Mpich, 3), (Mpi::Mpich, 4)], &sets);
    let folder = tempdir().unwrap();
    let run = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        train(Mpi::Open, 3, "lenet-mnist.json", &[&sets, more].concat(), &out).succeed();
        out
    };
    let plain = run("plain", &[]);
    for way in ["ring", "doubling", "shared"] {
        assert_same_bits(&plain, &run(way, &[&format!("comm.algorithm={way}")]));
    }
    // Buckets are cut by tensors, so another size orders the squares of the norm otherwise, but the
    // same at any number of ranks.
    let small = ["train.max_steps=40", "comm.first_bucket_mb=0.005", "comm.bucket_mb=0.02"];
    same_bits_at("lenet-mnist.json", &[(Mpi::Open, 2), (Mpi::Open, 3)], &small);
}

#[test]
fn fewer_samples_than_leaves_and_fewer_leaves_than_ranks_are_ordinary() {
    // The last batch of each epoch has 3 samples for 10 leaves.
    let few = ["data.train_limit=99", "train.max_steps=12"];
    same_bits_at("lenet-mnist.json", &[(Mpi::Open, 4)], &few);
    let leaves = ["reproducible.leaves=3", "train.max_steps=12"];
    same_bits_at("lenet-mnist.json", &[(Mpi::Open, 2), (Mpi::Open, 5)], &leaves);
}

#[test]
fn without_it_another_number_of_ranks_gives_other_bits() {
    let folder = tempdir().unwrap();
    let run = |ranks: usize| {
        let out = folder.path().join(ranks.to_string());
        let job = under(Mpi::Open, ranks).args(["train", &card("lenet-mnist.json"), "--out"]);
        UNEVEN[1..]
            .iter()
            .fold(job.args([&out]), |job, set| job.set(set))
            .set("train.max_steps=20")
            .succeed();
        hash(&out)
    };
    assert_ne!(run(1), run(3), "the test would pass whatever the mode did");
}

#[test]
fn kills_and_another_rank_count_each_time_change_no_bit() {
    let folder = tempdir().unwrap();
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let sets = ["train.max_steps=60", "checkpoint.every_steps=7"];
    train(Mpi::Open, 2, "lenet-mnist.json", &sets, &whole).succeed();
    let kills = [(2, 1, 5), (3, 0, 20), (1, 0, 31), (4, 3, 43), (2, 0, 59)];
    for (turn, (ranks, rank, step)) in kills.into_iter().enumerate() {
        let fault = format!("faults=[{{\"rank\":{rank},\"step\":{step},\"kind\":\"kill\"}}]");
        let sets = [&sets[..], &[fault.as_str()]].concat();
        let ended = train(BOTH[turn % 2], ranks, "lenet-mnist.json", &sets, &broken).run();
        assert_ne!(ended.code, 0, "{}", ended.all_output());
    }
    train(Mpi::Open, 5, "lenet-mnist.json", &sets, &broken).succeed();
    assert_same_bits(&whole, &broken);
}

#[test]
#[ignore = "three minutes; scripts/extra/kills.sh runs it"]
fn a_hundred_kills_at_random_moments_and_rank_counts_change_no_bit() {
    let folder = tempdir().unwrap();
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    // A kill comes 0.2 to 0.7 s after a start, a step takes about 2 ms: long enough for most of them.
    let sets = ["train.max_steps=9000", "train.epochs=1000", "checkpoint.every_steps=3"];
    train(Mpi::Open, 2, "lenet-mnist.json", &sets, &whole).succeed();
    let mut random: u64 = 5;
    for round in 0..100 {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let ranks = 1 + (random >> 61) as usize % 4;
        let job = train(BOTH[round % 2], ranks, "lenet-mnist.json", &sets, &broken);
        let running = job.start();
        std::thread::sleep(Duration::from_millis(200 + (random >> 33) % 500));
        running.kill();
    }
    train(Mpi::Mpich, 3, "lenet-mnist.json", &sets, &broken).succeed();
    assert_same_bits(&whole, &broken);
    // Two newest, the best, and nothing half-written.
    let left = std::fs::read_dir(broken.join("checkpoints")).unwrap().flatten();
    let names: Vec<String> = left.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    assert!(names.iter().filter(|name| name.starts_with("step-")).count() <= 3, "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with(".tmp")), "{names:?}");
}

#[test]
fn what_would_let_the_rank_count_in_is_refused() {
    let folder = tempdir().unwrap();
    for (set, word) in [
        ("train.accumulate=2", "train.accumulate"),
        ("comm.algorithm=mpi", "comm.algorithm"),
        ("comm.wire=bf16", "comm.wire"),
        ("reproducible.leaves=0", "reproducible.leaves"),
        ("reproducible.threads=2", "reproducible.threads"),
    ] {
        let job = train(Mpi::Open, 2, "lenet-mnist.json", &[set], &folder.path().join("run"));
        let job = if word.ends_with("threads") { job.args(["--threads", "1"]) } else { job };
        let ended = job.run();
        assert_eq!(ended.code, 78, "{}", ended.all_output());
        assert!(ended.stderr.contains(word), "{}", ended.stderr);
    }
}

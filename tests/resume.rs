//! Loses nothing: a run that is killed anywhere, or told to leave, goes on from its last checkpoint and
//! ends with the bits of a run that was never disturbed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{BOTH, Job, Mpi, Running, card, hash, metrics, status, story, under};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::tempdir;

/// Augmentation with a second image, weighted sampling, label smoothing, dropout, accumulation, momentum,
/// warm-up, cosine, clipping, early stopping, uneven last batches: everything that a resumed run could
/// get wrong. Epochs of 16 steps; no
/// evaluation improves on the first by 10, so that the run stops early after the third, with the
/// parameters of the first: only if its history survives.
const SETS: [&str; 18] = [
    "data.train_limit=1000",
    "data.test_limit=500",
    "data.augment=[{\"kind\":\"shift\",\"pixels\":2},{\"kind\":\"mixup\",\"probability\":0.5}]",
    "data.sampling.kind=balanced",
    "train.label_smoothing=0.1",
    "train.global_batch=64",
    "train.epochs=5",
    "train.accumulate=2",
    "train.clip_norm=5",
    "train.early_stopping={\"patience\":2,\"min_delta\":10}",
    "model.dropout=0.2",
    "optimizer={\"kind\":\"sgd\",\"lr\":0.05,\"momentum\":0.9}",
    "schedule={\"kind\":\"cosine\",\"warmup_steps\":5,\"final_fraction\":0.1}",
    "checkpoint.every_steps=7",
    "checkpoint.every_epochs=0",
    "comm.overlap=\"off\"",
    "report.every_steps=1",
    "comm.deadline_s=5",
];

fn train(mpi: Mpi, ranks: usize, out: &Path) -> Job {
    let job = under(mpi, ranks)
        .args(["train", &card("lenet-mnist.json"), "--out"])
        .args([out])
        .env("ANNULUS_ALLOW_FAULTS", "1");
    SETS.iter().fold(job, |job, set| job.set(set))
}

fn kill_at(rank: usize, step: u64) -> String {
    format!("faults=[{{\"rank\":{rank},\"step\":{step},\"kind\":\"kill\"}}]")
}

fn assert_same_run(a: &Path, b: &Path) {
    assert_eq!(hash(a), hash(b));
    let (a, b) = (story(a), story(b));
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(&b) {
        assert_eq!(a, b);
    }
}

fn checkpoints(run: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(run.join("checkpoints")) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|p| p.file_name().unwrap().to_str().unwrap().starts_with("step-"))
        .collect();
    found.sort();
    found
}

fn steps(run: &Path) -> u64 {
    std::fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |t| t.lines().count() as u64)
}

/// Waits until `done` says so; a run that never gets there fails the test.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(30), "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A long run that is going on, past its first steps.
fn going_on(mpi: Mpi, ranks: usize, out: &Path) -> Running {
    let job = train(mpi, ranks, out).set("train.epochs=2000").set("schedule={}");
    let job = job.set("train.early_stopping={\"patience\":100000}");
    let running = job.start();
    until("ten steps", || steps(out) >= 10);
    running
}

#[test]
fn a_killed_run_resumes_bit_for_bit_as_if_it_had_never_been_disturbed() {
    for mpi in BOTH {
        let folder = tempdir().unwrap();
        let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
        train(mpi, 2, &whole).succeed();
        // Before the first checkpoint, in mid-epoch, just after a save, on the last step; either rank.
        for (rank, step) in [(1, 5), (1, 23), (0, 36), (1, 48)] {
            let ended = train(mpi, 2, &broken).set(kill_at(rank, step)).run();
            assert_ne!(ended.code, 0, "{}", ended.all_output());
            assert!(!broken.join("model.safetensors").exists());
        }
        let ended = train(mpi, 2, &broken).succeed();
        assert!(ended.stdout.contains("resumed from"), "{}", ended.stdout);
        assert_same_run(&whole, &broken);
    }
}

#[test]
fn killed_recurrent_networks_resume_bit_for_bit() {
    let lstm = ["model.layers=2", "model.dropout=0.2", "model.width=24", "data.test_limit=40"];
    let gru = ["data.train_limit=900", "data.test_limit=200", "model.width=24", "train.epochs=5"];
    for (job, sets) in [("lstm-shakespeare-quick.json", lstm), ("gru-mnist-quick.json", gru)] {
        let folder = tempdir().unwrap();
        let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
        let train = |out: &Path| {
            let common = [&SETS[13..], &["train.max_steps=40"]].concat();
            let run = under(Mpi::Open, 2).args(["train", &card(job), "--out"]).args([out]);
            let run = run.env("ANNULUS_ALLOW_FAULTS", "1");
            sets.iter().chain(&common).fold(run, |run, set| run.set(set))
        };
        train(&whole).succeed();
        for (rank, step) in [(1, 5), (0, 26)] {
            let ended = train(&broken).set(kill_at(rank, step)).run();
            assert_ne!(ended.code, 0, "{}", ended.all_output());
        }
        train(&broken).succeed();
        assert_same_run(&whole, &broken);
    }
}

#[test]
fn another_rank_count_goes_on_with_the_same_run_within_rounding() {
    let folder = tempdir().unwrap();
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    train(Mpi::Open, 2, &whole).succeed();
    for (ranks, step) in [(3, 20), (1, 36)] {
        let job = train(Mpi::Open, ranks, &broken).set(kill_at(ranks - 1, step));
        assert_ne!(job.run().code, 0);
    }
    train(Mpi::Open, 4, &broken).succeed();
    let of = |run: &Path| metrics(run, "step");
    let (a, b) = (of(&whole), of(&broken));
    assert_eq!((a.len(), b.len()), (48, 48));
    for (a, b) in a.iter().zip(&b) {
        assert_eq!((&a["step"], &a["epoch"], &a["lr"]), (&b["step"], &b["epoch"], &b["lr"]));
        let (a, b) = (a["loss"].as_f64().unwrap(), b["loss"].as_f64().unwrap());
        // Rounding of 32-bit sums, grown over 48 steps.
        assert!((a - b).abs() <= 1e-3 * a.abs().max(0.1), "{a} {b}");
    }
}

#[test]
fn ten_kills_at_random_moments_lose_nothing() {
    kills(10, 7);
}

#[test]
#[ignore = "three minutes; scripts/extra/kills.sh runs it"]
fn a_hundred_kills_at_random_moments_lose_nothing() {
    kills(100, 11);
}

/// Kills a run at `rounds` random moments, under both MPIs in turn, while it saves at every second
/// step. Each time what is there under a checkpoint's name is whole; at the end nothing differs from an
/// undisturbed run, and no left-over takes room.
fn kills(rounds: usize, seed: u64) {
    let folder = tempdir().unwrap();
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let train = |mpi, out: &Path| {
        // Long enough that most kills meet it in the middle: 20 epochs for each ten.
        let epochs = 20 * rounds.div_ceil(10);
        train(mpi, 2, out)
            .set("checkpoint.every_steps=2")
            .set(format!("train.epochs={epochs}"))
            .set("train.early_stopping={\"patience\":1000}")
    };
    train(Mpi::Open, &whole).succeed();
    let mut random = seed;
    for round in 0..rounds {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let running = train(BOTH[round % 2], &broken).start();
        std::thread::sleep(Duration::from_millis(150 + (random >> 33) % 500));
        running.kill();
        for checkpoint in checkpoints(&broken) {
            assert!(checkpoint.join("manifest.json").exists(), "{}", checkpoint.display());
        }
    }
    train(Mpi::Open, &broken).succeed();
    assert_same_run(&whole, &broken);
    assert!(checkpoints(&broken).len() <= 3, "{:?}", checkpoints(&broken));
    let left = std::fs::read_dir(broken.join("checkpoints")).unwrap();
    assert!(left.flatten().all(|e| !e.file_name().to_str().unwrap().starts_with(".tmp")));
}

#[test]
#[ignore = "half a minute; scripts/extra/kills.sh runs it"]
fn fifty_restarts_in_a_row_end_the_same_and_leave_nothing_behind() {
    let folder = tempdir().unwrap();
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let train = |mpi, out: &Path| train(mpi, 2, out).set("train.epochs=4");
    train(Mpi::Open, &whole).succeed();
    let mut room = 0;
    for round in 0..50 {
        let job = train(BOTH[round % 2], &broken);
        // One step and a checkpoint, or a kill two steps later that loses both.
        match round % 3 {
            2 => assert_ne!(job.set(kill_at(1, steps(&broken) + 2)).run().code, 0),
            _ => assert_eq!(job.set("train.max_time_s=0.001").run().code, 75),
        }
        let now: u64 = files(&broken).iter().map(|file| file.metadata().unwrap().len()).sum();
        room = room.max(now);
    }
    train(Mpi::Open, &broken).succeed();
    assert_same_run(&whole, &broken);
    let names = |run: &Path| -> Vec<PathBuf> {
        let name = |file: &PathBuf| file.strip_prefix(run).unwrap().to_owned();
        let kept = |file: &PathBuf| !file.components().any(|c| c.as_os_str() == "checkpoints");
        files(run).iter().map(name).filter(kept).collect()
    };
    assert_eq!(names(&whole), names(&broken));
    // The last two and the best.
    assert!(checkpoints(&broken).len() <= 3, "{:?}", checkpoints(&broken));
    // Three checkpoints, one that is being written, and the lines of text.
    let one: u64 = files(&checkpoints(&whole)[0]).iter().map(|f| f.metadata().unwrap().len()).sum();
    assert!(room < 5 * one, "{room} bytes at most, where a checkpoint has {one}");
}

/// All files under a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found.sort();
    found
}

#[test]
fn a_signal_to_one_rank_saves_and_all_leave_together_with_75() {
    for (mpi, signal, state) in [
        (Mpi::Open, "USR1", "preempted"),
        (Mpi::Mpich, "USR1", "preempted"),
        (Mpi::Open, "TERM", "interrupted"),
    ] {
        let folder = tempdir().unwrap();
        let out = folder.path().join("run");
        let running = going_on(mpi, 2, &out);
        running.signal_a_rank(signal);
        let ended = running.end();
        assert_eq!(ended.code, 75, "{mpi:?} {signal}: {}", ended.all_output());
        assert!(ended.took < Duration::from_secs(20));
        let status = status(&out);
        assert_eq!((&status["state"], &status["exit_code"]), (&state.into(), &75.into()));
        // No step is lost: the checkpoint is of the last step that the metrics know.
        let last = checkpoints(&out).pop().unwrap();
        let steps = metrics(&out, "step").len();
        assert_eq!(last.file_name().unwrap().to_str().unwrap(), format!("step-{steps:08}"));
        assert_eq!(status["step"], steps);
        let said = ended.complaints();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("saved at step"), "{said:?}");
    }
}

#[test]
fn the_time_limit_and_the_files_stop_and_save_are_obeyed_and_the_run_ends_the_same() {
    let folder = tempdir().unwrap();
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    train(Mpi::Open, 2, &whole).succeed();
    // Over before the first step: one step is taken and saved at each start.
    for done in [1, 2] {
        let ended = train(Mpi::Open, 2, &broken).set("train.max_time_s=0.001").run();
        assert_eq!(ended.code, 75, "{}", ended.all_output());
        assert!(ended.all_output().contains("train.max_time_s is over"), "{}", ended.all_output());
        assert_eq!(status(&broken)["step"], done);
    }
    std::fs::write(broken.join("STOP"), "").unwrap();
    let ended = train(Mpi::Open, 2, &broken).run();
    assert_eq!(ended.code, 75, "{}", ended.all_output());
    assert!(!broken.join("STOP").exists());
    assert_eq!(status(&broken)["state"], "preempted");
    std::fs::write(broken.join("SAVE"), "").unwrap();
    train(Mpi::Open, 2, &broken).succeed();
    assert!(!broken.join("SAVE").exists());
    assert_same_run(&whole, &broken);
    // All is done: the same command again trains nothing and ends as before.
    train(Mpi::Open, 2, &broken).succeed();
    assert_same_run(&whole, &broken);
}

#[test]
fn a_second_job_in_the_same_run_folder_is_refused_and_told_who_has_it() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("run");
    let running = going_on(Mpi::Open, 1, &out);
    let binary = Mpi::Open.binary();
    let second = std::process::Command::new(binary)
        .args(["train", &card("lenet-mnist.json"), "--out"])
        .arg(&out)
        .output()
        .unwrap();
    running.kill();
    assert_eq!(second.status.code(), Some(73));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("(pid ") && said.contains("since 20"), "{said}");
}

#[test]
fn damaged_checkpoints_are_named_and_never_lead_to_a_silent_fresh_start() {
    let folder = tempdir().unwrap();
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    train(Mpi::Open, 2, &whole).succeed();
    let limited = |out: &Path| train(Mpi::Open, 2, out).set("train.max_time_s=0.001");
    for _ in 0..3 {
        assert_eq!(limited(&broken).run().code, 75);
    }
    let all = checkpoints(&broken);
    let spoil = |checkpoint: &Path| {
        let path = checkpoint.join("optimizer.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    };
    spoil(all.last().unwrap());
    // By its path: refused. Automatically: the one before, with the reason.
    let ended = limited(&broken).args(["--resume"]).args([all.last().unwrap()]).run();
    assert_eq!(ended.code, 65, "{}", ended.all_output());
    assert!(ended.stderr.contains("damaged: its BLAKE3"), "{}", ended.stderr);
    let ended = train(Mpi::Open, 2, &broken).succeed();
    assert!(ended.stdout.contains("the one before is taken"), "{}", ended.stdout);
    assert_same_run(&whole, &broken);
    checkpoints(&broken).iter().for_each(|checkpoint| spoil(checkpoint));
    let ended = train(Mpi::Open, 2, &broken).run();
    assert_eq!(ended.code, 65, "{}", ended.all_output());
    assert!(ended.stderr.contains("no checkpoint in"), "{}", ended.stderr);
    // Only an express wish starts anew, and keeps what was there.
    train(Mpi::Open, 2, &broken).args(["--resume", "never"]).succeed();
    assert_same_run(&whole, &broken);
    assert!(broken.join("checkpoints.old-1").is_dir());
}

#[test]
fn a_checkpoint_of_another_card_is_refused_with_every_field_that_differs() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("run");
    assert_eq!(train(Mpi::Open, 1, &out).set("train.max_time_s=0.001").run().code, 75);
    let ended = train(Mpi::Open, 1, &out).set("optimizer.lr=0.5").set("model.dropout=0.1").run();
    assert_eq!(ended.code, 78, "{}", ended.all_output());
    for part in ["optimizer.lr was 0.05 and is 0.5", "model.dropout was 0.2", "--resume never"] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
}

#[test]
fn a_full_disk_warns_or_stops_by_policy_and_harms_no_earlier_checkpoint() {
    for (policy, code) in [("warn", 0), ("stop", 73)] {
        let folder = tempdir().unwrap();
        let out = folder.path().join("run");
        assert_eq!(train(Mpi::Open, 1, &out).set("train.max_time_s=0.001").run().code, 75);
        // A file where the temporary folder of step 7 must go stands for a disk that refuses.
        let before = checkpoints(&out);
        std::fs::set_permissions(out.join("checkpoints"), readable()).unwrap();
        std::fs::rename(out.join("checkpoints"), out.join("kept")).unwrap();
        std::os::unix::fs::symlink("/proc/self/task", out.join("checkpoints")).unwrap();
        let job = train(Mpi::Open, 1, &out).set(format!("checkpoint.on_failure={policy}"));
        let ended = job.args(["--resume"]).args([out.join("kept").join("step-00000001")]).run();
        assert_eq!(ended.code, code, "{}", ended.all_output());
        assert!(ended.all_output().contains("the checkpoint of step"), "{}", ended.all_output());
        assert_eq!(before.len(), 1);
        assert!(out.join("kept/step-00000001/manifest.json").exists());
    }
}

fn readable() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o755)
}

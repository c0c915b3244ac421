//! Files that vanish or change, and a clock that jumps, while a run goes on.

use super::common::{self, Mpi, hash, metrics, root, sign, status};
use super::{fault, train};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::tempdir;

/// A card folder with its own copy of the data, so that it can be damaged.
fn copied(folder: &Path) -> PathBuf {
    let data = folder.join("data/mnist");
    std::fs::create_dir_all(&data).unwrap();
    for entry in std::fs::read_dir(root().join("data/mnist")).unwrap().flatten() {
        std::fs::copy(entry.path(), data.join(entry.file_name())).unwrap();
    }
    data
}

#[test]
fn data_that_is_removed_or_cut_while_a_run_goes_on_changes_nothing_and_is_named_by_the_next_start()
{
    let folder = tempdir().unwrap();
    let (whole, out) = (folder.path().join("whole"), folder.path().join("run"));
    train(Mpi::Open, 2, &whole).succeed();
    let data = copied(folder.path());
    let (images, labels) =
        (data.join("train-images-idx3-ubyte.gz"), data.join("train-labels-idx1-ubyte.gz"));
    let job = |out: &Path| {
        train(Mpi::Open, 2, out)
            .set(format!("data.train.images={}", images.display()))
            .set(format!("data.train.labels={}", labels.display()))
    };
    let running = job(&out).set(fault(1, 20, "slow", ",\"seconds\":1.5")).start();
    common::until("step 20", || sign(&out, 1)["step"] == 20);
    std::fs::remove_file(&images).unwrap();
    std::fs::OpenOptions::new().write(true).open(&labels).unwrap().set_len(100).unwrap();
    assert_eq!(running.end().code, 0);
    assert_eq!(hash(&whole), hash(&out));
    let ended = job(&folder.path().join("other")).run();
    assert_eq!(ended.code, 66, "{}", ended.all_output());
    assert!(ended.stderr.contains("train-images-idx3-ubyte.gz"), "{}", ended.stderr);
}

#[test]
fn a_run_folder_that_vanishes_is_told_with_its_path_and_the_run_never_passes_for_saved() {
    for (policy, code) in [("warn", 73), ("stop", 73)] {
        let folder = tempdir().unwrap();
        let out = folder.path().join("run");
        let running = train(Mpi::Open, 2, &out)
            .set(fault(0, 20, "slow", ",\"seconds\":1.5"))
            .set(format!("checkpoint.on_failure={policy}"))
            .start();
        common::until("step 20", || sign(&out, 0)["step"] == 20);
        std::fs::remove_dir_all(&out).unwrap();
        let ended = running.end();
        assert_eq!(ended.code, code, "{policy}: {}", ended.all_output());
        let said = ended.all_output();
        assert!(said.contains("the checkpoint of step 21"), "{policy}: {said}");
        assert!(said.contains(out.to_str().unwrap()), "{policy}: {said}");
    }
}

#[test]
fn a_file_in_the_place_of_the_checkpoints_is_told_with_its_path_and_the_older_ones_are_kept() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("run");
    let running = train(Mpi::Open, 2, &out).set(fault(0, 20, "slow", ",\"seconds\":1.5")).start();
    common::until("step 20", || sign(&out, 0)["step"] == 20);
    let checkpoints = out.join("checkpoints");
    std::fs::rename(&checkpoints, out.join("moved")).unwrap();
    std::fs::write(&checkpoints, "in the way").unwrap();
    let ended = running.end();
    assert_eq!(ended.code, 0, "{}", ended.all_output());
    let warned = |line: &&str| {
        line.contains("the checkpoint of step 21") && line.contains(checkpoints.to_str().unwrap())
    };
    assert!(ended.stdout.lines().any(|line| warned(&line)), "{}", ended.all_output());
    assert!(out.join("moved/step-00000014/manifest.json").exists());
    assert_eq!(status(&out)["state"], "completed");
}

/// A clock of the day that jumps an hour ahead and back with every look; the monotonic one goes on.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
static __thread int looks;
static long jump(void) { return looks++ % 2 ? 3600 : -3600; }
int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int outcome = real(id, now);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) now->tv_sec += jump();
    return outcome;
}
int gettimeofday(struct timeval *now, void *zone) {
    struct timespec t;
    int outcome = clock_gettime(CLOCK_REALTIME, &t);
    now->tv_sec = t.tv_sec;
    now->tv_usec = t.tv_nsec / 1000;
    return outcome;
}
time_t time(time_t *at) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (at) *at = t.tv_sec;
    return t.tv_sec;
}
"#;

#[test]
fn a_clock_that_jumps_by_hours_changes_no_deadline_no_limit_and_no_result() {
    let folder = tempdir().unwrap();
    let (source, shim) = (folder.path().join("clock.c"), folder.path().join("clock.so"));
    std::fs::write(&source, CLOCK).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&shim, &source])
        .arg("-ldl")
        .status()
        .unwrap();
    assert!(built.success());
    let (whole, out) = (folder.path().join("whole"), folder.path().join("run"));
    train(Mpi::Open, 2, &whole).succeed();
    let job = |step: u64| {
        train(Mpi::Open, 2, &out)
            .set("train.max_time_s=600")
            .set("checkpoint.every_minutes=10")
            .set(fault(1, step, "kill", ""))
            .env("LD_PRELOAD", shim.to_str().unwrap())
    };
    assert_ne!(job(30).run().code, 0);
    job(1000).succeed();
    assert_eq!(hash(&whole), hash(&out));
    assert_eq!(metrics(&out, "step").len(), 48);
    // Saved at 7, 14 … and by no clock; the last three are kept.
    let kept = std::fs::read_dir(out.join("checkpoints")).unwrap().flatten();
    let mut kept: Vec<String> = kept
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("step-"))
        .collect();
    kept.sort();
    assert_eq!(kept, ["step-00000028", "step-00000035", "step-00000042"]);
}

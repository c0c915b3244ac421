//! A process killed, a machine without power, a disk that is full or fails, at every operation.

use crate::disks::{Fault, Faulty};
use crate::fixture::{Numbers, assert_same, copy, folder, names, newest, saved, snapshot};
use annulus::checkpoint::{Keep, Resume, RunLock, Store, find, sweep};
use annulus::error::Result;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::{TempDir, tempdir};

const KEEP: Keep = Keep { last: 2, best: false };

/// A folder with the checkpoints of steps 1 and 2, and copies of it.
struct Base(TempDir);

impl Base {
    fn new() -> Base {
        let base = Base(tempdir().unwrap());
        saved(&base.0.path().join("base"), KEEP, &[1, 2]);
        base
    }

    fn copy(&self) -> PathBuf {
        let dir = self.0.path().join("copy");
        let _ = fs::remove_dir_all(&dir);
        copy(&self.0.path().join("base"), &dir);
        dir
    }
}

/// Saves a later step on a sound disk. Not the real one: hundreds of real syncs would test no more
/// and take long on a busy machine.
fn goes_on(dir: &Path, step: u64) {
    let store = Store::on(dir, KEEP, Box::new(Faulty::default())).unwrap();
    assert_eq!(store.save(&snapshot(step)).unwrap().warnings, Vec::<String>::new());
}

fn save(dir: &Path, disk: &Faulty) -> Result<annulus::checkpoint::Saved> {
    Store::on(dir, KEEP, Box::new(disk.clone()))?.save(&snapshot(3))
}

fn left_overs(dir: &Path) -> usize {
    names(dir).iter().filter(|name| name.starts_with(".tmp-")).count()
}

/// What the next start must find, whatever happened: step 2 or 3, no damage in sight, and a folder
/// that works again. Gives the step.
fn restarts(dir: &Path, what: &str) -> u64 {
    let found = newest(dir);
    assert!(found.refused.is_empty(), "{what}: {:?}", found.refused);
    let step = found.snapshot.step;
    assert!([2, 3].contains(&step), "{what}: step {step}");
    let latest = fs::read_to_string(dir.join("latest")).unwrap();
    assert!(dir.join(latest.trim_end()).is_dir(), "{what}: latest names {latest}");
    assert_eq!(sweep(dir, true).warnings, Vec::<String>::new(), "{what}");
    assert_eq!(left_overs(dir), 0, "{what}");
    goes_on(dir, 4);
    assert_eq!(newest(dir).snapshot.step, 4, "{what}");
    assert_eq!(names(dir), ["latest", &format!("step-{step:08}"), "step-00000004"], "{what}");
    step
}

/// Kills the saving of step 3 after each operation; `after` is what then befalls the disk.
fn at_every_operation(after: impl Fn(&Faulty)) {
    let base = Base::new();
    let mut seen = BTreeSet::new();
    for at in 0.. {
        let dir = base.copy();
        let disk = Faulty::new(at, Fault::Kill);
        let outcome = save(&dir, &disk);
        after(&disk);
        seen.insert(restarts(&dir, &format!("killed after operation {at}")));
        if disk.done() <= at {
            // It was over before it could be killed.
            assert!(outcome.unwrap().warnings.is_empty());
            assert!(at > 30, "only {at} operations");
            break;
        }
    }
    assert_eq!(seen, BTreeSet::from([2, 3]));
}

#[test]
fn a_process_killed_at_any_operation_leaves_the_new_checkpoint_or_the_one_before() {
    at_every_operation(|_| ());
}

#[test]
fn so_does_a_power_cut_that_takes_back_all_that_was_not_synced() {
    at_every_operation(|disk| disk.cut_power(false));
}

#[test]
fn so_does_a_power_cut_after_which_names_are_there_and_contents_are_not() {
    at_every_operation(|disk| disk.cut_power(true));
}

#[test]
fn a_damaged_checkpoint_of_the_same_step_is_replaced_safely_too() {
    let base = Base::new();
    saved(&base.0.path().join("base"), Keep { last: 3, best: false }, &[3]);
    fs::write(folder(&base.0.path().join("base"), 3).join("state.json"), "{}").unwrap();
    for at in 0.. {
        let dir = base.copy();
        let disk = Faulty::new(at, Fault::Kill);
        let outcome = save(&dir, &disk);
        let found = newest(&dir);
        assert!([2, 3].contains(&found.snapshot.step), "operation {at}");
        assert!(sweep(&dir, true).warnings.is_empty(), "operation {at}");
        goes_on(&dir, 3);
        assert_eq!(newest(&dir).snapshot.step, 3, "operation {at}");
        assert_eq!(left_overs(&dir), 0, "operation {at}");
        if disk.done() <= at {
            assert!(outcome.is_ok() && at > 30);
            break;
        }
    }
}

#[test]
fn a_disk_that_fails_at_any_operation_harms_no_older_checkpoint_and_is_told_clearly() {
    use rustix::io::Errno;
    let base = Base::new();
    for (errno, code, advice) in [
        (Errno::NOSPC, 74, "Make room there"),
        (Errno::DQUOT, 74, "Make room there"),
        (Errno::IO, 74, "Look at the state of the disk"),
        (Errno::ROFS, 73, "Make the folder writable"),
        (Errno::ACCESS, 73, "Make the folder writable"),
    ] {
        let errno = errno.raw_os_error();
        for fault in [Fault::Once(errno), Fault::Full(errno)] {
            for at in 0.. {
                let dir = base.copy();
                let disk = Faulty::new(at, fault);
                let what = format!("{fault:?} at operation {at}");
                match save(&dir, &disk) {
                    Err(error) => {
                        assert_eq!(error.exit_code(), code, "{what}: {error}");
                        let os = std::io::Error::from_raw_os_error(errno).to_string();
                        let dir = dir.to_str().unwrap();
                        for part in ["of step 3 was not written", "are untouched", dir, &os, advice]
                        {
                            assert!(error.to_string().contains(part), "{what}: {error}");
                        }
                        assert_eq!(left_overs(Path::new(dir)), 0, "{what}");
                    }
                    // The new one counts; only an old one could not be removed.
                    Ok(saved) if disk.done() > at && !saved.warnings.is_empty() => {
                        assert!(saved.warnings[0].contains("could not be removed"), "{what}");
                    }
                    // Removing needs no room.
                    Ok(saved) => assert!(saved.warnings.is_empty(), "{what}"),
                }
                let found = newest(&dir);
                assert!(found.refused.is_empty(), "{what}: {:?}", found.refused);
                assert!(folder(&dir, 2).is_dir(), "{what}");
                goes_on(&dir, 4);
                if disk.done() <= at {
                    assert!(at > 30, "only {at} operations");
                    break;
                }
            }
        }
    }
}

#[test]
fn too_little_room_is_refused_before_anything_is_written_with_both_numbers() {
    let dir = Base::new().copy_kept();
    let disk = Faulty::with_room(1_000_000);
    let error = save(&dir.1, &disk).unwrap_err();
    assert_eq!(error.exit_code(), 74);
    assert!(error.to_string().contains("it needs 1.1 MB"), "{error}");
    assert!(error.to_string().contains("has 1.0 MB free"), "{error}");
    assert_eq!(disk.done(), 0);
    assert!(save(&dir.1, &Faulty::with_room(2_000_000)).is_ok());
}

#[test]
fn a_folder_that_vanished_or_cannot_be_made_is_told_with_its_path() {
    let (_base, dir) = Base::new().copy_kept();
    let store = Store::open(&dir, KEEP).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    let error = store.save(&snapshot(3)).unwrap_err();
    assert_eq!(error.exit_code(), 73);
    assert!(error.to_string().contains("Was the run folder removed"), "{error}");
    fs::write(&dir, "a file in the way").unwrap();
    let error = store.save(&snapshot(3)).unwrap_err();
    assert_eq!(error.exit_code(), 73, "{error}");
    let error = Store::open(&dir, KEEP).map(drop).unwrap_err();
    assert_eq!(error.exit_code(), 73);
    assert!(error.to_string().contains(dir.to_str().unwrap()), "{error}");
}

impl Base {
    /// A copy together with what keeps it alive.
    fn copy_kept(self) -> (Base, PathBuf) {
        let dir = self.copy();
        (self, dir)
    }
}

/// Not a test of its own: the process that is killed in the one below.
#[test]
#[ignore = "saves until it is killed"]
fn saver() {
    let run = PathBuf::from(std::env::var_os("SAVER_FOLDER").expect("the run folder"));
    let lock = RunLock::acquire(&run).unwrap();
    let dir = run.join("checkpoints");
    assert!(sweep(&dir, lock.is_exclusive()).warnings.is_empty());
    let found = find(&dir, &Resume::Auto).unwrap();
    let first = found.map_or(1, |found| found.snapshot.step + 1);
    let store = Store::open(&dir, KEEP).unwrap();
    println!("saving");
    for step in first.. {
        store.save(&snapshot(step)).unwrap();
    }
}

#[test]
fn a_hundred_kills_at_random_moments_cost_no_checkpoint_and_leave_nothing_behind() {
    let run = tempdir().unwrap();
    let dir = run.path().join("checkpoints");
    let mut numbers = Numbers(3);
    let mut reached = 0;
    // From the first operation to the middle of the second checkpoint, however fast the disk is.
    let began = Instant::now();
    saved(&run.path().join("trial"), KEEP, &[1]);
    let longest = 2 * began.elapsed().as_micros() as u64;
    for kill in 0..100 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "crashes::saver", "--nocapture"])
            .env("SAVER_FOLDER", run.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("saving")), "kill {kill}: it began");
        std::thread::sleep(Duration::from_micros(numbers.below(longest)));
        child.kill().unwrap();
        child.wait().unwrap();
        if let Some(found) = find(&dir, &Resume::Auto).unwrap() {
            assert!(found.refused.is_empty(), "kill {kill}: {:?}", found.refused);
            assert!(found.snapshot.step >= reached, "kill {kill}: went back");
            reached = found.snapshot.step;
            assert_same(&found.snapshot, &snapshot(reached));
        }
        assert!(left_overs(&dir) <= 2, "kill {kill}: {:?}", names(&dir));
    }
    assert!(reached > 0, "no checkpoint was written between 100 kills");
    assert!(sweep(&dir, true).warnings.is_empty());
    assert_eq!(left_overs(&dir), 0);
    println!("100 kills, {reached} checkpoints");
}

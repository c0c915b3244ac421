//! A checkpoint is whole or it is not there, and it comes back to the last bit.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "checkpoint/allocations.rs"]
mod allocations;
#[path = "checkpoint/crashes.rs"]
mod crashes;
#[path = "checkpoint/damage.rs"]
mod damage;
#[path = "checkpoint/disks.rs"]
mod disks;
#[path = "checkpoint/fixture.rs"]
mod fixture;

use annulus::checkpoint::model_file::{self, Named};
use annulus::checkpoint::{Group, Keep, Resume, RunLock, Snapshot, Store, Writer};
use annulus::checkpoint::{find, retire_newer, set_aside, sweep};
use annulus::util::files::Growing;
use disks::{Fault, Faulty};
use fixture::{assert_same, folder, names, newest, saved, snapshot};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::tempdir;

const ALL: Keep = Keep { last: 100, best: false };

#[test]
fn what_is_saved_comes_back_to_the_last_bit() {
    let run = tempdir().unwrap();
    let dir = run.path().join("checkpoints");
    saved(&dir, ALL, &[1234]);
    assert_eq!(names(&dir), ["latest", "step-00001234"]);
    assert_eq!(fs::read_to_string(dir.join("latest")).unwrap(), "step-00001234\n");
    let found = newest(&dir);
    assert_eq!(found.path, folder(&dir, 1234));
    assert!(found.program.starts_with("annulus ") && found.written.starts_with("20"), "{found:?}");
    // The model alone can be used as any other model file.
    let model = model_file::load(&found.path.join("model.safetensors")).unwrap();
    assert_eq!(model.len(), snapshot(1234).group("model").unwrap().len());
}

#[test]
fn a_checkpoint_does_not_count_before_the_metrics_it_belongs_to_are_on_the_disk() {
    let run = tempdir().unwrap();
    let dir = run.path().join("checkpoints");
    let store = saved(&dir, ALL, &[1]);
    // A pipe can be written, but there is no disk behind it: the sync fails.
    let (_reader, pipe) = std::io::pipe().unwrap();
    let metrics = Growing::new(Path::new("metrics.jsonl"), OwnedFd::from(pipe).into());
    metrics.append(b"{}\n").unwrap();
    let error = store.save(&Snapshot { companions: vec![metrics], ..snapshot(2) }).unwrap_err();
    assert!(error.to_string().contains("metrics.jsonl"), "{error}");
    assert_eq!(newest(&dir).snapshot.step, 1);
    assert_eq!(names(&dir), ["latest", "step-00000001"]);
}

#[test]
fn a_snapshot_that_could_not_be_read_back_is_not_written() {
    let run = tempdir().unwrap();
    let store = saved(&run.path().join("checkpoints"), ALL, &[1]);
    let broken = |change: &dyn Fn(&mut Snapshot)| {
        let mut snapshot = snapshot(2);
        change(&mut snapshot);
        let error = store.save(&snapshot).unwrap_err();
        assert_eq!(error.exit_code(), 70);
        error.to_string()
    };
    let name = |s: &mut Snapshot, name: &str| s.groups[0].name = name.to_owned();
    assert!(broken(&|s| name(s, "../best")).contains("no name for a group"));
    assert!(broken(&|s| name(s, "model")).contains("lists model.safetensors twice"));
    assert!(broken(&|s| s.world_size = 0).contains("world_size is 0"));
    assert!(broken(&|s| s.card = " ".repeat(2 << 20)).contains("the card has"));
    assert!(broken(&|s| s.groups[1].tensors[0].shape = vec![7]).contains("\"conv1.bias\" has 6"));
    assert_eq!(names(store.path()), ["latest", "step-00000001"]);
}

#[test]
fn pruning_keeps_the_last_and_the_best() {
    let run = tempdir().unwrap();
    let dir = run.path().join("checkpoints");
    let store = Store::open(&dir, Keep { last: 2, best: true }).unwrap();
    let mut removed = Vec::new();
    for (step, score) in [(1, 0.1), (2, 0.9), (3, 0.5), (4, f64::NAN), (5, 0.9), (6, 0.2)] {
        let saved = store.save(&Snapshot { score: Some(score), ..snapshot(step) }).unwrap();
        assert!(saved.warnings.is_empty());
        removed.extend(saved.removed);
    }
    assert_eq!(removed, [1, 3, 4]);
    assert_eq!(names(&dir), ["latest", "step-00000002", "step-00000005", "step-00000006"]);
    let found = find(&dir, &Resume::Path(folder(&dir, 2))).unwrap().unwrap();
    assert_eq!(found.snapshot.score, Some(0.9));
}

#[test]
fn the_same_step_again_is_left_alone_when_it_is_sound_and_replaced_when_it_is_not() {
    let run = tempdir().unwrap();
    let dir = run.path().join("checkpoints");
    saved(&dir, ALL, &[7]);
    let manifest = || fs::read(folder(&dir, 7).join("manifest.json")).unwrap();
    let first = manifest();
    std::thread::sleep(Duration::from_millis(1100)); // The manifest has the time in seconds.
    saved(&dir, ALL, &[7]);
    assert_eq!(manifest(), first);
    fs::write(folder(&dir, 7).join("model.safetensors"), "damaged").unwrap();
    saved(&dir, ALL, &[7]);
    assert_ne!(manifest(), first);
    assert_eq!(names(&dir), ["latest", "step-00000007"]);
    newest(&dir);
}

#[test]
fn left_overs_of_dead_writers_are_swept_and_those_of_living_ones_are_not() {
    let run = tempdir().unwrap();
    let dir = run.path().join("checkpoints");
    saved(&dir, ALL, &[1]);
    assert!(sweep(&run.path().join("nowhere"), true).removed.is_empty());
    let host = annulus::util::whereabouts::host_name();
    // Process 1 always lives; no process has the number 4,000,000,000.
    let living = format!(".tmp-step-00000002-{host}-1");
    let dead = format!(".tmp-old-step-00000002-{host}-4000000000");
    for name in [&living, &dead] {
        fs::create_dir(dir.join(name)).unwrap();
        fs::write(dir.join(name).join("model.safetensors"), "half").unwrap();
    }
    fs::write(dir.join(format!(".tmp-latest-{host}-4000000000")), "step").unwrap();
    let swept = sweep(&dir, false);
    assert_eq!(swept.removed.len(), 2, "{swept:?}");
    assert!(swept.warnings[0].contains(&living), "{swept:?}");
    assert_eq!(names(&dir), [&living, "latest", "step-00000001"]);
    // With the lock in hand a process of that number cannot be a writer.
    assert_eq!(sweep(&dir, true).removed, [dir.join(&living)]);
    assert_eq!(names(&dir), ["latest", "step-00000001"]);
}

#[test]
fn a_future_that_was_given_up_does_not_come_back() {
    let run = tempdir().unwrap();
    let dir = run.path().join("checkpoints");
    saved(&dir, ALL, &[1, 2, 3]);
    assert_eq!(retire_newer(&dir, 1).unwrap().len(), 2);
    assert_eq!(newest(&dir).snapshot.step, 1);
    saved(&dir, Keep { last: 1, best: false }, &[2]);
    assert_eq!(retire_newer(&dir, 1).unwrap(), [dir.join("retired-step-00000002-2")]);
    assert!(retire_newer(&run.path().join("nowhere"), 1).unwrap().is_empty());
    let aside = set_aside(&dir).unwrap().unwrap();
    assert_eq!(aside, run.path().join("checkpoints.old-1"));
    assert!(!dir.exists() && aside.join("retired-step-00000003-1").is_dir());
    assert_eq!(set_aside(&dir).unwrap(), None);
    saved(&dir, ALL, &[5]);
    assert_eq!(set_aside(&dir).unwrap().unwrap(), run.path().join("checkpoints.old-2"));
}

#[test]
fn the_writer_has_one_snapshot_in_flight_and_measures_the_wait_for_it() {
    let run = tempdir().unwrap();
    let dir = run.path().join("checkpoints");
    fs::create_dir(&dir).unwrap();
    let slow = Faulty::slow(Duration::from_millis(5));
    let mut writer = Writer::start(Store::on(&dir, ALL, Box::new(slow)).unwrap()).unwrap();
    let began = Instant::now();
    assert!(writer.wait().unwrap().is_none() && writer.poll().unwrap().is_none());
    assert!(writer.submit(snapshot(1)).unwrap().is_none());
    let handed_over = began.elapsed();
    assert!(writer.poll().unwrap().is_none(), "27 operations of 5 ms are ahead of it");
    assert_eq!(writer.submit(snapshot(2)).unwrap().unwrap().step, 1);
    assert!(began.elapsed() > Duration::from_millis(120), "{:?}", began.elapsed());
    assert!(handed_over < began.elapsed() / 2, "{handed_over:?}");
    assert_same(&writer.spare(), &snapshot(1));
    assert_eq!(writer.wait().unwrap().unwrap().step, 2);
    let totals = writer.totals();
    assert_eq!((totals.written, totals.failed), (2, 0));
    // Both snapshots were waited for; waking up takes time, too, so neither bounds the other.
    assert!(totals.waited > Duration::from_millis(240), "{totals:?}");
    assert!(totals.writing > Duration::from_millis(240), "{totals:?}");
    assert_eq!(names(&dir), ["latest", "step-00000001", "step-00000002"]);
}

#[test]
fn an_error_of_the_writer_comes_with_the_next_call_and_the_next_snapshot_is_written_all_the_same() {
    let run = tempdir().unwrap();
    let dir = run.path().join("checkpoints");
    fs::create_dir(&dir).unwrap();
    let disk = Faulty::new(5, Fault::Once(rustix::io::Errno::NOSPC.raw_os_error()));
    let mut writer = Writer::start(Store::on(&dir, ALL, Box::new(disk)).unwrap()).unwrap();
    assert!(writer.submit(snapshot(1)).is_ok());
    let error = writer.submit(snapshot(2)).unwrap_err();
    assert_eq!(error.exit_code(), 74);
    assert!(error.to_string().contains("step 1 was not written"), "{error}");
    // Dropped in flight: written to its end.
    drop(writer);
    assert_eq!(newest(&dir).snapshot.step, 2);
}

/// Not a test of its own: the other process of the one below.
#[test]
#[ignore = "holds a lock until it is killed"]
fn lock_holder() {
    let folder = std::env::var_os("LOCK_HOLDER_FOLDER").expect("the folder to lock");
    let _lock = RunLock::acquire(folder.as_ref()).unwrap();
    println!("locked");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn the_lock_of_another_process_is_refused_by_its_name_and_ends_when_it_is_killed() {
    let run = tempdir().unwrap();
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "lock_holder", "--nocapture"])
        .env("LOCK_HOLDER_FOLDER", run.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("locked")), "it took the lock");
    let began = Instant::now();
    let error = RunLock::acquire(run.path()).unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(error.exit_code(), 73);
    assert!(error.to_string().contains(&format!("(pid {}), since 20", holder.id())), "{error}");
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(RunLock::acquire(run.path()).unwrap().is_exclusive());
}

/// Prints how long 64 MiB take; how fast a disk is, is no promise of ours.
#[test]
fn a_snapshot_of_64_mib_is_written_and_read_without_a_copy() {
    let run = tempdir().unwrap();
    let dir = run.path().join("checkpoints");
    let tensor = |i: usize| {
        let values = (0..1 << 20).map(|j| (i * j) as f32).collect();
        Named { name: format!("layer{i:02}.weight"), shape: vec![1024, 1024], values }
    };
    let tensors: Vec<Named> = (0..16).map(tensor).collect();
    let groups = vec![Group { name: "model".to_owned(), tensors }];
    let large = Snapshot { groups, ..snapshot(1) };
    let store = Store::open(&dir, ALL).unwrap();
    let (saved, writing) = allocations::peak_of(|| store.save(&large).unwrap());
    let began = Instant::now();
    let (found, reading) = allocations::peak_of(|| find(&dir, &Resume::Auto).unwrap().unwrap());
    let took = began.elapsed();
    println!(
        "64 MiB: written and synced in {:.0} ms with {} kB of memory, read and checked in {:.0} ms \
         with {:.1} MiB",
        saved.took.as_secs_f64() * 1e3,
        writing / 1000,
        took.as_secs_f64() * 1e3,
        reading as f64 / f64::from(1 << 20)
    );
    assert_same(&found.snapshot, &large);
    assert!(writing < 4 << 20, "{writing} bytes to write");
    assert!(reading < 66 << 20, "{reading} bytes to read");
}

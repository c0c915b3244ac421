//! `ranks/NNNN.json` in the run folder: one file a rank, renewed twice a second while the run goes on,
//! by a thread that does nothing else. When a rank falls silent, its file tells where it was last.
//!
//! The thread shares nothing with the training loop but a few atomics, and a file costs some 100 µs
//! twice a second. What cannot be written is left out: a heartbeat must not end a run.

use crate::error::{Error, Result};
use crate::util::whereabouts::Phase;
use crate::util::{flight, whereabouts};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Name of the folder in the run folder.
pub const RANKS: &str = "ranks";
/// How often a rank writes.
const EVERY: Duration = Duration::from_millis(500);
/// A heart that has not beaten for so long has stopped: four beats.
const STILL: f64 = 2.0;
/// In the folder: which job the files are of.
const JOB: &str = "job";
/// Far more than any of the files takes.
const MAX_BYTES: u64 = 64 << 10;

/// What a rank last said of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sign {
    /// The rank.
    pub rank: usize,
    /// Its host.
    pub host: String,
    /// Its process id.
    pub pid: u32,
    /// `running`, or `failed` as its last word.
    pub state: String,
    /// The optimizer step, counted from 1; 0 before the first.
    pub step: u64,
    /// What it did there.
    pub phase: String,
    /// Number of the last collective that it began.
    pub collective: u64,
    /// The gradient bucket that was being reduced.
    pub bucket: Option<usize>,
    /// Seconds from the last progress to this beat.
    pub age_s: f64,
    /// When this was written, in seconds since 1970.
    pub beat_unix_s: f64,
    /// The same by the host's clock that is never set: seconds since it started.
    pub beat_monotonic_s: f64,
}

impl Sign {
    /// What this process says now; `moved` is when it last progressed ([`flight::monotonic`]).
    fn now(rank: usize, state: &str, moved: Duration) -> Sign {
        let (place, now) = (whereabouts::place(), flight::monotonic());
        Sign {
            rank,
            host: whereabouts::host_name(),
            pid: std::process::id(),
            state: state.to_owned(),
            step: place.step,
            phase: place.phase.name().to_owned(),
            collective: place.collective,
            bucket: place.bucket,
            age_s: seconds(now.saturating_sub(moved)),
            beat_unix_s: unix_now(),
            beat_monotonic_s: seconds(now),
        }
    }

    /// Whether it is of this host, whose monotonic clock is then the same.
    #[must_use]
    pub fn is_of_this_host(&self) -> bool {
        self.host == whereabouts::host_name()
    }

    /// Seconds since it was written. Between hosts by the clocks of both, which may disagree.
    #[must_use]
    pub fn beat_age_s(&self) -> f64 {
        let now = if self.is_of_this_host() {
            seconds(flight::monotonic()) - self.beat_monotonic_s
        } else {
            unix_now() - self.beat_unix_s
        };
        now.max(0.0)
    }

    /// Seconds since the rank last made progress, as far as this tells.
    #[must_use]
    pub fn progress_age_s(&self) -> f64 {
        self.beat_age_s() + self.age_s
    }

    /// Whether the rank is at something that may take longer than a step.
    #[must_use]
    pub fn is_at_length(&self) -> bool {
        let long = [Phase::Startup, Phase::Evaluation, Phase::Saving];
        long.iter().any(|phase| phase.name() == self.phase)
    }

    /// Whether the heart still beat a moment ago: then the process is alive and busy.
    #[must_use]
    pub fn beats(&self) -> bool {
        self.state == "running" && self.beat_age_s() < STILL
    }
}

/// Makes the folder of a new job, on the rank that has the run folder; gives what the other ranks
/// know the job by.
///
/// # Errors
/// When it cannot be written.
pub fn prepare(run_folder: &Path) -> Result<Vec<u8>> {
    let ranks = run_folder.join(RANKS);
    fs::create_dir_all(&ranks).map_err(|e| Error::writing(&ranks, &e))?;
    let entries = fs::read_dir(&ranks).map_err(|e| Error::reading(&ranks, &e))?;
    for entry in entries.flatten() {
        // Signs of an earlier job. One that stays behind is overwritten by its rank.
        let _ = fs::remove_file(entry.path());
    }
    let job = format!("{} {} {}", whereabouts::host_name(), std::process::id(), unix_now());
    let path = ranks.join(JOB);
    fs::write(&path, &job).map_err(|e| Error::writing(&path, &e))?;
    Ok(job.into_bytes())
}

/// Whether `run_folder`, as this rank sees it, is the folder that was prepared for `job`.
#[must_use]
pub fn is_shared(run_folder: &Path, job: &[u8]) -> bool {
    fs::read(run_folder.join(RANKS).join(JOB)).is_ok_and(|found| found == job)
}

/// The last signs of all ranks but those that left none.
#[must_use]
pub fn signs(run_folder: &Path, size: usize) -> Vec<Option<Sign>> {
    (0..size).map(|rank| read(&file(run_folder, rank))).collect()
}

fn read(path: &Path) -> Option<Sign> {
    let mut text = Vec::new();
    fs::File::open(path).ok()?.take(MAX_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

fn file(run_folder: &Path, rank: usize) -> PathBuf {
    run_folder.join(RANKS).join(format!("{rank:04}.json"))
}

/// A beating heart. Dropped, it leaves a last sign, `failed`.
pub struct Heartbeat {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
    rank: usize,
}

impl Heartbeat {
    /// Begins to beat for `rank` in the run folder. The first sign is there on return.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(run_folder: &Path, rank: usize) -> Result<Heartbeat> {
        let (stop, stopped) = channel();
        let path = file(run_folder, rank);
        flight::note(whereabouts::place());
        write(&path, &Sign::now(rank, "running", flight::last_progress()));
        let beat = path.clone();
        let work = move || {
            let mut seen = (whereabouts::place(), flight::last_progress());
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                let place = whereabouts::place();
                // A collective leaves no event: that its number moved is seen here.
                let moved = if place == seen.0 { seen.1 } else { flight::monotonic() };
                seen = (place, moved.max(flight::last_progress()));
                write(&beat, &Sign::now(rank, "running", seen.1));
            }
        };
        let thread = std::thread::Builder::new()
            .name("annulus-heart".into())
            .spawn(work)
            .map_err(|e| Error::Internal(format!("cannot start the heartbeat's thread: {e}")))?;
        Ok(Heartbeat { stop: Some(stop), thread: Some(thread), path, rank })
    }

    /// A good end: nothing is left to tell.
    pub fn end_well(mut self) {
        self.stop();
        let _ = fs::remove_file(&self.path);
        if self.rank == 0 {
            let _ = fs::remove_file(self.path.with_file_name(JOB));
        }
    }

    /// Ends the thread; false if it had ended before.
    fn stop(&mut self) -> bool {
        self.stop = None;
        // The thread cannot panic; if it did, there is nothing to add.
        self.thread.take().is_some_and(|thread| thread.join().is_ok())
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        if self.stop() {
            write(&self.path, &Sign::now(self.rank, "failed", flight::last_progress()));
        }
    }
}

/// Replaces the file at once, without a sync: it is for processes that run now.
fn write(path: &Path, sign: &Sign) {
    let temporary = path.with_extension("tmp");
    let Ok(mut text) = serde_json::to_vec(sign) else { return };
    text.push(b'\n');
    if fs::write(&temporary, text).is_ok() {
        let _ = fs::rename(&temporary, path);
    }
}

fn seconds(time: Duration) -> f64 {
    // Microseconds: enough for people, and short in the file.
    (time.as_secs_f64() * 1e6).round() / 1e6
}

fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heart_beats_until_the_end_and_leaves_nothing_when_that_was_good() {
        let folder = tempfile::tempdir().unwrap();
        let job = prepare(folder.path()).unwrap();
        assert!(is_shared(folder.path(), &job));
        assert!(!is_shared(folder.path(), b"another job"));
        let heart = Heartbeat::start(folder.path(), 3).unwrap();
        let signs = signs(folder.path(), 5);
        assert_eq!(signs.iter().filter(|sign| sign.is_some()).count(), 1);
        let sign = signs[3].clone().unwrap();
        assert_eq!((sign.rank, sign.pid), (3, std::process::id()));
        assert!(sign.beats() && sign.is_of_this_host());
        heart.end_well();
        assert_eq!(read(&file(folder.path(), 3)), None);
    }

    #[test]
    fn a_bad_end_leaves_a_last_sign_and_the_next_job_clears_it() {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path()).unwrap();
        drop(Heartbeat::start(folder.path(), 0).unwrap());
        let last = signs(folder.path(), 1)[0].clone().unwrap();
        assert_eq!(last.state, "failed");
        assert!(!last.beats());
        prepare(folder.path()).unwrap();
        assert_eq!(signs(folder.path(), 1), [None]);
    }

    #[test]
    fn ages_are_of_the_monotonic_clock_here_and_of_the_calendar_elsewhere() {
        let mut sign = Sign::now(0, "running", flight::monotonic());
        sign.age_s = 1.5;
        // A clock that was set back by an hour does not make the sign of this host older.
        sign.beat_unix_s -= 3600.0;
        assert!(sign.beats() && (1.5..3.0).contains(&sign.progress_age_s()), "{sign:?}");
        sign.host = "elsewhere".to_owned();
        assert!(!sign.beats() && sign.beat_age_s() > 3590.0, "{sign:?}");
    }

    #[test]
    fn nonsense_in_a_file_is_no_sign() {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path()).unwrap();
        fs::write(file(folder.path(), 0), vec![b'['; 200_000]).unwrap();
        assert_eq!(signs(folder.path(), 1), [None]);
    }
}

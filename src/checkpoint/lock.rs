//! One job per run folder: two that write the same files destroy each other's work without a word.
//!
//! The lock is the kernel's (`flock`), so it ends with the process, however that ends. The file `lock`
//! only says who holds it. Where the file system refuses locks (some network file systems do), the
//! file alone has to do: it stops a second job on the same host, and the warning says what it cannot.

use crate::error::{Error, Result};
use crate::util::{clock, processes, whereabouts};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

/// Name of the file in the run folder.
const NAME: &str = "lock";
/// More than any host name takes.
const MAX_BYTES: u64 = 4096;

/// The run folder belongs to this process until this is dropped or the process ends.
#[derive(Debug)]
pub struct RunLock {
    file: File,
    warning: Option<String>,
}

/// Who holds the lock.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    host: String,
    pid: u32,
    since: String,
}

impl RunLock {
    /// Takes the lock of a run folder, which must be there.
    ///
    /// # Errors
    /// [`Error::CannotCreate`] naming host, process and start of the job that has it, or when the
    /// file cannot be written.
    pub fn acquire(run_folder: &Path) -> Result<RunLock> {
        RunLock::acquire_by(run_folder, |file| {
            rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive)
        })
    }

    /// Takes a share of the lock: others may have theirs, but nobody all of it.
    ///
    /// # Errors
    /// As [`RunLock::acquire`].
    pub fn share(run_folder: &Path) -> Result<RunLock> {
        RunLock::acquire_by(run_folder, |file| {
            rustix::fs::flock(file, FlockOperation::NonBlockingLockShared)
        })
    }

    /// Whether a job has the run folder; where the file system refuses locks, nobody knows.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn is_taken(run_folder: &Path) -> Result<bool> {
        let path = run_folder.join(NAME);
        match OpenOptions::new().read(true).write(true).open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::writing(&path, &e)),
            Ok(file) => {
                let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
                Ok(locked == Err(Errno::WOULDBLOCK))
            }
        }
    }

    /// Why two jobs could still meet here, where the file system refuses locks: to be told.
    #[must_use]
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Whether no other job can hold it, on whatever host.
    #[must_use]
    pub fn is_exclusive(&self) -> bool {
        self.warning.is_none()
    }

    fn acquire_by(
        run_folder: &Path,
        lock: impl Fn(&File) -> std::result::Result<(), Errno>,
    ) -> Result<RunLock> {
        let path = run_folder.join(NAME);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| Error::writing(&path, &e))?;
        let locked = loop {
            match lock(&file) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        let holder = read_holder(&mut file);
        let warning = match locked {
            Ok(()) => None,
            Err(Errno::WOULDBLOCK) => return Err(taken(run_folder, holder)),
            Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOLCK | Errno::INVAL) => {
                Some(without_lock(run_folder, &path, holder, locked)?)
            }
            Err(e) => return Err(Error::writing(&path, &io::Error::from(e))),
        };
        write_holder(&mut file).map_err(|e| Error::writing(&path, &e))?;
        Ok(RunLock { file, warning })
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // An empty file says that nobody is at work. The lock itself ends with the file's closing;
        // the file stays, because removing it could take it from under a job that just opened it.
        let _ = self.file.set_len(0);
    }
}

/// The file alone decides: refuses when its process is alive on this host, warns otherwise.
fn without_lock(
    run_folder: &Path,
    path: &Path,
    holder: Option<Holder>,
    locked: std::result::Result<(), Errno>,
) -> Result<String> {
    let reason = locked.err().map(io::Error::from).map_or(String::new(), |e| format!(" ({e})"));
    let mut warning = format!(
        "the file system of {} refuses locks{reason}: a second job on the same run folder from \
         another host would not be noticed",
        path.display()
    );
    if let Some(holder) = holder {
        if holder.host != whereabouts::host_name() {
            warning.push_str(&format!(
                "; the last one was on {} (pid {}) from {}: make sure that it has ended",
                holder.host.escape_debug(),
                holder.pid,
                holder.since.escape_debug()
            ));
        } else if holder.pid != std::process::id() && processes::is_alive(holder.pid) {
            return Err(taken(run_folder, Some(holder)));
        }
    }
    Ok(warning)
}

fn taken(run_folder: &Path, holder: Option<Holder>) -> Error {
    // The job that has the lock may be about to write its name.
    let who = holder.map_or("another job".to_owned(), |h| {
        let (host, since) = (h.host.escape_debug(), h.since.escape_debug());
        format!("a job on {host} (pid {}), since {since}", h.pid)
    });
    Error::CannotCreate(format!(
        "the run folder {} is in use by {who}. Wait for it or end it, or give another run folder",
        run_folder.display()
    ))
}

fn read_holder(file: &mut File) -> Option<Holder> {
    let mut text = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

fn write_holder(file: &mut File) -> io::Result<()> {
    let (host, pid) = (whereabouts::host_name(), std::process::id());
    let mut text = serde_json::to_vec(&Holder { host, pid, since: clock::now() })?;
    text.push(b'\n');
    file.set_len(0)?;
    io::Seek::rewind(file)?;
    file.write_all(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_job_is_refused_and_told_who_has_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let first = RunLock::acquire(folder.path()).unwrap();
        assert!(first.is_exclusive() && first.warning().is_none());
        let error = RunLock::acquire(folder.path()).unwrap_err();
        assert_eq!(error.exit_code(), 73);
        let pid = format!("(pid {}), since 20", std::process::id());
        for part in [folder.path().to_str().unwrap(), &whereabouts::host_name(), &pid] {
            assert!(error.to_string().contains(part), "{error}");
        }
        drop(first);
        assert_eq!(std::fs::read(folder.path().join(NAME)).unwrap(), b"");
        assert!(RunLock::acquire(folder.path()).is_ok());
    }

    #[test]
    fn shares_stand_beside_each_other_and_against_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!RunLock::is_taken(folder.path()).unwrap());
        let shares =
            [RunLock::share(folder.path()).unwrap(), RunLock::share(folder.path()).unwrap()];
        assert!(RunLock::is_taken(folder.path()).unwrap());
        assert_eq!(RunLock::acquire(folder.path()).unwrap_err().exit_code(), 73);
        drop(shares);
        assert!(!RunLock::is_taken(folder.path()).unwrap());
        let whole = RunLock::acquire(folder.path()).unwrap();
        assert_eq!(RunLock::share(folder.path()).unwrap_err().exit_code(), 73);
        drop(whole);
    }

    #[test]
    fn where_locks_are_refused_the_file_still_stops_a_living_job_of_this_host() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        let refusing = |_: &File| Err(Errno::OPNOTSUPP);
        let holder = |host: &str, pid: u32| {
            let since = "2026-03-04T05:06:07Z".to_owned();
            let text = serde_json::to_vec(&Holder { host: host.to_owned(), pid, since }).unwrap();
            std::fs::write(&path, text).unwrap();
        };
        let lock = RunLock::acquire_by(folder.path(), refusing).unwrap();
        assert!(!lock.is_exclusive());
        assert!(lock.warning().unwrap().contains("refuses locks"), "{lock:?}");
        drop(lock);
        // Process 1 is always alive.
        holder(&whereabouts::host_name(), 1);
        let error = RunLock::acquire_by(folder.path(), refusing).unwrap_err();
        assert!(error.to_string().contains("(pid 1), since 2026-03-04T05:06:07Z"), "{error}");
        holder(&whereabouts::host_name(), 4_000_000_000);
        assert!(RunLock::acquire_by(folder.path(), refusing).is_ok());
        holder("elsewhere", 1);
        let lock = RunLock::acquire_by(folder.path(), refusing).unwrap();
        assert!(lock.warning().unwrap().contains("the last one was on elsewhere (pid 1)"));
    }

    #[test]
    fn nonsense_in_the_file_and_other_errors_are_survived_or_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(NAME), [0xff; 9000]).unwrap();
        assert!(RunLock::acquire(folder.path()).is_ok());
        let broken = |_: &File| Err(Errno::IO);
        assert_eq!(RunLock::acquire_by(folder.path(), broken).unwrap_err().exit_code(), 74);
        let missing = RunLock::acquire(&folder.path().join("missing")).unwrap_err();
        assert_eq!(missing.exit_code(), 73);
    }
}

//! `status.json`: what became of the run, for scripts. Exit codes of launchers cannot be trusted
//! (MPICH turns some into others); this file can: `completed` is written last of all.

use crate::error::{Error, Result};
use crate::util::{files, processes, whereabouts};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Name of the file in the run folder.
pub const STATUS: &str = "status.json";
/// Far more than a status takes, with the hashes of ten thousand ranks.
const MAX_BYTES: u64 = 1 << 20;

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not ended, or killed without a word.
    Running,
    /// Ended as the card says.
    Completed,
    /// Saved and left, as it was told to: by a signal, its time limit or the file `STOP`.
    Preempted,
    /// Saved and left, because somebody ended the job (SIGTERM, SIGINT).
    Interrupted,
    /// Ended with an error.
    Failed,
}

/// The content of the file.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// How far the run has come.
    pub state: State,
    /// The exit code of the process; null while it runs.
    pub exit_code: Option<u8>,
    /// Why it ended, in words.
    pub reason: Option<String>,
    /// Optimizer steps done.
    pub step: u64,
    /// BLAKE3 of all parameters in name order, once completed.
    pub params_hash: Option<String>,
    /// The same hash as each rank found it for itself, by rank: all equal.
    pub params_hashes: Vec<String>,
    /// Number of ranks.
    pub world_size: usize,
    /// Host of the rank that wrote this.
    pub host: String,
    /// Its process id.
    pub pid: u32,
    /// Version of annulus.
    pub version: &'static str,
}

impl Status {
    /// A run that has just begun.
    #[must_use]
    pub fn running(world_size: usize) -> Status {
        Status {
            state: State::Running,
            exit_code: None,
            reason: None,
            step: 0,
            params_hash: None,
            params_hashes: Vec::new(),
            world_size,
            host: whereabouts::host_name(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// Writes the file whole.
    ///
    /// # Errors
    /// When the run folder cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::Internal(format!("cannot write the status: {e}")))?;
        text.push(b'\n');
        files::write_whole(path, &text)
    }
}

/// A run that ended without a word (SIGKILL, a machine that died) left `running` behind: marks it
/// `failed`, and gives the step and process that it ended with, to be told. `alone`: whether the lock
/// proves that no other job is at work; else a process of this host must be gone.
pub fn close_dead(run_folder: &Path, alone: bool) -> Option<String> {
    let path = run_folder.join(STATUS);
    let mut status = read(&path)?;
    let host = status.get("host")?.as_str()?.to_owned();
    let pid = u32::try_from(status.get("pid")?.as_u64()?).ok()?;
    let gone = host == whereabouts::host_name() && !processes::is_alive(pid);
    if status.get("state")? != "running" || !(alone || gone) {
        return None;
    }
    let reason = format!("ended without a word: rank 0 on {} (pid {pid})", host.escape_debug());
    end(&mut status, None, &reason);
    write(&path, &status).ok()?;
    Some(format!("the run before {reason}; its status is now failed"))
}

/// Whether the run folder's status says `failed`.
#[must_use]
pub fn is_failed(run_folder: &Path) -> bool {
    read(&run_folder.join(STATUS))
        .is_some_and(|status| status.get("state") == Some(&json!("failed")))
}

/// Marks a run that still seems to go on as failed: for the other ranks, when rank 0 cannot.
pub fn fail_for_rank_0(run_folder: &Path, code: u8, reason: &str) {
    let path = run_folder.join(STATUS);
    if let Some(mut status) =
        read(&path).filter(|status| status.get("state") == Some(&json!("running")))
    {
        end(&mut status, Some(code), reason);
        // The job ends with an error that is told elsewhere.
        let _ = write(&path, &status);
    }
}

fn end(status: &mut Map<String, Value>, code: Option<u8>, reason: &str) {
    status.insert("state".to_owned(), json!(State::Failed));
    status.insert("exit_code".to_owned(), json!(code));
    status.insert("reason".to_owned(), json!(reason));
}

/// The content of the file at `path`, if it can be read.
#[must_use]
pub fn read(path: &Path) -> Option<Map<String, Value>> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(MAX_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

fn write(path: &Path, status: &Map<String, Value>) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(status)
        .map_err(|e| Error::Internal(format!("cannot write the status: {e}")))?;
    text.push(b'\n');
    files::write_whole(path, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(folder: &Path, host: &str, pid: u32, state: State) {
        let host = host.to_owned();
        let status = Status { host, pid, state, ..Status::running(2) };
        status.write(&folder.join(STATUS)).unwrap();
    }

    #[test]
    fn a_status_left_at_running_by_a_dead_process_becomes_failed() {
        let folder = tempfile::tempdir().unwrap();
        let here = whereabouts::host_name();
        assert_eq!(close_dead(folder.path(), true), None);
        for (host, pid, alone) in [(&*here, 4_000_000_000, false), ("elsewhere", 1, true)] {
            left(folder.path(), host, pid, State::Running);
            assert!(close_dead(folder.path(), alone).unwrap().contains("without a word"));
            let status = read(&folder.path().join(STATUS)).unwrap();
            assert_eq!((&status["state"], &status["exit_code"]), (&json!("failed"), &Value::Null));
            assert!(status["reason"].as_str().unwrap().contains(&format!("on {host} (pid {pid})")));
            assert_eq!(close_dead(folder.path(), alone), None, "told once");
        }
        // Alive, or on another host and no lock: nobody knows that it has ended.
        for (host, pid) in [(&*here, 1), ("elsewhere", 4_000_000_000)] {
            left(folder.path(), host, pid, State::Running);
            assert_eq!(close_dead(folder.path(), false), None);
        }
    }

    #[test]
    fn a_survivor_speaks_for_rank_0_unless_that_has_spoken_itself() {
        let folder = tempfile::tempdir().unwrap();
        left(folder.path(), "h", 1, State::Running);
        fail_for_rank_0(folder.path(), 69, "rank 0 is silent");
        fail_for_rank_0(folder.path(), 70, "too late");
        let status = read(&folder.path().join(STATUS)).unwrap();
        assert!(is_failed(folder.path()));
        assert_eq!(status["exit_code"], 69);
        assert_eq!(status["reason"], "rank 0 is silent");
        assert_eq!(status["world_size"], 2, "the rest stays");
    }
}

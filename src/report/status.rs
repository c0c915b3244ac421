//! `status.json`: what became of the run, for scripts. Exit codes of launchers cannot be trusted
//! (MPICH turns some into others); this file can: `completed` is written last of all.

use crate::error::{Error, Result};
use crate::util::{files, whereabouts};
use serde::Serialize;
use std::path::Path;

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

//! The run folder: where everything that a run leaves behind lies.
//!
//! `card.json` the checked card · `metrics.jsonl` · `status.json` · `model.safetensors`

use super::lines::Lines;
use super::metrics::Record;
use super::status::{self, STATUS, State, Status};
use crate::error::{Error, Result};
use crate::util::files;
use std::path::{Path, PathBuf};

/// The files of a run that is going on, written by rank 0.
pub struct RunFolder {
    path: PathBuf,
    metrics: Lines,
    status: Status,
}

/// Name of the final model inside a run folder.
pub const MODEL: &str = "model.safetensors";

impl RunFolder {
    /// Creates the folder, or takes an existing one over, and writes the card and a first status. With
    /// `metrics_bytes` the metrics go on after so many bytes, else they start anew.
    ///
    /// # Errors
    /// [`Error::CannotCreate`] when the folder or a file in it cannot be written; [`Error::Data`] when
    /// the metrics are not those to go on with.
    pub fn create(
        path: &Path,
        card_json: &str,
        world_size: usize,
        metrics_bytes: Option<u64>,
    ) -> Result<RunFolder> {
        std::fs::create_dir_all(path).map_err(|e| {
            Error::CannotCreate(format!("cannot create the run folder {}: {e}", path.display()))
        })?;
        let lines = path.join("metrics.jsonl");
        let metrics = match metrics_bytes {
            Some(bytes) => Lines::go_on(&lines, bytes)?,
            None => Lines::create(&lines)?,
        };
        // A model of an earlier run must not pass for this run's.
        let model = path.join(MODEL);
        if model.exists() {
            std::fs::remove_file(&model).map_err(|e| Error::writing(&model, &e))?;
        }
        files::write_whole(&path.join("card.json"), card_json.as_bytes())?;
        let status = Status::running(world_size);
        status.write(&path.join(STATUS))?;
        Ok(RunFolder { path: path.to_owned(), metrics, status })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a line to the metrics.
    ///
    /// # Errors
    /// When the disk is full or gone.
    pub fn record(&mut self, record: &Record) -> Result<()> {
        self.metrics.write(record)
    }

    /// The metrics so far.
    #[must_use]
    pub fn metrics(&self) -> &Lines {
        &self.metrics
    }

    /// Writes the status that scripts wait for, with the hash of the parameters on each rank. The last act of a run that went well.
    ///
    /// # Errors
    /// When the disk is full or gone.
    pub fn complete(&mut self, step: u64, hashes: Vec<String>, reason: &str) -> Result<()> {
        self.status.state = State::Completed;
        self.status.exit_code = Some(0);
        self.status.reason = Some(reason.to_owned());
        self.status.step = step;
        self.status.params_hash = hashes.first().cloned();
        self.status.params_hashes = hashes;
        self.status.write(&self.path.join(STATUS))
    }

    /// Leaves a word on why the run ended before its time, as well as it can.
    pub fn fail(&mut self, step: u64, state: State, error: &Error) {
        // The other ranks have called this run failed because this one was away: their word stands.
        if status::is_failed(&self.path) {
            return;
        }
        self.status.state = state;
        self.status.exit_code = Some(error.exit_code());
        self.status.reason = Some(error.to_string());
        self.status.step = step;
        // The error itself is on its way to the user; a second one about this file would hide it.
        let _ = self.status.write(&self.path.join(STATUS));
    }
}

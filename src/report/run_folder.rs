//! The run folder: where everything that a run leaves behind lies.
//!
//! `card.json` the checked card · `metrics.jsonl` · `status.json` · `model.safetensors` · `evaluation.json`

use super::lines::Lines;
use super::metrics::Record;
use super::status::{self, STATUS, State, Status};
use crate::error::{Error, Result};
use crate::util::files;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The files of a run that is going on, written by rank 0.
pub struct RunFolder {
    path: PathBuf,
    metrics: Lines,
    status: Status,
}

/// Name of the final model inside a run folder.
pub const MODEL: &str = "model.safetensors";
/// Of a run with an average of the parameters, where that is the final model: the parameters themselves.
pub const LAST: &str = "model-last.safetensors";
/// Of such a run, where it is not: the average.
pub const AVERAGE: &str = "model-average.safetensors";
/// What only a run that has come to its end leaves.
const ENDED: [&str; 5] = [MODEL, LAST, AVERAGE, EVALUATION, CONFUSION];
/// What the evaluation of the final model came to.
const EVALUATION: &str = "evaluation.json";
/// Its confusion matrix.
const CONFUSION: &str = "confusion.csv";

/// Name of the file of metrics inside a run folder.
pub const METRICS: &str = "metrics.jsonl";

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
        let lines = path.join(METRICS);
        let metrics = match metrics_bytes {
            Some(bytes) => Lines::go_on(&lines, bytes)?,
            None => Lines::create(&lines)?,
        };
        // What an earlier run ended with must not pass for this run's.
        for old in ENDED.map(|name| path.join(name)) {
            if old.exists() {
                std::fs::remove_file(&old).map_err(|e| Error::writing(&old, &e))?;
            }
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

    /// Writes what the evaluation of the final model came to, and its confusion matrix if there is one.
    ///
    /// # Errors
    /// When the disk is full or gone.
    pub fn evaluation(&self, report: &impl Serialize, confusion: Option<String>) -> Result<()> {
        files::write_whole(&self.path.join(EVALUATION), &to_json(report)?)?;
        match confusion {
            Some(csv) => files::write_whole(&self.path.join(CONFUSION), csv.as_bytes()),
            None => Ok(()),
        }
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

/// A report as the text of a file.
///
/// # Errors
/// [`Error::Internal`], never seen.
pub fn to_json(report: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(report)
        .map_err(|e| Error::Internal(format!("a report as JSON: {e}")))?;
    text.push(b'\n');
    Ok(text)
}

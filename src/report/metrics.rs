//! `metrics.jsonl`: one JSON object a line, appended as things happen.
//!
//! A crash loses at most the line that was being written.

use crate::error::{Error, Result};
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// One line.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Record {
    /// One optimizer step.
    Step {
        /// Counted from 1.
        step: u64,
        /// Counted from 1.
        epoch: u64,
        /// Mean over the global batch, before the step.
        loss: f64,
        /// Share of the global batch classified right, before the step.
        accuracy: f64,
        /// Learning rate of this step.
        lr: f64,
        /// Norm of the gradient before clipping.
        grad_norm: f64,
        /// Samples of this step over its wall time, all ranks together.
        samples_per_s: f64,
        /// Share of the step's wall time that rank 0 spent in gradient reduction.
        comm_share: f64,
        /// Share that it spent waiting for data.
        input_share: f64,
    },
    /// A step whose update was left out.
    Skip {
        /// Counted from 1.
        step: u64,
        /// Counted from 1.
        epoch: u64,
        /// As in [`Record::Step`]; null when it is NaN or infinite.
        loss: f64,
        /// As in [`Record::Step`].
        lr: f64,
        /// As in [`Record::Step`]; null when it is NaN or infinite.
        grad_norm: f64,
        /// What was wrong, on which rank, in which tensor, with which samples.
        why: String,
    },
    /// One evaluation on the test set.
    Eval {
        /// Steps done.
        step: u64,
        /// Epochs done.
        epoch: u64,
        /// Mean over the test set.
        loss: f64,
        /// correct / count.
        accuracy: f64,
        /// Test samples classified right.
        correct: u64,
        /// Test samples.
        count: u64,
        /// Wall time of the evaluation in seconds.
        seconds: f64,
    },
    /// The end of the run.
    Summary {
        /// Steps done.
        step: u64,
        /// Epochs done, the last one perhaps in part.
        epoch: u64,
        /// Test loss of the final model, or the last training loss without a test set.
        loss: f64,
        /// Test accuracy of the final model, if there is a test set.
        accuracy: Option<f64>,
        /// Learning rate of the last step.
        lr: f64,
        /// Steps whose update was left out.
        skipped: u64,
        /// Training samples over training time, evaluation left out.
        samples_per_s: f64,
        /// Wall time from the first step to the end in seconds.
        seconds: f64,
        /// Share of training time that rank 0 spent in gradient reduction.
        comm_share: f64,
        /// Bytes that rank 0 sent in all-reduces.
        bytes_sent: u64,
        /// Number of ranks.
        world_size: usize,
    },
}

/// The open file.
pub struct Metrics {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Metrics {
    /// Starts the file anew.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create(path: &Path) -> Result<Metrics> {
        let file = File::create(path).map_err(|e| Error::writing(path, &e))?;
        Ok(Metrics { path: path.to_owned(), file, bytes: 0 })
    }

    /// Goes on with a file that an earlier part of the run wrote: cut back to its first `bytes`, which
    /// end a line. What a crashed run wrote after its last checkpoint goes.
    ///
    /// # Errors
    /// [`Error::Data`] when the file is shorter or does not end a line there; else as
    /// [`Metrics::create`].
    pub fn go_on(path: &Path, bytes: u64) -> Result<Metrics> {
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = open.map_err(|e| Error::writing(path, &e))?;
        let failed = |e: std::io::Error| Error::writing(path, &e);
        let found = file.metadata().map_err(failed)?.len();
        let mut last = [b'\n'];
        if bytes > 0 && bytes <= found {
            file.seek(SeekFrom::Start(bytes - 1)).map_err(failed)?;
            file.read_exact(&mut last).map_err(failed)?;
        }
        if bytes > found || last != *b"\n" {
            return Err(Error::Data(format!(
                "{} is not the one that the checkpoint goes on from: {found} bytes, and no line ends \
                 at byte {bytes}. Put the file back, or give another run folder with --out",
                path.display()
            )));
        }
        file.set_len(bytes).map_err(failed)?;
        file.seek(SeekFrom::Start(bytes)).map_err(failed)?;
        Ok(Metrics { path: path.to_owned(), file, bytes })
    }

    /// Makes sure that what was written is on the disk; gives the length of the file.
    ///
    /// # Errors
    /// When the disk is gone.
    pub fn sync(&self) -> Result<u64> {
        self.file.sync_data().map_err(|e| Error::writing(&self.path, &e))?;
        Ok(self.bytes)
    }

    /// Appends one line with one write.
    ///
    /// # Errors
    /// When the disk is full or gone.
    pub fn write(&mut self, record: &Record) -> Result<()> {
        let mut line = serde_json::to_vec(record)
            .map_err(|e| Error::Internal(format!("cannot write a metrics line: {e}")))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|e| Error::writing(&self.path, &e))?;
        self.bytes += line.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_file_loses_what_came_after_the_checkpoint_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        std::fs::write(&path, "{\"a\":1}\n{\"b\":2}\n{\"c\"").unwrap();
        for wrong in [4, 300] {
            assert_eq!(Metrics::go_on(&path, wrong).err().unwrap().exit_code(), 65, "{wrong}");
        }
        assert_eq!(Metrics::go_on(&path, 16).unwrap().sync().unwrap(), 16);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":1}\n{\"b\":2}\n");
    }
}

//! Checkpoints of a run that is going on: when they are due, and what becomes of them.
//!
//! All ranks hold the same parameters, so rank 0 copies its own between two steps and a thread writes
//! the copy while training goes on. The other ranks know nothing of it, but for the last checkpoint
//! of a run that leaves, which all wait for.

use crate::checkpoint::{Keep, Saved, Snapshot, Store, Writer};
use crate::config::{Checkpoint, OnFailure};
use crate::error::Result;
use std::path::Path;
use std::time::{Duration, Instant};

/// Name of the folder of checkpoints in a run folder.
pub const CHECKPOINTS: &str = "checkpoints";

/// Decides and saves. Without a folder (every rank but 0) nothing is ever due.
pub struct Saver {
    writer: Option<Writer>,
    rule: Checkpoint,
    last: Instant,
    /// What to tell the user.
    told: Vec<String>,
}

impl Saver {
    /// Saves into `folder`, the run folder, if this rank writes it.
    ///
    /// # Errors
    /// When the folder of checkpoints cannot be made.
    pub fn open(folder: Option<&Path>, rule: &Checkpoint) -> Result<Saver> {
        let keep = Keep { last: rule.keep_last, best: rule.keep_best };
        let open = |folder: &Path| Writer::start(Store::open(&folder.join(CHECKPOINTS), keep)?);
        let writer = folder.map(open).transpose()?;
        Ok(Saver { writer, rule: rule.clone(), last: Instant::now(), told: Vec::new() })
    }

    /// Whether this rank writes.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.writer.is_some()
    }

    /// Whether a checkpoint is due after `done` steps; `epochs` is how many epochs have ended with the
    /// last of them, if one has.
    #[must_use]
    pub fn is_due(&self, done: u64, epochs: Option<u64>, at_end: bool) -> bool {
        let rule = &self.rule;
        let by_time = Duration::from_secs_f64(60.0 * rule.every_minutes);
        self.writes()
            && (is_due_by_count(rule, done, epochs)
                || (rule.every_epochs > 0 && at_end)
                || (rule.every_minutes > 0.0 && self.last.elapsed() >= by_time))
    }

    /// Hands a snapshot to the writing thread.
    ///
    /// # Errors
    /// With `on_failure: stop`, the failure of the checkpoint before.
    pub fn save(&mut self, snapshot: Snapshot) -> Result<()> {
        self.last = Instant::now();
        let before = match &mut self.writer {
            Some(writer) => writer.submit(snapshot),
            None => return Ok(()),
        };
        self.note(before)
    }

    /// Looks whether the last checkpoint is written by now; never waits.
    ///
    /// # Errors
    /// As [`Saver::save`], of the last one.
    pub fn look(&mut self) -> Result<()> {
        let outcome = self.writer.as_mut().map_or(Ok(None), Writer::poll);
        self.note(outcome)
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    /// As [`Saver::save`], of the last one.
    pub fn wait(&mut self) -> Result<()> {
        let outcome = self.writer.as_mut().map_or(Ok(None), Writer::wait);
        self.note(outcome)
    }

    /// Saves and waits, whatever `on_failure` says: the run leaves on the strength of it.
    ///
    /// # Errors
    /// When this checkpoint could not be written.
    pub fn save_and_wait(&mut self, snapshot: Snapshot) -> Result<()> {
        // A failure of the one before matters no more if this one can be written.
        let _ = self.wait();
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.submit(snapshot)?;
        writer.wait().map(|_| ())
    }

    /// What there is to tell the user since the last call.
    #[must_use]
    pub fn take_news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }

    fn note(&mut self, outcome: Result<Option<Saved>>) -> Result<()> {
        match outcome {
            Ok(saved) => self.told.extend(saved.into_iter().flat_map(|saved| saved.warnings)),
            Err(error) if self.rule.on_failure == OnFailure::Stop => return Err(error),
            Err(error) => self.told.push(format!("{error}. Training goes on")),
        }
        Ok(())
    }
}

/// Whether steps or epochs make a checkpoint due: the same on all ranks and in every run of a card.
#[must_use]
pub fn is_due_by_count(rule: &Checkpoint, done: u64, epochs: Option<u64>) -> bool {
    rule.every_steps.is_some_and(|n| done.is_multiple_of(n))
        || (rule.every_epochs > 0 && epochs.is_some_and(|e| e.is_multiple_of(rule.every_epochs)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saver(folder: Option<&Path>, rule: Checkpoint) -> Saver {
        Saver::open(folder, &rule).unwrap()
    }

    #[test]
    fn each_rule_makes_a_checkpoint_due_on_the_rank_that_writes() {
        let folder = tempfile::tempdir().unwrap();
        let never = Checkpoint { every_minutes: 0.0, every_epochs: 0, ..Checkpoint::default() };
        let of = |rule: &Checkpoint| saver(Some(folder.path()), rule.clone());
        assert!(!of(&never).is_due(10, Some(1), true));
        let steps = of(&Checkpoint { every_steps: Some(5), ..never.clone() });
        assert!(steps.is_due(10, None, false) && !steps.is_due(11, None, false));
        let epochs = of(&Checkpoint { every_epochs: 2, ..never.clone() });
        assert!(epochs.is_due(7, Some(2), false) && !epochs.is_due(7, Some(1), false));
        assert!(epochs.is_due(7, Some(3), true));
        let minutes = of(&Checkpoint { every_minutes: 1e-9, ..never.clone() });
        assert!(minutes.is_due(1, None, false));
        let other_rank = saver(None, Checkpoint { every_steps: Some(1), ..never });
        assert!(!other_rank.is_due(1, Some(1), true));
    }

    #[test]
    fn a_checkpoint_that_cannot_be_written_warns_or_stops_by_policy() {
        for (on_failure, stops) in [(OnFailure::Warn, false), (OnFailure::Stop, true)] {
            let folder = tempfile::tempdir().unwrap();
            let rule = Checkpoint { on_failure, ..Checkpoint::default() };
            let mut saver = saver(Some(folder.path()), rule);
            std::fs::remove_dir_all(folder.path().join(CHECKPOINTS)).unwrap();
            saver.save(Snapshot { step: 1, ..Snapshot::default() }).unwrap();
            assert_eq!(saver.wait().is_err(), stops);
            assert_eq!(saver.take_news().len(), usize::from(!stops));
            let error = saver.save_and_wait(Snapshot { step: 2, ..Snapshot::default() });
            assert!(error.unwrap_err().to_string().contains("step 2"));
        }
    }
}

//! What a run knows of itself between two steps, beside tensors: saved in every checkpoint, so that
//! the rest of the run and its last lines come out as if nothing had happened.

use super::early_stopping::Watcher;
use super::guards::{self, rewind};
use super::metrics::Evaluation;
use super::plateau;
use super::tally::Tally;
use crate::checkpoint::Bits;
use crate::config::Monitor;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A [`Tally`] by its bits.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct SavedTally([Bits; 3]);

impl From<Tally> for SavedTally {
    fn from(t: Tally) -> SavedTally {
        SavedTally([t.loss, t.correct, t.count].map(Bits))
    }
}

impl From<SavedTally> for Tally {
    fn from(SavedTally([loss, correct, count]): SavedTally) -> Tally {
        Tally { loss: loss.0, correct: correct.0, count: count.0 }
    }
}

/// The numbers of an [`Evaluation`] by their bits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedEvaluation {
    tally: SavedTally,
    scores: Vec<(Monitor, Bits)>,
}

impl From<&Evaluation> for SavedEvaluation {
    fn from(eval: &Evaluation) -> SavedEvaluation {
        let scores = eval.scores.iter().map(|&(of, value)| (of, Bits(value))).collect();
        SavedEvaluation { tally: eval.tally.into(), scores }
    }
}

impl From<&SavedEvaluation> for Evaluation {
    fn from(saved: &SavedEvaluation) -> Evaluation {
        let scores = saved.scores.iter().map(|&(of, value)| (of, value.0)).collect();
        Evaluation { tally: saved.tally.into(), scores, details: None }
    }
}

/// What the reporter has added up.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sums {
    /// Training samples.
    pub samples: Bits,
    /// Seconds of training steps.
    pub wall_s: Bits,
    /// Of them, in gradient reduction.
    pub comm_s: Bits,
    /// Seconds of the run so far, evaluation and all.
    pub seconds: Bits,
    /// Loss of the last step.
    pub loss: Bits,
    /// Learning rate of the last step.
    pub lr: Bits,
    /// Steps without an update.
    #[serde(default)]
    pub skipped: u64,
    /// Over the steps of the epoch that is going on.
    pub epoch: SavedTally,
    /// The last evaluation.
    pub last: Option<SavedEvaluation>,
    /// The best one, where early stopping restores it.
    pub best: Option<SavedEvaluation>,
}

/// The history of early stopping.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watched {
    best: Option<Bits>,
    waited: u64,
}

impl Watched {
    /// The history of `watcher`.
    #[must_use]
    pub fn of(watcher: &Watcher) -> Watched {
        let (best, waited) = watcher.history();
        Watched { best: best.map(Bits), waited }
    }

    /// Gives the history to `watcher`.
    pub fn give_to(self, watcher: &mut Watcher) {
        watcher.go_on((self.best.map(|b| b.0), self.waited));
    }
}

/// The content of `state` in a checkpoint's `state.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Story {
    /// Seed of the run: with the step, all of its random state.
    pub seed: u64,
    /// Fingerprint of the training data.
    pub data: String,
    /// The optimizer, but for its tensors.
    pub optimizer: Value,
    /// Early stopping, if the card has it.
    pub watched: Option<Watched>,
    /// The history of the learning rate, where a plateau lets it drop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plateau: Option<plateau::State>,
    /// Whether early stopping has ended the run.
    pub stopped_early: bool,
    /// The reporter's sums.
    pub sums: Sums,
    /// Length of `ledger.jsonl` at this step.
    #[serde(default)]
    pub ledger_bytes: u64,
    /// Kind of the processor that has taken the steps so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor: Option<String>,
    /// What the guards know.
    #[serde(default)]
    pub guards: guards::State,
    /// The state to go back to after a loss spike, where it is another than the checkpoint's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewind: Option<rewind::Saved>,
}

impl Story {
    /// As JSON.
    ///
    /// # Errors
    /// [`Error::Internal`], never seen.
    pub fn to_value(&self) -> Result<Value> {
        serde_json::to_value(self)
            .map_err(|e| Error::Internal(format!("the run's state as JSON: {e}")))
    }

    /// From JSON.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(value: &Value) -> std::result::Result<Story, String> {
        Story::deserialize(value).map_err(|e| e.to_string())
    }
}

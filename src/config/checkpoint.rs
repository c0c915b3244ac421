//! When a run is saved, and what is kept.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Checkpoints. They are written by rank 0 in the background, into `checkpoints/` of the run folder;
/// whatever the rules say, one is written when the run is told to leave (`docs/FAULTS.md`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Checkpoint {
    /// Save after every n steps; when left out, steps alone save nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub every_steps: Option<u64>,
    /// Save when the last checkpoint is this many minutes old; 0 never.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub every_minutes: f64,
    /// Save at the end of every n-th epoch, and of the run; 0 never.
    pub every_epochs: u64,
    /// Keep this many of the newest checkpoints.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub keep_last: usize,
    /// Keep, beside them, the one of the best evaluation.
    pub keep_best: bool,
    /// What makes an evaluation the best, where early stopping does not say it; when left out `val_accuracy`, or
    /// `val_loss` where numbers are predicted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monitor: Option<super::Monitor>,
    /// What a checkpoint that cannot be written means for the run.
    pub on_failure: OnFailure,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Checkpoint {
            every_steps: None,
            every_minutes: 10.0,
            every_epochs: 1,
            keep_last: 2,
            keep_best: true,
            monitor: None,
            on_failure: OnFailure::Warn,
        }
    }
}

/// What follows when a checkpoint cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// A warning; the run goes on and tries again when the next one is due.
    Warn,
    /// The run stops with the error.
    Stop,
}

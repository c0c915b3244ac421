//! What is watched while a run goes on, and what follows when it goes wrong.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Guards (`docs/FAULTS.md`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Guards {
    /// Compare parameters and optimizer moments of all ranks after every n-th step and the last; 0
    /// never. Ranks that differ stop the run with code 76.
    #[schemars(range(max = 1_000_000_000))]
    pub replicas_every: u64,
    /// What follows when a loss or gradient is NaN or infinite.
    pub non_finite: NonFinite,
    /// Watch for a loss far above the last ones; when left out, nothing of it is watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spike: Option<Spike>,
    /// So many steps skipped in a row end the run with code 77.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub max_skips: u64,
}

impl Default for Guards {
    fn default() -> Self {
        Guards { replicas_every: 100, non_finite: NonFinite::Stop, spike: None, max_skips: 10 }
    }
}

/// What follows when a loss or gradient is not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NonFinite {
    /// All ranks stop before the update, with code 77.
    Stop,
    /// All ranks leave the update out and go on with the next step.
    Skip,
}

/// A loss above `factor` × the median of the last `window` losses is a spike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spike {
    /// How far above.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub factor: f64,
    /// Of how many steps; nothing is a spike before so many were taken.
    #[serde(default = "default_window")]
    #[schemars(range(min = 1, max = 1000))]
    pub window: usize,
    /// What follows.
    #[serde(default)]
    pub action: SpikeAction,
}

fn default_window() -> usize {
    20
}

/// What follows a spike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SpikeAction {
    /// A line that says so.
    #[default]
    Warn,
    /// All ranks leave the update out and go on with the next step.
    Skip,
    /// All ranks take parameters and optimizer back to the last step at which `checkpoint.every_steps` or
    /// `every_epochs` asks for a checkpoint, and go on with the next step: the batches since then leave
    /// no trace.
    Rewind,
}

/// The ledger: `ledger.jsonl` in the run folder, for `annulus diff`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ledger {
    /// Write down loss, gradient norm and sample order of every n-th step; 0 never, and no ledger.
    #[schemars(range(max = 1_000_000_000))]
    pub every_steps: u64,
    /// Write down a hash of each parameter and moment after every n-th step and the last; 0 never.
    #[schemars(range(max = 1_000_000_000))]
    pub hashes_every: u64,
}

impl Default for Ledger {
    fn default() -> Self {
        Ledger { every_steps: 1, hashes_every: 100 }
    }
}

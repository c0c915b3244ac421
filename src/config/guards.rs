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
    /// So many steps skipped in a row end the run with code 77.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub max_skips: u64,
}

impl Default for Guards {
    fn default() -> Self {
        Guards { replicas_every: 100, non_finite: NonFinite::Stop, max_skips: 10 }
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

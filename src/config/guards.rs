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
}

impl Default for Guards {
    fn default() -> Self {
        Guards { replicas_every: 100 }
    }
}

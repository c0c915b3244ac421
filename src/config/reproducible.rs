//! Reproducible mode: the same bits at any number of ranks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Each global batch is cut into fixed leaves; their gradients are added up in one fixed order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reproducible {
    /// Leaves of each global batch: micro-batches whose samples do not depend on the number of
    /// ranks. More ranks than leaves leave some without work; least is lost where the ranks divide
    /// the leaves and the leaves the global batch.
    #[schemars(range(min = 1, max = 4096))]
    pub leaves: usize,
    /// Threads of each rank: a product of matrices may add up in another order with another number.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1024))]
    pub threads: usize,
}

fn one() -> usize {
    1
}

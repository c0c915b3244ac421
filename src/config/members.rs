//! Which parts of a file of many are the samples: [`Tar`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is what in tar archives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tar {
    /// The field of each sample's `.json` that is its label; without it, the label is the number in its
    /// `.cls`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_field: Option<String>,
}

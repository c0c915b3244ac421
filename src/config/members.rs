//! Which parts of a file of many are the samples: [`Tar`], [`Tensors`].

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

/// Which tensors of safetensors files are used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tensors {
    /// The name of the samples; without it, `images` or `x`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<String>,
    /// The name of the labels; without it, `labels` or `y`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
}

//! The training loop: [`Train`], [`LossScale`], [`EarlyStopping`].

use super::{Loss, Mode, Monitor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The loop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// Samples in one optimizer step, over all ranks and micro-batches together.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub global_batch: usize,
    /// Passes over the training samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub epochs: Option<u64>,
    /// Stop after this many steps, whatever `epochs` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_steps: Option<u64>,
    /// Save and leave with exit code 75 after this many seconds of wall time, counted from the start of
    /// the process: a little before a batch system would end the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000_000), extend("exclusiveMinimum" = 0))]
    pub max_time_s: Option<f64>,
    /// Evaluate, save and leave with exit code 75 after this step, as if the run were to end there; with a later
    /// one, or without it, the run goes on and ends as one that never paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub pause_at_step: Option<u64>,
    /// The same after this epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub pause_at_epoch: Option<u64>,
    /// Micro-batches that each rank cuts its part of the global batch into (gradient accumulation).
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 65536))]
    pub accumulate: usize,
    /// What is made small. Numbers are those of a column of kind `target`; `data.classes` is then 1.
    #[serde(default)]
    pub loss: Loss,
    /// From which difference on the loss is a line (huber); 1 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub huber_delta: Option<f32>,
    /// Clip the gradient to this global norm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub clip_norm: Option<f64>,
    /// Multiply the loss by a power of two that follows the gradients' range, so that 16-bit gradients
    /// (`comm.wire`) neither vanish nor overflow; the gradient is divided by it before it is clipped. A
    /// gradient that is not finite halves it on all ranks and leaves that step's update out, whatever
    /// `guards.non_finite` says; `guards.max_skips` in a row end the run. When left out: no scale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<LossScale>,
    /// So much of each label is spread evenly over all classes, as in PyTorch's `CrossEntropyLoss`; the
    /// evaluation is not concerned.
    #[serde(default)]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub label_smoothing: f32,
    /// Evaluate after every n epochs, 0 for none of them; the end of the run is always evaluated.
    #[serde(default = "one_u64")]
    #[schemars(range(max = 1_000_000_000))]
    pub eval_every_epochs: u64,
    /// Evaluate after every n steps, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub eval_every_steps: Option<u64>,
    /// Samples that a rank evaluates at a time.
    #[serde(default = "default_eval_batch")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub eval_batch: usize,
    /// Stop when the watched number no longer improves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStopping>,
    /// Keep an average of the parameters in which older steps fade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema: Option<Ema>,
    /// Keep the mean of the parameters at the ends of the last epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swa: Option<Swa>,
    /// Check before the first step that every parameter receives a gradient.
    #[serde(default = "yes")]
    pub probe: bool,
}

fn one() -> usize {
    1
}
fn one_u64() -> u64 {
    1
}
fn yes() -> bool {
    true
}
fn default_eval_batch() -> usize {
    500
}

/// A dynamic loss scale, with the names and meanings of PyTorch's `GradScaler`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LossScale {
    /// The scale of the first step: a power of two.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub initial: u32,
    /// It doubles (up to 16,777,216) after so many steps in a row without overflow; `null`: never.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub growth_interval: Option<u64>,
}

impl Default for LossScale {
    fn default() -> Self {
        LossScale { initial: 65_536, growth_interval: Some(2000) }
    }
}

/// Early stopping, with the names and meanings of Keras's callback.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopping {
    /// What is watched.
    #[serde(default)]
    pub monitor: Monitor,
    /// Evaluations without improvement after which the run stops.
    pub patience: u64,
    /// A change that is not larger than this is no improvement.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub min_delta: f64,
    /// Which change is an improvement.
    #[serde(default, skip_serializing_if = "Mode::is_auto")]
    pub mode: Mode,
    /// End with the parameters of the best evaluation instead of the last.
    #[serde(default = "yes")]
    pub restore_best_weights: bool,
}

/// Exponential moving average of the parameters: average = decay × average + (1 − decay) × parameters after
/// each update, beginning with those after the first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ema {
    /// What an update keeps of the average.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub decay: f64,
    /// The first updates keep less: (1 + t) / (10 + t) after t others, where that is below `decay`.
    #[serde(default = "yes")]
    pub warmup: bool,
    /// Evaluate the average, restore the best average, and end with it in `model.safetensors`.
    #[serde(default = "yes")]
    pub evaluate: bool,
}

/// Stochastic weight averaging (Izmailov et al., 2018): the mean of the parameters at some moments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Swa {
    /// The first epoch, counted from 1, whose end counts.
    #[schemars(range(min = 1))]
    pub from_epoch: u64,
    /// From the end of that epoch on, take every n-th step instead of the ends of epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub every_steps: Option<u64>,
    /// Evaluate the mean, restore the best mean, and end with it in `model.safetensors`.
    #[serde(default = "yes")]
    pub evaluate: bool,
}

impl Train {
    /// Whether evaluations are of the averaged parameters.
    #[must_use]
    pub fn judges_average(&self) -> bool {
        self.ema.as_ref().is_some_and(|ema| ema.evaluate)
            || self.swa.as_ref().is_some_and(|swa| swa.evaluate)
    }
}

//! How the parameters change: optimizer, learning-rate schedule, the loop.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The optimizer. A field that the chosen kind does not use must be left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Optimizer {
    /// Which optimizer.
    pub kind: OptimizerKind,
    /// Peak learning rate; the schedule scales it.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub lr: f64,
    /// Weight decay: added to the gradient (sgd, adam) or decoupled from it (adamw).
    #[schemars(range(min = 0))]
    pub weight_decay: f64,
    /// Momentum (sgd); 0 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub momentum: Option<f64>,
    /// Nesterov's form of momentum (sgd); false when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nesterov: Option<bool>,
    /// Decay rates of the two moments (adam, adamw); [0.9, 0.999] when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub betas: Option<[f64; 2]>,
    /// Added to the root of the second moment (adam, adamw); 1e-8 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub eps: Option<f64>,
}

impl Default for Optimizer {
    fn default() -> Self {
        Optimizer {
            kind: OptimizerKind::Adamw,
            lr: 1e-3,
            weight_decay: 0.0,
            momentum: None,
            nesterov: None,
            betas: None,
            eps: None,
        }
    }
}

/// The optimizers that a card can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Stochastic gradient descent, with momentum if given.
    Sgd,
    /// Adam (Kingma and Ba, 2015).
    Adam,
    /// AdamW (Loshchilov and Hutter, 2019).
    Adamw,
}

/// Learning rate over the run: `warmup_steps` of linear rise, then the given curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// The curve after the warm-up.
    pub kind: ScheduleKind,
    /// Steps over which the rate rises linearly from lr / warmup_steps to lr.
    pub warmup_steps: u64,
    /// Where cosine ends, as a share of lr; 0 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub final_fraction: Option<f64>,
    /// Steps between two drops (step).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub step_every: Option<u64>,
    /// Factor of each drop (step); 0.1 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub gamma: Option<f64>,
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule {
            kind: ScheduleKind::Constant,
            warmup_steps: 0,
            final_fraction: None,
            step_every: None,
            gamma: None,
        }
    }
}

/// Curves of the learning rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Stays at lr.
    Constant,
    /// Multiplied by `gamma` every `step_every` steps.
    Step,
    /// Half a cosine from lr down to lr × final_fraction at the end of the run.
    Cosine,
}

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
    /// Micro-batches that each rank cuts its part of the global batch into (gradient accumulation).
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 65536))]
    pub accumulate: usize,
    /// Clip the gradient to this global norm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub clip_norm: Option<f64>,
    /// So much of each label is spread evenly over all classes, as in PyTorch's `CrossEntropyLoss`; the
    /// evaluation is not concerned.
    #[serde(default)]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub label_smoothing: f32,
    /// Evaluate after every n epochs; the last epoch is always evaluated.
    #[serde(default = "one_u64")]
    #[schemars(range(min = 1))]
    pub eval_every_epochs: u64,
    /// Samples that a rank evaluates at a time.
    #[serde(default = "default_eval_batch")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub eval_batch: usize,
    /// Stop when the watched number no longer improves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStopping>,
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

/// Early stopping, with the names and meanings of Keras's callback.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopping {
    /// What is watched.
    #[serde(default)]
    pub monitor: Monitor,
    /// Evaluations without improvement after which the run stops.
    pub patience: u64,
    /// A change smaller than this is no improvement.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub min_delta: f64,
    /// End with the parameters of the best evaluation instead of the last.
    #[serde(default = "yes")]
    pub restore_best_weights: bool,
}

/// A number that is watched at each evaluation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Monitor {
    /// Mean loss on the test set; lower is better.
    Loss,
    /// Accuracy on the test set; higher is better.
    #[default]
    Accuracy,
}

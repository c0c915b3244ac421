//! The card: everything that defines a training job, as one JSON file.
//!
//! Every field here is a property of the *job*. Nothing in a card depends on the number of ranks:
//! the same card at 1, 2 or 8 ranks is the same run. Defaults stand beside the fields.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One training job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Where the JSON schema is, for editors. Ignored.
    #[serde(rename = "$schema", default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// One line for people: what this job is.
    #[serde(default)]
    pub about: String,
    /// Seed of everything random: initial parameters, sample order, dropout.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// The data set.
    pub data: Data,
    /// The model.
    pub model: Model,
    /// How parameters are updated.
    #[serde(default)]
    pub optimizer: Optimizer,
    /// How the learning rate changes over the run.
    #[serde(default)]
    pub schedule: Schedule,
    /// Batch, length of the run, evaluation.
    pub train: Train,
    /// How the ranks talk to each other.
    #[serde(default)]
    pub comm: Comm,
    /// What is written while training.
    #[serde(default)]
    pub report: Report,
    /// Faults to inject, for rehearsals; needs `ANNULUS_ALLOW_FAULTS=1`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

fn default_seed() -> u64 {
    42
}

/// A data set of images with one label each. Relative paths start at the card's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// The file format.
    pub format: Format,
    /// Samples to train on.
    pub train: Split,
    /// Samples to evaluate on; without them there is no evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Split>,
    /// Number of classes; labels are 0..classes.
    pub classes: usize,
    /// Pixels become (pixel / 255 − mean) / std.
    #[serde(default)]
    pub normalize: Normalize,
    /// Use only the first n training samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_limit: Option<usize>,
    /// Use only the first n test samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_limit: Option<usize>,
    /// Batches that the reading thread prepares ahead.
    #[serde(default = "default_prefetch")]
    pub prefetch: usize,
}

fn default_prefetch() -> usize {
    4
}

/// Data file formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The IDX format of MNIST, plain or gzip.
    Idx,
}

/// The files of one part of a data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// Images: unsigned bytes, shape (samples, rows, columns) or (samples, channels, rows, columns).
    pub images: PathBuf,
    /// Labels: unsigned bytes, shape (samples).
    pub labels: PathBuf,
}

/// Constants of the normalisation, on pixels scaled to 0..1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Normalize {
    /// Subtracted from each pixel.
    pub mean: f32,
    /// Each pixel is divided by it.
    pub std: f32,
}

impl Default for Normalize {
    fn default() -> Self {
        Normalize { mean: 0.0, std: 1.0 }
    }
}

/// The model and how its parameters start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Which model.
    pub kind: ModelKind,
    /// Widths of the hidden layers (mlp).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<usize>,
    /// Share of activations dropped before the last layer while training.
    #[serde(default)]
    pub dropout: f32,
    /// How weights start; biases start at zero.
    #[serde(default)]
    pub init: Init,
}

/// The models that a card can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ModelKind {
    /// LeNet-5 (LeCun et al., 1998) with ReLU and max-pooling.
    LeNet5,
    /// Dense layers with ReLU between them.
    Mlp,
}

/// Initial distribution of weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// Uniform in ±√(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010).
    Glorot,
    /// Uniform in ±√(6 / fan_in) (He et al., 2015).
    #[default]
    He,
}

/// The optimizer. A field that the chosen kind does not use must be left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Optimizer {
    /// Which optimizer.
    pub kind: OptimizerKind,
    /// Peak learning rate; the schedule scales it.
    pub lr: f64,
    /// Weight decay: added to the gradient (sgd, adam) or decoupled from it (adamw).
    pub weight_decay: f64,
    /// Momentum (sgd); 0 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub momentum: Option<f64>,
    /// Nesterov's form of momentum (sgd); false when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nesterov: Option<bool>,
    /// Decay rates of the two moments (adam, adamw); [0.9, 0.999] when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub betas: Option<[f64; 2]>,
    /// Added to the root of the second moment (adam, adamw); 1e-8 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
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
    pub final_fraction: Option<f64>,
    /// Steps between two drops (step).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_every: Option<u64>,
    /// Factor of each drop (step); 0.1 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
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
    pub global_batch: usize,
    /// Passes over the training samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
    /// Stop after this many steps, whatever `epochs` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Micro-batches that each rank cuts its part of the global batch into (gradient accumulation).
    #[serde(default = "one")]
    pub accumulate: usize,
    /// Clip the gradient to this global norm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// Evaluate after every n epochs; the last epoch is always evaluated.
    #[serde(default = "one_u64")]
    pub eval_every_epochs: u64,
    /// Samples that a rank evaluates at a time.
    #[serde(default = "default_eval_batch")]
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

/// How the ranks talk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Comm {
    /// The all-reduce: our ring, or MPI's own for comparison.
    pub algorithm: Algorithm,
    /// Seconds that a rank waits for another before it gives up and names it.
    pub deadline_s: f64,
    /// Gradients are reduced in buckets of about this many megabytes.
    pub bucket_mb: f64,
    /// The first bucket is smaller, so that communication starts early.
    pub first_bucket_mb: f64,
    /// Messages are cut into segments of this many kilobytes.
    pub segment_kb: usize,
}

impl Default for Comm {
    fn default() -> Self {
        Comm {
            algorithm: Algorithm::Ring,
            deadline_s: 60.0,
            bucket_mb: 25.0,
            first_bucket_mb: 1.0,
            segment_kb: 512,
        }
    }
}

/// All-reduce algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// Reduce-scatter and all-gather round a ring, ours.
    Ring,
    /// `MPI_Allreduce` of the installed MPI.
    Mpi,
}

/// What is written while training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Report {
    /// Write a line to metrics.jsonl every n steps.
    pub every_steps: u64,
    /// Run folder; `--out` wins. Default: runs/NAME-OF-THE-CARD under the current folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out: Option<PathBuf>,
}

impl Default for Report {
    fn default() -> Self {
        Report { every_steps: 1, out: None }
    }
}

/// A fault to inject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The rank that suffers it.
    pub rank: usize,
    /// At the start of this step, counted from 1.
    pub step: u64,
    /// What happens.
    pub kind: FaultKind,
}

/// Kinds of injected faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FaultKind {
    /// The rank panics.
    Panic,
    /// The rank returns an error.
    Error,
    /// The process is stopped (SIGSTOP).
    Stop,
    /// The process is killed (SIGKILL).
    Kill,
    /// The process exits with code 0 in the middle of the run.
    Exit,
    /// The rank skips its next collective.
    Skip,
    /// One gradient becomes NaN.
    Nan,
}

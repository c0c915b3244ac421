//! The card: everything that defines a training job, as one JSON file.
//!
//! Every field here is a property of the *job*. Nothing in a card depends on the number of ranks:
//! the same card at 1, 2 or 8 ranks is the same run. Defaults stand beside the fields.

use super::{
    Checkpoint, Comm, Csv, Fault, Format, Guards, Ledger, Metrics, Optimizer, Pictures, Prepare,
    Report, Reproducible, Sampling, Schedule, Split, Tar, Tensors, Text, Train, Transform, Tune,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// Seed of everything random: initial parameters, sample order, augmentation, dropout.
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
    /// What evaluations count.
    #[serde(default)]
    pub metrics: Metrics,
    /// The same bits at any number of ranks, if given; else they are equal within rounding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reproducible: Option<Reproducible>,
    /// When the run is saved.
    #[serde(default)]
    pub checkpoint: Checkpoint,
    /// What is watched while it goes on.
    #[serde(default)]
    pub guards: Guards,
    /// What is kept for comparing it with another run.
    #[serde(default)]
    pub ledger: Ledger,
    /// How the ranks talk to each other.
    #[serde(default)]
    pub comm: Comm,
    /// What is written while training.
    #[serde(default)]
    pub report: Report,
    /// What `annulus prepare` makes the data set from. A card may have this section alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepare: Option<Prepare>,
    /// What `annulus tune` searches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tune: Option<Tune>,
    /// Faults to inject, for rehearsals; needs `ANNULUS_ALLOW_FAULTS=1`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

fn default_seed() -> u64 {
    42
}

/// A data set of labelled samples. Relative paths start at the card's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// The file format.
    pub format: Format,
    /// Samples to train on.
    pub train: Split,
    /// Samples to evaluate on while training, in place of `test`, which is then left for `annulus eval`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val: Option<Split>,
    /// Samples to evaluate on; without these and `val` there is no evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Split>,
    /// Number of classes; labels are 0..classes. Of text: the size of the vocabulary. 1 where a number is
    /// predicted (`train.loss`).
    #[schemars(range(min = 1, max = 65_536))]
    pub classes: usize,
    /// Pixels, if they are bytes, become (pixel / 255 − mean) / std; other numbers (x − mean) / std.
    #[serde(default)]
    pub normalize: Normalize,
    /// How the rows of tables become samples (csv, parquet).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csv: Option<Csv>,
    /// How pictures become samples (folder, tar).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pictures: Option<Pictures>,
    /// Where archives have the labels (tar).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tar: Option<Tar>,
    /// Which tensors are the samples and the labels (safetensors).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensors: Option<Tensors>,
    /// How text becomes samples (text, tokens).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Text>,
    /// Use only the first n training samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub train_limit: Option<usize>,
    /// Use only the first n samples to evaluate on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub test_limit: Option<usize>,
    /// How the training samples of an epoch are drawn.
    #[serde(default)]
    pub sampling: Sampling,
    /// Random changes of each training image, one after another; another one in each epoch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub augment: Vec<Transform>,
    /// Batches that the reading thread prepares ahead.
    #[serde(default = "default_prefetch")]
    #[schemars(range(min = 1, max = 1024))]
    pub prefetch: usize,
}

fn default_prefetch() -> usize {
    4
}

/// Constants of the normalisation, on pixels scaled to 0..1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Normalize {
    /// Subtracted from each pixel.
    pub mean: f32,
    /// Each pixel is divided by it.
    #[schemars(extend("exclusiveMinimum" = 0))]
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
    #[schemars(inner(range(min = 1, max = 1_000_000)))]
    pub hidden: Vec<usize>,
    /// Values per token (gpt), hidden values of each direction (lstm, gru; of text also those of a token).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_536))]
    pub width: Option<usize>,
    /// Blocks (gpt), recurrent layers (lstm, gru).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub layers: Option<usize>,
    /// Attention heads of each block (gpt); they divide the width.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub heads: Option<usize>,
    /// Layers with weights, 6n + 2: 8, 14, 20, 32, 44, 56, … (resnet).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 8, max = 1202))]
    pub depth: Option<usize>,
    /// What follows each convolution (resnet); `group` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub norm: Option<Norm>,
    /// Whether the layers also read from the end (lstm, gru; not of text, where they would see what they
    /// should predict).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bidirectional: Option<bool>,
    /// Whether the output's weights are those of the tokens (lstm, gru of text; a gpt's are).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tied: Option<bool>,
    /// A sample's values as so many steps of equal length (lstm, gru); left out: an image's rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub steps: Option<usize>,
    /// Share of activations dropped while training, before the last layer; of lstm and gru also between
    /// the layers.
    #[serde(default)]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub dropout: f32,
    /// How weights start; biases start at zero.
    #[serde(default)]
    pub init: Init,
}

impl Model {
    /// A model with nothing but its kind.
    #[must_use]
    pub fn of(kind: ModelKind) -> Model {
        Model {
            kind,
            hidden: Vec::new(),
            width: None,
            layers: None,
            heads: None,
            depth: None,
            norm: None,
            bidirectional: None,
            tied: None,
            steps: None,
            dropout: 0.0,
            init: Init::default(),
        }
    }
}

/// The models that a card can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ModelKind {
    /// LeNet-5 (LeCun et al., 1998) with ReLU and max-pooling.
    LeNet5,
    /// Dense layers with ReLU between them.
    Mlp,
    /// A residual network for small images (He et al., 2016, section 4.2) with group normalisation.
    ResNet,
    /// A Transformer that predicts the next token, in the form of GPT-2 (Radford et al., 2019).
    Gpt,
    /// Long short-term memory (Hochreiter and Schmidhuber, 1997): predicts the next token of text, or the
    /// class of a sequence of values.
    Lstm,
    /// Gated recurrent units (Cho et al., 2014), for the same.
    Gru,
}

impl ModelKind {
    /// Whether it goes through a sequence step by step.
    #[must_use]
    pub fn is_recurrent(self) -> bool {
        matches!(self, ModelKind::Lstm | ModelKind::Gru)
    }
}

/// Normalisation of images inside a model. Batch normalisation is not among them: its running statistics
/// are a state that checkpoints do not hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// Over groups of channels of one sample (Wu and He, 2018), 8 of them.
    #[default]
    Group,
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

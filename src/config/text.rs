//! How text becomes samples: [`Text`].

use super::{Card, Data, Format, ModelKind, SamplingKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How text becomes samples: windows of tokens, each token's label being the one after it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// Tokens in a window.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub context: usize,
    /// Tokens from the start of one training window to that of the next; left out, the windows do not
    /// overlap. Evaluation windows never do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub stride: Option<usize>,
    /// The training text as so many streams, one for each sample of the global batch (lstm, gru): a window goes
    /// on from the state in which the one before it in its stream ended. Left out, windows come in random order
    /// and begin from a state of zeros, as those of the evaluation always do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub streams: Option<usize>,
    /// What is a token (text); `bytes` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<Vocabulary>,
    /// The type of the tokens, little-endian whole numbers (tokens).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Ids>,
    /// The last share of each training file is kept for evaluation, in place of data.val and data.test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub holdout: Option<f64>,
}

/// What is a token of a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Vocabulary {
    /// Each byte, whatever the encoding: 256 classes.
    #[default]
    Bytes,
    /// Each character of the UTF-8 text: as many classes as the training files have different ones, in order
    /// of their code points.
    Characters,
}

/// The type of the numbers of a token file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Ids {
    /// 16 bits.
    U16,
    /// 32 bits.
    U32,
}

impl Text {
    /// Tokens from one training window to the next.
    #[must_use]
    pub fn stride(&self) -> usize {
        self.stride.unwrap_or(self.context)
    }
}

impl Format {
    /// Whether the samples are windows of tokens.
    #[must_use]
    pub fn is_of_tokens(self) -> bool {
        matches!(self, Format::Text | Format::Tokens)
    }
}

impl Data {
    /// Whether there are samples to evaluate on.
    #[must_use]
    pub fn is_evaluated(&self) -> bool {
        self.val.is_some()
            || self.test.is_some()
            || self.text.is_some_and(|text| text.holdout.is_some())
    }
}

/// What a card with text may not have: whether it has it, the field, and what is wrong with that.
pub(super) fn problems(card: &Card) -> Vec<(bool, &'static str, String)> {
    let data = &card.data;
    let name = data.format.name();
    let of_tokens = data.format.is_of_tokens();
    let Some(text) = &data.text else {
        let missing = "is missing; give data.text.context, the number of tokens in a window";
        return vec![(of_tokens, "data.text", missing.to_owned())];
    };
    let used_by = |what: &str| format!("is used by data.format {what} only; remove it");
    if !of_tokens {
        return vec![(true, "data.text", used_by("`text` and `tokens`"))];
    }
    let bytes = text.vocabulary.unwrap_or_default() == Vocabulary::Bytes;
    let is_text = data.format == Format::Text;
    let not_for_text = format!("is not for data.format `{name}`; remove it");
    let stride = text.stride();
    vec![
        (text.vocabulary.is_some() && !is_text, "data.text.vocabulary", used_by("`text`")),
        (text.ids.is_some() && is_text, "data.text.ids", used_by("`tokens`")),
        (
            text.ids.is_none() && !is_text,
            "data.text.ids",
            "is missing; say whether the tokens are `u16` or `u32`".to_owned(),
        ),
        (
            stride > text.context,
            "data.text.stride",
            format!("{stride} leaves tokens out between windows of {}", text.context),
        ),
        (
            text.holdout.is_some() && (data.val.is_some() || data.test.is_some()),
            "data.text.holdout",
            "is in place of data.val and data.test; remove the one or the others".to_owned(),
        ),
        (
            is_text && bytes && data.classes != 256,
            "data.classes",
            format!("is {}; with data.text.vocabulary `bytes` it is 256", data.classes),
        ),
        (data.normalize != super::Normalize::default(), "data.normalize", not_for_text.clone()),
        (!data.augment.is_empty(), "data.augment", not_for_text.clone()),
        (data.sampling.kind != SamplingKind::Uniform, "data.sampling.kind", not_for_text),
        (
            card.model.kind != ModelKind::Gpt && !card.model.kind.is_recurrent(),
            "model.kind",
            format!("takes images or features; data.format `{name}` needs `gpt`, `lstm` or `gru`"),
        ),
    ]
}

/// The same of a card with a GPT.
pub(super) fn problems_of_gpt(card: &Card) -> Vec<(bool, &'static str, String)> {
    let model = &card.model;
    let gpt = model.kind == ModelKind::Gpt;
    let recurrent = model.kind.is_recurrent();
    let sizes = [
        ("model.width", model.width, "values per token", recurrent, "`gpt`, `lstm` and `gru`"),
        ("model.layers", model.layers, "blocks", recurrent, "`gpt`, `lstm` and `gru`"),
        ("model.heads", model.heads, "attention heads", false, "`gpt`"),
    ];
    let mut found: Vec<_> = sizes
        .into_iter()
        .map(|(field, size, of, other, users)| match size {
            None => (gpt, field, format!("is missing; `gpt` needs the number of {of}")),
            Some(_) => {
                let what = format!("is used by {users} only; remove it or change model.kind");
                (!gpt && !other, field, what)
            }
        })
        .collect();
    if let (Some(width), Some(heads)) = (model.width, model.heads) {
        let what = format!("{heads} does not divide model.width, {width}");
        found.push((gpt && heads > 0 && !width.is_multiple_of(heads), "model.heads", what));
    }
    let not_used = |what: &str| format!("is not used by `gpt`, {what}; remove it");
    found.extend([
        (gpt && model.dropout > 0.0, "model.dropout", not_used("which has no dropout")),
        (
            gpt && model.init != super::Init::default(),
            "model.init",
            not_used("whose weights start normally distributed"),
        ),
        (
            gpt && !card.data.format.is_of_tokens(),
            "model.kind",
            "`gpt` takes text; give data.format `text` or `tokens`".to_owned(),
        ),
    ]);
    found
}

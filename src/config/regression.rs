//! Numbers to predict instead of classes: [`Loss`], and what it demands of a card.

use super::{Card, ColumnKind, ModelKind, Monitor, Sampling};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is made small.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// Of classes: −log of the probability of the label.
    #[default]
    CrossEntropy,
    /// Of numbers: the squared difference.
    Mse,
    /// Of numbers: the absolute difference.
    Mae,
    /// Of numbers: half the squared difference up to `huber_delta`, and a line from there on (Huber, 1964).
    Huber,
}

impl Loss {
    /// Whether numbers are predicted.
    #[must_use]
    pub fn is_of_numbers(self) -> bool {
        self != Loss::CrossEntropy
    }
}

/// What does not fit together: whether it is so, the field, what is wrong.
pub(super) fn problems(card: &Card) -> Vec<(bool, &'static str, String)> {
    let (data, train) = (&card.data, &card.train);
    let numbers = train.loss.is_of_numbers();
    let column = |kind| data.csv.iter().flat_map(|csv| &csv.columns).any(|c| c.kind == kind);
    let (target, label) = (column(ColumnKind::Target), column(ColumnKind::Label));
    let for_classes =
        "is for classes, not for numbers; remove it or take train.loss `cross-entropy`";
    let unfit = [
        (train.label_smoothing != 0.0, "train.label_smoothing"),
        (data.sampling != Sampling::default(), "data.sampling"),
        (!data.augment.is_empty(), "data.augment"),
        (card.metrics.top_k.is_some(), "metrics.top_k"),
        (card.metrics.confusion == Some(true), "metrics.confusion"),
        (card.metrics.auc, "metrics.auc"),
    ];
    let mut found: Vec<_> = unfit
        .into_iter()
        .map(|(given, field)| (numbers && given, field, for_classes.to_owned()))
        .collect();
    found.extend([
        (
            numbers && !target,
            "train.loss",
            "is of numbers, and no column of data.csv is a `target`".to_owned(),
        ),
        (
            !numbers && target,
            "train.loss",
            "is missing; a `target` column needs `mse`, `mae` or `huber`".to_owned(),
        ),
        (
            numbers && card.model.kind != ModelKind::Mlp,
            "model.kind",
            "does not predict numbers; take `mlp`".to_owned(),
        ),
        (
            numbers && data.classes != 1,
            "data.classes",
            format!("is {}; one number is predicted, so it must be 1", data.classes),
        ),
        (
            !numbers && data.classes == 1 && (label || data.csv.is_none()),
            "data.classes",
            "is 1; at least 2 classes can be told from each other".to_owned(),
        ),
        (
            train.huber_delta.is_some() && train.loss != Loss::Huber,
            "train.huber_delta",
            "is used by train.loss `huber` only; remove it".to_owned(),
        ),
    ]);
    found
}

impl Monitor {
    /// Whether it is of predicted numbers alone.
    #[must_use]
    pub(super) fn is_of_numbers(self) -> bool {
        matches!(self, Monitor::Mae | Monitor::Mse | Monitor::Rmse | Monitor::R2)
    }
}

//! What evaluations count, and which of it is watched: [`Metrics`], [`Monitor`].

use super::Card;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Without being asked, classes are counted against each other up to so many.
const FEW_CLASSES: usize = 100;
/// A table of more classes is refused: it has the square of so many counts.
const MOST_CLASSES: usize = 4096;

/// What evaluations count, beside loss and accuracy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// A label among the k highest outputs is right, too (`top_k_accuracy`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 65_536))]
    pub top_k: Option<usize>,
    /// The confusion matrix, with precision, recall and F1 of each class and their means over the classes. When
    /// left out: for up to 100 classes, but not for text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confusion: Option<bool>,
    /// Area under the ROC curve: of two classes that of the second, else the mean over the classes, each
    /// against the rest. Every rank keeps the scores of all test samples while it is counted.
    pub auc: bool,
}

/// A number of an evaluation that is watched, by Keras's names.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Monitor {
    /// Mean loss on the test set; lower is better.
    // Checkpoints of earlier versions have the short names of the first two in their cards.
    #[serde(rename = "val_loss", alias = "loss")]
    Loss,
    /// Accuracy on the test set; higher is better.
    #[default]
    #[serde(rename = "val_accuracy", alias = "accuracy")]
    Accuracy,
    /// Share of labels among the `metrics.top_k` highest outputs; higher is better.
    #[serde(rename = "val_top_k_accuracy")]
    TopK,
    /// Mean precision of the classes; higher is better.
    #[serde(rename = "val_precision")]
    Precision,
    /// Mean recall of the classes; higher is better.
    #[serde(rename = "val_recall")]
    Recall,
    /// Mean F1 of the classes; higher is better.
    #[serde(rename = "val_f1_score")]
    F1,
    /// Area under the ROC curve; higher is better.
    #[serde(rename = "val_auc")]
    Auc,
    /// Mean absolute error, of numbers; lower is better.
    #[serde(rename = "val_mae")]
    Mae,
    /// Mean squared error, of numbers; lower is better.
    #[serde(rename = "val_mse")]
    Mse,
    /// Root of the mean squared error, of numbers; lower is better.
    #[serde(rename = "val_rmse")]
    Rmse,
    /// R², the share of the variance that is explained, of numbers; higher is better.
    #[serde(rename = "val_r2_score")]
    R2,
    /// exp(loss), of text; lower is better.
    #[serde(rename = "val_perplexity")]
    Perplexity,
}

/// Which change of a watched number is an improvement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The one that its name implies.
    #[default]
    Auto,
    /// A smaller number is better.
    Min,
    /// A larger number is better.
    Max,
}

impl Mode {
    /// Whether it is left to the name.
    #[must_use]
    pub fn is_auto(&self) -> bool {
        *self == Mode::Auto
    }
}

impl Monitor {
    /// Its name in `metrics.jsonl`, where all numbers are of the test set.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Monitor::Loss => "loss",
            Monitor::Accuracy => "accuracy",
            Monitor::TopK => "top_k_accuracy",
            Monitor::Precision => "precision",
            Monitor::Recall => "recall",
            Monitor::F1 => "f1_score",
            Monitor::Auc => "auc",
            Monitor::Mae => "mae",
            Monitor::Mse => "mse",
            Monitor::Rmse => "rmse",
            Monitor::R2 => "r2_score",
            Monitor::Perplexity => "perplexity",
        }
    }

    /// A value of it as a gain: larger is better.
    #[must_use]
    pub fn gain(self, mode: Mode, value: f64) -> f64 {
        use Monitor::{Loss, Mae, Mse, Perplexity, Rmse};
        let falls = match mode {
            Mode::Auto => matches!(self, Loss | Perplexity | Mae | Mse | Rmse),
            Mode::Min => true,
            Mode::Max => false,
        };
        if falls { -value } else { value }
    }
}

impl Card {
    /// Whether evaluations count classes against each other.
    #[must_use]
    pub fn counts_confusion(&self) -> bool {
        let few = self.data.classes <= FEW_CLASSES && !self.data.format.is_of_tokens();
        self.metrics.confusion.unwrap_or(few) && !self.train.loss.is_of_numbers()
    }

    /// What makes an evaluation better than another.
    #[must_use]
    pub fn monitor(&self) -> (Monitor, Mode) {
        let stopping = self.train.early_stopping.as_ref();
        stopping.map_or((self.kept_by(), Mode::Auto), |rule| (rule.monitor, rule.mode))
    }

    /// What makes a checkpoint the best, as far as it is not early stopping.
    fn kept_by(&self) -> Monitor {
        let numbers = self.train.loss.is_of_numbers();
        let usual = if numbers { Monitor::Loss } else { Monitor::Accuracy };
        self.checkpoint.monitor.unwrap_or(usual)
    }

    /// What the line of an evaluation shows, beside loss and accuracy: what the card speaks of.
    #[must_use]
    pub fn shown(&self) -> Vec<Monitor> {
        let asked = [
            (self.metrics.top_k.is_some(), Monitor::TopK),
            (self.metrics.confusion == Some(true), Monitor::F1),
            (self.metrics.auc, Monitor::Auc),
            (self.train.loss.is_of_numbers(), Monitor::Mae),
            (self.train.loss.is_of_numbers(), Monitor::R2),
            (self.data.format.is_of_tokens(), Monitor::Perplexity),
        ];
        let asked = asked.into_iter().filter(|(asked, _)| *asked).map(|(_, of)| of);
        asked.chain(self.watched().into_iter().map(|(of, _)| of)).collect()
    }

    /// Everything that is watched, with its field.
    fn watched(&self) -> Vec<(Monitor, &'static str)> {
        let stopping = self.train.early_stopping.as_ref();
        let stopping = stopping.map(|rule| (rule.monitor, "train.early_stopping.monitor"));
        let plateau = self.schedule.plateau();
        let plateau = plateau.map(|rule| (rule.monitor, "schedule.plateau.monitor"));
        let kept = (self.kept_by(), "checkpoint.monitor");
        stopping.into_iter().chain(plateau).chain([kept]).collect()
    }

    /// Whether `monitor` is watched.
    #[must_use]
    pub fn watches(&self, monitor: Monitor) -> bool {
        self.watched().iter().any(|(watched, _)| *watched == monitor)
    }
}

/// Numbers that are watched and not there, counts that cannot be: whether it is so, the field, what is wrong.
pub(super) fn problems(card: &Card) -> Vec<(bool, &'static str, String)> {
    let text = card.data.format.is_of_tokens();
    let (classes, numbers) = (card.data.classes, card.train.loss.is_of_numbers());
    let mut found: Vec<_> = card
        .watched()
        .into_iter()
        .map(|(monitor, field)| {
            let (missing, remedy) = match monitor {
                Monitor::Loss => (false, ""),
                Monitor::Accuracy => (numbers, "it is of classes; watch `val_loss`"),
                of if of.is_of_numbers() => (!numbers, "it is of numbers; watch another"),
                Monitor::TopK => (card.metrics.top_k.is_none(), "give metrics.top_k"),
                Monitor::Precision | Monitor::Recall | Monitor::F1 => {
                    (!card.counts_confusion(), "give \"metrics\": {\"confusion\": true}")
                }
                Monitor::Auc => (!card.metrics.auc, "give \"metrics\": {\"auc\": true}"),
                _ => (!text, "it is of text only; watch another"),
            };
            (missing, field, format!("is not counted: {remedy}"))
        })
        .collect();
    let too_many = card.metrics.confusion == Some(true) && classes > MOST_CLASSES;
    let large = format!(
        "{classes} classes are too many for a table of all pairs; {MOST_CLASSES} are possible"
    );
    found.push((too_many, "metrics.confusion", large));
    let what = "is not counted of text, which has too many tokens; remove it".to_owned();
    found.push((card.metrics.auc && text, "metrics.auc", what));
    if let Some(k) = card.metrics.top_k {
        let what = format!("{k} is not below the number of classes, {classes}");
        found.push((k >= classes, "metrics.top_k", what));
    }
    found.push((
        card.metrics != Metrics::default() && !card.data.is_evaluated(),
        "metrics",
        "needs samples to evaluate on; give data.val or data.test, or remove it".to_owned(),
    ));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with MNIST's card once it has these classes and metrics.
    fn wrong(classes: usize, metrics: &str) -> Vec<String> {
        let text = include_str!("../../configs/lenet-mnist.json");
        let mut card: Card = serde_json::from_str(text).unwrap();
        card.data.classes = classes;
        card.metrics = serde_json::from_str(metrics).unwrap();
        let found = problems(&card).into_iter().filter(|(wrong, ..)| *wrong);
        found.map(|(_, field, what)| format!("{field}: {what}")).collect()
    }

    #[test]
    fn counts_that_cannot_be_are_refused() {
        assert!(wrong(10, r#"{"top_k": 9, "confusion": true, "auc": true}"#).is_empty());
        let found = wrong(10, r#"{"top_k": 10}"#);
        assert_eq!(found, ["metrics.top_k: 10 is not below the number of classes, 10"]);
        let found = wrong(5000, r#"{"confusion": true}"#);
        assert!(found[0].starts_with("metrics.confusion: 5000 classes are too many"), "{found:?}");
    }

    #[test]
    fn few_classes_are_counted_unasked() {
        let text = include_str!("../../configs/lenet-mnist.json");
        let mut card: Card = serde_json::from_str(text).unwrap();
        assert!(card.counts_confusion());
        card.data.classes = 101;
        assert!(!card.counts_confusion());
        card.metrics.confusion = Some(true);
        assert!(card.counts_confusion());
    }
}

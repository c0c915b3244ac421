//! What an evaluation comes to, beside loss and accuracy.
//!
//! Every rank counts its batches of the test set in whole numbers, the ranks add the counts, and all divide
//! the same sums: the same bits at any number of ranks.

mod auc;
mod confusion;
mod numbers;
mod outputs;
#[cfg(test)]
mod tests;

use auc::Scores;
pub use confusion::{Confusion, OfClass};
use numbers::Numbers;
pub use outputs::Outputs;

use super::tally::Tally;
use crate::collective::{Group, Op};
use crate::config::{Card, Monitor};
use crate::error::Result;
use crate::util::label::{self, IGNORED};
use serde::Serialize;

/// What is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    classes: usize,
    top_k: Option<usize>,
    confusion: bool,
    auc: bool,
    /// Numbers are predicted.
    numbers: bool,
    perplexity: bool,
}

impl Wanted {
    /// What the card wants.
    #[must_use]
    pub fn by(card: &Card) -> Wanted {
        Wanted {
            classes: card.data.classes,
            top_k: card.metrics.top_k,
            confusion: card.counts_confusion(),
            auc: card.metrics.auc,
            numbers: card.train.loss.is_of_numbers(),
            perplexity: card.data.format.is_of_tokens(),
        }
    }

    /// Whether the outputs of each sample are looked at.
    #[must_use]
    pub fn looks_at_outputs(self) -> bool {
        self.top_k.is_some() || self.confusion || self.auc || self.numbers
    }

    /// Numbers that each rank keeps of each sample.
    #[must_use]
    pub fn numbers_kept(self) -> usize {
        if self.auc { self.classes + 1 } else { 0 }
    }

    /// Whether there is more to an evaluation than single numbers.
    #[must_use]
    pub fn has_details(self) -> bool {
        self.confusion
    }
}

/// Counts over some samples.
#[derive(Debug, Clone)]
pub struct Counts {
    wanted: Wanted,
    /// Labels among the k highest outputs.
    hits: u64,
    confusion: Option<Confusion>,
    scores: Option<Scores>,
    numbers: Option<Numbers>,
}

impl Counts {
    /// Nothing counted yet of `batches` batches, where `first` is the label of the first sample of all.
    #[must_use]
    pub fn new(wanted: Wanted, batches: usize, first: u32) -> Counts {
        let confusion = wanted.confusion.then(|| Confusion::new(wanted.classes));
        let scores = wanted.auc.then(|| Scores::new(wanted.classes));
        let numbers = wanted.numbers.then(|| Numbers::new(label::number(first), batches));
        Counts { wanted, hits: 0, confusion, scores, numbers }
    }

    /// Takes in the outputs for batch `batch`.
    pub fn see(&mut self, batch: usize, outputs: &Outputs, labels: &[u32]) {
        if let Some(numbers) = &mut self.numbers {
            for (row, &label) in outputs.rows().zip(labels) {
                numbers.see(batch, row[0], label::number(label));
            }
            return;
        }
        for (row, &label) in outputs.rows().zip(labels).filter(|(_, label)| **label != IGNORED) {
            if let Some(k) = self.wanted.top_k {
                self.hits += u64::from(outputs::place(row, label as usize) < k);
            }
            if let Some(confusion) = &mut self.confusion {
                confusion.see(label as usize, outputs::highest(row));
            }
            if let Some(scores) = &mut self.scores {
                scores.see(row, label);
            }
        }
    }

    /// Adds up the counts of all ranks. Whole numbers: the same in any order.
    fn reduce(&mut self, group: &mut Group) -> Result<()> {
        if self.wanted.top_k.is_none() && self.confusion.is_none() {
            return Ok(());
        }
        let mut table = vec![self.hits];
        table.extend(self.confusion.iter().flat_map(Confusion::counts));
        group.all_reduce(&mut table, Op::Sum)?;
        self.hits = table[0];
        if let Some(confusion) = &mut self.confusion {
            confusion.put(&table[1..]);
        }
        Ok(())
    }
}

/// What an evaluation comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Loss and accuracy.
    pub tally: Tally,
    /// The other numbers that the card wants, in the order of their kind.
    pub scores: Vec<(Monitor, f64)>,
    /// What is more than a number; not part of a checkpoint.
    pub details: Option<Confusion>,
}

impl Evaluation {
    /// From the sums over all samples and the counts of this rank.
    ///
    /// # Errors
    /// When a rank is late or dead.
    pub fn of(tally: Tally, mut counts: Counts, group: &mut Group) -> Result<Evaluation> {
        counts.reduce(group)?;
        let mut scores = Vec::new();
        if counts.wanted.top_k.is_some() {
            scores.push((Monitor::TopK, counts.hits as f64 / tally.count));
        }
        if let Some(confusion) = &counts.confusion {
            let mean = confusion.mean();
            scores.push((Monitor::Precision, mean.precision));
            scores.push((Monitor::Recall, mean.recall));
            scores.push((Monitor::F1, mean.f1));
        }
        if let Some(of_all) = &counts.scores {
            scores.push((Monitor::Auc, of_all.area(group)?));
        }
        if let Some(numbers) = &counts.numbers {
            scores.extend(numbers.scores(group)?);
        }
        if counts.wanted.perplexity {
            scores.push((Monitor::Perplexity, tally.mean_loss().exp()));
        }
        Ok(Evaluation { tally, scores, details: counts.confusion })
    }

    /// A number of it; NaN where it was not wanted, which the check of the card rules out.
    #[must_use]
    pub fn value(&self, monitor: Monitor) -> f64 {
        match monitor {
            Monitor::Loss => self.tally.mean_loss(),
            Monitor::Accuracy => self.tally.accuracy(),
            other => self.score(other).unwrap_or(f64::NAN),
        }
    }

    /// A number beside loss and accuracy, if it was wanted.
    #[must_use]
    pub fn score(&self, monitor: Monitor) -> Option<f64> {
        self.scores.iter().find(|(of, _)| *of == monitor).map(|(_, value)| *value)
    }

    /// The numbers beside loss and accuracy by their names in files.
    #[must_use]
    pub fn named(&self) -> Vec<(&'static str, f64)> {
        self.scores.iter().map(|(monitor, value)| (monitor.name(), *value)).collect()
    }

    /// Everything, for a file, with the table of classes in `details`.
    #[must_use]
    pub fn report(&self, details: Option<&Confusion>) -> Report {
        let t = &self.tally;
        let scores = self.named().into_iter().collect();
        Report {
            loss: t.mean_loss(),
            accuracy: t.accuracy(),
            scores,
            correct: t.correct as u64,
            count: t.count as u64,
            classes: details.map_or_else(Vec::new, Confusion::classes),
            confusion: details.map_or_else(Vec::new, Confusion::rows),
        }
    }
}

/// `evaluation.json`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    loss: f64,
    accuracy: f64,
    #[serde(flatten)]
    scores: std::collections::BTreeMap<&'static str, f64>,
    correct: u64,
    count: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    classes: Vec<OfClass>,
    /// Rows are labels, columns predictions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    confusion: Vec<Vec<u64>>,
}

//! Area under the ROC curve: how often a sample of a class has a higher score for it than one of another
//! class (Hanley and McNeil, 1982); equal scores count half. Exact: pairs are counted in whole numbers over
//! all scores of all ranks, so neither their order nor the number of ranks matters.

use crate::collective::{Group, Op};
use crate::error::Result;

/// Scores and labels of some samples.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scores {
    classes: usize,
    labels: Vec<u32>,
    /// Of each sample those of [`scored`] classes.
    values: Vec<f32>,
}

/// The classes that have a score: of two the second alone.
fn scored(classes: usize) -> std::ops::Range<usize> {
    if classes == 2 { 1..2 } else { 0..classes }
}

impl Scores {
    /// No sample yet.
    #[must_use]
    pub fn new(classes: usize) -> Scores {
        Scores { classes, ..Scores::default() }
    }

    /// Takes in the outputs for a sample. The score of a class is the logarithm of its odds,
    /// z_k − log Σ_(j ≠ k) exp z_j: in the order of its probability, without saturating at 0 and 1.
    pub fn see(&mut self, row: &[f32], label: u32) {
        self.labels.push(label);
        for k in scored(self.classes) {
            let others = || row.iter().enumerate().filter(|(j, _)| *j != k);
            let max = others().fold(f64::NEG_INFINITY, |max, (_, &z)| max.max(f64::from(z)));
            let sum: f64 = others().map(|(_, &z)| (f64::from(z) - max).exp()).sum();
            self.values.push((f64::from(row[k]) - max - sum.ln()) as f32);
        }
    }

    /// Of two classes the area of the second against the first; else the mean over the classes that have
    /// samples and are not all of them, each against the rest (scikit-learn's `roc_auc_score` with
    /// `multi_class="ovr", average="macro"`). NaN where there is no such class or a score is NaN.
    ///
    /// # Errors
    /// When a rank is late or dead.
    pub fn area(&self, group: &mut Group) -> Result<f64> {
        let all = self.gather(group)?;
        let width = scored(self.classes).len();
        // Each class has one owner; the others add zeros, which is exact.
        let mut table = vec![0.0; 2 * width];
        for (at, k) in scored(self.classes).enumerate() {
            if at % group.size() == group.rank()
                && let Some(area) = of_class(all.samples(at, width), k as u32)
            {
                (table[2 * at], table[2 * at + 1]) = (area, 1.0);
            }
        }
        group.all_reduce(&mut table, Op::Sum)?;
        let pairs = table.as_chunks::<2>().0;
        let sum: f64 = pairs.iter().map(|pair| pair[0]).sum();
        Ok(sum / pairs.iter().map(|pair| pair[1]).sum::<f64>())
    }

    /// Score `at` of each sample, of `width`, with its label.
    fn samples(&self, at: usize, width: usize) -> Vec<(f32, u32)> {
        let scores = self.values.iter().skip(at).step_by(width);
        scores.copied().zip(self.labels.iter().copied()).collect()
    }

    /// The samples of all ranks.
    fn gather(&self, group: &mut Group) -> Result<Scores> {
        let mut all = Scores::new(self.classes);
        for bytes in group.all_gather(bytemuck::cast_slice(&self.labels))? {
            all.labels.extend(words(&bytes).map(u32::from_ne_bytes));
        }
        for bytes in group.all_gather(bytemuck::cast_slice(&self.values))? {
            all.values.extend(words(&bytes).map(f32::from_ne_bytes));
        }
        Ok(all)
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = [u8; 4]> {
    bytes.as_chunks::<4>().0.iter().copied()
}

/// The area of class `class` against the rest; `None` where one of the two has no sample.
fn of_class(mut samples: Vec<(f32, u32)>, class: u32) -> Option<f64> {
    samples.sort_by(|a, b| a.0.total_cmp(&b.0));
    let own = samples.iter().filter(|(_, label)| *label == class).count() as u128;
    let rest = samples.len() as u128 - own;
    if own == 0 || rest == 0 {
        return None;
    }
    if samples.iter().any(|(score, _)| score.is_nan()) {
        return Some(f64::NAN);
    }
    // Twice the pairs in which a sample of the class has the higher score; equal ones count once.
    let (mut twice, mut below) = (0u128, 0u128);
    for equal in samples.chunk_by(|a, b| a.0 == b.0) {
        let own = equal.iter().filter(|(_, label)| *label == class).count() as u128;
        let others = equal.len() as u128 - own;
        twice += own * (2 * below + others);
        below += others;
    }
    Some(twice as f64 / (2 * own * rest) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_counted_and_equal_scores_count_half() {
        let samples = |scores: [f32; 4]| scores.into_iter().zip([0, 0, 1, 1]).collect::<Vec<_>>();
        assert_eq!(of_class(samples([1.0, 2.0, 3.0, 4.0]), 1), Some(1.0));
        assert_eq!(of_class(samples([3.0, 4.0, 1.0, 2.0]), 1), Some(0.0));
        assert_eq!(of_class(samples([1.0, 2.0, 2.0, 3.0]), 1), Some(3.5 / 4.0));
        assert_eq!(of_class(samples([-0.0, 0.0, 0.0, -0.0]), 1), Some(0.5));
        assert_eq!(of_class(samples([1.0, 2.0, 3.0, 4.0]), 7), None);
        assert!(of_class(samples([1.0, f32::NAN, 3.0, 4.0]), 1).unwrap().is_nan());
    }

    #[test]
    fn scores_do_not_saturate() {
        let mut scores = Scores::new(3);
        scores.see(&[90.0, 0.0, 0.0], 0);
        scores.see(&[91.0, 0.0, 0.0], 0);
        assert!(scores.values[3] > scores.values[0], "{:?}", scores.values);
    }
}

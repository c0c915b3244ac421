//! The confusion matrix: how often samples of each class were taken for which.

use serde::Serialize;

/// Counts of label and prediction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    /// Row by row; a row is a label, its columns are predictions and at last those without one, because an
    /// output was NaN.
    counts: Vec<u64>,
}

/// How well one class is told from the others.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct OfClass {
    /// Of those that were taken for it, the share that is; 0 where none was.
    pub precision: f64,
    /// Of those that are, the share that was found; 0 where there is none.
    pub recall: f64,
    /// Harmonic mean of the two; 0 where both are.
    #[serde(rename = "f1_score")]
    pub f1: f64,
    /// Samples of the class.
    pub support: u64,
    /// Samples that were taken for it.
    pub predicted: u64,
}

impl Confusion {
    /// Nothing counted.
    #[must_use]
    pub fn new(classes: usize) -> Confusion {
        Confusion { classes, counts: vec![0; classes * (classes + 1)] }
    }

    /// Counts a sample.
    pub fn see(&mut self, label: usize, predicted: Option<usize>) {
        let column = predicted.unwrap_or(self.classes);
        self.counts[label * (self.classes + 1) + column] += 1;
    }

    /// All counts, for a sum over ranks.
    #[must_use]
    pub fn counts(&self) -> Vec<u64> {
        self.counts.clone()
    }

    /// Takes over counts of [`Confusion::counts`]' order.
    pub fn put(&mut self, counts: &[u64]) {
        self.counts.copy_from_slice(counts);
    }

    /// Number of classes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.classes
    }

    /// How many samples of class `label` were taken for class `predicted`.
    #[must_use]
    pub fn at(&self, label: usize, predicted: usize) -> u64 {
        self.counts[label * (self.classes + 1) + predicted]
    }

    /// The matrix: rows are labels, columns predictions. Samples with NaN among their outputs are in no column.
    #[must_use]
    pub fn rows(&self) -> Vec<Vec<u64>> {
        let rows = self.counts.chunks_exact(self.classes + 1);
        rows.map(|row| row[..self.classes].to_vec()).collect()
    }

    /// Precision, recall and F1 of each class, as scikit-learn's `precision_recall_fscore_support` with
    /// `zero_division=0`.
    #[must_use]
    pub fn classes(&self) -> Vec<OfClass> {
        (0..self.classes).map(|class| self.of_class(class)).collect()
    }

    fn of_class(&self, class: usize) -> OfClass {
        let width = self.classes + 1;
        let support = self.counts[class * width..(class + 1) * width].iter().sum();
        let predicted = (0..self.classes).map(|label| self.at(label, class)).sum();
        let right = self.at(class, class);
        let share = |of: u64| if of == 0 { 0.0 } else { right as f64 / of as f64 };
        // 2pr / (p + r) = 2·right / (support + predicted), with one rounding.
        let both = support + predicted;
        let f1 = if both == 0 { 0.0 } else { 2.0 * right as f64 / both as f64 };
        OfClass { precision: share(predicted), recall: share(support), f1, support, predicted }
    }

    /// The means over the classes that occur as label or prediction (scikit-learn's `average="macro"`).
    #[must_use]
    pub fn mean(&self) -> OfClass {
        let present: Vec<OfClass> =
            self.classes().into_iter().filter(|c| c.support + c.predicted > 0).collect();
        let n = present.len().max(1) as f64;
        let mean = |of: fn(&OfClass) -> f64| present.iter().map(of).sum::<f64>() / n;
        OfClass {
            precision: mean(|c| c.precision),
            recall: mean(|c| c.recall),
            f1: mean(|c| c.f1),
            support: present.iter().map(|c| c.support).sum(),
            predicted: present.iter().map(|c| c.predicted).sum(),
        }
    }

    /// The pairs of different classes that were mistaken for each other most often: label, prediction, how
    /// often; at most `most` of them.
    #[must_use]
    pub fn mistakes(&self, most: usize) -> Vec<(usize, usize, u64)> {
        let pairs = (0..self.classes).flat_map(|a| (0..self.classes).map(move |b| (a, b)));
        let mut found: Vec<_> = pairs
            .filter(|(a, b)| a != b)
            .map(|(a, b)| (a, b, self.at(a, b)))
            .filter(|(_, _, n)| *n > 0)
            .collect();
        found.sort_by_key(|&(a, b, n)| (std::cmp::Reverse(n), a, b));
        found.truncate(most);
        found
    }

    /// As CSV: a header of predictions, then one line for each label.
    #[must_use]
    pub fn to_csv(&self) -> String {
        let header = (0..self.classes).map(|c| format!(",{c}")).collect::<String>();
        let line = |(label, row): (usize, Vec<u64>)| {
            let counts = row.iter().map(|n| format!(",{n}")).collect::<String>();
            format!("{label}{counts}\n")
        };
        let lines = self.rows().into_iter().enumerate().map(line).collect::<String>();
        format!("label\\predicted{header}\n{lines}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Labels 0 0 0 1 1 3, predictions 0 0 1 1 none 1; class 2 occurs nowhere.
    fn some() -> Confusion {
        let mut c = Confusion::new(4);
        for (label, predicted) in
            [(0, Some(0)), (0, Some(0)), (0, Some(1)), (1, Some(1)), (1, None), (3, Some(1))]
        {
            c.see(label, predicted);
        }
        c
    }

    #[test]
    fn each_class_is_judged_by_its_row_and_its_column() {
        let of = some().classes();
        assert_eq!((of[0].precision, of[0].recall, of[0].f1), (1.0, 2.0 / 3.0, 0.8));
        assert_eq!((of[1].precision, of[1].recall, of[1].support), (1.0 / 3.0, 0.5, 2));
        assert_eq!((of[2].precision, of[2].recall, of[2].f1), (0.0, 0.0, 0.0));
        assert_eq!((of[3].support, of[3].predicted, of[3].f1), (1, 0, 0.0));
    }

    #[test]
    fn the_mean_leaves_out_classes_that_occur_nowhere() {
        assert_eq!(some().mean().f1, (0.8 + 2.0 / 5.0 + 0.0) / 3.0);
    }

    #[test]
    fn the_commonest_mistakes_come_first() {
        let mut c = some();
        c.see(3, Some(1));
        assert_eq!(c.mistakes(2), [(3, 1, 2), (0, 1, 1)]);
        assert!(c.to_csv().starts_with("label\\predicted,0,1,2,3\n0,2,1,0,0\n"), "{}", c.to_csv());
    }
}

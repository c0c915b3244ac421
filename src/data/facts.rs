//! What is in a data set: counts of labels, and the numbers of its samples as a model sees them.

use super::{Dataset, IGNORED};
use crate::error::Result;

/// Facts of a data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// How often each class is a label: in the whole set where a sample has one label, else in the samples
    /// that were looked at. Nothing is counted where labels are numbers to predict.
    pub classes: Vec<u64>,
    /// Samples whose numbers were looked at, evenly spread over the set.
    pub looked_at: usize,
    /// Mean of their numbers.
    pub mean: f64,
    /// Their standard deviation, divided by the count.
    pub std: f64,
    /// The least of them.
    pub least: f32,
    /// The greatest.
    pub most: f32,
}

impl Facts {
    /// Looks at up to `most` samples of a set that is not empty.
    ///
    /// # Errors
    /// As [`Dataset::read`].
    pub fn of(set: &dyn Dataset, most: usize) -> Result<Facts> {
        let looked_at = set.len().min(most.max(1));
        let mut values = vec![0.0; set.sample_len()];
        let mut labels = vec![0; set.labels_per_sample()];
        let mut classes = vec![0; set.classes()];
        let [mut least, mut greatest] = [f32::INFINITY, f32::NEG_INFINITY];
        // Shifted by the first number, so that the square of a large mean hides no small deviation.
        let (mut shift, mut sum, mut squares) = (None, 0.0, 0.0);
        for i in 0..looked_at {
            set.read_all(spread(i, looked_at, set.len()), &mut values, &mut labels)?;
            for &value in &values {
                let d = f64::from(value) - *shift.get_or_insert(f64::from(value));
                sum += d;
                squares += d * d;
                (least, greatest) = (least.min(value), greatest.max(value));
            }
            if labels.len() == 1 || set.predicts_numbers() {
                continue;
            }
            for &label in labels.iter().filter(|&&label| label != IGNORED) {
                classes[label as usize] += 1;
            }
        }
        if labels.len() == 1 && !set.predicts_numbers() {
            // Every reader has the labels at hand.
            for i in 0..set.len() {
                classes[set.label(i)? as usize] += 1;
            }
        }
        let n = (looked_at * values.len()).max(1) as f64;
        let mean = sum / n;
        let std = (squares / n - mean * mean).max(0.0).sqrt();
        let mean = mean + shift.unwrap_or(0.0);
        Ok(Facts { classes, looked_at, mean, std, least, most: greatest })
    }
}

/// The `i`th of `some` places spread evenly over `all`.
fn spread(i: usize, some: usize, all: usize) -> usize {
    (i as u128 * all as u128 / some as u128) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sample i is (i, i + 1); its label i % 3.
    struct Numbers(usize);

    impl Dataset for Numbers {
        fn len(&self) -> usize {
            self.0
        }
        fn sample_shape(&self) -> &[usize] {
            &[2]
        }
        fn classes(&self) -> usize {
            4
        }
        fn read(&self, index: usize, out: &mut [f32]) -> Result<u32> {
            out.copy_from_slice(&[index as f32 + 1e6, index as f32 + 1e6 + 1.0]);
            Ok((index % 3) as u32)
        }
        fn fingerprint(&self) -> String {
            String::new()
        }
    }

    #[test]
    fn counts_and_moments_are_those_of_all_samples_or_of_some_spread_over_them() {
        let facts = Facts::of(&Numbers(4), 100).unwrap();
        assert_eq!((facts.classes, facts.looked_at), (vec![2, 1, 1, 0], 4));
        assert_eq!((facts.least, facts.most), (1e6, 1e6 + 4.0));
        assert!((facts.mean - 1_000_002.0).abs() < 1e-9, "{}", facts.mean);
        assert!((facts.std - 1.5f64.sqrt()).abs() < 1e-9, "{}", facts.std);
        let some = Facts::of(&Numbers(1000), 10).unwrap();
        assert_eq!(some.classes, [334, 333, 333, 0]);
        assert_eq!((some.looked_at, some.least, some.most), (10, 1e6, 1e6 + 901.0));
    }
}

//! Which sample is drawn at which position of an epoch: each once ([`Order`]), or with replacement, by
//! class. Like the order, a draw is a pure function of (seed, epoch, position): any number of ranks
//! sees the same global batches, and a run resumes anywhere.

use super::Dataset;
use super::sampler::{Order, Sampler};
use crate::config::{self, SamplingKind};
use crate::error::{Error, Result};
use crate::util::rng::{Purpose, Rng};
use std::sync::Arc;

/// One draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// Index in the data set.
    pub sample: u64,
    /// What the draw's random numbers (augmentation, dropout) are keyed by: the sample's index; with
    /// replacement n + position, so that a sample that comes again is changed otherwise.
    pub key: u64,
}

impl Draw {
    /// The draw of a sample that comes once.
    #[must_use]
    pub fn of(sample: u64) -> Draw {
        Draw { sample, key: sample }
    }
}

/// How a run draws its samples. By default each once an epoch.
#[derive(Debug, Clone, Default)]
pub struct Sampling {
    classes: Option<Arc<Classes>>,
    in_order: bool,
}

impl Sampling {
    /// The way that a card asks for, over `dataset`.
    ///
    /// # Errors
    /// As [`Dataset::label`]; also [`Error::Config`] when no sample has a weight above 0.
    pub fn new(wanted: &config::Sampling, dataset: &dyn Dataset) -> Result<Sampling> {
        if wanted.kind == SamplingKind::Uniform {
            return Ok(Sampling { classes: None, in_order: dataset.in_order() });
        }
        let mut labels = Vec::with_capacity(dataset.len());
        for index in 0..dataset.len() {
            labels.push(dataset.label(index)?);
        }
        let classes = Classes::new(&labels, dataset.classes(), wanted).ok_or_else(|| {
            let (n, classes) = (dataset.len(), dataset.classes());
            Error::Config(format!(
                "data.sampling.weights: none of the {n} samples of {classes} classes has a weight above 0"
            ))
        })?;
        Ok(Sampling { classes: Some(Arc::new(classes)), in_order: false })
    }

    /// The draws of `epoch`.
    #[must_use]
    pub fn draws(&self, sampler: &Sampler, epoch: u64) -> Draws {
        match &self.classes {
            None if self.in_order => Draws::InOrder(sampler.n),
            None => Draws::Once(sampler.order(epoch)),
            Some(classes) => {
                let (seed, n) = (sampler.seed, sampler.n);
                Draws::Again { seed, epoch, n, classes: classes.clone() }
            }
        }
    }
}

/// The draws of one epoch.
#[derive(Debug, Clone)]
pub enum Draws {
    /// Each sample once.
    Once(Order),
    /// So many samples, each once, in the order of the data set.
    InOrder(u64),
    /// With replacement.
    Again {
        /// Of the draws.
        seed: u64,
        /// Of the draws.
        epoch: u64,
        /// Draws in the epoch.
        n: u64,
        /// The samples by class.
        classes: Arc<Classes>,
    },
}

impl Draws {
    /// Number of draws.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "there is always at least one")]
    pub fn len(&self) -> u64 {
        match self {
            Draws::Once(order) => order.len(),
            Draws::InOrder(n) => *n,
            Draws::Again { n, .. } => *n,
        }
    }

    /// The draw at `position`, below [`Draws::len`].
    #[must_use]
    pub fn at(&self, position: u64) -> Draw {
        match self {
            Draws::Once(order) => Draw::of(order.at(position)),
            Draws::InOrder(_) => Draw::of(position),
            Draws::Again { seed, epoch, n, classes } => {
                let mut rng = Rng::new(*seed, Purpose::Draw, *epoch, 0, position);
                Draw { sample: classes.draw(&mut rng), key: n + position }
            }
        }
    }
}

/// Samples by class, to be drawn class first.
#[derive(Debug)]
pub struct Classes {
    /// All samples, class by class, in the order of the data set.
    samples: Vec<u64>,
    /// Class c has the samples at `starts[c]..starts[c + 1]`.
    starts: Vec<usize>,
    /// The share of classes 0 to c in the draws; the last is 1 by construction.
    edges: Vec<f64>,
    /// The last class that is ever drawn.
    last: usize,
}

impl Classes {
    /// `None` when nothing can be drawn.
    fn new(labels: &[u32], classes: usize, wanted: &config::Sampling) -> Option<Classes> {
        let mut starts = vec![0; classes + 1];
        for &label in labels {
            starts[label as usize + 1] += 1;
        }
        let share = |class: usize, count: usize| match wanted.kind {
            _ if count == 0 => 0.0,
            SamplingKind::Weighted => wanted.weights.get(class).unwrap_or(&0.0) * count as f64,
            _ => 1.0,
        };
        let shares: Vec<f64> = (0..classes).map(|c| share(c, starts[c + 1])).collect();
        let last = shares.iter().rposition(|&share| share > 0.0)?;
        let (total, mut sum) = (shares.iter().sum::<f64>(), 0.0);
        let edge = |share: &f64| {
            sum += share;
            sum / total
        };
        let edges = shares.iter().map(edge).collect();
        (0..classes).for_each(|c| starts[c + 1] += starts[c]);
        let (mut next, mut samples) = (starts.clone(), vec![0; labels.len()]);
        for (sample, &label) in labels.iter().enumerate() {
            samples[next[label as usize]] = sample as u64;
            next[label as usize] += 1;
        }
        Some(Classes { samples, starts, edges, last })
    }

    fn draw(&self, rng: &mut Rng) -> u64 {
        let point = rng.uniform_f64();
        let class = self.edges.partition_point(|&edge| edge <= point).min(self.last);
        let of_class = &self.samples[self.starts[class]..self.starts[class + 1]];
        of_class[rng.below(of_class.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1,000 samples: class 0 has 900, class 1 none, class 2 has 90, class 3 has 10; mixed up.
    fn labels() -> Vec<u32> {
        let class = |i: u32| match (i * 7) % 1000 {
            0..900 => 0,
            900..990 => 2,
            _ => 3,
        };
        (0..1000).map(class).collect()
    }

    fn draws(kind: SamplingKind, weights: &[f64], epoch: u64) -> Draws {
        let wanted = config::Sampling { kind, weights: weights.to_vec() };
        let classes = Classes::new(&labels(), 4, &wanted).unwrap();
        let sampling = Sampling { classes: Some(Arc::new(classes)), in_order: false };
        sampling.draws(&Sampler::new(1000, 64, 5), epoch)
    }

    /// How often each sample is drawn in `epochs` epochs.
    fn counts(kind: SamplingKind, weights: &[f64], epochs: u64) -> Vec<f64> {
        let mut counts = vec![0.0; 1000];
        for epoch in 0..epochs {
            let draws = draws(kind, weights, epoch);
            (0..draws.len()).for_each(|p| counts[draws.at(p).sample as usize] += 1.0);
        }
        counts
    }

    /// The counts deviate from what is expected no more than chance lets them: Pearson's χ², which has
    /// mean k and deviation √2k for k cells.
    fn assert_by_chance(counts: &[f64], expected: impl Fn(usize) -> f64) {
        let (mut chi, mut cells) = (0.0, 0.0);
        for (i, &count) in counts.iter().enumerate() {
            if expected(i) == 0.0 {
                assert_eq!(count, 0.0, "{i} is never to be drawn");
            } else {
                chi += (count - expected(i)).powi(2) / expected(i);
                cells += 1.0;
            }
        }
        assert!((chi - cells).abs() < 4.0 * (2.0f64 * cells).sqrt(), "χ² {chi} of {cells} cells");
    }

    #[test]
    fn balanced_classes_come_equally_often_and_so_do_the_samples_of_one_class() {
        let labels = labels();
        let counts = counts(SamplingKind::Balanced, &[], 400);
        let size = |class: u32| labels.iter().filter(|&&label| label == class).count() as f64;
        assert_by_chance(&counts, |i| 400_000.0 / 3.0 / size(labels[i]));
        let of = |class: u32| -> f64 {
            let own = counts.iter().zip(&labels).filter(|(_, label)| **label == class);
            own.map(|(count, _)| count).sum()
        };
        let by_class: Vec<f64> = (0..4).map(of).collect();
        assert_by_chance(&by_class, |class| if class == 1 { 0.0 } else { 400_000.0 / 3.0 });
    }

    #[test]
    fn weighted_samples_come_in_proportion_to_the_weight_of_their_class() {
        let (labels, weights) = (labels(), [1.0, 7.0, 0.0, 30.0]);
        let counts = counts(SamplingKind::Weighted, &weights, 400);
        let total = 900.0 * 1.0 + 10.0 * 30.0;
        assert_by_chance(&counts, |i| 400_000.0 * weights[labels[i] as usize] / total);
    }

    #[test]
    fn a_draw_depends_on_seed_epoch_and_position_alone_and_each_has_a_key_of_its_own() {
        let all = |epoch| -> Vec<Draw> {
            let draws = draws(SamplingKind::Balanced, &[], epoch);
            (0..1000).map(|p| draws.at(p)).collect()
        };
        assert_eq!(all(3), all(3));
        let same = all(3).iter().zip(&all(4)).filter(|(a, b)| a.sample == b.sample).count();
        assert!(same < 100, "{same} of 1000 draws are the same in two epochs");
        let mut keys: Vec<u64> = all(3).iter().map(|draw| draw.key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!((keys.len(), keys[0]), (1000, 1000), "a key is no index of a sample");
    }

    #[test]
    fn nothing_to_draw_is_told() {
        let wanted = config::Sampling { kind: SamplingKind::Weighted, weights: vec![0.0; 4] };
        assert!(Classes::new(&labels(), 4, &wanted).is_none());
        let wanted = config::Sampling { weights: vec![0.0, 1.0, 0.0, 0.0], ..wanted };
        assert!(Classes::new(&labels(), 4, &wanted).is_none(), "class 1 has no samples");
    }
}

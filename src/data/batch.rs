//! A batch in flat memory that is filled again and again.

use super::Dataset;
use super::sampling::Draw;
use crate::error::{Error, Result};

/// A micro-batch: the samples of one rank for one forward and backward pass. It may be empty.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Batch {
    /// The samples one after another, each [`Dataset::sample_len`] numbers.
    pub images: Vec<f32>,
    /// The labels of each sample, one after another, each [`Dataset::labels_per_sample`].
    pub labels: Vec<u32>,
    /// A second label of each sample and its share of the first's; empty where nothing is mixed.
    pub mixed: Vec<(u32, f32)>,
    /// The index of each sample in the data set.
    pub samples: Vec<u64>,
    /// What the random numbers of each sample are keyed by ([`Draw::key`]).
    pub keys: Vec<u64>,
    /// Sum of the weights of the whole global batch, all ranks together: what the loss is divided
    /// by. Each sample weighs as many as it has labels that count.
    pub global_weight: f64,
    /// The epoch, counted from 0.
    pub epoch: u64,
    /// The step in the run, counted from 0.
    pub step: u64,
    /// Which of the step's micro-batches this is, counted from 0.
    pub micro: usize,
}

impl Batch {
    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether this rank has no sample in this micro-batch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// A batch of sample `i` alone, with all else as it is here. `size` numbers are one sample.
    ///
    /// # Panics
    /// When there is no sample `i`.
    #[must_use]
    pub fn only(&self, i: usize, size: usize) -> Batch {
        let labels = self.labels.len() / self.samples.len();
        Batch {
            images: self.images[i * size..][..size].to_vec(),
            labels: self.labels[i * labels..][..labels].to_vec(),
            mixed: self.mixed.get(i).copied().into_iter().collect(),
            samples: vec![self.samples[i]],
            keys: vec![self.keys[i]],
            ..*self
        }
    }

    /// Replaces the samples by those drawn, as they are in the data set, reusing the memory; the other fields stay.
    ///
    /// # Errors
    /// As [`Dataset::read`].
    pub fn fill(&mut self, dataset: &dyn Dataset, draws: impl Iterator<Item = Draw>) -> Result<()> {
        let size = dataset.sample_len();
        self.samples.clear();
        self.keys.clear();
        for Draw { sample, key } in draws {
            self.samples.push(sample);
            self.keys.push(key);
        }
        let labels = dataset.labels_per_sample();
        self.mixed.clear();
        // Every number is written below, so what is left of earlier samples needs no clearing.
        self.images.resize(self.samples.len() * size, 0.0);
        self.labels.resize(self.samples.len() * labels, 0);
        for (place, &sample) in self.samples.iter().enumerate() {
            let index = usize::try_from(sample)
                .map_err(|_| Error::Internal(format!("sample {sample} has no address")))?;
            let out = &mut self.images[place * size..][..size];
            dataset.read_all(index, out, &mut self.labels[place * labels..][..labels])?;
        }
        Ok(())
    }
}

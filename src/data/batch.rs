//! A batch in flat memory that is filled again and again.

use super::Dataset;
use crate::error::{Error, Result};

/// A micro-batch: the samples of one rank for one forward and backward pass. It may be empty.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Batch {
    /// The samples one after another, each [`Dataset::sample_len`] numbers.
    pub images: Vec<f32>,
    /// The label of each sample.
    pub labels: Vec<u32>,
    /// The index of each sample in the data set: the key of its random numbers.
    pub samples: Vec<u64>,
    /// Sum of the weights of the whole global batch, all ranks together: what the loss is divided
    /// by. Each sample weighs 1.
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
        Batch {
            images: self.images[i * size..][..size].to_vec(),
            labels: vec![self.labels[i]],
            samples: vec![self.samples[i]],
            ..*self
        }
    }

    /// Replaces the samples by those at `indices`, reusing the memory; the other fields stay.
    ///
    /// # Errors
    /// As [`Dataset::read`].
    pub fn fill(
        &mut self,
        dataset: &dyn Dataset,
        indices: impl Iterator<Item = u64>,
    ) -> Result<()> {
        let size = dataset.sample_len();
        self.samples.clear();
        self.samples.extend(indices);
        self.labels.clear();
        // Every number is written below, so what is left of earlier samples needs no clearing.
        self.images.resize(self.samples.len() * size, 0.0);
        for (place, &sample) in self.samples.iter().enumerate() {
            let index = usize::try_from(sample)
                .map_err(|_| Error::Internal(format!("sample {sample} has no address")))?;
            let out = &mut self.images[place * size..][..size];
            self.labels.push(dataset.read(index, out)?);
        }
        Ok(())
    }
}

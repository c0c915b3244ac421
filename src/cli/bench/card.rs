//! Any card's model on its data, trained by the code of `annulus train`.

use super::mnist::phases;
use super::step::{Phases, Trainee};
use crate::collective::Group;
use crate::config::Card;
use crate::data;
use crate::error::Result;
use crate::model;
use crate::nn::ParamBuilder;
use crate::train::{self, Device};
use std::path::Path;

/// A card without evaluation and without an end.
pub struct OfCard {
    card: Card,
    device: Device,
    batch: usize,
    /// Labels of each sample: tokens of a window.
    labels: usize,
    parameters: usize,
}

impl OfCard {
    /// The card in a file, with `batch` samples for each rank; left out, what its global batch gives them.
    ///
    /// # Errors
    /// As [`Card::load`] and the reader of its data; [`crate::error::Error::Config`] when the model cannot
    /// take such samples.
    pub fn load(
        path: &Path,
        batch: Option<usize>,
        device: Device,
        group: &mut Group,
    ) -> Result<OfCard> {
        let mut card = group.together(Card::load(path, &[]))?;
        let batch = batch.unwrap_or_else(|| card.train.global_batch.div_ceil(group.size()));
        card.train.global_batch = batch * group.size();
        card.data.test = None;
        card.train.early_stopping = None;
        (card.train.epochs, card.train.max_steps) = (None, Some(1 << 40));
        let sizes = group.together(sizes(&card))?;
        Ok(OfCard { card, device, batch, labels: sizes.0, parameters: sizes.1 })
    }

    /// What its model is called.
    pub fn name(&self) -> String {
        format!("{:?}", self.card.model.kind).to_lowercase()
    }
}

/// Labels of each sample, and parameters of the model.
fn sizes(card: &Card) -> Result<(usize, usize)> {
    let (set, _) = data::open(&card.data)?;
    let builder = ParamBuilder::new(card.seed, &candle_core::Device::Cpu);
    model::build(&card.model, set.sample_shape(), card.data.classes, &builder)?;
    let whole = builder.finish(1 << 20, 1 << 20)?;
    Ok((set.labels_per_sample(), whole.count()))
}

impl Trainee for OfCard {
    fn take(&mut self, steps: u64, overlap: bool, group: &mut Group) -> Result<Vec<Phases>> {
        let taken = train::time_steps(self.card.clone(), self.device, steps, overlap, group)?;
        Ok(taken.iter().map(phases).collect())
    }

    fn parameters(&self) -> usize {
        self.parameters
    }

    fn batch(&self) -> usize {
        self.batch
    }

    fn unit(&self) -> &'static str {
        if self.labels > 1 { "tokens" } else { "samples" }
    }

    fn units(&self) -> f64 {
        (self.batch * self.labels) as f64
    }

    fn flops(&self) -> Option<f64> {
        None
    }
}

//! One rank's copy of the model, with everything that computes on it.

use super::average;
use super::device::explain;
use super::metrics::Outputs;
use super::tally::Tally;
use crate::checkpoint::model_file::Named;
use crate::config::{self, Card, Loss};
use crate::data::{Batch, Dataset, Draw};
use crate::error::{Error, Result};
use crate::model::{self, Model, Pass};
use crate::nn::{
    BucketBytes, Distance, Param, ParamBuilder, ParamSet, Targets, correct, cross_entropy_to,
    distance, sum_of_squares,
};
use crate::optim::{self, Average, Optimizer, Penalties};
use crate::util::human;
use crate::util::label::{self, IGNORED};
use crate::util::whereabouts::{Phase, enter};
use candle_core::{Device, Tensor};
use std::fmt;
use std::time::{Duration, Instant};

/// A model, its parameters and gradients, and its optimizer.
pub struct Replica {
    /// The network.
    pub model: Box<dyn Model>,
    /// Its parameters in name order, with their gradient buckets.
    pub params: ParamSet,
    optimizer: Box<dyn Optimizer>,
    penalties: Option<Penalties>,
    pub(super) average: Option<Average>,
    /// Whether the average takes in the parameters at each update.
    of_all_steps: bool,
    device: Device,
    seed: u64,
    /// What the loss is multiplied by before the backward pass, and the gradient divided by in the
    /// update: a power of two.
    pub loss_scale: f32,
    /// Of the labels, while training.
    smoothing: f32,
    /// Where numbers are predicted.
    distance: Option<Distance>,
    shape: Vec<usize>,
}

/// What the carried states are called in a checkpoint.
pub const CARRIED: &str = "carried";

/// What a tensor of a replica is called; a name is made only where it is needed.
#[derive(Clone, Copy)]
pub struct TensorName<'a> {
    param: &'a Param,
    moment: Option<&'static str>,
}

impl TensorName<'_> {
    /// The parameter's shape.
    #[must_use]
    pub fn shape(&self) -> Vec<usize> {
        self.param.var().dims().to_vec()
    }
}

impl fmt::Display for TensorName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let name = self.param.name();
        match self.moment {
            None => write!(f, "{name}"),
            Some(moment) => write!(f, "{name}.{moment}"),
        }
    }
}

/// Where the time of a step went, as far as passes over micro-batches tell.
#[derive(Debug, Default, Clone, Copy)]
pub struct Spent {
    /// Waiting for data.
    pub input: Duration,
    /// Forward passes and losses.
    pub forward: Duration,
    /// Backward passes.
    pub backward: Duration,
}

impl Replica {
    /// Builds the card's model for samples of `shape` (channels, rows, columns).
    ///
    /// # Errors
    /// [`crate::error::Error::Config`] when the model cannot take such samples.
    pub fn build(card: &Card, shape: &[usize], device: &Device) -> Result<Replica> {
        // Without this, features of a table would be taken for tokens.
        let of_values = card.model.kind.is_recurrent() && !card.data.format.is_of_tokens();
        if of_values && shape.len() == 1 && card.model.steps.is_none() {
            return Err(Error::Config(format!(
                "model.steps: is missing; say how many steps the {} values of a sample are",
                shape[0]
            )));
        }
        let builder = ParamBuilder::new(card.seed, device);
        let mut model = model::build(&card.model, shape, card.data.classes, &builder)
            .map_err(|e| explain(e, device, || "while the parameters were put there".to_owned()))?;
        if let Some(streams) = card.data.text.and_then(|text| text.streams) {
            model.carry_over(streams);
        }
        let bytes = bucket_bytes(card);
        let params = builder.finish(bytes.first, bytes.others)?;
        let lens: Vec<usize> = params.iter().map(|p| p.var().elem_count()).collect();
        let names: Vec<&str> = params.iter().map(Param::name).collect();
        let optimizer = optim::build_for(&card.optimizer, &names, &lens)?;
        let penalties = Penalties::new(&card.optimizer, &names)?;
        let average = average::kept(&card.train, &lens)?;
        let of_all_steps = card.train.ema.is_some();
        let (device, shape) = (device.clone(), shape.to_vec());
        let (seed, smoothing) = (card.seed, card.train.label_smoothing);
        Ok(Replica {
            model,
            params,
            optimizer,
            penalties,
            average,
            of_all_steps,
            device,
            seed,
            loss_scale: 1.0,
            smoothing,
            distance: distance_of(&card.train),
            shape,
        })
    }

    /// Forward and backward over one micro-batch. The loss is the sum over its labels divided by the
    /// weight of the whole *global* batch, so that adding up over micro-batches and ranks gives the
    /// gradient of the global mean; nothing is divided by the number of ranks.
    ///
    /// # Errors
    /// When an operation fails.
    pub fn forward_backward(&self, batch: &Batch, spent: &mut Spent) -> Result<Tally> {
        if batch.labels.is_empty() {
            return Ok(Tally::default());
        }
        self.both_passes(batch, spent).map_err(|e| self.of_batch(e, batch))
    }

    fn both_passes(&self, batch: &Batch, spent: &mut Spent) -> Result<Tally> {
        enter(Phase::Forward);
        let start = Instant::now();
        let logits = self.outputs(batch, true)?;
        let (losses, tally) = self.losses(&logits, batch, true)?;
        let factor = f64::from(self.loss_scale) / batch.global_weight;
        let loss = (losses.sum_all()? * factor)?;
        let turn = Instant::now();
        spent.forward += turn - start;
        enter(Phase::Backward);
        loss.backward()?;
        spent.backward += turn.elapsed();
        Ok(tally)
    }

    /// The error of a pass over `batch`, with the GPU's side of it.
    fn of_batch(&self, error: Error, batch: &Batch) -> Error {
        let samples = batch.len() as u64;
        explain(error, &self.device, || format!("with a batch of {}", human::count(samples)))
    }

    /// Numbers in one sample.
    #[must_use]
    pub fn sample_len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Forward only, without dropout and label smoothing. `see` is shown the outputs for each label if it
    /// is there.
    ///
    /// # Errors
    /// When an operation fails.
    pub fn evaluate(&self, batch: &Batch, see: Option<&mut dyn FnMut(&Outputs)>) -> Result<Tally> {
        if batch.labels.is_empty() {
            return Ok(Tally::default());
        }
        let evaluate = || {
            let logits = self.outputs(batch, false)?;
            let (_, tally) = self.losses(&logits, batch, false)?;
            if let Some(see) = see {
                let width = logits.dims().last().copied().unwrap_or_default();
                see(&Outputs::new(logits.flatten_all()?.to_vec1()?, width));
            }
            Ok(tally)
        };
        evaluate().map_err(|e| self.of_batch(e, batch))
    }

    /// What the model says to a batch: one row for each label.
    fn outputs(&self, batch: &Batch, train: bool) -> Result<Tensor> {
        let shape = [&[batch.len()], self.shape.as_slice()].concat();
        let x = Tensor::from_slice(&batch.images, shape, &self.device)?;
        let pass = Pass { train, seed: self.seed, epoch: batch.epoch, samples: &batch.keys };
        self.model.forward(&x, &pass)
    }

    /// The loss of each label of the batch, and their sums.
    fn losses(&self, logits: &Tensor, batch: &Batch, train: bool) -> Result<(Tensor, Tally)> {
        let sum = |losses: &Tensor| -> Result<f64> {
            Ok(losses.to_vec1::<f32>()?.iter().map(|&l| f64::from(l)).sum())
        };
        if let Some(kind) = self.distance {
            let targets: Vec<f32> = batch.labels.iter().map(|&l| label::number(l)).collect();
            let losses = distance(logits, &targets, kind)?;
            let (loss, count) = (sum(&losses)?, targets.len() as f64);
            return Ok((losses, Tally { loss, correct: f64::NAN, count }));
        }
        let smoothing = if train { self.smoothing } else { 0.0 };
        let targets = Targets { labels: &batch.labels, mixed: &batch.mixed, smoothing };
        let losses = cross_entropy_to(logits, targets)?;
        let loss = sum(&losses)?;
        let correct = correct(logits, targets)?;
        let count = batch.labels.iter().filter(|&&label| label != IGNORED).count() as f64;
        Ok((losses, Tally { loss, correct, count }))
    }

    /// The loss of the first samples of `data`, as the gradient probe wants it.
    ///
    /// # Errors
    /// When an operation fails.
    pub fn probe_loss(&self, data: &dyn Dataset) -> Result<Tensor> {
        let mut batch = Batch::default();
        batch.fill(data, (0..data.len().min(64) as u64).map(Draw::of))?;
        let mean = || {
            let logits = self.outputs(&batch, true)?;
            Ok(self.losses(&logits, &batch, true)?.0.mean_all()?)
        };
        mean().map_err(|e| self.of_batch(e, &batch))
    }

    /// Norm of the gradient of loss and penalties, without the loss scale, where that of the loss is `norm`.
    ///
    /// # Errors
    /// When parameters cannot be copied from their device.
    pub fn penalised_norm(&mut self, norm: f64) -> Result<f64> {
        let Replica { params, penalties, loss_scale, .. } = self;
        let Some(penalties) = penalties else { return Ok(norm) };
        let (by, mut squares) = (*loss_scale, 0.0);
        for (i, param) in params.iter().enumerate() {
            squares += param.read(|theta| {
                params.grads().read(i, |grad| sum_of_squares(penalties.add(i, theta, grad, by)))
            })?;
        }
        Ok(squares.sqrt() / f64::from(by))
    }

    /// One optimizer step with the reduced gradients, each divided by the loss scale and multiplied by
    /// `scale` (clipping).
    ///
    /// # Errors
    /// When parameters cannot be copied from or to their device.
    pub fn update(&mut self, lr: f64, scale: f32) -> Result<()> {
        let by = self.loss_scale;
        let scale = scale / by;
        let Replica { params, optimizer, penalties, average, of_all_steps, device, .. } = self;
        let mut average = average.as_mut().filter(|_| *of_all_steps);
        optimizer.begin_step(lr);
        if let Some(average) = &mut average {
            average.begin();
        }
        for (i, param) in params.iter().enumerate() {
            let (optimizer, penalties) = (&mut *optimizer, penalties.as_mut());
            let (grads, average) = (params.grads(), average.as_deref_mut());
            let update = |theta: &mut [f32]| {
                grads.read(i, |grad| match penalties {
                    Some(penalties) => {
                        let sum = penalties.add(i, theta, grad, by);
                        optimizer.update(i, theta, sum, scale);
                    }
                    None => optimizer.update(i, theta, grad, scale),
                });
                if let Some(average) = average {
                    average.take(i, theta);
                }
            };
            param.update(update).map_err(|e| {
                explain(e, device, || format!("while {} was updated", param.name()))
            })?;
        }
        Ok(())
    }

    /// Where it computes.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A copy of all parameters on the host, in name order.
    ///
    /// # Errors
    /// When they cannot be copied from their device.
    pub fn snapshot(&self) -> Result<Vec<Named>> {
        let named = |p: &Param| {
            let (name, shape) = (p.name().to_owned(), p.var().dims().to_vec());
            Ok(Named { name, shape, values: p.to_vec()? })
        };
        self.params.iter().map(named).collect()
    }

    /// Takes over the values of a snapshot of this model.
    ///
    /// # Errors
    /// When they cannot be copied to their device.
    pub fn restore(&mut self, snapshot: &[Named]) -> Result<()> {
        for (param, saved) in self.params.iter().zip(snapshot) {
            param.update(|theta| theta.copy_from_slice(&saved.values))?;
        }
        Ok(())
    }

    /// Shows `see` every tensor that all ranks must have alike, where it lies, in a fixed order: the
    /// parameters, then the optimizer's moments. A moment is called `conv1.weight.exp_avg`.
    ///
    /// # Errors
    /// When parameters cannot be copied from their device.
    pub fn visit(&self, see: &mut dyn FnMut(TensorName, &[f32])) -> Result<()> {
        let params: Vec<&Param> = self.params.iter().collect();
        for param in &params {
            param.read(|values| see(TensorName { param, moment: None }, values))?;
        }
        let mut see = |moment, i: usize, values: &[f32]| {
            see(TensorName { param: params[i], moment: Some(moment) }, values);
        };
        self.optimizer.visit(&mut see);
        self.average.iter().for_each(|average| average.visit(&mut see));
        Ok(())
    }

    /// The states that the model carries from step to step, if it does, as tensors of a checkpoint.
    #[must_use]
    pub fn carried(&self) -> Option<Named> {
        let carry = self.model.carry()?;
        let (name, shape) = (CARRIED.to_owned(), carry.shape().to_vec());
        Some(Named { name, shape, values: carry.states() })
    }

    /// A copy of what the optimizer remembers, the average of the parameters with it.
    #[must_use]
    pub fn optimizer_state(&self) -> optim::State {
        let mut state = self.optimizer.state();
        self.average.iter().for_each(|average| average.save_in(&mut state));
        state
    }

    /// Lets the optimizer go on from a saved state.
    ///
    /// # Errors
    /// [`crate::error::Error::Data`] when it is another optimizer's.
    pub fn load_optimizer(&mut self, mut state: optim::State) -> Result<()> {
        if let Some(average) = &mut self.average {
            average.load_from(&mut state)?;
        }
        self.optimizer.load_state(state)
    }

    /// Bytes of the optimizer's moments and of the average.
    #[must_use]
    pub fn state_bytes(&self) -> u64 {
        let moments = self.optimizer_state().moments;
        moments.iter().flat_map(|(_, slots)| slots).map(|slot| 4 * slot.len() as u64).sum()
    }

    /// Names and shapes of all parameters, in name order.
    #[must_use]
    pub fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        self.params.iter().map(|p| (p.name().to_owned(), p.var().dims().to_vec())).collect()
    }
}

/// How a predicted number is judged, if the card has numbers predicted.
fn distance_of(card: &config::Train) -> Option<Distance> {
    match card.loss {
        Loss::CrossEntropy => None,
        Loss::Mse => Some(Distance::Squared),
        Loss::Mae => Some(Distance::Absolute),
        Loss::Huber => Some(Distance::Huber(card.huber_delta.unwrap_or(1.0))),
    }
}

/// The sizes of gradient buckets that the card asks for.
#[must_use]
pub fn bucket_bytes(card: &Card) -> BucketBytes {
    let bytes = |mb: f64| (mb * 1e6) as usize;
    BucketBytes { first: bytes(card.comm.first_bucket_mb), others: bytes(card.comm.bucket_mb) }
}

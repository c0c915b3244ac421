//! The shipped image models on MNIST, one training step at a time.

use super::step::{Phases, Trainee};
use crate::collective::{Group, Op};
use crate::config::{Card, ModelKind};
use crate::data::Loader;
use crate::error::{Error, Result};
use crate::model::Pass;
use crate::nn::cross_entropy;
use crate::train::{Device, Job};
use candle_core::Tensor;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The cards whose models are measured, as they are shipped.
const LENET: &str = include_str!("../../../configs/lenet-mnist.json");
const MLP: &str = include_str!("../../../configs/mlp-mnist.json");

/// A model of the shipped cards with its data.
pub struct Images {
    job: Job,
    loader: Loader,
    taken: u64,
}

impl Images {
    /// The model of the given kind with `batch` samples for each rank, from the folder `data`.
    ///
    /// # Errors
    /// When MNIST is not where it should be, or the ranks differ.
    pub fn prepare(
        kind: ModelKind,
        batch: usize,
        data: Option<&Path>,
        group: &mut Group,
    ) -> Result<Images> {
        let card = group.together(card(kind, batch * group.size(), data))?;
        let job = Job::prepare(card, Device::Cpu, group)?;
        let feed = job.plan.feed(&job.card, group.rank(), group.size());
        let loader = Loader::start(job.train.clone(), feed)?;
        Ok(Images { job, loader, taken: 0 })
    }
}

impl Trainee for Images {
    fn step(&mut self, group: &mut Group) -> Result<Phases> {
        let Images { job, loader, taken } = self;
        let (start, mut phases) = (Instant::now(), Phases::default());
        let grads = job.replica.params.grads().clone();
        grads.begin_step();
        let exhausted = || Error::Internal("the loader had no batch left".to_owned());
        let batch = loader.next_batch()?.ok_or_else(exhausted)?;
        phases.input = start.elapsed();

        let at = Instant::now();
        let shape = [&[batch.labels.len()], job.train.sample_shape()].concat();
        let x = Tensor::from_slice(&batch.images, shape, &candle_core::Device::Cpu)?;
        let pass =
            Pass { train: true, seed: job.card.seed, epoch: batch.epoch, samples: &batch.samples };
        let losses = cross_entropy(&job.replica.model.forward(&x, &pass)?, &batch.labels)?;
        let loss = (losses.sum_all()? * (1.0 / batch.global_weight))?;
        phases.forward = at.elapsed();

        let at = Instant::now();
        loss.backward()?;
        phases.backward = at.elapsed();
        loader.recycle(batch);

        let at = Instant::now();
        grads.zero_missing();
        for k in 0..grads.bucket_count() {
            grads.with_bucket(k, |bucket| group.all_reduce(bucket, Op::Sum))?;
        }
        phases.comm = at.elapsed();

        let at = Instant::now();
        job.replica.update(job.card.optimizer.lr, 1.0)?;
        phases.optimizer = at.elapsed();
        phases.wall = start.elapsed();
        *taken += 1;
        Ok(phases)
    }

    fn parameters(&self) -> usize {
        self.job.replica.params.count()
    }

    fn flops(&self) -> f64 {
        let samples = self.job.card.train.global_batch as f64;
        let layers = match self.job.card.model.kind {
            ModelKind::LeNet5 => lenet_products(),
            ModelKind::Mlp => {
                let input: usize = self.job.train.sample_shape().iter().product();
                mlp_products(input, &self.job.card.model.hidden, self.job.card.data.classes)
            }
        };
        samples * training_flops(&layers)
    }
}

/// Floating-point operations of one sample's forward and backward pass through layers with these
/// numbers of multiply-adds: each has one product forward and one for the gradient of its weights;
/// all but the first also one for the gradient of its input.
fn training_flops(layers: &[usize]) -> f64 {
    let all: usize = layers.iter().sum();
    let first = layers.first().copied().unwrap_or(0);
    2.0 * (3 * all - first) as f64
}

/// Multiply-adds of LeNet-5's layers on 28×28 images: two 5×5 convolutions, two dense layers.
fn lenet_products() -> Vec<usize> {
    vec![24 * 24 * 6 * 25, 8 * 8 * 16 * 6 * 25, 256 * 120, 120 * 10]
}

fn mlp_products(input: usize, hidden: &[usize], classes: usize) -> Vec<usize> {
    let widths = [&[input], hidden, &[classes]].concat();
    widths.windows(2).map(|pair| pair[0] * pair[1]).collect()
}

/// The shipped card of a model, with another batch, MNIST where it is, and no end in sight.
fn card(kind: ModelKind, global_batch: usize, data: Option<&Path>) -> Result<Card> {
    let text = match kind {
        ModelKind::LeNet5 => LENET,
        ModelKind::Mlp => MLP,
    };
    let mut card: Card = serde_json::from_str(text)
        .map_err(|e| Error::Internal(format!("the card of {kind:?} inside this program: {e}")))?;
    let folder = folder(data)?;
    for path in [&mut card.data.train.images, &mut card.data.train.labels] {
        *path = folder.join(path.file_name().unwrap_or_default());
    }
    card.data.test = None;
    card.train.global_batch = global_batch;
    (card.train.epochs, card.train.max_steps) = (None, Some(1 << 40));
    Ok(card)
}

/// The folder that was given, or the first `data/mnist` here or above the program.
fn folder(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(folder) = given {
        return Ok(folder.to_owned());
    }
    let program = std::env::current_exe().unwrap_or_default();
    let places = std::iter::once(Path::new("")).chain(program.ancestors().skip(1));
    places.map(|place| place.join("data/mnist")).find(|folder| folder.is_dir()).ok_or_else(|| {
        Error::NoInput(
            "MNIST is not here: there is no folder data/mnist under the current folder or beside \
             the program. Say where its four files are with --data DIR, or measure --model gpt, \
             which needs no data"
                .to_owned(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_counted_for_each_product_of_a_training_step() {
        // 3→4→2, one sample: forward 12 + 8, weights 12 + 8, input of the second layer 8.
        assert_eq!(training_flops(&mlp_products(3, &[4], 2)), 2.0 * 48.0);
        assert_eq!(lenet_products().iter().sum::<usize>(), 271_920);
    }

    #[test]
    fn the_cards_inside_the_program_can_be_read_and_take_another_batch() {
        for kind in [ModelKind::LeNet5, ModelKind::Mlp] {
            let card = card(kind, 96, Some(Path::new("/somewhere"))).unwrap();
            assert_eq!((card.model.kind, card.train.global_batch), (kind, 96));
            let images = Path::new("/somewhere/train-images-idx3-ubyte.gz");
            assert_eq!(card.data.train.images, images);
        }
    }
}

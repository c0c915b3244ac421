//! The shipped image models on MNIST, trained by the code of `annulus train`.

use super::step::{Phases, Trainee};
use crate::collective::Group;
use crate::config::{Card, ModelKind};
use crate::error::{Error, Result};
use crate::train::{self, Device, StepReport};
use std::path::{Path, PathBuf};

/// The cards whose models are measured, as they are shipped.
const LENET: &str = include_str!("../../../configs/lenet-mnist.json");
const MLP: &str = include_str!("../../../configs/mlp-mnist.json");

/// One of the shipped cards, with MNIST where it is.
pub struct Images {
    card: Card,
    batch: usize,
    device: Device,
}

impl Images {
    /// The card of a model, with `batch` samples for each rank and the data in the folder `data`.
    ///
    /// # Errors
    /// When MNIST is not where it should be.
    pub fn new(
        kind: ModelKind,
        batch: usize,
        data: Option<&Path>,
        group: &mut Group,
    ) -> Result<Images> {
        let card = group.together(card(kind, batch * group.size(), data))?;
        Ok(Images { card, batch, device: Device::Cpu })
    }

    /// The same on another device than the processor.
    #[must_use]
    pub fn on(self, device: Device) -> Images {
        Images { device, ..self }
    }

    /// The card, to be changed before steps are taken.
    pub fn card_mut(&mut self) -> &mut Card {
        &mut self.card
    }

    /// Inputs and outputs of the weight matrices, and how often each is used for one sample.
    fn products(&self) -> Vec<[usize; 3]> {
        if self.card.model.kind != ModelKind::Mlp {
            return LENET_PRODUCTS.to_vec();
        }
        let widths = [&[784], &self.card.model.hidden[..], &[self.card.data.classes]];
        widths.concat().windows(2).map(|pair| [pair[0], pair[1], 1]).collect()
    }
}

/// LeNet-5 on 28×28 images: a 5×5 convolution to 6 maps of 24×24, one to 16 of 8×8, two dense layers.
const LENET_PRODUCTS: [[usize; 3]; 4] =
    [[25, 6, 24 * 24], [150, 16, 8 * 8], [256, 120, 1], [120, 10, 1]];

impl Trainee for Images {
    fn take(&mut self, steps: u64, overlap: bool, group: &mut Group) -> Result<Vec<Phases>> {
        let taken = train::time_steps(self.card.clone(), self.device, steps, overlap, group)?;
        Ok(taken.iter().map(phases).collect())
    }

    fn parameters(&self) -> usize {
        self.products().iter().map(|[inputs, outputs, _]| (inputs + 1) * outputs).sum()
    }

    fn batch(&self) -> usize {
        self.batch
    }

    fn unit(&self) -> &'static str {
        "samples"
    }

    fn units(&self) -> f64 {
        self.batch as f64
    }

    fn flops(&self) -> Option<f64> {
        Some(training_flops(&self.products()))
    }
}

/// A step as the benchmark tells it.
pub fn phases(step: &StepReport) -> Phases {
    Phases {
        input: step.input,
        forward: step.forward,
        backward: step.backward,
        comm: step.comm,
        optimizer: step.optimizer,
        wall: step.wall,
    }
}

/// Floating-point operations of one sample's forward and backward pass through layers with these
/// products: each has one forward and one for the gradient of its weights; all but the first also one
/// for the gradient of its input.
fn training_flops(products: &[[usize; 3]]) -> f64 {
    let multiply_adds: Vec<usize> = products.iter().map(|p| p.iter().product()).collect();
    let first = multiply_adds.first().copied().unwrap_or(0);
    2.0 * (3 * multiply_adds.iter().sum::<usize>() - first) as f64
}

/// The shipped card of a model, with another batch, MNIST where it is, and no end in sight.
fn card(kind: ModelKind, global_batch: usize, data: Option<&Path>) -> Result<Card> {
    let text = match kind {
        ModelKind::LeNet5 => LENET,
        ModelKind::Mlp => MLP,
        ModelKind::Gpt | ModelKind::ResNet | ModelKind::Lstm | ModelKind::Gru => {
            return Err(Error::Internal(format!("no benchmark trains {kind:?} on MNIST")));
        }
    };
    let mut card: Card = serde_json::from_str(text)
        .map_err(|e| Error::Internal(format!("the card of {kind:?} inside this program: {e}")))?;
    let folder = folder(data)?;
    let train = &mut card.data.train;
    for path in [&mut train.images, &mut train.labels].into_iter().flatten() {
        *path = folder.join(path.file_name().unwrap_or_default());
        // Before anything is measured rather than after.
        std::fs::metadata(&*path).map_err(|e| Error::reading(path, &e))?;
    }
    card.data.test = None;
    card.train.global_batch = global_batch;
    (card.train.epochs, card.train.max_steps) = (None, Some(1 << 40));
    card.train.probe = false;
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
    use crate::model;
    use crate::nn::ParamBuilder;

    #[test]
    fn operations_are_counted_for_each_product_of_a_training_step() {
        // 3→4→2, one sample: forward 12 + 8, weights 12 + 8, input of the second layer 8.
        assert_eq!(training_flops(&[[3, 4, 1], [4, 2, 1]]), 2.0 * 48.0);
        let forward: usize = LENET_PRODUCTS.iter().map(|p| p.iter().product::<usize>()).sum();
        assert_eq!(forward, 271_920);
    }

    #[test]
    fn a_folder_without_mnist_is_refused_by_name() {
        let error = card(ModelKind::Mlp, 64, Some(Path::new("/nowhere"))).unwrap_err();
        assert_eq!(error.exit_code(), 66);
        assert!(error.to_string().contains("/nowhere/train-images"), "{error}");
    }

    #[test]
    fn parameters_are_counted_as_the_models_have_them() {
        let of = |kind| {
            let card = card(kind, 64, None).unwrap();
            let builder = ParamBuilder::new(1, &candle_core::Device::Cpu);
            model::build(&card.model, &[1, 28, 28], 10, &builder).unwrap();
            (
                Images { card, batch: 64, device: Device::Cpu }.parameters(),
                builder.finish(1 << 20, 1 << 20).unwrap().count(),
            )
        };
        for kind in [ModelKind::LeNet5, ModelKind::Mlp] {
            let (counted, real) = of(kind);
            assert_eq!(counted, real, "{kind:?}");
        }
    }

    #[test]
    fn the_cards_inside_the_program_can_be_read_and_take_another_batch() {
        for kind in [ModelKind::LeNet5, ModelKind::Mlp] {
            let card = card(kind, 96, None).unwrap();
            assert_eq!((card.model.kind, card.train.global_batch), (kind, 96));
            let train = card.data.train;
            assert!(train.images.unwrap().ends_with("mnist/train-images-idx3-ubyte.gz"));
            assert!(train.labels.unwrap().is_file());
        }
    }
}

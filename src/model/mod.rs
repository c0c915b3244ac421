//! The models that a card can name. To add one, copy a neighbour and give it a line in [`build`].

mod carry;
mod gpt;
#[cfg(all(test, feature = "cuda"))]
mod gpu_tests;
mod lenet;
mod mlp;
mod recurrent;
mod resnet;

use crate::config::{self, ModelKind};
use crate::error::{Error, Result};
use crate::nn::ParamBuilder;
use candle_core::Tensor;

pub use carry::Carry;
pub use gpt::{Gpt, GptShape};
pub use lenet::LeNet5;
pub use mlp::Mlp;
pub use recurrent::RecurrentNet;
pub use resnet::ResNet;

/// What a forward pass needs to know besides its input.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    /// Whether dropout and its like are active.
    pub train: bool,
    /// The job's seed.
    pub seed: u64,
    /// The epoch, counted from 0.
    pub epoch: u64,
    /// Which sample each row of the batch is.
    pub samples: &'a [u64],
}

/// A classifier of images or other samples, or of each token of a text.
pub trait Model {
    /// Logits (batch, classes) of images `x` (batch, channels, rows, columns), `f32`; logits (batch · time,
    /// classes) of text `x` (batch, time), token ids as `f32`.
    ///
    /// # Errors
    /// When `x` has another shape or type, or a tensor operation fails.
    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor>;

    /// Lets the model hand its states on from one global batch to the next, for `streams` streams of text; a
    /// model without states has nothing to hand on.
    fn carry_over(&mut self, _streams: usize) {}

    /// The states that it hands on while training, if it does.
    fn carry(&self) -> Option<&Carry> {
        None
    }

    /// One line per layer for people: name, operation, shape of its output, number of parameters.
    fn describe(&self) -> Vec<String>;
}

/// Makes the model that a card names, for samples of shape `input`, (channels, rows, columns) for images,
/// and `classes` classes, with its parameters in `params`.
///
/// # Errors
/// [`Error::Config`] when the card does not fit the data; [`Error::Internal`] when memory is missing.
pub fn build(
    card: &config::Model,
    input: &[usize],
    classes: usize,
    params: &ParamBuilder,
) -> Result<Box<dyn Model>> {
    if classes == 0 || input.is_empty() || input.contains(&0) {
        return Err(Error::Config(format!(
            "the data has samples of shape {input:?} and {classes} classes; none of these may be 0"
        )));
    }
    Ok(match card.kind {
        ModelKind::LeNet5 => {
            let &[channels, rows, cols] = input else {
                return Err(Error::Config(format!(
                    "model.kind: `lenet5` takes images (channels, rows, columns); the samples have \
                     shape {input:?}; take `mlp`"
                )));
            };
            Box::new(LeNet5::new(card, [channels, rows, cols], classes, params)?)
        }
        ModelKind::ResNet => Box::new(ResNet::new(card, input, classes, params)?),
        ModelKind::Gpt => Box::new(Gpt::build(card, input, classes, params)?),
        ModelKind::Lstm | ModelKind::Gru => {
            Box::new(RecurrentNet::new(card, input, classes, params)?)
        }
        ModelKind::Mlp => Box::new(Mlp::new(card, input, classes, params)?),
    })
}

/// One line of [`Model::describe`].
fn line(name: &str, operation: &str, output: &str, parameters: usize) -> String {
    format!("{name:<8} {operation:<34} → {output:<10} {parameters:>10} parameters")
}

#[cfg(test)]
mod tests;

//! Dense layers with ReLU between them, on the flattened sample.

use super::{Model, Pass, line};
use crate::config;
use crate::error::{Error, Result};
use crate::nn::{Dropout, Linear, ParamBuilder};
use candle_core::Tensor;

/// fc1, ReLU, …, dropout, fcN; the widths are the card's `hidden`.
pub struct Mlp {
    layers: Vec<Linear>,
    dropout: Dropout,
    /// Of the input, of each hidden layer, of the output.
    widths: Vec<usize>,
    share: f32,
}

impl Mlp {
    /// The model for samples of shape `input`.
    ///
    /// # Errors
    /// [`Error::Config`] when a hidden layer has width 0.
    pub fn new(
        card: &config::Model,
        input: &[usize],
        classes: usize,
        params: &ParamBuilder,
    ) -> Result<Mlp> {
        if card.hidden.contains(&0) {
            return Err(Error::Config(format!(
                "model.hidden: is {:?}; every width must be at least 1",
                card.hidden
            )));
        }
        let mut widths = vec![input.iter().product()];
        widths.extend(&card.hidden);
        widths.push(classes);
        let last = widths.len() - 2;
        let layers = widths
            .windows(2)
            .enumerate()
            .map(|(i, pair)| {
                let params = params.pp(&format!("fc{}", i + 1));
                Linear::new(&params, pair[0], pair[1], i < last, card.init)
            })
            .collect::<Result<_>>()?;
        let dropout = Dropout::new(card.dropout, 0)?;
        Ok(Mlp { layers, dropout, widths, share: card.dropout })
    }
}

impl Model for Mlp {
    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let mut x = x.flatten_from(1)?;
        for (i, layer) in self.layers.iter().enumerate() {
            if pass.train && i + 1 == self.layers.len() {
                x = self.dropout.forward(&x, pass.seed, pass.epoch, pass.samples)?;
            }
            x = layer.forward(&x)?;
        }
        Ok(x)
    }

    fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (i, pair) in self.widths.windows(2).enumerate() {
            let last = i + 1 == self.layers.len();
            if last && self.share > 0.0 {
                let drop = format!("drops {} while training", self.share);
                lines.push(line("dropout", &drop, &pair[0].to_string(), 0));
            }
            let operation = if last { "dense" } else { "dense, ReLU" };
            let parameters = (pair[0] + 1) * pair[1];
            lines.push(line(&format!("fc{}", i + 1), operation, &pair[1].to_string(), parameters));
        }
        lines
    }
}

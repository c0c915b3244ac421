//! LeNet-5 (LeCun et al., 1998) as it is built today: ReLU and max-pooling instead of tanh and
//! sub-sampling, and one hidden dense layer of 120.

use super::{Model, Pass, line};
use crate::config;
use crate::error::{Error, Result};
use crate::nn::{ConvReluPool, Dropout, Linear, ParamBuilder};
use candle_core::Tensor;

const KERNEL: usize = 5;
const WINDOW: usize = 2;
const FILTERS: [usize; 2] = [6, 16];
const HIDDEN: usize = 120;

/// conv1 5×5×6, ReLU, pool 2, conv2 5×5×16, ReLU, pool 2, fc1 120, ReLU, dropout, fc2.
pub struct LeNet5 {
    conv1: ConvReluPool,
    conv2: ConvReluPool,
    fc1: Linear,
    dropout: Dropout,
    fc2: Linear,
    /// (channels, rows, columns) before the first, between, and after the second stage.
    shapes: [[usize; 3]; 3],
    classes: usize,
    share: f32,
}

impl LeNet5 {
    /// The model for images of shape `input` (channels, rows, columns).
    ///
    /// # Errors
    /// [`Error::Config`] when an image is smaller than 16×16 or the card asks for other widths.
    pub fn new(
        card: &config::Model,
        input: [usize; 3],
        classes: usize,
        params: &ParamBuilder,
    ) -> Result<LeNet5> {
        if !card.hidden.is_empty() {
            return Err(Error::Config(format!(
                "model.hidden: is {:?}, but lenet5 has fixed widths: leave it out, or use kind mlp",
                card.hidden
            )));
        }
        let between = stage(input, FILTERS[0]);
        let Some([between, last]) = between.and_then(|b| Some([b, stage(b, FILTERS[1])?])) else {
            return Err(Error::Config(format!(
                "model.kind: images are {}×{} pixels; lenet5 needs at least 16×16 for its two stages of 5×5 \
                 convolution and 2×2 pooling",
                input[1], input[2]
            )));
        };
        let [c1, c2] = FILTERS;
        Ok(LeNet5 {
            conv1: ConvReluPool::new(&params.pp("conv1"), input[0], c1, KERNEL, WINDOW, card.init)?,
            conv2: ConvReluPool::new(&params.pp("conv2"), c1, c2, KERNEL, WINDOW, card.init)?,
            fc1: Linear::new(&params.pp("fc1"), last.iter().product(), HIDDEN, true, card.init)?,
            dropout: Dropout::new(card.dropout, 0)?,
            fc2: Linear::new(&params.pp("fc2"), HIDDEN, classes, false, card.init)?,
            shapes: [input, between, last],
            classes,
            share: card.dropout,
        })
    }
}

impl Model for LeNet5 {
    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let x = self.conv2.forward(&self.conv1.forward(x)?)?;
        let mut x = self.fc1.forward(&x.flatten_from(1)?)?;
        if pass.train {
            x = self.dropout.forward(&x, pass.seed, pass.epoch, pass.samples)?;
        }
        self.fc2.forward(&x)
    }

    fn describe(&self) -> Vec<String> {
        let [input, between, last] = self.shapes;
        let conv = |c_in: usize, c_out: usize| c_out * (c_in * KERNEL * KERNEL + 1);
        let shape = |[c, h, w]: [usize; 3]| format!("{c}×{h}×{w}");
        let block = "conv 5×5, ReLU, max-pool 2×2";
        let flat: usize = last.iter().product();
        let mut lines = vec![
            line("conv1", block, &shape(between), conv(input[0], FILTERS[0])),
            line("conv2", block, &shape(last), conv(FILTERS[0], FILTERS[1])),
            line("fc1", "dense, ReLU", &HIDDEN.to_string(), (flat + 1) * HIDDEN),
        ];
        if self.share > 0.0 {
            let drop = format!("drops {} while training", self.share);
            lines.push(line("dropout", &drop, &HIDDEN.to_string(), 0));
        }
        let outputs = (HIDDEN + 1) * self.classes;
        lines.push(line("fc2", "dense", &self.classes.to_string(), outputs));
        lines
    }
}

/// The shape after convolution and pooling, if anything is left.
fn stage([_, rows, cols]: [usize; 3], filters: usize) -> Option<[usize; 3]> {
    let after = |n: usize| Some((n + 1).checked_sub(KERNEL)? / WINDOW).filter(|&n| n > 0);
    Some([filters, after(rows)?, after(cols)?])
}

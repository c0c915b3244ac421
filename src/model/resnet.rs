//! The residual networks for small images of He et al. (2016), section 4.2: 6n + 2 layers with weights, n
//! blocks of two 3×3 convolutions at each of the widths 16, 32 and 64, shortcuts without parameters (option
//! A). Instead of batch normalisation, whose statistics are another state of the model, group normalisation.

use super::{Model, Pass, line};
use crate::config;
use crate::error::{Error, Result};
use crate::nn::{Conv2d, Dropout, GroupNorm, Linear, ParamBuilder, global_average, shortcut};
use candle_core::Tensor;

const WIDTHS: [usize; 3] = [16, 32, 64];
const GROUPS: usize = 8;

/// PyTorch's default of `nn.GroupNorm`.
const EPS: f32 = 1e-5;

/// The smallest image of which something is left after halving twice.
const LEAST: usize = 4;

/// The model. Parameters: `conv1.weight`, `norm1.weight`, `norm1.bias`, for block i of stage s (from 1)
/// `layer{s}.{i}.conv1.weight`, `.norm1.weight`, `.norm1.bias`, `.conv2.weight`, `.norm2.weight`,
/// `.norm2.bias`, and `fc.weight`, `fc.bias`.
pub struct ResNet {
    first: Layer,
    blocks: Vec<Block>,
    dropout: Dropout,
    head: Linear,
    /// (channels, rows, columns) of the input.
    input: [usize; 3],
    classes: usize,
    share: f32,
}

/// A convolution and what normalises its result.
struct Layer {
    conv: Conv2d,
    norm: GroupNorm,
}

/// Two layers beside a shortcut.
struct Block {
    layers: [Layer; 2],
    width: usize,
    stride: usize,
}

impl ResNet {
    /// The model for images of shape `input`, (channels, rows, columns).
    ///
    /// # Errors
    /// [`Error::Config`] when `model.depth` is not 6n + 2 with n ≥ 1, or for samples of another shape or
    /// smaller than 4×4.
    pub fn new(
        card: &config::Model,
        input: &[usize],
        classes: usize,
        params: &ParamBuilder,
    ) -> Result<ResNet> {
        let &[channels, rows, cols] = input else {
            return Err(Error::Config(format!(
                "model.kind: `resnet` takes images (channels, rows, columns); the samples have shape \
                 {input:?}; take `mlp`"
            )));
        };
        if rows < LEAST || cols < LEAST {
            return Err(Error::Config(format!(
                "model.kind: images are {rows}×{cols} pixels; resnet halves them twice and needs at least \
                 {LEAST}×{LEAST}"
            )));
        }
        let n = match card.depth {
            Some(depth) if depth >= 8 && depth % 6 == 2 => (depth - 2) / 6,
            depth => {
                return Err(Error::Config(format!(
                    "model.depth: is {depth:?}; resnet has 6n + 2 layers: 8, 14, 20, 32, 44, 56, …"
                )));
            }
        };
        let first = Layer::new(params, 1, [channels, WIDTHS[0]], 1, card.init)?;
        Ok(ResNet {
            first,
            blocks: blocks(params, n, card.init)?,
            dropout: Dropout::new(card.dropout, 0)?,
            head: Linear::new(&params.pp("fc"), WIDTHS[2], classes, false, card.init)?,
            input: [channels, rows, cols],
            classes,
            share: card.dropout,
        })
    }
}

impl Layer {
    /// `conv{i}` and `norm{i}`.
    fn new(
        params: &ParamBuilder,
        i: usize,
        channels: [usize; 2],
        stride: usize,
        init: config::Init,
    ) -> Result<Layer> {
        let conv = params.pp(&format!("conv{i}"));
        let norm = params.pp(&format!("norm{i}"));
        Ok(Layer {
            conv: Conv2d::without_bias(&conv, channels, 3, stride, 1, init)?,
            norm: GroupNorm::new(&norm, GROUPS, channels[1], EPS)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.norm.forward_relu(&self.conv.forward(x)?)
    }
}

impl Block {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [first, second] = &self.layers;
        let y = second.conv.forward(&first.forward(x)?)?;
        if self.stride == 1 {
            return second.norm.forward_add_relu(&y, x);
        }
        second.norm.forward_add_relu(&y, &shortcut(x, self.width, self.stride)?)
    }
}

/// The blocks of the three stages, `n` in each.
fn blocks(params: &ParamBuilder, n: usize, init: config::Init) -> Result<Vec<Block>> {
    let (mut blocks, mut before) = (Vec::with_capacity(3 * n), WIDTHS[0]);
    for (stage, width) in WIDTHS.into_iter().enumerate() {
        for i in 0..n {
            let params = params.pp(&format!("layer{}.{i}", stage + 1));
            let stride = if width == before { 1 } else { 2 };
            let first = Layer::new(&params, 1, [before, width], stride, init)?;
            let second = Layer::new(&params, 2, [width, width], 1, init)?;
            blocks.push(Block { layers: [first, second], width, stride });
            before = width;
        }
    }
    Ok(blocks)
}

impl Model for ResNet {
    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let mut x = self.first.forward(x)?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        let mut x = global_average(&x)?;
        if pass.train {
            x = self.dropout.forward(&x, pass.seed, pass.epoch, pass.samples)?;
        }
        self.head.forward(&x)
    }

    fn describe(&self) -> Vec<String> {
        let [channels, mut rows, mut cols] = self.input;
        // A convolution without bias, and weight and bias of its normalisation.
        let layer = |c_in: usize, c_out: usize| 9 * c_in * c_out + 2 * c_out;
        let shape = |c: usize, rows: usize, cols: usize| format!("{c}×{rows}×{cols}");
        let [width, .., last] = WIDTHS;
        let operation = format!("conv 3×3, {GROUPS} groups, ReLU");
        let mut lines =
            vec![line("conv1", &operation, &shape(width, rows, cols), layer(channels, width))];
        let n = self.blocks.len() / WIDTHS.len();
        let mut before = width;
        for (stage, blocks) in self.blocks.chunks(n).enumerate() {
            let Some(Block { width, stride, .. }) = blocks.first() else { continue };
            (rows, cols) = (rows.div_ceil(*stride), cols.div_ceil(*stride));
            let count = layer(before, *width) + (2 * n - 1) * layer(*width, *width);
            let name = format!("layer{}", stage + 1);
            let plural = if n == 1 { "" } else { "s" };
            let operation = format!("{n} block{plural} of 2 conv 3×3");
            lines.push(line(&name, &operation, &shape(*width, rows, cols), count));
            before = *width;
        }
        lines.push(line("average", "over all positions", &last.to_string(), 0));
        if self.share > 0.0 {
            let drop = format!("drops {} while training", self.share);
            lines.push(line("dropout", &drop, &last.to_string(), 0));
        }
        let outputs = (last + 1) * self.classes;
        lines.push(line("fc", "dense", &self.classes.to_string(), outputs));
        lines
    }
}

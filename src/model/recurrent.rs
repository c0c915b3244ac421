//! LSTM and GRU networks: of text, a language model that scores the next token at each step; of other
//! samples, a classifier that reads a sequence of values and decides on the last state.

use super::{Carry, Model, Pass, line};
use crate::config::{self, ModelKind};
use crate::error::{Error, Result};
use crate::nn::{
    Activation, Cell, Dropout, Embedding, Init, Linear, Param, ParamBuilder, Recurrent,
};
use candle_core::Tensor;

/// New values of the token table and of a text's output weights lie in ±0.1, as in PyTorch's example
/// `word_language_model`.
const SPREAD: f32 = 0.1;

/// The model. Parameters: of text `te.weight` (tokens, width); for each layer k `rnn.weight_ih_l{k}`,
/// `rnn.weight_hh_l{k}`, `rnn.bias_ih_l{k}`, `rnn.bias_hh_l{k}`, and those with `_reverse`; `head.weight`, if
/// it is not the token table, and `head.bias`.
pub struct RecurrentNet {
    reads: Reads,
    cell: Cell,
    layers: Vec<Recurrent>,
    /// Behind each layer.
    dropout: Vec<Dropout>,
    head: Linear,
    hidden: usize,
    classes: usize,
    share: f32,
    /// Parameters of each layer, for people.
    counts: Vec<usize>,
    carry: Option<Carry>,
}

/// How a sample becomes a sequence.
enum Reads {
    /// Its tokens, looked up in a table, which may be the head's, too.
    Tokens { table: Embedding, time: usize, tied: bool },
    /// Its values: an image (channels, rows, columns) row by row, others cut into equal steps.
    Values { shape: Vec<usize>, time: usize, width: usize },
}

impl RecurrentNet {
    /// The model for samples of shape `input`: (time) is text unless `model.steps` is given.
    ///
    /// # Errors
    /// [`Error::Config`] when the samples do not divide into `model.steps`; [`Error::Internal`] when memory
    /// is missing.
    pub fn new(
        card: &config::Model,
        input: &[usize],
        classes: usize,
        params: &ParamBuilder,
    ) -> Result<RecurrentNet> {
        let cell = if card.kind == ModelKind::Gru { Cell::Gru } else { Cell::Lstm };
        // A checked card has the sizes.
        let [hidden, depth] = [card.width, card.layers].map(Option::unwrap_or_default);
        if hidden == 0 || depth == 0 {
            return Err(Error::Config(format!(
                "a recurrent network needs sizes of at least 1; got width {hidden}, layers {depth}"
            )));
        }
        let (both, tied) = (card.bidirectional == Some(true), card.tied == Some(true));
        let (reads, inputs, table) = match (input, card.steps) {
            (&[time], None) => {
                let init = Init::Uniform(SPREAD);
                let table = params.pp("te").param("weight", (classes, hidden), init)?;
                let reads = Reads::Tokens { table: Embedding::new(table.clone())?, time, tied };
                (reads, hidden, Some(table))
            }
            _ => {
                let (time, width) = steps(input, card.steps)?;
                (Reads::Values { shape: input.to_vec(), time, width }, width, None)
            }
        };
        let (rnn, outputs) = (params.pp("rnn"), if both { 2 * hidden } else { hidden });
        let layer = |k| {
            Recurrent::new(&rnn, cell, k, [if k == 0 { inputs } else { outputs }, hidden], both)
        };
        let head = head(table, tied, [outputs, classes], &params.pp("head"))?;
        let count = |k| {
            let inputs = if k == 0 { inputs } else { outputs };
            cell.gates() * outputs * (inputs + hidden + 2)
        };
        Ok(RecurrentNet {
            reads,
            cell,
            layers: (0..depth).map(layer).collect::<Result<_>>()?,
            dropout: (0..depth)
                .map(|k| Dropout::new(card.dropout, k as u64))
                .collect::<Result<_>>()?,
            head,
            hidden,
            classes,
            share: card.dropout,
            counts: (0..depth).map(count).collect(),
            carry: None,
        })
    }

    /// States of the last layer, (time, batch, outputs), of inputs (time, batch, width). Dropout acts between
    /// the layers. While training with carried states, they go on from those.
    fn states(&self, mut x: Tensor, pass: &Pass) -> Result<Tensor> {
        let carry = self.carry.as_ref().filter(|_| pass.train);
        let before = carry.map(|carry| carry.before(pass.samples));
        let mut after = vec![Vec::new(); pass.samples.len()];
        for (k, (layer, dropout)) in self.layers.iter().zip(&self.dropout).enumerate() {
            x = match &before {
                None => layer.forward(&x)?,
                Some(before) => {
                    let of_layer = k * layer.state_len()..(k + 1) * layer.state_len();
                    let rows = before.iter().flat_map(|row| &row[of_layer.clone()]);
                    let (y, last) = layer.forward_from(&x, &rows.copied().collect::<Vec<_>>())?;
                    let rows = last.chunks_exact(layer.state_len());
                    after.iter_mut().zip(rows).for_each(|(all, row)| all.extend_from_slice(row));
                    y
                }
            };
            if pass.train && k + 1 < self.layers.len() {
                x = dropout.forward_steps(&x, pass.seed, pass.epoch, pass.samples)?;
            }
        }
        if let Some(carry) = carry {
            carry.after(pass.samples, &after);
        }
        Ok(x)
    }

    /// The last state of each direction, (batch, outputs), from those of all steps.
    fn last(&self, states: &Tensor) -> Result<Tensor> {
        let (time, _, outputs) = states.dims3()?;
        let at = |t, from| states.narrow(0, t, 1)?.squeeze(0)?.narrow(1, from, self.hidden);
        let forwards = at(time - 1, 0)?;
        if outputs == self.hidden {
            return Ok(forwards);
        }
        Ok(Tensor::cat(&[forwards, at(0, self.hidden)?], 1)?)
    }

    /// Behind the last layer, on `x` (batch, …).
    fn drop_last(&self, x: Tensor, pass: &Pass) -> Result<Tensor> {
        match self.dropout.last() {
            Some(last) if pass.train => last.forward(&x, pass.seed, pass.epoch, pass.samples),
            _ => Ok(x),
        }
    }
}

/// The last layer: of text, whose tokens are in `table`, as in PyTorch's example; else as `nn.Linear`.
fn head(
    table: Option<Param>,
    tied: bool,
    [inputs, classes]: [usize; 2],
    params: &ParamBuilder,
) -> Result<Linear> {
    let of_text = table.is_some();
    let bound = if of_text { SPREAD } else { (inputs as f32).sqrt().recip() };
    let weight = match table {
        Some(table) if tied => table,
        _ => params.param("weight", (classes, inputs), Init::Uniform(bound))?,
    };
    let bias = if of_text { Init::Zeros } else { Init::Uniform(bound) };
    let bias = params.param("bias", classes, bias)?;
    Ok(Linear::without_bias(weight, Activation::None)?.with_bias(bias))
}

/// Steps and values of each that a sample of shape `input` has.
fn steps(input: &[usize], steps: Option<usize>) -> Result<(usize, usize)> {
    let len: usize = input.iter().product();
    match (steps, input) {
        (Some(steps), _) if steps > 0 && len.is_multiple_of(steps) => Ok((steps, len / steps)),
        (Some(steps), _) => Err(Error::Config(format!(
            "model.steps: the {len} values of a sample of shape {input:?} are no {steps} steps of equal \
             length"
        ))),
        (None, &[.., rows, cols]) => Ok((rows, len / (rows * cols) * cols)),
        (None, _) => Err(Error::Config(format!(
            "model.steps: is missing; samples of shape {input:?} have no rows that could be the steps"
        ))),
    }
}

/// `x` (batch, values of a sample …) as steps, (time, batch, width). An image's step is a row of all its
/// channels.
fn by_steps(x: &Tensor, shape: &[usize], time: usize, width: usize) -> Result<Tensor> {
    let batch = x.dims().first().copied().unwrap_or(0);
    let by_row = match *shape {
        [channels, rows, cols] if rows == time => {
            x.reshape((batch, channels, rows, cols))?.permute((2, 0, 1, 3))?
        }
        _ => x.reshape((batch, time, width))?.transpose(0, 1)?,
    };
    Ok(by_row.contiguous()?.reshape((time, batch, width))?)
}

impl Model for RecurrentNet {
    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        match &self.reads {
            Reads::Values { shape, time, width } => {
                let states = self.states(by_steps(x, shape, *time, *width)?, pass)?;
                self.head.forward(&self.drop_last(self.last(&states)?, pass)?)
            }
            Reads::Tokens { table, .. } => {
                let (batch, time) = x.dims2()?;
                let ids = x.flatten_all()?.to_vec1::<f32>()?;
                let token = |i: usize| ids[i % batch * time + i / batch] as u32;
                let tokens: Vec<u32> = (0..ids.len()).map(token).collect();
                let x = table.forward(&tokens)?.reshape((time, batch, self.hidden))?;
                let states = self.states(x, pass)?.transpose(0, 1)?.contiguous()?;
                let states = self.drop_last(states, pass)?;
                self.head.forward(&states.reshape((batch * time, self.hidden))?)
            }
        }
    }

    fn carry_over(&mut self, streams: usize) {
        let width = self.layers.iter().map(Recurrent::state_len).sum();
        self.carry = Some(Carry::new(streams, width));
    }

    fn carry(&self) -> Option<&Carry> {
        self.carry.as_ref()
    }

    fn describe(&self) -> Vec<String> {
        let both = self.layers.first().is_some_and(|layer| layer.outputs() > self.hidden);
        let outputs = if both { 2 * self.hidden } else { self.hidden };
        let (mut lines, time) = (Vec::new(), self.reads.time());
        let mut head = (outputs + 1) * self.classes;
        if let Reads::Tokens { tied, .. } = &self.reads {
            let operation = if *tied { "token table, also the head" } else { "token table" };
            let of = format!("{time}×{}", self.hidden);
            lines.push(line("te", operation, &of, self.hidden * self.classes));
            head = if *tied { self.classes } else { head };
        }
        let cell = match self.cell {
            Cell::Lstm => "LSTM",
            Cell::Gru => "GRU",
        };
        let operation = if both { format!("{cell}, both directions") } else { cell.to_owned() };
        let drop = format!("drops {} while training", self.share);
        let of_values = matches!(self.reads, Reads::Values { .. });
        for (k, &count) in self.counts.iter().enumerate() {
            lines.push(line(&format!("rnn.{k}"), &operation, &format!("{time}×{outputs}"), count));
            if self.share > 0.0 {
                let last = of_values && k + 1 == self.layers.len();
                let of = if last { String::new() } else { format!("{time}×") };
                lines.push(line("dropout", &drop, &format!("{of}{outputs}"), 0));
            }
        }
        let (operation, of) = match &self.reads {
            Reads::Tokens { tied: true, .. } => ("dense, the token table", format!("{time}×")),
            Reads::Tokens { .. } => ("dense", format!("{time}×")),
            Reads::Values { .. } => ("dense, on the last state", String::new()),
        };
        lines.push(line("head", operation, &format!("{of}{}", self.classes), head));
        lines
    }
}

impl Reads {
    fn time(&self) -> usize {
        match self {
            Reads::Tokens { time, .. } | Reads::Values { time, .. } => *time,
        }
    }
}

#[cfg(test)]
#[path = "recurrent_tests.rs"]
mod tests;

//! Recurrent layers over whole sequences, as `torch.nn.LSTM` and `torch.nn.GRU`, each as one operation.
//!
//! What does not depend on the step before is done for all steps at once: one matrix product for the inputs'
//! part of all sums, one each for the gradients of both matrices and of the inputs. Only the product with
//! the state before goes step by step, over a matrix that is laid out for it once ([`super::packed`]).

use super::hook::tracked;
use super::params::{Init, Param, ParamBuilder};
use super::recurrent_op::RecurrentOp;
use super::{gru, lstm};
use crate::error::{Error, Result};
use candle_core::{DType, Tensor};

/// What computes the next state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Long short-term memory: gates i, f, g, o.
    Lstm,
    /// Gated recurrent unit: gates r, z, n.
    Gru,
}

impl Cell {
    /// Values per hidden value that the matrices give.
    #[must_use]
    pub fn gates(self) -> usize {
        match self {
            Cell::Lstm => lstm::GATES,
            Cell::Gru => gru::GATES,
        }
    }
}

/// One layer of a recurrent network, forwards or in both directions. Parameters of layer k: `weight_ih_l{k}`
/// (gates · hidden, inputs), `weight_hh_l{k}` (gates · hidden, hidden), `bias_ih_l{k}` and `bias_hh_l{k}`
/// (gates · hidden), and the same with `_reverse`.
#[derive(Clone)]
pub struct Recurrent {
    pub(super) cell: Cell,
    pub(super) directions: Vec<Direction>,
    pub(super) inputs: usize,
    hidden: usize,
}

/// The parameters of one direction.
#[derive(Clone)]
pub(super) struct Direction {
    pub(super) w_ih: Param,
    pub(super) w_hh: Param,
    pub(super) b_ih: Param,
    pub(super) b_hh: Param,
    pub(super) backwards: bool,
}

/// The sizes of one pass over a batch of sequences.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) time: usize,
    pub(super) batch: usize,
    pub(super) hidden: usize,
}

impl Sizes {
    /// Values of the states of one step.
    pub(super) fn state(self) -> usize {
        self.batch * self.hidden
    }

    /// The states before and after step `t` of `states` (time + 1, batch, hidden).
    pub(super) fn step(self, states: &mut [f32], t: usize) -> (&[f32], &mut [f32]) {
        let state = self.state();
        let (before, after) = states.split_at_mut((t + 1) * state);
        (&before[t * state..], &mut after[..state])
    }
}

impl Recurrent {
    /// Layer number `layer` of a network; all its parameters start uniformly in ±1/√hidden, PyTorch's way.
    ///
    /// # Errors
    /// [`Error::Config`] when there are no inputs or no hidden values; [`Error::Internal`] when memory is
    /// missing.
    pub fn new(
        params: &ParamBuilder,
        cell: Cell,
        layer: usize,
        [inputs, hidden]: [usize; 2],
        both_directions: bool,
    ) -> Result<Recurrent> {
        if inputs == 0 || hidden == 0 {
            return Err(Error::Config(format!(
                "a recurrent layer needs inputs and hidden values; got {inputs} and {hidden}"
            )));
        }
        let init = Init::Uniform((hidden as f32).sqrt().recip());
        let direction = |backwards| {
            let end = if backwards { "_reverse" } else { "" };
            let rows = cell.gates() * hidden;
            let matrix =
                |name, cols| params.param(&format!("{name}_l{layer}{end}"), (rows, cols), init);
            let bias = |name| params.param(&format!("{name}_l{layer}{end}"), rows, init);
            Ok(Direction {
                w_ih: matrix("weight_ih", inputs)?,
                w_hh: matrix("weight_hh", hidden)?,
                b_ih: bias("bias_ih")?,
                b_hh: bias("bias_hh")?,
                backwards,
            })
        };
        let ways = if both_directions { &[false, true][..] } else { &[false] };
        let directions = ways.iter().map(|&way| direction(way)).collect::<Result<_>>()?;
        Ok(Recurrent { cell, directions, inputs, hidden })
    }

    /// Values of one step's result: hidden values, those of both directions side by side.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.directions.len() * self.hidden
    }

    /// The hidden states of all steps, (time, batch, outputs), from `x` (time, batch, inputs), `f32`. The
    /// first state is zero.
    ///
    /// # Errors
    /// When `x` has another shape or type.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.run(x, None)?.0)
    }

    /// The same from the states `before`, and the states after the last step: for each sequence
    /// [`Recurrent::state_len`] values, hidden, then those of an LSTM's cells. Gradients end at `before`
    /// (truncated back-propagation through time).
    ///
    /// # Errors
    /// When `x` has another shape or type, `before` another length, or the layer reads from the end, too.
    pub fn forward_from(&self, x: &Tensor, before: &[f32]) -> Result<(Tensor, Vec<f32>)> {
        let batch = x.dims().get(1).copied().unwrap_or(0);
        if self.directions.len() != 1 || before.len() != batch * self.state_len() {
            return Err(Error::Internal(format!(
                "{}: {} values as states of {batch} sequences in {} directions",
                self.directions[0].w_ih.name(),
                before.len(),
                self.directions.len()
            )));
        }
        self.run(x, Some(before))
    }

    /// Values that one direction hands on from step to step.
    #[must_use]
    pub fn state_len(&self) -> usize {
        match self.cell {
            Cell::Lstm => 2 * self.hidden,
            Cell::Gru => self.hidden,
        }
    }

    fn run(&self, x: &Tensor, before: Option<&[f32]>) -> Result<(Tensor, Vec<f32>)> {
        let sizes = match *x.dims() {
            [time, batch, inputs] if inputs == self.inputs && x.dtype() == DType::F32 => {
                Sizes { time, batch, hidden: self.hidden }
            }
            _ => {
                return Err(Error::Internal(format!(
                    "{}: expected f32 (time, batch, {}), got {:?} {:?}",
                    self.directions[0].w_ih.name(),
                    self.inputs,
                    x.dtype(),
                    x.dims()
                )));
            }
        };
        if !x.device().is_cpu() {
            return Ok(self.composed(x, before)?);
        }
        let (op, after) = RecurrentOp::new(self.clone(), sizes, before);
        // A parameter is an argument so that gradients flow even where `x` needs none.
        let y = x.contiguous()?.apply_op2(self.directions[0].w_ih.tensor(), op)?;
        Ok((y, after.get().cloned().unwrap_or_default()))
    }

    /// The same of Candle's operations.
    fn composed(
        &self,
        x: &Tensor,
        before: Option<&[f32]>,
    ) -> candle_core::Result<(Tensor, Vec<f32>)> {
        let (time, batch, inputs) = x.dims3()?;
        let mut after = before.unwrap_or_default().to_vec();
        if x.elem_count() == 0 {
            return Ok((
                Tensor::zeros((time, batch, self.outputs()), x.dtype(), x.device())?,
                after,
            ));
        }
        let rows = x.reshape((time * batch, inputs))?;
        let mut all = Vec::with_capacity(self.directions.len());
        for direction in &self.directions {
            let part = rows.matmul(&tracked(&direction.w_ih)?.t()?)?;
            let part = part.broadcast_add(&tracked(&direction.b_ih)?)?;
            let part = part.reshape((time, batch, ()))?;
            let (weight, bias) = (tracked(&direction.w_hh)?.t()?, tracked(&direction.b_hh)?);
            let mut h = Tensor::zeros((batch, self.hidden), x.dtype(), x.device())?;
            let mut c = h.clone();
            if let Some(before) = before {
                let states = Tensor::from_slice(before, (batch, self.state_len()), x.device())?;
                h = states.narrow(1, 0, self.hidden)?.contiguous()?;
                c = states.narrow(1, self.state_len() - self.hidden, self.hidden)?.contiguous()?;
            }
            let mut results = vec![h.clone(); time];
            for s in 0..time {
                let t = if direction.backwards { time - 1 - s } else { s };
                let recurrent = h.matmul(&weight)?.broadcast_add(&bias)?;
                match self.cell {
                    Cell::Lstm => (h, c) = lstm::composed_step(&(part.get(t)? + recurrent)?, &c)?,
                    Cell::Gru => h = gru::composed_step(&part.get(t)?, &recurrent, &h)?,
                }
                results[t] = h.clone();
            }
            if before.is_some() {
                let states = if self.cell == Cell::Lstm { vec![h, c] } else { vec![h] };
                after = Tensor::cat(&states, 1)?.flatten_all()?.to_vec1()?;
            }
            all.push(Tensor::stack(&results, 0)?);
        }
        Ok((Tensor::cat(&all, 2)?, after))
    }
}

#[cfg(test)]
#[path = "recurrent_tests.rs"]
mod tests;

//! The CPU's form of [`super::recurrent`]: one operation for a layer and a whole batch of sequences.

use super::elementary::add_rows;
use super::gemm::{Mat, matmul, write_gradient};
use super::grads::Write;
use super::host::{Host, values};
use super::packed::{self, Packed};
use super::params::Param;
use super::recurrent::{Cell, Direction, Recurrent, Sizes};
use super::recycle::Buffer;
use super::{gru, lstm};
use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor};
use std::sync::{Arc, OnceLock};

impl Recurrent {
    /// One direction over `x`, whose steps come in the order of this direction, from the states `before` of
    /// each sequence, or zeros.
    fn apply(
        &self,
        d: &Direction,
        sizes: Sizes,
        x: &[f32],
        before: Option<&[f32]>,
    ) -> candle_core::Result<Kept> {
        let (rows, wide) = (sizes.time * sizes.batch, self.cell.gates() * sizes.hidden);
        let [w_ih, w_hh, b_ih, b_hh] =
            [&d.w_ih, &d.w_hh, &d.b_ih, &d.b_hh].map(|param| Host::of(param.tensor()));
        let mut bias = b_ih.values()?.to_vec();
        if self.cell == Cell::Lstm {
            bias.iter_mut().zip(b_hh.values()?).for_each(|(sum, b)| *sum += b);
        }
        let mut gates = Buffer::take(rows * wide);
        gates.chunks_exact_mut(wide).for_each(|row| row.copy_from_slice(&bias));
        if packed::is_faster() {
            Packed::transposed(w_ih.values()?, wide, self.inputs).add_product(x, &mut gates);
        } else {
            let weight = Mat::new(w_ih.values()?, wide, self.inputs);
            matmul(&mut gates, Mat::new(x, rows, self.inputs), weight.t(), Write::Add);
        }
        let mut hidden = Buffer::take((sizes.time + 1) * sizes.state());
        let [first, first_cells] = self.first_states(sizes, before);
        hidden[..sizes.state()].copy_from_slice(&first);
        let weight = Packed::transposed(w_hh.values()?, wide, sizes.hidden);
        let cell = match self.cell {
            Cell::Lstm => {
                KeptByCell::Lstm(lstm::forward(sizes, gates, &first_cells, &weight, &mut hidden))
            }
            Cell::Gru => {
                let bias = b_hh.values()?;
                KeptByCell::Gru(gru::forward(sizes, gates, bias, &weight, &mut hidden))
            }
        };
        Ok(Kept { hidden, cell })
    }

    /// Hidden states and those of the cells, (batch, hidden) each, before the first step.
    fn first_states(&self, sizes: Sizes, before: Option<&[f32]>) -> [Vec<f32>; 2] {
        let Some(before) = before else { return [0, 1].map(|_| vec![0.0; sizes.state()]) };
        let rows = || before.chunks_exact(self.state_len());
        [0, self.state_len() - sizes.hidden]
            .map(|at| rows().flat_map(|row| &row[at..at + sizes.hidden]).copied().collect())
    }

    /// The states of each sequence after the last step, as [`Recurrent::forward_from`] gives them.
    fn last_states(&self, sizes: Sizes, kept: &Kept) -> Vec<f32> {
        let at = sizes.time * sizes.state();
        let cells = match &kept.cell {
            KeptByCell::Lstm(kept) => &kept.cells[at..at + sizes.state()],
            KeptByCell::Gru(_) => &[],
        };
        let mut states = Vec::with_capacity(sizes.batch * self.state_len());
        for i in 0..sizes.batch {
            let of = i * sizes.hidden..(i + 1) * sizes.hidden;
            states.extend_from_slice(&kept.hidden[at..][of.clone()]);
            states.extend_from_slice(cells.get(of).unwrap_or_default());
        }
        states
    }

    /// The backward pass of one direction: puts the parameters' gradients into their slots and, if `dx` is
    /// given, the inputs' there. All in the order of this direction.
    fn gradients(
        &self,
        d: &Direction,
        sizes: Sizes,
        kept: &Kept,
        [x, grad]: [&[f32]; 2],
        dx: Option<&mut [f32]>,
    ) -> candle_core::Result<()> {
        let (rows, wide) = (sizes.time * sizes.batch, self.cell.gates() * sizes.hidden);
        let (w_ih, w_hh) = (Host::of(d.w_ih.tensor()), Host::of(d.w_hh.tensor()));
        let weight = Packed::new(w_hh.values()?, wide, sizes.hidden);
        let hidden = &kept.hidden;
        let (of_inputs, of_states) = match &kept.cell {
            KeptByCell::Lstm(kept) => (lstm::backward(sizes, kept, &weight, grad), None),
            KeptByCell::Gru(kept) => {
                let (inputs, states) = gru::backward(sizes, kept, hidden, &weight, grad);
                (inputs, Some(states))
            }
        };
        let of_states = of_states.as_deref().unwrap_or(&of_inputs);
        for (param, sums) in [(&d.b_ih, &of_inputs[..]), (&d.b_hh, of_states)] {
            let mut sum = vec![0.0; wide];
            add_rows(sums, &mut sum);
            param.put_grad(&sum)?;
        }
        let before = &hidden[..rows * sizes.hidden];
        weight_gradient(&d.w_ih, &of_inputs, x, rows)?;
        weight_gradient(&d.w_hh, of_states, before, rows)?;
        match dx {
            None => {}
            Some(dx) if packed::is_faster() => {
                dx.fill(0.0);
                Packed::new(w_ih.values()?, wide, self.inputs).add_product(&of_inputs, dx);
            }
            Some(dx) => {
                let weight = Mat::new(w_ih.values()?, wide, self.inputs);
                matmul(dx, Mat::new(&of_inputs, rows, wide), weight, Write::Set);
            }
        }
        Ok(())
    }
}

/// Enters the gradient sumsᵀ · x of a matrix; both have `rows` rows.
fn weight_gradient(param: &Param, sums: &[f32], x: &[f32], rows: usize) -> candle_core::Result<()> {
    let dims = param.tensor().dims();
    if packed::is_faster() {
        let x = Packed::new(x, rows, dims[1]);
        return param.write_grad(|slot, how| {
            if how == Write::Set {
                slot.fill(0.0);
            }
            x.add_product_of_columns(sums, slot);
        });
    }
    write_gradient(param, Mat::new(sums, rows, dims[0]).t(), Mat::new(x, rows, dims[1]))
}

/// What the backward pass of one direction needs.
struct Kept {
    /// The states, (time + 1, batch, hidden), the first before all steps.
    hidden: Buffer,
    cell: KeptByCell,
}

enum KeptByCell {
    Lstm(lstm::Kept),
    Gru(gru::Kept),
}

/// The operation.
pub(super) struct RecurrentOp {
    layer: Recurrent,
    sizes: Sizes,
    before: Option<Vec<f32>>,
    after: Arc<OnceLock<Vec<f32>>>,
    kept: OnceLock<Vec<Kept>>,
}

impl RecurrentOp {
    /// The operation from the states `before`, and the place where those after the last step will be.
    pub(super) fn new(
        layer: Recurrent,
        sizes: Sizes,
        before: Option<&[f32]>,
    ) -> (RecurrentOp, Arc<OnceLock<Vec<f32>>>) {
        let after = Arc::default();
        let place = Arc::clone(&after);
        let before = before.map(<[f32]>::to_vec);
        (RecurrentOp { layer, sizes, before, after, kept: OnceLock::new() }, place)
    }
}

/// `values` with its blocks of `len` in reverse order.
fn reversed(values: &[f32], len: usize) -> Buffer {
    let mut result = Buffer::take(values.len());
    let blocks = values.chunks_exact(len.max(1)).rev();
    result.chunks_exact_mut(len.max(1)).zip(blocks).for_each(|(to, from)| to.copy_from_slice(from));
    result
}

impl CustomOp2 for RecurrentOp {
    fn name(&self) -> &'static str {
        "recurrent"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        _weight: &CpuStorage,
        _weight_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (layer, sizes, x) = (&self.layer, self.sizes, values(x, x_layout)?);
        let (outputs, step) = (layer.outputs(), sizes.batch * layer.inputs);
        let mut out = vec![0.0; sizes.time * sizes.batch * outputs];
        let mut all = Vec::with_capacity(layer.directions.len());
        for (i, direction) in layer.directions.iter().enumerate() {
            let turned = direction.backwards.then(|| reversed(x, step));
            let x = turned.as_deref().unwrap_or(x);
            let kept = layer.apply(direction, sizes, x, self.before.as_deref())?;
            let states = &kept.hidden[sizes.state()..];
            let turned = direction.backwards.then(|| reversed(states, sizes.state()));
            let rows = turned.as_deref().unwrap_or(states).chunks_exact(sizes.hidden);
            for (to, row) in out.chunks_exact_mut(outputs).zip(rows) {
                to[i * sizes.hidden..][..sizes.hidden].copy_from_slice(row);
            }
            all.push(kept);
        }
        // The op is applied once, so the cells are empty.
        if let (Some(_), Some(kept)) = (&self.before, all.first()) {
            let _ = self.after.set(layer.last_states(sizes, kept));
        }
        let _ = self.kept.set(all);
        Ok((CpuStorage::F32(out), (sizes.time, sizes.batch, outputs).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        _weight: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let (layer, sizes) = (&self.layer, self.sizes);
        let grad = grad.contiguous()?;
        let (x_values, grad) = (Host::of(x), Host::of(&grad));
        let (x_values, grad) = (x_values.values()?, grad.values()?);
        let (outputs, step) = (layer.outputs(), sizes.batch * layer.inputs);
        let mut dx = if x.track_op() { vec![0.0; x_values.len()] } else { Vec::new() };
        let kept = self.kept.get().map_or(&[][..], |kept| kept);
        for (i, (direction, kept)) in layer.directions.iter().zip(kept).enumerate() {
            let mut part = Buffer::take(sizes.time * sizes.state());
            let rows = grad.chunks_exact(outputs);
            for (to, row) in part.chunks_exact_mut(sizes.hidden).zip(rows) {
                to.copy_from_slice(&row[i * sizes.hidden..][..sizes.hidden]);
            }
            if !direction.backwards {
                let dx = x.track_op().then_some(&mut dx[..]);
                layer.gradients(direction, sizes, kept, [x_values, &part], dx)?;
                continue;
            }
            let (x_values, part) = (reversed(x_values, step), reversed(&part, sizes.state()));
            let mut own = x.track_op().then(|| Buffer::take(x_values.len()));
            layer.gradients(direction, sizes, kept, [&x_values, &part], own.as_deref_mut())?;
            if let Some(own) = own {
                let own = reversed(&own, step);
                dx.iter_mut().zip(&*own).for_each(|(sum, v)| *sum += v);
            }
        }
        if !x.track_op() {
            return Ok((None, None));
        }
        Ok((Some(Tensor::from_vec(dx, x.shape(), x.device())?), None))
    }
}

//! The arithmetic of an LSTM (Hochreiter and Schmidhuber, 1997) over a sequence, as `torch.nn.LSTM`:
//!
//! ```text
//! i, f, g, o = sums of step t            W_ih·x + b_ih + W_hh·h′ + b_hh, in this order
//! c = σ(f)·c′ + σ(i)·tanh(g)             ′: of the step before
//! h = σ(o)·tanh(c)
//! ```

use super::elementary::{sigmoid, tanh};
use super::packed::Packed;
use super::recurrent::Sizes;
use super::recycle::Buffer;
use crate::util::wide::wide;
use candle_core::{Result, Tensor};

/// Gates of the cell.
pub(super) const GATES: usize = 4;

/// What the backward pass needs besides the hidden states.
pub(super) struct Kept {
    /// Values of the gates, (time, batch, 4 · hidden).
    gates: Buffer,
    /// States of the cells, (time + 1, batch, hidden).
    pub(super) cells: Buffer,
    /// Their hyperbolic tangents, (time, batch, hidden).
    tanh: Buffer,
}

/// Goes through a sequence. `gates` has the inputs' part of the sums and both biases; `hidden` (time + 1,
/// batch, hidden) holds the first state and takes the others; `first` (batch, hidden) is that of the cells;
/// `weight` is the transpose of W_hh.
pub(super) fn forward(
    sizes: Sizes,
    mut gates: Buffer,
    first: &[f32],
    weight: &Packed,
    hidden: &mut [f32],
) -> Kept {
    let state = sizes.state();
    let mut cells = Buffer::take((sizes.time + 1) * state);
    let mut tanh = Buffer::take(sizes.time * state);
    cells[..state].copy_from_slice(first);
    for t in 0..sizes.time {
        let gates = &mut gates[t * GATES * state..][..GATES * state];
        let (h, c) = (sizes.step(hidden, t), sizes.step(&mut cells, t));
        weight.add_product(h.0, gates);
        step(sizes.hidden, gates, c.0, c.1, &mut tanh[t * state..][..state], h.1);
    }
    Kept { gates, cells, tanh }
}

/// The gradients of the sums, (time, batch, 4 · hidden), from those of the results, `grad` (time, batch,
/// hidden). `weight` is W_hh.
pub(super) fn backward(sizes: Sizes, kept: &Kept, weight: &Packed, grad: &[f32]) -> Buffer {
    let (state, sums) = (sizes.state(), GATES * sizes.state());
    let mut d_sums = Buffer::take(sizes.time * sums);
    let (mut dh, mut dc) = (Buffer::take(state), Buffer::take(state));
    dc.fill(0.0);
    for t in (0..sizes.time).rev() {
        let (now, later) = d_sums[t * sums..].split_at_mut(sums);
        dh.copy_from_slice(&grad[t * state..][..state]);
        if t + 1 < sizes.time {
            weight.add_product(&later[..sums], &mut dh);
        }
        let (gates, c) = (&kept.gates[t * sums..][..sums], &kept.cells[t * state..][..state]);
        step_back(sizes.hidden, gates, c, &kept.tanh[t * state..][..state], &dh, &mut dc, now);
    }
    d_sums
}

/// One step of Candle's operations: states from the sums and the states before.
pub(super) fn composed_step(sums: &Tensor, c: &Tensor) -> Result<(Tensor, Tensor)> {
    let gates = sums.chunk(GATES, 1)?;
    let sigmoid = |x: &Tensor| (x.neg()?.exp()? + 1.0)?.recip();
    let kept = (sigmoid(&gates[1])? * c)?;
    let c = (kept + (sigmoid(&gates[0])? * gates[2].tanh()?)?)?;
    let h = (sigmoid(&gates[3])? * c.tanh()?)?;
    Ok((h, c))
}

wide! {
    /// Sums become gates; states from the states before. Several loops over one row, which lies in the
    /// first-level cache: each becomes vectors.
    fn step(
        hidden: usize,
        sums: &mut [f32],
        c_before: &[f32],
        c: &mut [f32],
        tanh_c: &mut [f32],
        h: &mut [f32],
    ) {
        let states = c_before.chunks_exact(hidden).zip(c.chunks_exact_mut(hidden));
        let results = tanh_c.chunks_exact_mut(hidden).zip(h.chunks_exact_mut(hidden));
        let rows = sums.chunks_exact_mut(GATES * hidden).zip(states).zip(results);
        for ((row, (c_before, c)), (tanh_c, h)) in rows {
            let (first, o) = row.split_at_mut(3 * hidden);
            let (i_f, g) = first.split_at_mut(2 * hidden);
            i_f.iter_mut().for_each(|v| *v = sigmoid(*v));
            g.iter_mut().for_each(|v| *v = tanh(*v));
            o.iter_mut().for_each(|v| *v = sigmoid(*v));
            let (i, f) = i_f.split_at(hidden);
            for ((c, before), ((i, f), g)) in c.iter_mut().zip(c_before).zip(i.iter().zip(f).zip(&*g)) {
                *c = f * before + i * g;
            }
            for ((tanh_c, c), (h, o)) in tanh_c.iter_mut().zip(&*c).zip(h.iter_mut().zip(&*o)) {
                *tanh_c = tanh(*c);
                *h = o * *tanh_c;
            }
        }
    }
}

wide! {
    /// The gradients of one step's sums. `dc` is what comes from the step after and becomes what goes to
    /// the step before.
    fn step_back(
        hidden: usize,
        gates: &[f32],
        c_before: &[f32],
        tanh_c: &[f32],
        dh: &[f32],
        dc: &mut [f32],
        d_sums: &mut [f32],
    ) {
        let states = c_before.chunks_exact(hidden).zip(tanh_c.chunks_exact(hidden));
        let grads = dh.chunks_exact(hidden).zip(dc.chunks_exact_mut(hidden));
        let wide = GATES * hidden;
        let sums = gates.chunks_exact(wide).zip(d_sums.chunks_exact_mut(wide));
        for (((gates, d_sums), (c_before, tanh_c)), (dh, dc)) in sums.zip(states).zip(grads) {
            let (i_f, g_o) = gates.split_at(2 * hidden);
            let ((i, f), (g, o)) = (i_f.split_at(hidden), g_o.split_at(hidden));
            let (di_f, dg_o) = d_sums.split_at_mut(2 * hidden);
            let ((di, df), (dg, d_o)) = (di_f.split_at_mut(hidden), dg_o.split_at_mut(hidden));
            for ((d_o, dc), ((o, tanh_c), dh)) in
                d_o.iter_mut().zip(dc.iter_mut()).zip(o.iter().zip(tanh_c).zip(dh))
            {
                *d_o = dh * tanh_c * (o * (1.0 - o));
                *dc += dh * o * (1.0 - tanh_c * tanh_c);
            }
            for ((di, dg), ((i, g), dc)) in
                di.iter_mut().zip(dg.iter_mut()).zip(i.iter().zip(g).zip(&*dc))
            {
                *di = dc * g * (i * (1.0 - i));
                *dg = dc * i * (1.0 - g * g);
            }
            for ((df, dc), (f, before)) in df.iter_mut().zip(dc).zip(f.iter().zip(c_before)) {
                *df = *dc * before * (f * (1.0 - f));
                *dc *= f;
            }
        }
    }
}

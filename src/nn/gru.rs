//! The arithmetic of a gated recurrent unit (Cho et al., 2014) over a sequence, as `torch.nn.GRU`, where the
//! reset gate acts behind the recurrent product:
//!
//! ```text
//! r, z = σ of the sums of step t         W_ih·x + b_ih + W_hh·h′ + b_hh, in this order
//! n = tanh(W_in·x + b_in + r·q)          q = W_hn·h′ + b_hn
//! h = (1 − z)·n + z·h′                   ′: of the step before
//! ```

use super::elementary::{sigmoid, tanh};
use super::packed::Packed;
use super::recurrent::Sizes;
use super::recycle::Buffer;
use crate::util::wide::wide;
use candle_core::{Result, Tensor};

/// Gates of the cell.
pub(super) const GATES: usize = 3;

/// What the backward pass needs besides the hidden states.
pub(super) struct Kept {
    /// r, z and n, (time, batch, 3 · hidden).
    gates: Buffer,
    /// q, (time, batch, hidden).
    recurrent: Buffer,
}

/// Goes through a sequence. `gates` has the inputs' part of the sums and their bias, `bias` is that of the
/// recurrent part; `hidden` (time + 1, batch, hidden) holds the first state and takes the others; `weight` is
/// the transpose of W_hh.
pub(super) fn forward(
    sizes: Sizes,
    mut gates: Buffer,
    bias: &[f32],
    weight: &Packed,
    hidden: &mut [f32],
) -> Kept {
    let (state, sums) = (sizes.state(), GATES * sizes.state());
    let mut recurrent = Buffer::take(sizes.time * state);
    let mut product = Buffer::take(sums);
    for t in 0..sizes.time {
        let h = sizes.step(hidden, t);
        product.chunks_exact_mut(bias.len()).for_each(|row| row.copy_from_slice(bias));
        weight.add_product(h.0, &mut product);
        let gates = &mut gates[t * sums..][..sums];
        step(sizes.hidden, gates, &product, h.0, &mut recurrent[t * state..][..state], h.1);
    }
    Kept { gates, recurrent }
}

/// The gradients of the inputs' and of the recurrent part of the sums, both (time, batch, 3 · hidden), from
/// those of the results, `grad` (time, batch, hidden). `weight` is W_hh.
pub(super) fn backward(
    sizes: Sizes,
    kept: &Kept,
    hidden: &[f32],
    weight: &Packed,
    grad: &[f32],
) -> (Buffer, Buffer) {
    let (state, sums) = (sizes.state(), GATES * sizes.state());
    let (mut dx, mut dr) = (Buffer::take(sizes.time * sums), Buffer::take(sizes.time * sums));
    let mut dh = Buffer::take(state);
    dh.fill(0.0);
    for t in (0..sizes.time).rev() {
        dh.iter_mut().zip(&grad[t * state..][..state]).for_each(|(d, g)| *d += g);
        let of_sums = t * sums..(t + 1) * sums;
        let (before, q) = (&hidden[t * state..][..state], &kept.recurrent[t * state..][..state]);
        let gates = &kept.gates[of_sums.clone()];
        let (dx, dr) = (&mut dx[of_sums.clone()], &mut dr[of_sums]);
        step_back(sizes.hidden, gates, q, before, &mut dh, dx, dr);
        if t > 0 {
            weight.add_product(dr, &mut dh);
        }
    }
    (dx, dr)
}

/// One step of Candle's operations: the state from both parts of the sums and the state before.
pub(super) fn composed_step(x: &Tensor, recurrent: &Tensor, h: &Tensor) -> Result<Tensor> {
    let (x, recurrent) = (x.chunk(GATES, 1)?, recurrent.chunk(GATES, 1)?);
    let sigmoid = |x: Tensor| (x.neg()?.exp()? + 1.0)?.recip();
    let r = sigmoid((&x[0] + &recurrent[0])?)?;
    let z = sigmoid((&x[1] + &recurrent[1])?)?;
    let n = (&x[2] + (r * &recurrent[2])?)?.tanh()?;
    &n + (z * (h - &n)?)?
}

wide! {
    /// Sums become gates; the state from the state before. Several loops over one row, which lies in the
    /// first-level cache: each becomes vectors.
    fn step(
        hidden: usize,
        sums: &mut [f32],
        product: &[f32],
        h_before: &[f32],
        q: &mut [f32],
        h: &mut [f32],
    ) {
        let states = h_before.chunks_exact(hidden).zip(h.chunks_exact_mut(hidden));
        let wide = GATES * hidden;
        let rows = sums.chunks_exact_mut(wide).zip(product.chunks_exact(wide));
        let rows = rows.zip(q.chunks_exact_mut(hidden)).zip(states);
        for (((row, product), q), (before, h)) in rows {
            let (r_z, n) = row.split_at_mut(2 * hidden);
            r_z.iter_mut().zip(product).for_each(|(v, p)| *v = sigmoid(*v + p));
            q.copy_from_slice(&product[2 * hidden..]);
            let (r, z) = r_z.split_at(hidden);
            for ((n, q), r) in n.iter_mut().zip(&*q).zip(r) {
                *n = tanh(*n + r * q);
            }
            for ((h, before), (z, n)) in h.iter_mut().zip(before).zip(z.iter().zip(&*n)) {
                *h = n + z * (before - n);
            }
        }
    }
}

wide! {
    /// The gradients of one step's sums. `dh` is the gradient of the result and becomes the part of that of
    /// the state before that does not go through the sums.
    fn step_back(
        hidden: usize,
        gates: &[f32],
        q: &[f32],
        before: &[f32],
        dh: &mut [f32],
        dx: &mut [f32],
        dr: &mut [f32],
    ) {
        let wide = GATES * hidden;
        let sums = gates.chunks_exact(wide).zip(dx.chunks_exact_mut(wide));
        let states = q.chunks_exact(hidden).zip(before.chunks_exact(hidden));
        let rows = sums.zip(dr.chunks_exact_mut(wide)).zip(states.zip(dh.chunks_exact_mut(hidden)));
        for (((gates, dx), dr), ((q, before), dh)) in rows {
            let (r_z, n) = gates.split_at(2 * hidden);
            let (r, z) = r_z.split_at(hidden);
            let (dx_r_z, dx_n) = dx.split_at_mut(2 * hidden);
            let (dx_r, dx_z) = dx_r_z.split_at_mut(hidden);
            for ((dx_n, dh), (z, n)) in dx_n.iter_mut().zip(&*dh).zip(z.iter().zip(n)) {
                *dx_n = dh * (1.0 - z) * (1.0 - n * n);
            }
            for ((dx_z, dh), ((z, n), before)) in
                dx_z.iter_mut().zip(dh).zip(z.iter().zip(n).zip(before))
            {
                *dx_z = *dh * (before - n) * (z * (1.0 - z));
                *dh *= z;
            }
            for ((dx_r, dx_n), (q, r)) in dx_r.iter_mut().zip(&*dx_n).zip(q.iter().zip(r)) {
                *dx_r = dx_n * q * (r * (1.0 - r));
            }
            let (dr_r_z, dr_n) = dr.split_at_mut(2 * hidden);
            dr_r_z.copy_from_slice(dx_r_z);
            for ((dr_n, dx_n), r) in dr_n.iter_mut().zip(&*dx_n).zip(r) {
                *dr_n = dx_n * r;
            }
        }
    }
}

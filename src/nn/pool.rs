//! Max-pooling over k×k windows with stride k, as `torch.nn.functional.max_pool2d(x, k)`.
//!
//! The position of each maximum is remembered, and it alone receives the gradient. (Candle's own
//! backward pass multiplies by the number of maxima and divides by k²: a single maximum in a 2×2
//! window gets a quarter of its gradient.) Among equal values the first in row-major order counts;
//! rows and columns that do not fill a window are dropped.

use super::host::{Host, values};
use crate::error::{Error, Result};
use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use std::sync::OnceLock;

/// The largest window side: positions in a window are kept in one byte, and 255 is [`DEAD`].
pub(super) const MAX_WINDOW: usize = 15;

/// In place of a position: no element of the window receives a gradient.
pub(super) const DEAD: u8 = u8::MAX;

/// The maximum of each `window × window` block of `x` (batch, channels, rows, columns).
///
/// # Errors
/// When `x` has another number of dimensions, is smaller than a window, or the window is not 1–15.
pub fn max_pool2d(x: &Tensor, window: usize) -> Result<Tensor> {
    if !(1..=MAX_WINDOW).contains(&window) {
        return Err(Error::Internal(format!("max-pool: window {window}, expected 1 to 15")));
    }
    match *x.dims() {
        [_, _, rows, cols] if rows >= window && cols >= window => {}
        _ => {
            return Err(Error::Internal(format!(
                "max-pool: expected (batch, channels, at least {window}, at least {window}), got {:?}",
                x.dims()
            )));
        }
    }
    if x.device().is_cpu() {
        Ok(x.contiguous()?.apply_op1(MaxPool { window, argmax: OnceLock::new() })?)
    } else {
        Ok(composed(x, window)?)
    }
}

/// The same of Candle's operations: the windows side by side, then a gather at their argmax.
pub(super) fn composed(x: &Tensor, k: usize) -> candle_core::Result<Tensor> {
    let (batch, channels, rows, cols) = x.dims4()?;
    let (rows, cols) = (rows / k, cols / k);
    if batch == 0 {
        return Tensor::zeros((0, channels, rows, cols), x.dtype(), x.device());
    }
    let windows = x
        .narrow(2, 0, rows * k)?
        .narrow(3, 0, cols * k)?
        .reshape(vec![batch * channels, rows, k, cols, k])?
        .permute(vec![0, 1, 3, 2, 4])?
        .reshape(((), k * k))?
        .contiguous()?;
    let argmax = windows.detach().argmax_keepdim(1)?;
    windows.gather(&argmax, 1)?.reshape((batch, channels, rows, cols))
}

struct MaxPool {
    window: usize,
    argmax: OnceLock<Vec<u8>>,
}

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "max-pool"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = values(storage, layout)?;
        let (batch, channels, rows, cols) = layout.shape().dims4()?;
        let plane = Plane { rows, cols, window: self.window };
        let mut out = vec![0.0; batch * channels * plane.pooled()];
        let mut argmax = vec![0; out.len()];
        for ((x, out), argmax) in x
            .chunks_exact(rows * cols)
            .zip(out.chunks_exact_mut(plane.pooled()))
            .zip(argmax.chunks_exact_mut(plane.pooled()))
        {
            plane.pool(x, out, argmax);
        }
        // The op is applied once, so the cell is empty.
        let _ = self.argmax.set(argmax);
        let shape = (batch, channels, rows / self.window, cols / self.window);
        Ok((CpuStorage::F32(out), shape.into()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, g: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let (_, _, rows, cols) = x.dims4()?;
        let plane = Plane { rows, cols, window: self.window };
        let argmax = self.argmax.get().map_or(&[][..], Vec::as_slice);
        let g = g.contiguous()?;
        let g = Host::of(&g);
        let mut dx = vec![0.0; x.elem_count()];
        for ((dx, g), argmax) in dx
            .chunks_exact_mut(rows * cols)
            .zip(g.values()?.chunks_exact(plane.pooled()))
            .zip(argmax.chunks_exact(plane.pooled()))
        {
            plane.unpool(g, argmax, dx);
        }
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

/// One channel of one image under pooling.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plane {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) window: usize,
}

impl Plane {
    /// Number of windows.
    pub(super) fn pooled(&self) -> usize {
        (self.rows / self.window) * (self.cols / self.window)
    }

    /// Writes the maximum of each window to `out` and its position in the window to `argmax`.
    pub(super) fn pool(&self, x: &[f32], out: &mut [f32], argmax: &mut [u8]) {
        let (k, width) = (self.window, self.cols / self.window);
        let lines = x.chunks_exact(k * self.cols);
        for ((lines, out), argmax) in
            lines.zip(out.chunks_exact_mut(width)).zip(argmax.chunks_exact_mut(width))
        {
            if k == 2 {
                pool_pair(lines, self.cols, out, argmax);
            } else {
                pool_lines(lines, self.cols, k, out, argmax);
            }
        }
    }

    /// Writes each gradient to the place of its maximum in `dx`, and 0 everywhere else.
    pub(super) fn unpool(&self, g: &[f32], argmax: &[u8], dx: &mut [f32]) {
        let (k, width) = (self.window, self.cols / self.window);
        let mut lines = dx.chunks_exact_mut(k * self.cols);
        for ((lines, g), argmax) in
            lines.by_ref().zip(g.chunks_exact(width)).zip(argmax.chunks_exact(width))
        {
            if k == 2 && self.cols.is_multiple_of(2) {
                unpool_pair(lines, g, argmax);
                continue;
            }
            lines.fill(0.0);
            for (x, (&g, &at)) in g.iter().zip(argmax).enumerate() {
                if at != DEAD {
                    let at = usize::from(at);
                    lines[at / k * self.cols + x * k + at % k] = g;
                }
            }
        }
        lines.into_remainder().fill(0.0);
    }
}

/// Whether `v` replaces the maximum `m` so far: later equal values do not, NaN does (as PyTorch).
fn wins(v: f32, m: f32) -> bool {
    v > m || v.is_nan()
}

fn pool_lines(lines: &[f32], cols: usize, k: usize, out: &mut [f32], argmax: &mut [u8]) {
    for (x, (out, argmax)) in out.iter_mut().zip(argmax).enumerate() {
        let (mut best, mut at) = (lines[x * k], 0);
        for y in 0..k {
            for (dx, &v) in lines[y * cols + x * k..][..k].iter().enumerate() {
                if wins(v, best) {
                    (best, at) = (v, y * k + dx);
                }
            }
        }
        (*out, *argmax) = (best, at as u8);
    }
}

/// `pool_lines` for k = 2, without inner loops and branches: most models pool by 2.
fn pool_pair(lines: &[f32], cols: usize, out: &mut [f32], argmax: &mut [u8]) {
    let (top, bottom) = lines.split_at(cols);
    let pairs = top.as_chunks::<2>().0.iter().zip(bottom.as_chunks::<2>().0);
    for ((&[a, b], &[c, d]), (out, argmax)) in pairs.zip(out.iter_mut().zip(argmax)) {
        let (upper, i) = if wins(b, a) { (b, 1) } else { (a, 0) };
        let (lower, j) = if wins(d, c) { (d, 3) } else { (c, 2) };
        (*out, *argmax) = if wins(lower, upper) { (lower, j) } else { (upper, i) };
    }
}

fn unpool_pair(lines: &mut [f32], g: &[f32], argmax: &[u8]) {
    let (top, bottom) = lines.split_at_mut(lines.len() / 2);
    let pairs = top.as_chunks_mut::<2>().0.iter_mut().zip(bottom.as_chunks_mut::<2>().0);
    for ((top, bottom), (&g, &at)) in pairs.zip(g.iter().zip(argmax)) {
        let at_is = |k: u8| if at == k { g } else { 0.0 };
        *top = [at_is(0), at_is(1)];
        *bottom = [at_is(2), at_is(3)];
    }
}

/// The sum of the gradients whose maximum is not [`DEAD`].
#[inline(always)]
pub(super) fn alive_sum(grad: &[f32], argmax: &[u8]) -> f32 {
    let alive = |g: f32, at: u8| if at == DEAD { 0.0 } else { g };
    let ((grads, rest), (ats, rest_at)) = (grad.as_chunks::<8>(), argmax.as_chunks::<8>());
    let mut lanes = [0.0f32; 8];
    for (grad, at) in grads.iter().zip(ats) {
        for i in 0..8 {
            lanes[i] += alive(grad[i], at[i]);
        }
    }
    let rest = rest.iter().zip(rest_at).map(|(&g, &at)| alive(g, at));
    lanes.iter().sum::<f32>() + rest.sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{check_layer, gradients, no_params, random};
    use candle_core::{Device, Var};

    #[test]
    fn the_gradient_equals_finite_differences_in_both_forms() {
        for (shape, k) in [
            ([2, 3, 4, 6], 2),
            ([1, 2, 5, 7], 2),
            ([1, 1, 7, 8], 3),
            ([2, 1, 3, 3], 3),
            ([1, 2, 2, 3], 1),
        ] {
            check_layer(&no_params(), &shape, 1, |x| max_pool2d(x, k));
            check_layer(&no_params(), &shape, 1, |x| Ok(composed(x, k)?));
        }
    }

    #[test]
    fn the_maximum_alone_receives_the_gradient() {
        let x = Var::new(&[[[[1f32, 4.0], [3.0, 2.0]]]], &Device::Cpu).unwrap();
        for y in [max_pool2d(&x, 2).unwrap(), composed(&x, 2).unwrap()] {
            let grads = y.sum_all().unwrap().backward().unwrap();
            let dx = grads.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(dx, [0.0, 1.0, 0.0, 0.0]);
        }
    }

    #[test]
    fn among_equal_values_the_first_receives_the_gradient() {
        for k in [2, 3] {
            let x = Tensor::ones((1, 2, 7, 6), candle_core::DType::F32, &Device::Cpu).unwrap();
            let (own, _) = gradients(&no_params(), &x, |x| max_pool2d(x, k));
            let (composed, _) = gradients(&no_params(), &x, |x| Ok(composed(x, k)?));
            assert_eq!(own, composed);
            for (i, &g) in own[0].iter().enumerate() {
                let (y, x) = (i % 42 / 6, i % 6);
                let first = y % k == 0 && x % k == 0 && y / k < 7 / k && x / k < 6 / k;
                assert_eq!(g != 0.0, first, "window {k}, row {y}, column {x}");
            }
        }
    }

    #[test]
    fn both_forms_agree_to_the_bit() {
        for (shape, k) in [([3, 2, 9, 8], 2), ([2, 2, 9, 11], 4)] {
            let x = random(shape.iter().product(), 3);
            let x = Tensor::from_vec(x, &shape, &Device::Cpu).unwrap();
            let own = gradients(&no_params(), &x, |x| max_pool2d(x, k));
            assert_eq!(own, gradients(&no_params(), &x, |x| Ok(composed(x, k)?)));
        }
    }

    #[test]
    fn nan_is_not_hidden() {
        for at in 0..9 {
            let mut x = [0f32; 9];
            x[at] = f32::NAN;
            for k in [2, 3] {
                let x = Tensor::from_slice(&x[..k * k], (1, 1, k, k), &Device::Cpu).unwrap();
                let y = max_pool2d(&x, k).unwrap().flatten_all().unwrap();
                assert_eq!(y.to_vec1::<f32>().unwrap()[0].is_nan(), at < k * k);
            }
        }
    }

    #[test]
    fn a_window_that_does_not_fit_is_refused_in_words() {
        let x = Tensor::zeros((2, 3, 1, 8), candle_core::DType::F32, &Device::Cpu).unwrap();
        let message = max_pool2d(&x, 2).unwrap_err().to_string();
        assert!(message.contains("at least 2") && message.contains("[2, 3, 1, 8]"), "{message}");
        assert!(max_pool2d(&x, 0).is_err() && max_pool2d(&x, 16).is_err());
    }
}

//! Convolution, bias, ReLU and 2×2 max-pooling of few channels, without unrolled columns: the forward
//! pass of [`super::block`] for the shapes that [`fits`] names.
//!
//! A matrix product of 6 or 16 rows leaves most of a register tile empty, and unrolling costs as
//! much as multiplying. Here the output channels lie side by side in vectors, and the four positions
//! under a pooling window stay in registers from the first product to the maximum:
//!
//! ```text
//! for each image, for each block of output channels (one or two vectors), for each pooling window
//!     acc[4 positions] = 0
//!     for each input channel, kernel row, kernel column
//!         w = weights of the block                          one or two vectors
//!         acc[position] += w · pixel under the position     pixel in every lane
//!     maximum of the four, its position, bias, ReLU         still one lane per output channel
//! ```
//!
//! At 8 lanes, a block of two vectors has 8 sums, as many as two multiply-add units with a latency of
//! four cycles need; with one vector two windows are done together for the same reason.

use super::im2col::Geometry;
use super::pool::DEAD;
use super::simd::{self, Kernel, Vector, transpose};

/// Whether the kernels of this file and of [`super::sparse`] are the fastest for a block.
pub(super) fn fits(g: &Geometry, c_out: usize, window: usize) -> bool {
    // The sums of more channels than this do better as a matrix product.
    window == 2
        && g.padding == 0
        && g.stride == 1
        && matches!(g.kernel, 3 | 5)
        && g.channels * c_out <= 512
}

/// Convolves and pools the images of a batch.
pub(super) struct Forward<'a> {
    pub(super) g: Geometry,
    /// (batch, c_in, rows, cols)
    pub(super) x: &'a [f32],
    /// (c_out, c_in, k, k)
    pub(super) weight: &'a [f32],
    /// (c_out)
    pub(super) bias: &'a [f32],
    /// (batch, c_out, rows' / 2, cols' / 2), to be written.
    pub(super) out: &'a mut [f32],
    /// Of the same shape: where in the window the maximum was, or [`DEAD`].
    pub(super) argmax: &'a mut [u8],
}

/// Runs [`Forward`].
pub(super) fn forward(pass: Forward) {
    let c_out = pass.bias.len();
    simd::run(pass, c_out);
}

impl Kernel for Forward<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        match self.g.kernel {
            3 => self.images::<V, 3>(),
            5 => self.images::<V, 5>(),
            k => unreachable!("kernel {k} is not one that fits"),
        }
    }
}

impl Forward<'_> {
    #[inline(always)]
    fn images<V: Vector, const K: usize>(self) {
        let (g, c_out) = (&self.g, self.bias.len());
        let (patch, padded) = (g.patch(), c_out.next_multiple_of(V::LANES));
        let weights = side_by_side(self.weight, patch, V::LANES, padded);
        let mut bias = self.bias.to_vec();
        bias.resize(padded, 0.0);
        let pooled = (g.out_rows() / 2) * (g.out_cols() / 2);
        let (mut best, mut at) = (vec![0.0; pooled * padded], vec![0.0; pooled * padded]);
        let mut at_first = vec![0.0; pooled * c_out];
        for ((image, out), argmax) in self
            .x
            .chunks_exact(g.image())
            .zip(self.out.chunks_exact_mut(c_out * pooled))
            .zip(self.argmax.chunks_exact_mut(c_out * pooled))
        {
            let mut c = 0;
            while c < padded {
                let (weights, bias) = (&weights[c * patch..], &bias[c..]);
                let to = Pooled { best: &mut best[c..], at: &mut at[c..], stride: padded };
                let width = block(padded - c, V::LANES);
                if width > V::LANES {
                    windows::<V, K, 2, 1>(g, image, weights, bias, to);
                } else {
                    windows::<V, K, 1, 2>(g, image, weights, bias, to);
                }
                c += width;
            }
            transpose(pooled, c_out, &best, padded, out);
            transpose(pooled, c_out, &at, padded, &mut at_first);
            for (argmax, &at) in argmax.iter_mut().zip(&at_first) {
                *argmax = at.to_bits() as u8;
            }
        }
    }
}

/// Channels in the block that begins where `left` channels are left: two vectors if possible.
fn block(left: usize, lanes: usize) -> usize {
    if left >= 2 * lanes { 2 * lanes } else { lanes }
}

/// Weights (c_out, patch) as (blocks, patch, channels of the block), with zeros for the channels that
/// fill the last vector.
fn side_by_side(weight: &[f32], patch: usize, lanes: usize, padded: usize) -> Vec<f32> {
    let mut packed = vec![0.0; padded * patch];
    let (mut first, mut width) = (0, block(padded, lanes));
    for (c, row) in weight.chunks_exact(patch).enumerate() {
        if c == first + width {
            (first, width) = (c, block(padded - c, lanes));
        }
        for (i, &w) in row.iter().enumerate() {
            packed[first * patch + i * width + c - first] = w;
        }
    }
    packed
}

/// Where the results of a block of channels go: (window, channel), rows of `stride` values.
struct Pooled<'a> {
    best: &'a mut [f32],
    /// The position in the window, as the bits of an `f32`, so that it can be chosen lane by lane.
    at: &'a mut [f32],
    stride: usize,
}

/// All windows of one image for a block of `B` vectors of channels, `N` windows of a row at a time.
#[inline(always)]
fn windows<V: Vector, const K: usize, const B: usize, const N: usize>(
    g: &Geometry,
    image: &[f32],
    weights: &[f32],
    bias: &[f32],
    mut to: Pooled,
) {
    let across = g.out_cols() / 2;
    for y in 0..g.out_rows() / 2 {
        let line = &image[2 * y * g.cols..];
        let mut x = 0;
        while x < across {
            if x + N <= across {
                let sums = sums::<V, K, B, N>(g, &line[2 * x..], weights);
                for (n, sums) in sums.iter().enumerate() {
                    pool::<V, B>(sums, bias, &mut to, y * across + x + n);
                }
                x += N;
            } else {
                let sums = sums::<V, K, B, 1>(g, &line[2 * x..], weights);
                pool::<V, B>(&sums[0], bias, &mut to, y * across + x);
                x += 1;
            }
        }
    }
}

/// The convolution, without bias, at the four positions of each of `N` windows side by side, of which
/// `from` begins with the first pixel.
#[inline(always)]
fn sums<V: Vector, const K: usize, const B: usize, const N: usize>(
    g: &Geometry,
    from: &[f32],
    weights: &[f32],
) -> [[[V; B]; 4]; N] {
    let mut sums = [[[V::splat(0.0); B]; 4]; N];
    let width = B * V::LANES;
    let mut rows = weights.chunks_exact(K * width);
    for channel in 0..g.channels {
        for ky in 0..K {
            let Some(row) = rows.next() else { return sums };
            let row = &row[..K * width];
            let first = (channel * g.rows + ky) * g.cols;
            let top = &from[first..][..2 * N + K - 1];
            let bottom = &from[first + g.cols..][..2 * N + K - 1];
            for kx in 0..K {
                let mut w = [V::splat(0.0); B];
                for b in 0..B {
                    w[b] = V::load(&row[kx * width + b * V::LANES..]);
                }
                for n in 0..N {
                    for p in 0..4 {
                        let line = if p < 2 { top } else { bottom };
                        let pixel = V::splat(line[kx + 2 * n + p % 2]);
                        for b in 0..B {
                            sums[n][p][b] = w[b].mul_add(pixel, sums[n][p][b]);
                        }
                    }
                }
            }
        }
    }
    sums
}

#[inline(always)]
fn position<V: Vector>(p: u8) -> V {
    V::splat(f32::from_bits(u32::from(p)))
}

/// Maximum, bias and ReLU of one window.
#[inline(always)]
fn pool<V: Vector, const B: usize>(
    sums: &[[V; B]; 4],
    bias: &[f32],
    to: &mut Pooled,
    window: usize,
) {
    for b in 0..B {
        let (mut best, mut at) = (sums[0][b], position(0));
        for p in 1..4u8 {
            let v = sums[usize::from(p)][b];
            let above = v.above(best);
            best = V::select(above, v, best);
            at = V::select(above, position(p), at);
        }
        let v = best.add(V::load(&bias[b * V::LANES..]));
        let alive = v.above(V::splat(0.0));
        let to_lane = window * to.stride + b * V::LANES;
        V::select(alive, v, V::splat(0.0)).store(&mut to.best[to_lane..]);
        V::select(alive, at, position(DEAD)).store(&mut to.at[to_lane..]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::grads::Write;
    use super::super::sparse::Backward;
    use super::*;
    use crate::nn::testing::random;

    /// Outputs, positions, and the gradients of weight, bias and images, with vectors for `work`
    /// values.
    fn pass(g: Geometry, c_out: usize, work: usize) -> (Vec<u8>, [Vec<f32>; 4]) {
        let batch = 3;
        let n = batch * c_out * (g.out_rows() / 2) * (g.out_cols() / 2);
        let (x, weight) = (random(batch * g.image(), 1), random(c_out * g.patch(), 2));
        let (grad, bias) = (random(n, 3), random(c_out, 4));
        let (mut out, mut argmax) = (vec![f32::NAN; n], vec![7; n]);
        let (x, weight, to) = (&x[..], &weight[..], &mut argmax);
        simd::run(Forward { g, x, weight, bias: &bias, out: &mut out, argmax: to }, work);
        let (mut slot, mut bias) = (vec![f32::NAN; weight.len()], vec![0.0; c_out]);
        let mut dx = vec![f32::NAN; x.len()];
        let pass = Backward {
            g,
            x,
            weight,
            grad: &grad,
            argmax: &argmax,
            slot: &mut slot,
            how: Write::Set,
            bias: &mut bias,
            dx: Some(&mut dx),
        };
        simd::run(pass, work);
        (argmax, [out, slot, bias, dx])
    }

    #[test]
    fn vectors_of_every_width_agree() {
        for (channels, rows, cols, kernel, c_out) in
            [(1, 12, 12, 5, 6), (6, 8, 10, 5, 16), (3, 9, 8, 3, 17), (7, 7, 6, 5, 40)]
        {
            let g = Geometry { channels, rows, cols, kernel, padding: 0, stride: 1 };
            let (at, values) = pass(g, c_out, 1);
            for work in [8, 16] {
                let (other_at, others) = pass(g, c_out, work);
                assert_eq!(at, other_at, "{g:?}, {work}");
                for (i, (values, others)) in values.iter().zip(&others).enumerate() {
                    let largest = values.iter().fold(0f32, |a, v| a.max(v.abs()));
                    let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * largest;
                    assert!(values.iter().zip(others).all(close), "{g:?}, {work}, tensor {i}");
                }
            }
        }
    }

    #[test]
    fn a_samples_result_does_not_depend_on_its_batch() {
        let g = Geometry { channels: 2, rows: 8, cols: 8, kernel: 3, padding: 0, stride: 1 };
        let (x, weight, bias) = (random(3 * g.image(), 1), random(16 * g.patch(), 2), [0.1; 16]);
        let run = |x: &[f32], images: usize| {
            let (mut out, mut argmax) = (vec![0.0; images * 16 * 9], vec![0; images * 16 * 9]);
            let (out_, argmax_) = (&mut out[..], &mut argmax[..]);
            forward(Forward { g, x, weight: &weight, bias: &bias, out: out_, argmax: argmax_ });
            (out, argmax)
        };
        let (out, argmax) = run(&x, 3);
        let (alone, alone_argmax) = run(&x[2 * g.image()..], 1);
        assert_eq!((&out[2 * 16 * 9..], &argmax[2 * 16 * 9..]), (&alone[..], &alone_argmax[..]));
    }
}

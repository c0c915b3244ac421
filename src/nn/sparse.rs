//! The backward pass of convolution under ReLU and 2×2 max-pooling, made of the gradients that are
//! not zero.
//!
//! Of the four positions under a pooling window at most one has a gradient, and none where ReLU cut
//! the maximum. So nothing is unpooled and no matrices are multiplied; each gradient that is alive is
//! one scaled patch, a quarter of the arithmetic or less:
//!
//! ```text
//! weight gradient of a filter  +=  gradient · patch of the image under its position
//! gradient of the patch        +=  gradient · weights of the filter
//! ```
//!
//! Both are the same loop nest, [`add_patches`]. Images and filters have their channels last, so that
//! a patch is `k` runs of `k · c_in` values: 5 runs of 30, not 30 runs of 5, in LeNet's second layer.
//! The sums of a filter (or of a position) stay in registers while the list of gradients is walked.
//! Lists are written without a branch on alive or dead, which no processor could predict.

use super::grads::Write;
use super::host::store;
use super::im2col::Geometry;
use super::pool::DEAD;
use super::simd::{self, Kernel, Vector};

/// The lanes of the widest vector: what may be read and added (zeros) behind a run.
const SLACK: usize = 16;

/// Gradients of the weights, and of the images if wanted, of a batch.
pub(super) struct Backward<'a> {
    pub(super) g: Geometry,
    /// (batch, c_in, rows, cols)
    pub(super) x: &'a [f32],
    /// (c_out, c_in, k, k)
    pub(super) weight: &'a [f32],
    /// (batch, c_out, rows' / 2, cols' / 2)
    pub(super) grad: &'a [f32],
    /// Of the same shape: where in the window the maximum was, or [`DEAD`].
    pub(super) argmax: &'a [u8],
    /// (c_out, c_in, k, k)
    pub(super) slot: &'a mut [f32],
    pub(super) how: Write,
    /// (batch, c_in, rows, cols), to be written.
    pub(super) dx: Option<&'a mut [f32]>,
}

/// Runs [`Backward`].
pub(super) fn backward(pass: Backward) {
    let run = pass.g.kernel * pass.g.channels;
    simd::run(pass, run);
}

/// A gradient, and where in the other factor its patch begins.
type Scaled = (u32, f32);

/// How runs lie in memory: `rows` of them, `step` values apart, of which each is `vectors` long.
#[derive(Clone, Copy)]
struct Runs {
    rows: usize,
    vectors: usize,
}

impl Kernel for Backward<'_> {
    #[inline(always)]
    fn run<V: Vector>(mut self) {
        let (g, c_out) = (self.g, self.weight.len() / self.g.patch());
        let (across, pooled) = (g.out_cols() / 2, (g.out_rows() / 2) * (g.out_cols() / 2));
        let line = g.cols * g.channels;
        let runs = Runs { rows: g.kernel, vectors: (g.kernel * g.channels).div_ceil(V::LANES) };
        let run = runs.vectors * V::LANES;
        let filter = g.kernel * run;
        let weights = filters_channels_last(&g, self.weight, run);
        let mut dw = vec![0.0; c_out * filter];
        let mut image = vec![0.0; g.image() + SLACK];
        let mut d_image = vec![0.0; g.image() + SLACK];
        // Where the patches of the four positions of a window begin, from the window's first.
        let corners: [u32; 5] = [0, g.channels, line, line + g.channels, 0].map(|at| at as u32);
        let corner =
            |window: usize| (window / across * 2 * line + window % across * 2 * g.channels) as u32;
        let corner: Vec<u32> = (0..pooled).map(corner).collect();
        let mut list: Vec<Scaled> = vec![(0, 0.0); pooled];
        let mut lists: [Vec<Scaled>; 5] = std::array::from_fn(|_| vec![(0, 0.0); c_out]);
        for (i, x) in self.x.chunks_exact(g.image()).enumerate() {
            let range = i * c_out * pooled..(i + 1) * c_out * pooled;
            let (grad, argmax) = (&self.grad[range.clone()], &self.argmax[range]);
            channels_last(&g, x, &mut image);
            for (c, (grad, argmax)) in
                grad.chunks_exact(pooled).zip(argmax.chunks_exact(pooled)).enumerate()
            {
                let mut n = 0;
                for ((&grad, &at), &corner) in grad.iter().zip(argmax).zip(&corner) {
                    list[n] = (corner + corners[usize::from(at.min(4))], grad);
                    n += usize::from(at != DEAD);
                }
                add_patches::<V>(runs, &mut dw[c * filter..], run, &image, line, &list[..n]);
            }
            let Some(dx) = &mut self.dx else { continue };
            d_image.fill(0.0);
            for (window, &corner) in corner.iter().enumerate() {
                let mut n = [0; 5];
                for c in 0..c_out {
                    let at = usize::from(argmax[c * pooled + window].min(4));
                    lists[at][n[at]] = ((c * filter) as u32, grad[c * pooled + window]);
                    n[at] += 1;
                }
                for p in 0..4 {
                    if n[p] > 0 {
                        let to = &mut d_image[(corner + corners[p]) as usize..];
                        add_patches::<V>(runs, to, line, &weights, run, &lists[p][..n[p]]);
                    }
                }
            }
            channels_first(&g, &d_image, &mut dx[i * g.image()..][..g.image()]);
        }
        let dw = filters_channels_first(&g, &dw, run);
        store(self.slot, &dw, self.how);
    }
}

/// Adds the sum over `list` of gradient · runs of `from` to the runs of `to`. Runs lie `to_step` and
/// `from_step` values apart.
///
/// Tile by tile of rows and vectors, so that the sums fit the registers.
#[inline(always)]
fn add_patches<V: Vector>(
    runs: Runs,
    to: &mut [f32],
    to_step: usize,
    from: &[f32],
    from_step: usize,
    list: &[Scaled],
) {
    let mut vector = 0;
    while vector < runs.vectors {
        let (to, from) = (&mut to[vector * V::LANES..], &from[vector * V::LANES..]);
        let left = runs.vectors - vector;
        let mut row = 0;
        while row < runs.rows {
            let (to, from) = (&mut to[row * to_step..], &from[row * from_step..]);
            row += match (left, runs.rows - row) {
                (1, 5) => tile::<V, 5, 1>(to, to_step, from, from_step, list),
                (2, 5) => tile::<V, 5, 2>(to, to_step, from, from_step, list),
                (1, 3..) => tile::<V, 3, 1>(to, to_step, from, from_step, list),
                (1, _) => tile::<V, 1, 1>(to, to_step, from, from_step, list),
                (2, 3..) => tile::<V, 3, 2>(to, to_step, from, from_step, list),
                (2, _) => tile::<V, 1, 2>(to, to_step, from, from_step, list),
                (3, 3..) => tile::<V, 3, 3>(to, to_step, from, from_step, list),
                (3, 2) => tile::<V, 2, 3>(to, to_step, from, from_step, list),
                (3, _) => tile::<V, 1, 3>(to, to_step, from, from_step, list),
                (_, 3..) => tile::<V, 3, 4>(to, to_step, from, from_step, list),
                (_, 2) => tile::<V, 2, 4>(to, to_step, from, from_step, list),
                _ => tile::<V, 1, 4>(to, to_step, from, from_step, list),
            };
        }
        vector += left.min(4);
    }
}

/// `R` rows of `N` vectors of [`add_patches`]; gives `R`.
#[inline(always)]
fn tile<V: Vector, const R: usize, const N: usize>(
    to: &mut [f32],
    to_step: usize,
    from: &[f32],
    from_step: usize,
    list: &[Scaled],
) -> usize {
    let mut sums = [[V::splat(0.0); N]; R];
    for &(at, grad) in list {
        let (from, grad) = (&from[at as usize..], V::splat(grad));
        for r in 0..R {
            let run = &from[r * from_step..][..N * V::LANES];
            for n in 0..N {
                sums[r][n] = V::load(&run[n * V::LANES..]).mul_add(grad, sums[r][n]);
            }
        }
    }
    for r in 0..R {
        let run = &mut to[r * to_step..][..N * V::LANES];
        for n in 0..N {
            let run = &mut run[n * V::LANES..];
            V::load(run).add(sums[r][n]).store(run);
        }
    }
    R
}

/// An image (channels, rows, cols) as (rows, cols, channels).
fn channels_last(g: &Geometry, image: &[f32], to: &mut [f32]) {
    transpose(g.channels, g.rows * g.cols, image, to);
}

fn channels_first(g: &Geometry, image: &[f32], to: &mut [f32]) {
    transpose(g.rows * g.cols, g.channels, image, to);
}

/// `from` (rows, cols) as (cols, rows).
fn transpose(rows: usize, cols: usize, from: &[f32], to: &mut [f32]) {
    let to = &mut to[..rows * cols];
    if rows == 1 || cols == 1 {
        return to.copy_from_slice(&from[..rows * cols]);
    }
    for (col, to) in to.chunks_exact_mut(rows).enumerate() {
        for (row, to) in to.iter_mut().enumerate() {
            *to = from[row * cols + col];
        }
    }
}

/// Filters (c_out, c_in, k, k) as (c_out, k, run) with a run of k · c_in values and zeros behind.
fn filters_channels_last(g: &Geometry, weight: &[f32], run: usize) -> Vec<f32> {
    let mut packed = vec![0.0; weight.len() / g.patch() * g.kernel * run];
    each_weight(g, weight.len() / g.patch(), run, |first, last| packed[last] = weight[first]);
    packed
}

fn filters_channels_first(g: &Geometry, packed: &[f32], run: usize) -> Vec<f32> {
    let c_out = packed.len() / (g.kernel * run);
    let mut weight = vec![0.0; c_out * g.patch()];
    each_weight(g, c_out, run, |first, last| weight[first] = packed[last]);
    weight
}

/// Calls `f(index with channels first, index with channels last)` for every weight.
fn each_weight(g: &Geometry, c_out: usize, run: usize, mut f: impl FnMut(usize, usize)) {
    let k = g.kernel;
    for filter in 0..c_out {
        for channel in 0..g.channels {
            for at in 0..k * k {
                let last = (filter * k + at / k) * run + at % k * g.channels + channel;
                f((filter * g.channels + channel) * k * k + at, last);
            }
        }
    }
}

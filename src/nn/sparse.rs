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
use super::pool::{DEAD, alive_sum};
use super::simd::{self, Kernel, Vector, load_rows, transpose};

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
    /// (c_out): what is to be added to the gradient of the bias is added here.
    pub(super) bias: &'a mut [f32],
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

/// Where the patches of an image with channels last begin, by window and position of the maximum.
struct Places {
    windows: Vec<u32>,
    right: u32,
    down: u32,
}

impl Places {
    fn new(g: &Geometry) -> Places {
        let (right, down) = (g.channels, g.cols * g.channels);
        let (high, wide) = (g.out_rows() / 2, g.out_cols() / 2);
        let place = |i: usize| (i / wide * 2 * down + i % wide * 2 * right) as u32;
        let windows = (0..high * wide).map(place).collect();
        Places { windows, right: right as u32, down: down as u32 }
    }

    /// By arithmetic, because a table would have to be looked up once per gradient.
    #[inline(always)]
    fn of(&self, window: u32, at: u8) -> u32 {
        let mask = |bit: u8| 0u32.wrapping_sub(u32::from(at >> bit & 1));
        window + (self.right & mask(0)) + (self.down & mask(1))
    }
}

/// Kernel rows, each a run of so many vectors.
#[derive(Clone, Copy)]
struct Runs {
    rows: usize,
    vectors: usize,
}

impl Kernel for Backward<'_> {
    #[inline(always)]
    fn run<V: Vector>(mut self) {
        let (g, c_out) = (self.g, self.bias.len());
        let (line, places) = (g.cols * g.channels, Places::new(&g));
        let pooled = places.windows.len();
        let runs = Runs { rows: g.kernel, vectors: (g.kernel * g.channels).div_ceil(V::LANES) };
        let run = runs.vectors * V::LANES;
        let filter = g.kernel * run;
        let weights = filters_channels_last(&g, self.weight, run);
        let mut dw = vec![0.0; c_out * filter];
        let mut image = vec![0.0; g.image() + SLACK];
        let mut d_image = vec![0.0; g.image() + SLACK];
        let mut here = vec![0; pooled];
        let mut list: Vec<Scaled> = vec![(0, 0.0); pooled.max(5 * c_out)];
        for (i, x) in self.x.chunks_exact(g.image()).enumerate() {
            let range = i * c_out * pooled..(i + 1) * c_out * pooled;
            let (grad, argmax) = (&self.grad[range.clone()], &self.argmax[range]);
            transpose(g.channels, g.rows * g.cols, x, g.rows * g.cols, &mut image);
            let planes = grad.chunks_exact(pooled).zip(argmax.chunks_exact(pooled));
            for (c, (grad, argmax)) in planes.enumerate() {
                self.bias[c] += alive_sum(grad, argmax);
                for ((to, &window), &at) in here.iter_mut().zip(&places.windows).zip(argmax) {
                    *to = places.of(window, at);
                }
                let n = alive(&here, grad, argmax, &mut list);
                add_patches::<V>(runs, &mut dw[c * filter..], run, &image, line, &list[..n]);
            }
            let Some(dx) = &mut self.dx else { continue };
            d_image.fill(0.0);
            for (w, &window) in places.windows.iter().enumerate() {
                let ends = by_position(&grad[w..], &argmax[w..], pooled, filter, c_out, &mut list);
                for (p, list) in list.chunks_exact(c_out).take(4).enumerate() {
                    let list = &list[..(ends >> (p * COUNT) & COUNT_MASK) as usize];
                    if !list.is_empty() {
                        let to = &mut d_image[places.of(window, p as u8) as usize..];
                        add_patches::<V>(runs, to, line, &weights, run, list);
                    }
                }
            }
            let dx = &mut dx[i * g.image()..][..g.image()];
            transpose(g.rows * g.cols, g.channels, &d_image, g.channels, dx);
        }
        store(self.slot, &filters_channels_first(&g, &dw, run), self.how);
    }
}

/// Lists the gradients of one filter and one image that are alive, with their places; gives their
/// number. (Not inlined: inside of the kernel there are no registers left for it.)
#[inline(never)]
fn alive(places: &[u32], grad: &[f32], argmax: &[u8], list: &mut [Scaled]) -> usize {
    let mut n = 0;
    for ((&place, &grad), &at) in places.iter().zip(grad).zip(argmax) {
        if let Some(entry) = list.get_mut(n) {
            *entry = (place, grad);
        }
        n += usize::from(at != DEAD);
    }
    n
}

/// Bits of one of the five counters of [`by_position`] in one register.
const COUNT: usize = 12;
const COUNT_MASK: u64 = (1 << COUNT) - 1;

/// Lists the gradients of one window, every `step`-th value, by the position of the maximum: those of
/// position `p`, with the place of their filter, from entry `p · c_out` on; the dead come fifth.
/// Gives the five numbers.
#[inline(always)]
fn by_position(
    grad: &[f32],
    argmax: &[u8],
    step: usize,
    filter: usize,
    c_out: usize,
    list: &mut [Scaled],
) -> u64 {
    let mut counts = 0;
    for (c, (&grad, &at)) in grad.iter().step_by(step).zip(argmax.iter().step_by(step)).enumerate()
    {
        let at = usize::from(at.min(4));
        let n = (counts >> (at * COUNT) & COUNT_MASK) as usize;
        if let Some(entry) = list.get_mut(at * c_out + n) {
            *entry = ((c * filter) as u32, grad);
        }
        counts += 1 << (at * COUNT);
    }
    counts
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
    if R * N <= 6 {
        // Too few sums to keep two multiply-add units busy: two gradients at a time.
        let mut more = sums;
        let (pairs, odd) = list.as_chunks::<2>();
        for pair in pairs {
            add_patch(&mut sums, pair[0], from, from_step);
            add_patch(&mut more, pair[1], from, from_step);
        }
        for &one in odd {
            add_patch(&mut sums, one, from, from_step);
        }
        for r in 0..R {
            for n in 0..N {
                sums[r][n] = sums[r][n].add(more[r][n]);
            }
        }
    } else {
        for &one in list {
            add_patch(&mut sums, one, from, from_step);
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

#[inline(always)]
fn add_patch<V: Vector, const R: usize, const N: usize>(
    sums: &mut [[V; N]; R],
    (at, grad): Scaled,
    from: &[f32],
    step: usize,
) {
    let (patch, grad) = (load_rows::<V, R, N>(from, at as usize, step), V::splat(grad));
    for (sums, run) in sums.iter_mut().zip(patch) {
        for (sum, vector) in sums.iter_mut().zip(run) {
            *sum = vector.mul_add(grad, *sum);
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

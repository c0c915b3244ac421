//! Heads of attention on the CPU: products of blocks, and softmax between them.
//!
//! Rows are worked on in blocks of [`BLOCK`], each with just the columns its last row may see, so of
//! the upper triangle only the corners of the blocks on the diagonal are computed.

use super::exp::exp;
use super::gemm::{Mat, matmul};
use super::grads::Write;
use super::host::sum;

/// Rows of scores worked on at once.
pub(super) const BLOCK: usize = 64;

/// Sizes of one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heads {
    pub(super) batch: usize,
    pub(super) time: usize,
    pub(super) heads: usize,
    /// Width of one head.
    pub(super) size: usize,
}

/// Rows `from..to` of the scores of one head; they use columns `0..to`.
#[derive(Clone, Copy)]
struct Rows {
    from: usize,
    to: usize,
}

impl Rows {
    fn count(&self) -> usize {
        self.to - self.from
    }
}

impl Heads {
    pub(super) fn width(&self) -> usize {
        self.heads * self.size
    }

    /// 1/√size.
    pub(super) fn scale(&self) -> f32 {
        1.0 / (self.size as f32).sqrt()
    }

    fn blocks(self) -> impl Iterator<Item = Rows> {
        let rows = move |from| Rows { from, to: self.time.min(from + BLOCK) };
        (0..self.time).step_by(BLOCK).map(rows)
    }

    /// How many probabilities one head has.
    pub(super) fn probabilities(self) -> usize {
        self.blocks().map(|rows| rows.count() * rows.to).sum()
    }

    pub(super) fn each(self) -> impl Iterator<Item = Head> {
        let samples = if self.time == 0 { 0 } else { self.batch };
        (0..samples * self.heads).map(move |index| Head { shape: self, index })
    }
}

/// What a backward pass needs per head, kept from head to head.
pub(super) struct Scratch {
    scores: Vec<f32>,
    tile: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Scratch {
    pub(super) fn new(shape: Heads) -> Scratch {
        let zeros = |rows: usize, cols: usize| vec![0.0; rows * cols];
        Scratch {
            scores: zeros(BLOCK, shape.time),
            tile: zeros(BLOCK, shape.size),
            keys: zeros(shape.time, shape.size),
            values: zeros(shape.time, shape.size),
        }
    }
}

/// One head of one sample.
pub(super) struct Head {
    shape: Heads,
    /// Samples · heads + head.
    pub(super) index: usize,
}

/// Places in the last dimension of `qkv`.
const QUERIES: usize = 0;
const KEYS: usize = 1;
const VALUES: usize = 2;

impl Head {
    /// From the first value of this head's query in its sample to the end of the sample.
    pub(super) fn inputs<'a>(&self, qkv: &'a [f32]) -> &'a [f32] {
        let (sample, head) = self.place(3);
        &qkv[sample][head..]
    }

    pub(super) fn inputs_mut<'a>(&self, qkv: &'a mut [f32]) -> &'a mut [f32] {
        let (sample, head) = self.place(3);
        &mut qkv[sample][head..]
    }

    pub(super) fn outputs<'a>(&self, y: &'a [f32]) -> &'a [f32] {
        let (sample, head) = self.place(1);
        &y[sample][head..]
    }

    pub(super) fn outputs_mut<'a>(&self, y: &'a mut [f32]) -> &'a mut [f32] {
        let (sample, head) = self.place(1);
        &mut y[sample][head..]
    }

    /// Where the sample lies in a tensor of rows of `parts` · width, and the head in a row.
    fn place(&self, parts: usize) -> (std::ops::Range<usize>, usize) {
        let Heads { time, heads, size, .. } = self.shape;
        let len = time * parts * self.shape.width();
        let sample = self.index / heads;
        (sample * len..(sample + 1) * len, self.index % heads * size)
    }

    /// Rows `from..to` of the queries, keys or values in what [`Head::inputs`] gives.
    fn part<'a>(&self, x: &'a [f32], which: usize, rows: Rows) -> Mat<'a> {
        let (width, size) = (self.shape.width(), self.shape.size);
        let x = &x[rows.from * 3 * width + which * width..];
        Mat::strided(x, rows.count(), size, 3 * width, 1)
    }

    pub(super) fn forward(
        &self,
        x: &[f32],
        y: &mut [f32],
        probabilities: &mut [f32],
        tile: &mut [f32],
    ) {
        let (width, scale) = (self.shape.width(), self.shape.scale());
        let mut rest = probabilities;
        for rows in self.shape.blocks() {
            let seen = Rows { from: 0, to: rows.to };
            let (p, next) = rest.split_at_mut(rows.count() * rows.to);
            rest = next;
            let keys = self.part(x, KEYS, seen);
            matmul(p, self.part(x, QUERIES, rows), keys.t(), Write::Set);
            for (row, i) in p.chunks_exact_mut(rows.to).zip(rows.from..) {
                let (visible, hidden) = row.split_at_mut(i + 1);
                softmax(visible, scale);
                hidden.fill(0.0);
            }
            let p = Mat::new(p, rows.count(), rows.to);
            matmul(tile, p, self.part(x, VALUES, seen), Write::Set);
            self.spread(tile, &mut y[rows.from * width..], rows.count(), width);
        }
    }

    pub(super) fn backward(
        &self,
        x: &[f32],
        dy: &[f32],
        p: &[f32],
        dx: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let Heads { time, size, .. } = self.shape;
        let (width, scale) = (self.shape.width(), self.shape.scale());
        let Scratch { scores, tile, keys, values } = scratch;
        keys.fill(0.0);
        values.fill(0.0);
        let mut rest = p;
        for rows in self.shape.blocks() {
            let (seen, count) = (Rows { from: 0, to: rows.to }, rows.count());
            let (p, next) = rest.split_at(count * rows.to);
            rest = next;
            let dy = Mat::strided(&dy[rows.from * width..], count, size, width, 1);
            matmul(scores, dy, self.part(x, VALUES, seen).t(), Write::Set);
            let lines = scores.chunks_exact_mut(rows.to).zip(p.chunks_exact(rows.to));
            for ((ds, p), i) in lines.zip(rows.from..rows.to) {
                let (visible, hidden) = ds.split_at_mut(i + 1);
                softmax_backward(visible, &p[..=i], scale);
                hidden.fill(0.0);
            }
            let (p, ds) = (Mat::new(p, count, rows.to), Mat::new(scores, count, rows.to));
            matmul(tile, ds, self.part(x, KEYS, seen), Write::Set);
            self.spread(tile, &mut dx[rows.from * 3 * width..], count, 3 * width);
            matmul(keys, ds.t(), self.part(x, QUERIES, rows), Write::Add);
            matmul(values, p.t(), dy, Write::Add);
        }
        self.spread(keys, &mut dx[KEYS * width..], time, 3 * width);
        self.spread(values, &mut dx[VALUES * width..], time, 3 * width);
    }

    /// Writes `rows` rows of one head, contiguous in `from`, to rows of `to` that are `stride` apart.
    fn spread(&self, from: &[f32], to: &mut [f32], rows: usize, stride: usize) {
        let size = self.shape.size;
        for (from, to) in from.chunks_exact(size).zip(to.chunks_mut(stride)).take(rows) {
            to[..size].copy_from_slice(from);
        }
    }
}

/// Replaces each v of `row` by e^(scale·v), divided by their sum; `scale` is positive.
fn softmax(row: &mut [f32], scale: f32) {
    let max = largest(row);
    row.iter_mut().for_each(|v| *v = exp((*v - max) * scale));
    let inverse = 1.0 / sum(row);
    row.iter_mut().for_each(|v| *v *= inverse);
}

/// From gradients of the probabilities `p` to those of the scores before scaling, in place.
fn softmax_backward(grad: &mut [f32], p: &[f32], scale: f32) {
    let mean = dot(grad, p);
    grad.iter_mut().zip(p).for_each(|(g, p)| *g = p * (*g - mean) * scale);
}

/// The largest value, in 16 running maxima that the compiler turns into vector code. NaN may be
/// passed over here: it is still in the row, and so in the sum of its exponentials.
fn largest(row: &[f32]) -> f32 {
    let higher = |a: f32, b: f32| if b > a { b } else { a };
    let (chunks, rest) = row.as_chunks::<16>();
    let mut lanes = [f32::NEG_INFINITY; 16];
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, &v)| *lane = higher(*lane, v));
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| higher(a, b))
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    let mut lanes = [0.0f32; 16];
    for (a, b) in a.iter().zip(b) {
        lanes.iter_mut().zip(a.iter().zip(b)).for_each(|(lane, (a, b))| *lane += a * b);
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + rest
}

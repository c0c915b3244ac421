//! Causal self-attention of several heads, as `torch.nn.functional.scaled_dot_product_attention` with
//! `is_causal=True`.
//!
//! Head by head and in blocks of query rows, so that scores never leave the second-level cache, and
//! with only the keys that a block may see. Forward keeps the logarithm of each row's sum; backward
//! computes the probabilities again from it (Dao et al., "FlashAttention", 2022), which costs one of
//! seven matrix products and saves heads · time² values.

use super::elementary::{exp, sum_of};
use super::gemm::{Mat, matmul};
use super::grads::Write;
use super::host::{Host, values};
use super::recycle::Buffer;
use crate::error::{Error, Result};
use crate::util::wide::wide;
use candle_core::{CpuStorage, CustomOp1, D, DType, Layout, Shape, Tensor};
use std::sync::OnceLock;

/// Query rows of one block of scores: 64 × 1,024 scores are 256 KB.
const BLOCK: usize = 64;

/// Sizes of one attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heads {
    pub(super) batch: usize,
    pub(super) time: usize,
    pub(super) heads: usize,
    /// Values of one head.
    pub(super) width: usize,
}

/// Attention over `qkv` (batch, time, 3 · heads · width), `f32`, queries, keys and values side by
/// side: (batch, time, heads · width). Position t sees positions 0 to t.
///
/// # Errors
/// When `qkv` has another shape or type, or no whole number of heads.
pub fn causal_attention(qkv: &Tensor, heads: usize) -> Result<Tensor> {
    let sizes = match *qkv.dims() {
        [batch, time, wide]
            if heads > 0 && wide > 0 && wide % (3 * heads) == 0 && qkv.dtype() == DType::F32 =>
        {
            Heads { batch, time, heads, width: wide / (3 * heads) }
        }
        _ => {
            return Err(Error::Internal(format!(
                "attention: expected f32 (batch, time, a multiple of 3·{heads}), got {:?} {:?}",
                qkv.dtype(),
                qkv.dims()
            )));
        }
    };
    if qkv.device().is_cpu() {
        Ok(qkv.contiguous()?.apply_op1(Attention { sizes, log_sums: OnceLock::new() })?)
    } else {
        Ok(composed(qkv, sizes)?)
    }
}

/// The same of Candle's operations.
pub(super) fn composed(qkv: &Tensor, sizes: Heads) -> candle_core::Result<Tensor> {
    let Heads { batch, time, heads, width } = sizes;
    if qkv.elem_count() == 0 {
        return Tensor::zeros((batch, time, heads * width), qkv.dtype(), qkv.device());
    }
    let qkv = qkv.reshape((batch, time, 3, heads, width))?;
    let part = |i| qkv.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
    let (q, k, v) = (part(0)?, part(1)?, part(2)?);
    let hidden = |i: usize| if i % time > i / time { f32::NEG_INFINITY } else { 0.0 };
    let mask: Vec<f32> = (0..time * time).map(hidden).collect();
    let mask = Tensor::from_vec(mask, (1, 1, time, time), q.device())?;
    let scores = (q.matmul(&k.t()?.contiguous()?)? * (width as f64).sqrt().recip())?;
    let scores = scores.broadcast_add(&mask)?;
    let powers = scores.broadcast_sub(&scores.detach().max_keepdim(D::Minus1)?)?.exp()?;
    let shares = powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)?;
    shares.matmul(&v)?.transpose(1, 2)?.reshape((batch, time, heads * width))
}

impl Heads {
    /// Values of all heads at one position.
    fn all(&self) -> usize {
        self.heads * self.width
    }

    /// The query blocks: first row and end.
    fn blocks(&self) -> impl DoubleEndedIterator<Item = (usize, usize)> {
        let time = self.time;
        (0..time.div_ceil(BLOCK)).map(move |i| (i * BLOCK, time.min((i + 1) * BLOCK)))
    }

    /// Copies one head's rows, `at` values into rows of `stride`, times `scale`.
    fn gather(&self, rows: &[f32], stride: usize, at: usize, scale: f32, to: &mut [f32]) {
        let rows = rows.chunks_exact(stride).map(|row| &row[at..at + self.width]);
        for (to, row) in to.chunks_exact_mut(self.width).zip(rows) {
            to.iter_mut().zip(row).for_each(|(to, v)| *to = v * scale);
        }
    }

    /// The reverse of [`Heads::gather`].
    fn scatter(&self, from: &[f32], scale: f32, rows: &mut [f32], stride: usize, at: usize) {
        let rows = rows.chunks_exact_mut(stride).map(|row| &mut row[at..at + self.width]);
        for (from, row) in from.chunks_exact(self.width).zip(rows) {
            row.iter_mut().zip(from).for_each(|(to, v)| *to = v * scale);
        }
    }

    /// Queries (scaled by 1/√width), keys and values of head `head` of one sample.
    fn split(&self, sample: &[f32], head: usize, parts: &mut [Buffer; 3]) {
        let scales = [(self.width as f32).sqrt().recip(), 1.0, 1.0];
        for (i, (part, scale)) in parts.iter_mut().zip(scales).enumerate() {
            self.gather(sample, 3 * self.all(), i * self.all() + head * self.width, scale, part);
        }
    }

    fn part(&self) -> Buffer {
        Buffer::take(self.time * self.width)
    }

    /// Writes the result of all heads to `out`; gives the logarithm of the sum of each row's
    /// exponentials, (batch, heads, time).
    pub(super) fn apply(&self, qkv: &[f32], out: &mut [f32]) -> Buffer {
        let (time, width, all) = (self.time, self.width, self.all());
        let mut log_sums = Buffer::take(self.batch * self.heads * time);
        let mut parts = [self.part(), self.part(), self.part()];
        let (mut scores, mut result) = (Buffer::take(BLOCK * time), self.part());
        let sums = log_sums.chunks_exact_mut((self.heads * time).max(1));
        let samples = qkv.chunks_exact((3 * time * all).max(1)).zip(sums);
        for ((sample, sums), out) in samples.zip(out.chunks_exact_mut((time * all).max(1))) {
            for (head, sums) in sums.chunks_exact_mut(time).enumerate() {
                self.split(sample, head, &mut parts);
                let [q, k, v] = &parts;
                for (first, end) in self.blocks() {
                    let rows = end - first;
                    let queries = Mat::new(&q[first * width..], rows, width);
                    matmul(&mut scores, queries, Mat::new(k, end, width).t(), Write::Set);
                    softmax(&mut scores[..rows * end], end, first, &mut sums[first..end]);
                    let shares = Mat::new(&scores, rows, end);
                    let block = &mut result[first * width..end * width];
                    matmul(block, shares, Mat::new(v, end, width), Write::Set);
                }
                self.scatter(&result, 1.0, out, all, head * width);
            }
        }
        log_sums
    }

    /// The gradient of `qkv` from that of the result, into `dqkv`.
    pub(super) fn gradients(
        &self,
        qkv: &[f32],
        out: &[f32],
        log_sums: &[f32],
        grad: &[f32],
        dqkv: &mut [f32],
    ) {
        let (time, all) = (self.time, self.all());
        let mut scratch = Scratch::new(self);
        for sample in 0..self.batch {
            let qkv = &qkv[sample * 3 * time * all..][..3 * time * all];
            let dqkv = &mut dqkv[sample * 3 * time * all..][..3 * time * all];
            let of_sample = sample * time * all..(sample + 1) * time * all;
            for head in 0..self.heads {
                let at = head * self.width;
                self.split(qkv, head, &mut scratch.parts);
                self.gather(&grad[of_sample.clone()], all, at, 1.0, &mut scratch.grad);
                // The result waits in the place of the gradient of the queries.
                self.gather(&out[of_sample.clone()], all, at, 1.0, &mut scratch.d_parts[0]);
                let log_sums = &log_sums[(sample * self.heads + head) * time..][..time];
                self.head_gradients(log_sums, &mut scratch);
                let scales = [(self.width as f32).sqrt().recip(), 1.0, 1.0];
                for (i, (part, scale)) in scratch.d_parts.iter().zip(scales).enumerate() {
                    self.scatter(part, scale, dqkv, 3 * all, i * all + at);
                }
            }
        }
    }

    /// The gradients of one head's queries, keys and values. The last block sees all keys, so it
    /// comes first and overwrites what the others add to.
    fn head_gradients(&self, log_sums: &[f32], s: &mut Scratch) {
        let width = self.width;
        let [q, k, v] = &s.parts;
        let [dq, dk, dv] = &mut s.d_parts;
        let mut how = Write::Set;
        for (first, end) in self.blocks().rev() {
            let (rows, block) = (end - first, first * width..end * width);
            let queries = Mat::new(&q[block.clone()], rows, width);
            let grad = Mat::new(&s.grad[block.clone()], rows, width);
            let (keys, values) = (Mat::new(k, end, width), Mat::new(v, end, width));
            let (shares, slopes) = (&mut s.shares[..rows * end], &mut s.slopes[..rows * end]);
            matmul(shares, queries, keys.t(), Write::Set);
            matmul(slopes, grad, values.t(), Write::Set);
            let (result, grad_rows) = (&dq[block.clone()], &s.grad[block.clone()]);
            shares_and_slopes(shares, slopes, &log_sums[first..end], first, result, grad_rows);
            let (shares, slopes) = (Mat::new(shares, rows, end), Mat::new(slopes, rows, end));
            matmul(dv, shares.t(), grad, how);
            matmul(dk, slopes.t(), queries, how);
            matmul(&mut dq[block], slopes, keys, Write::Set);
            how = Write::Add;
        }
    }
}

/// What the backward pass of one head needs.
struct Scratch {
    parts: [Buffer; 3],
    d_parts: [Buffer; 3],
    grad: Buffer,
    shares: Buffer,
    slopes: Buffer,
}

impl Scratch {
    fn new(sizes: &Heads) -> Scratch {
        let scores = || Buffer::take(BLOCK * sizes.time);
        let part = || sizes.part();
        Scratch {
            parts: [part(), part(), part()],
            d_parts: [part(), part(), part()],
            grad: part(),
            shares: scores(),
            slopes: scores(),
        }
    }
}

wide! {
    /// Turns scores into shares, row i of `width` over its first `first` + i + 1 values, the rest 0;
    /// keeps the logarithm of each row's sum.
    fn softmax(scores: &mut [f32], width: usize, first: usize, log_sums: &mut [f32]) {
        for (i, (row, log_sum)) in scores.chunks_exact_mut(width).zip(log_sums).enumerate() {
            let (seen, hidden) = row.split_at_mut(first + i + 1);
            let max = largest(seen);
            seen.iter_mut().for_each(|v| *v = exp(*v - max));
            let sum = sum_of(seen, seen, |v, _| v);
            let scale = 1.0 / sum;
            seen.iter_mut().for_each(|v| *v *= scale);
            hidden.fill(0.0);
            *log_sum = max + sum.ln();
        }
    }
}

wide! {
    /// Turns scores into shares p, and the gradients of the shares into those of the scores,
    /// p · (gradient − Σ result · grad).
    fn shares_and_slopes(
        shares: &mut [f32],
        slopes: &mut [f32],
        log_sums: &[f32],
        first: usize,
        result: &[f32],
        grad: &[f32],
    ) {
        let (rows, width) = (log_sums.len(), shares.len() / log_sums.len());
        let head = grad.len() / rows;
        let pairs = shares.chunks_exact_mut(width).zip(slopes.chunks_exact_mut(width));
        let results = result.chunks_exact(head).zip(grad.chunks_exact(head));
        for (i, ((shares, slopes), (result, grad))) in pairs.zip(results).enumerate() {
            let (mean, log_sum) = (sum_of(result, grad, |r, g| r * g), log_sums[i]);
            let (seen, hidden) = shares.split_at_mut(first + i + 1);
            let (seen_slopes, hidden_slopes) = slopes.split_at_mut(first + i + 1);
            for (p, slope) in seen.iter_mut().zip(seen_slopes) {
                *p = exp(*p - log_sum);
                *slope = *p * (*slope - mean);
            }
            hidden.fill(0.0);
            hidden_slopes.fill(0.0);
        }
    }
}

/// The largest value. NaN among others may be lost here and comes back through the exponentials.
#[inline(always)]
fn largest(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let (chunks, rest) = values.as_chunks::<16>();
    let mut lanes = [f32::NEG_INFINITY; 16];
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, v);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &v| larger(a, v))
}

struct Attention {
    sizes: Heads,
    log_sums: OnceLock<Buffer>,
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "causal-attention"
    }

    fn cpu_fwd(
        &self,
        qkv: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let Heads { batch, time, .. } = self.sizes;
        let mut out = vec![0.0; batch * time * self.sizes.all()];
        // The op is applied once, so the cell is empty.
        let _ = self.log_sums.set(self.sizes.apply(values(qkv, layout)?, &mut out));
        Ok((CpuStorage::F32(out), (batch, time, self.sizes.all()).into()))
    }

    fn bwd(&self, qkv: &Tensor, y: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let (rows, out, grad) = (Host::of(qkv), Host::of(y), Host::of(&grad));
        let mut dqkv = vec![0.0; qkv.elem_count()];
        let log_sums = self.log_sums.get().map_or(&[][..], |sums| sums);
        let (rows, out) = (rows.values()?, out.values()?);
        self.sizes.gradients(rows, out, log_sums, grad.values()?, &mut dqkv);
        Ok(Some(Tensor::from_vec(dqkv, qkv.shape(), qkv.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{assert_agree, check_layer, gradients, no_params, random_tensor};

    /// Batch, time, heads, width of a head; the last crosses the borders of blocks.
    const CASES: [[usize; 4]; 5] =
        [[2, 5, 2, 3], [1, 1, 1, 4], [3, 7, 1, 2], [1, 6, 3, 1], [2, 150, 2, 5]];

    fn sizes([batch, time, heads, width]: [usize; 4]) -> Heads {
        Heads { batch, time, heads, width }
    }

    fn shape([batch, time, heads, width]: [usize; 4]) -> [usize; 3] {
        [batch, time, 3 * heads * width]
    }

    #[test]
    fn gradients_equal_finite_differences_in_both_forms() {
        for case in &CASES[..4] {
            let heads = case[2];
            check_layer(&no_params(), &shape(*case), 1, |x| causal_attention(x, heads));
            check_layer(&no_params(), &shape(*case), 1, |x| Ok(composed(x, sizes(*case))?));
        }
    }

    #[test]
    fn both_forms_agree() {
        for case in CASES {
            let x = random_tensor(&shape(case), 7).affine(2.0, 0.0).unwrap();
            let own = gradients(&no_params(), &x, |x| causal_attention(x, case[2]));
            assert_agree(own, gradients(&no_params(), &x, |x| Ok(composed(x, sizes(case))?)));
        }
    }

    #[test]
    fn no_position_sees_a_later_one() {
        let x = random_tensor(&[1, 90, 12], 1);
        let mut values = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        values[70 * 12..].iter_mut().for_each(|v| *v += 1.0);
        let changed = Tensor::from_vec(values, x.shape(), x.device()).unwrap();
        let out = |x: &Tensor| causal_attention(x, 2).unwrap().squeeze(0).unwrap();
        let (before, after) = (out(&x), out(&changed));
        let (before, after) = (before.to_vec2::<f32>().unwrap(), after.to_vec2::<f32>().unwrap());
        assert_eq!(before[..70], after[..70]);
        assert!(before[70..].iter().zip(&after[70..]).all(|(a, b)| a != b));
    }

    #[test]
    fn large_scores_stay_finite_and_nan_is_not_hidden() {
        let large = random_tensor(&[1, 5, 6], 1).affine(1e4, 0.0).unwrap();
        let out = causal_attention(&large, 1).unwrap().flatten_all().unwrap();
        assert!(out.to_vec1::<f32>().unwrap().iter().all(|v| v.is_finite()));
        let nan = large.affine(f64::NAN, 0.0).unwrap();
        let out = causal_attention(&nan, 1).unwrap().flatten_all().unwrap();
        assert!(out.to_vec1::<f32>().unwrap().iter().all(|v| v.is_nan()));
    }

    #[test]
    fn an_empty_batch_gives_an_empty_result() {
        let x = random_tensor(&[0, 4, 6], 1);
        let (dx, y) = gradients(&no_params(), &x, |x| causal_attention(x, 2));
        assert!(dx[0].is_empty() && y.is_empty());
        assert_eq!(composed(&x, sizes([0, 4, 2, 1])).unwrap().dims(), [0, 4, 2]);
    }

    #[test]
    fn a_width_without_whole_heads_is_refused_in_words() {
        let message = causal_attention(&random_tensor(&[1, 2, 9], 1), 2).unwrap_err().to_string();
        assert!(message.contains("a multiple of 3·2), got F32 [1, 2, 9]"), "{message}");
    }
}

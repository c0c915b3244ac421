//! The loops of [`super::group_norm`] over groups of channels: plain slices, one group after another, while
//! it is in the cache.

use super::elementary::sum_of;
use super::recycle::Buffer;
use super::relu;
use crate::util::wide::wide;

/// What the loops over groups need besides the values.
#[derive(Clone, Copy)]
pub(super) struct Plan<'a> {
    pub(super) weight: &'a [f32],
    pub(super) bias: &'a [f32],
    pub(super) groups: usize,
    /// Values of one channel of one sample.
    pub(super) plane: usize,
    pub(super) eps: f32,
    pub(super) relu: bool,
}

impl Plan<'_> {
    /// Values of one group of one sample; 1 where there are none, since slices are cut by it.
    fn group(&self) -> usize {
        (self.weight.len() / self.groups * self.plane).max(1)
    }

    /// The channels of the `i`-th group of a batch.
    fn channels(&self, i: usize) -> std::ops::Range<usize> {
        let len = self.weight.len() / self.groups;
        let first = i % self.groups * len;
        first..first + len
    }
}

/// Normalises every group of `x` into `out`, on top of what `shortcut` has; gives mean and
/// 1 / √(variance + eps) of each.
pub(super) fn normalise(
    plan: &Plan,
    x: &[f32],
    shortcut: Option<&[f32]>,
    out: &mut [f32],
) -> Buffer {
    let len = plan.group();
    let mut stats = Buffer::take(2 * (x.len() / len));
    let groups = x.chunks_exact(len).zip(out.chunks_exact_mut(len));
    for (i, ((x, out), stats)) in groups.zip(stats.chunks_exact_mut(2)).enumerate() {
        let (mean, variance) = moments(x);
        let scale = 1.0 / (variance + plan.eps).sqrt();
        stats.copy_from_slice(&[mean, scale]);
        let planes = x.chunks_exact(plan.plane).zip(out.chunks_exact_mut(plan.plane));
        for ((c, (x, out)), k) in plan.channels(i).zip(planes).zip(0..) {
            let (factor, bias) = (scale * plan.weight[c], plan.bias[c]);
            let shortcut = shortcut.map(|all| &all[i * len + k * plan.plane..][..plan.plane]);
            one_plane(x, mean, factor, bias, shortcut, plan.relu, out);
        }
    }
    stats
}

wide! {
    fn moments(x: &[f32]) -> (f32, f32) {
        let share = 1.0 / x.len() as f32;
        let mean = sum_of(x, x, |v, _| v) * share;
        // From the mean, not E[x²] − E[x]², which cancels when the mean is large.
        (mean, sum_of(x, x, |v, _| (v - mean) * (v - mean)) * share)
    }
}

wide! {
    fn one_plane(
        x: &[f32],
        mean: f32,
        factor: f32,
        bias: f32,
        shortcut: Option<&[f32]>,
        relu: bool,
        out: &mut [f32],
    ) {
        match shortcut {
            Some(shortcut) => {
                for ((out, x), s) in out.iter_mut().zip(x).zip(shortcut) {
                    *out = (x - mean) * factor + bias + s;
                }
            }
            None => out.iter_mut().zip(x).for_each(|(out, x)| *out = (x - mean) * factor + bias),
        }
        if relu {
            out.iter_mut().for_each(|v| *v = relu::clamp(*v));
        }
    }
}

/// With n the normalised values and h = grad · weight, over each group:
/// dx = scale · (h − mean(h) − n · mean(h · n)). Replaces `grad` by it, and adds Σ grad · n and Σ grad of
/// each channel to `sums`, sample after sample.
pub(super) fn backward(
    plan: &Plan,
    x: &[f32],
    stats: &[f32],
    grad: &mut [f32],
    sums: &mut [Vec<f32>; 2],
) {
    let (len, plane) = (plan.group(), plan.plane);
    let share = 1.0 / len as f32;
    let groups = x.chunks_exact(len).zip(grad.chunks_exact_mut(len));
    for (i, ((x, grad), stats)) in groups.zip(stats.chunks_exact(2)).enumerate() {
        let (mean, scale) = (stats[0], stats[1]);
        let (mut along, mut across) = (0.0, 0.0);
        let planes = x.chunks_exact(plane).zip(grad.chunks_exact(plane));
        for (c, (x, grad)) in plan.channels(i).zip(planes) {
            let (total, product) = plane_sums(x, grad, mean);
            let product = product * scale;
            sums[0][c] += product;
            sums[1][c] += total;
            along += plan.weight[c] * total;
            across += plan.weight[c] * product;
        }
        let (along, across) = (scale * along * share, scale * scale * across * share);
        let planes = x.chunks_exact(plane).zip(grad.chunks_exact_mut(plane));
        for (c, (x, grad)) in plan.channels(i).zip(planes) {
            through_plane(x, mean, scale * plan.weight[c], along, across, grad);
        }
    }
}

wide! {
    /// Σ grad and Σ grad · (x − mean)
    fn plane_sums(x: &[f32], grad: &[f32], mean: f32) -> (f32, f32) {
        (sum_of(grad, grad, |g, _| g), sum_of(x, grad, |x, g| g * (x - mean)))
    }
}

wide! {
    fn through_plane(
        x: &[f32],
        mean: f32,
        factor: f32,
        along: f32,
        across: f32,
        grad: &mut [f32],
    ) {
        for (g, x) in grad.iter_mut().zip(x) {
            *g = *g * factor - along - (x - mean) * across;
        }
    }
}

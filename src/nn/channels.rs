//! Sums and scalings per channel of images, for batch normalization on the CPU.

/// Values added in `f32` before the sum goes on in `f64`: rounding stays near 1e-7 for any image.
const CHUNK: usize = 1024;

/// The sizes of images (batch, channels, rows, columns); `area` is rows · columns, not 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Images {
    pub(super) channels: usize,
    pub(super) area: usize,
}

impl Images {
    /// Channel `c` of every image in turn.
    fn channel<'a>(&self, x: &'a [f32], c: usize) -> impl Iterator<Item = &'a [f32]> + use<'a> {
        x.chunks_exact(self.area).skip(c).step_by(self.channels)
    }

    /// Every channel of every image in the order of memory, with the channel's number.
    fn each<'a>(&self, x: &'a [f32]) -> impl Iterator<Item = (usize, &'a [f32])> + use<'a> {
        (0..self.channels).cycle().zip(x.chunks_exact(self.area))
    }

    /// Σx of each channel, then Σx² of each.
    ///
    /// The sums of squares are taken around a value of the channel, so that a variance much smaller
    /// than the squared mean loses no digits in `f32`, and moved to zero in `f64`.
    pub(super) fn moments(&self, x: &[f32]) -> Vec<f64> {
        let mut sums = vec![0.0; 2 * self.channels];
        let (first, second) = sums.split_at_mut(self.channels);
        for (c, (first, second)) in first.iter_mut().zip(second).enumerate() {
            let shift = self.channel(x, c).next().map_or(0.0, |values| values[0]);
            let (mut s1, mut s2, mut count) = (0.0, 0.0, 0.0);
            for chunk in self.channel(x, c).flat_map(|values| values.chunks(CHUNK)) {
                let (a, b) = lanes(chunk, chunk, |v, _| (v - shift, (v - shift) * (v - shift)));
                (s1, s2, count) = (s1 + a, s2 + b, count + chunk.len() as f64);
            }
            let shift = f64::from(shift);
            *first = s1 + count * shift;
            *second = s2 + 2.0 * shift * s1 + count * shift * shift;
        }
        sums
    }

    /// Σg of each channel, then Σg·(x − mean) of each.
    pub(super) fn products(&self, g: &[f32], x: &[f32], mean: &[f32]) -> Vec<f64> {
        let mut sums = vec![0.0; 2 * self.channels];
        let (first, second) = sums.split_at_mut(self.channels);
        for (c, (first, second)) in first.iter_mut().zip(second).enumerate() {
            let chunks = |x| self.channel(x, c).flat_map(|values| values.chunks(CHUNK));
            for (g, x) in chunks(g).zip(chunks(x)) {
                let (a, b) = lanes(g, x, |g, x| (g, g * (x - mean[c])));
                (*first, *second) = (*first + a, *second + b);
            }
        }
        sums
    }

    /// (x − mean) · scale + bias.
    pub(super) fn scaled(&self, x: &[f32], mean: &[f32], scale: &[f32], bias: &[f32]) -> Vec<f32> {
        let mut out = Vec::with_capacity(x.len());
        for (c, x) in self.each(x) {
            let (mean, scale, bias) = (mean[c], scale[c], bias[c]);
            out.extend(x.iter().map(|x| (x - mean) * scale + bias));
        }
        out
    }

    /// (g − shift) · scale − (x − mean) · pull.
    pub(super) fn pulled(
        &self,
        (g, shift, scale): (&[f32], &[f32], &[f32]),
        (x, mean, pull): (&[f32], &[f32], &[f32]),
    ) -> Vec<f32> {
        let mut out = Vec::with_capacity(x.len());
        for ((c, g), (_, x)) in self.each(g).zip(self.each(x)) {
            let (shift, scale, mean, pull) = (shift[c], scale[c], mean[c], pull[c]);
            let pairs = g.iter().zip(x);
            out.extend(pairs.map(|(g, x)| (g - shift) * scale - (x - mean) * pull));
        }
        out
    }
}

/// The sums of both results of `f` over pairs, in 16 lanes each that become vector code.
#[inline(always)]
fn lanes(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> (f32, f32)) -> (f64, f64) {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    let (mut first, mut second) = ([0.0f32; 16], [0.0f32; 16]);
    for (a, b) in a.iter().zip(b) {
        for i in 0..16 {
            let (p, q) = f(a[i], b[i]);
            first[i] += p;
            second[i] += q;
        }
    }
    for (i, (&a, &b)) in a_rest.iter().zip(b_rest).enumerate() {
        let (p, q) = f(a, b);
        first[i] += p;
        second[i] += q;
    }
    (f64::from(first.iter().sum::<f32>()), f64::from(second.iter().sum::<f32>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::random;

    #[test]
    fn moments_equal_the_definition_also_far_from_zero() {
        for (area, offset) in [(1, 0.0), (5, 0.0), (49, 1000.0), (3000, -1000.0)] {
            let images = Images { channels: 3, area };
            let x: Vec<f32> = random(4 * 3 * area, 1).iter().map(|v| v + offset).collect();
            let sums = images.moments(&x);
            for c in 0..3 {
                let values =
                    || (0..4).flat_map(move |n| (n * 3 + c) * area..(n * 3 + c + 1) * area);
                let count = (4 * area) as f64;
                let mean = values().map(|i| f64::from(x[i])).sum::<f64>() / count;
                let var = values().map(|i| (f64::from(x[i]) - mean).powi(2)).sum::<f64>() / count;
                let (got_mean, square) = (sums[c] / count, sums[3 + c] / count);
                assert!((got_mean - mean).abs() < 1e-6, "{got_mean} and {mean}");
                let got = square - got_mean * got_mean;
                assert!((got - var).abs() < 1e-5 * var, "area {area}: {got} and {var}");
            }
        }
    }
}

//! Elastic distortion (Simard, Steinkraus and Platt, "Best practices for convolutional neural networks
//! applied to visual document analysis", 2003).
//!
//! Each pixel is moved by a random vector, uniform in (−1, 1)², smoothed over its neighbours by a
//! Gaussian of standard deviation `sigma` and weights that add up to 1, then scaled by `alpha`. Outside
//! the image the vectors are zero. With the paper's α = 34 and σ = 4 a pixel moves by
//! 34 · √(1/3) / (4 · 2√π) ≈ 1.4 pixels (standard deviation) in each direction.

use super::warp::{Row, warp};
use super::{Scratch, Size, Transform};
use crate::util::rng::Rng;

#[derive(Debug)]
pub(super) struct Elastic {
    alpha: f32,
    fill: f32,
    /// The Gaussian from its middle outwards.
    kernel: Vec<f32>,
}

/// Memory for displacements.
#[derive(Debug, Default)]
pub(super) struct Field {
    /// Noise, with zeros left and right.
    wide: Vec<f32>,
    /// The same smoothed along rows, with zeros above and below.
    tall: Vec<f32>,
    down: Vec<f32>,
    right: Vec<f32>,
}

impl Elastic {
    pub fn new(alpha: f32, sigma: f64, fill: f32) -> Elastic {
        // Beyond 3 σ lies 0.3 % of a Gaussian.
        let radius = (3.0 * sigma).ceil() as i32;
        let bell = |i: i32| (-0.5 * (f64::from(i) / sigma).powi(2)).exp();
        let sum: f64 = (-radius..=radius).map(bell).sum();
        let kernel = (0..=radius).map(|i| (bell(i) / sum) as f32).collect();
        Elastic { alpha, fill, kernel }
    }
}

impl Transform for Elastic {
    fn apply(&self, image: &mut [f32], size: Size, rng: &mut Rng, scratch: &mut Scratch) {
        let Scratch { image: padded, row, field } = scratch;
        let Field { wide, tall, down, right } = field;
        for out in [&mut *down, &mut *right] {
            noise(wide, size, self.kernel.len() - 1, rng);
            smooth(wide, tall, out, size, &self.kernel);
        }
        let alpha = self.alpha;
        warp(image, size, self.fill, padded, row, |row, line: &mut Row| {
            let at = row * size.columns;
            let moves = down[at..].iter().zip(&right[at..]);
            let places = line.ys.iter_mut().zip(&mut line.xs).enumerate();
            for ((column, (y, x)), (down, right)) in places.zip(moves) {
                (*y, *x) = (row as f32 + alpha * down, column as f32 + alpha * right);
            }
        });
    }
}

/// Fills the middle of each row of `wide` with numbers uniform in [−1, 1), multiples of 2⁻¹⁵, and
/// `radius` places on both sides with zeros.
fn noise(wide: &mut Vec<f32>, size: Size, radius: usize, rng: &mut Rng) {
    wide.clear();
    wide.resize(size.rows * (size.columns + 2 * radius), 0.0);
    let number = |bits: u16| f32::from(bits.cast_signed()) * (1.0 / 32768.0);
    for row in wide.chunks_exact_mut(size.columns + 2 * radius) {
        for pair in row[radius..radius + size.columns].chunks_mut(2) {
            let bits = rng.next_u32();
            let two = [number(bits as u16), number((bits >> 16) as u16)];
            pair.copy_from_slice(&two[..pair.len()]);
        }
    }
}

/// Convolves `wide` with the kernel along rows, into `tall`, then along columns, into `out`.
fn smooth(wide: &[f32], tall: &mut Vec<f32>, out: &mut Vec<f32>, size: Size, kernel: &[f32]) {
    let (columns, radius) = (size.columns, kernel.len() - 1);
    tall.clear();
    tall.resize((size.rows + 2 * radius) * columns, 0.0);
    let rows = tall[radius * columns..].chunks_exact_mut(columns);
    for (out, row) in rows.zip(wide.chunks_exact(columns + 2 * radius)) {
        convolve(out, kernel, |i| &row[i..][..columns]);
    }
    out.resize(size.plane(), 0.0);
    for (row, out) in out.chunks_exact_mut(columns).enumerate() {
        convolve(out, kernel, |i| &tall[(row + i) * columns..][..columns]);
    }
}

/// One row of a convolution; `tap(i)` is what the kernel's place i (of 2·radius + 1) lies on.
fn convolve<'a>(out: &mut [f32], kernel: &[f32], tap: impl Fn(usize) -> &'a [f32]) {
    let radius = kernel.len() - 1;
    for (out, x) in out.iter_mut().zip(tap(radius)) {
        *out = kernel[0] * x;
    }
    for (i, &weight) in kernel.iter().enumerate().skip(1) {
        let (before, after) = (tap(radius - i), tap(radius + i));
        for ((out, a), b) in out.iter_mut().zip(before).zip(after) {
            *out += weight * (a + b);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::rng::Purpose;

    const SIZE: Size = Size { channels: 1, rows: 60, columns: 61 };

    fn field(elastic: &Elastic, seed: u64) -> Vec<f32> {
        let mut rng = Rng::new(seed, Purpose::Synthetic, 0, 0, 0);
        let mut field = Field::default();
        let Field { wide, tall, down, .. } = &mut field;
        noise(wide, SIZE, elastic.kernel.len() - 1, &mut rng);
        smooth(wide, tall, down, SIZE, &elastic.kernel);
        field.down
    }

    #[test]
    fn the_smoothing_is_a_convolution_with_a_gaussian_of_weight_one() {
        let elastic = Elastic::new(1.0, 2.0, 0.0);
        let kernel = &elastic.kernel;
        let sum = kernel[0] + 2.0 * kernel[1..].iter().sum::<f32>();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        let radius = kernel.len() - 1;
        let mut wide = vec![0.0; SIZE.rows * (SIZE.columns + 2 * radius)];
        // A single 1 in row 20, column 30 becomes the kernel's product with itself.
        wide[20 * (SIZE.columns + 2 * radius) + radius + 30] = 1.0;
        let (mut tall, mut out) = (Vec::new(), Vec::new());
        smooth(&wide, &mut tall, &mut out, SIZE, kernel);
        for row in 0..SIZE.rows {
            for column in 0..SIZE.columns {
                let weight = |d: usize| kernel.get(d).copied().unwrap_or(0.0);
                let wanted = weight(row.abs_diff(20)) * weight(column.abs_diff(30));
                assert!((out[row * SIZE.columns + column] - wanted).abs() < 1e-7);
            }
        }
    }

    #[test]
    fn pixels_move_as_far_as_the_formula_says_and_neighbours_together() {
        let elastic = Elastic::new(34.0, 4.0, 0.0);
        let (mut squares, mut together, mut count) = (0.0, 0.0, 0.0);
        for seed in 0..40 {
            let field = field(&elastic, seed);
            for row in 13..47 {
                for column in 13..47 {
                    let at = row * SIZE.columns + column;
                    squares += f64::from(field[at] * field[at]);
                    together += f64::from(field[at] * field[at + 1]);
                    count += 1.0;
                }
            }
        }
        let deviation = 34.0 * f64::sqrt(squares / count);
        assert!((deviation - 1.38).abs() < 0.1, "{deviation}");
        // exp(−1 / (4 σ²)) = 0.984.
        let correlation = together / squares;
        assert!((correlation - 0.984).abs() < 0.005, "{correlation}");
    }

    #[test]
    fn a_single_row_or_column_is_no_special_case() {
        for (rows, columns) in [(1, 9), (9, 1), (1, 1)] {
            let size = Size { channels: 1, rows, columns };
            let mut image = vec![1.0; rows * columns];
            let rng = &mut Rng::new(3, Purpose::Synthetic, 0, 0, 0);
            Elastic::new(34.0, 4.0, 0.0).apply(&mut image, size, rng, &mut Scratch::default());
            assert!(image.iter().all(|v| (0.0..=1.0).contains(v)));
        }
    }
}

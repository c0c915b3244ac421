//! Elementary functions and sums as plain loops that become vectors (see [`crate::util::wide`]).

use crate::util::wide::wide;

/// eˣ within 2 units in the last place; below −87 it stays at 1.6e-38 and above 88 at 1.7e38. NaN
/// stays NaN.
///
/// x = n·ln 2 + r, |r| ≤ ln 2 / 2; eʳ by the polynomial of Cephes (Moshier, `expf`), 2ⁿ by its exponent.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// Adding it rounds to a whole number, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let two_to_n = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    (p * r * r + r + 1.0) * two_to_n
}

/// 1 / (1 + e⁻ˣ) within 3e-7 of its value. NaN stays NaN.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// tanh x within 3e-7 of its value. NaN stays NaN.
///
/// Near 0 by the polynomial of Cephes (Moshier, `tanhf`), elsewhere by the exponential, which would lose
/// digits there. Both are computed, so that a loop over it becomes vectors.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    let square = x * x;
    let mut p = -5.704_988_7e-3;
    for c in [2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1] {
        p = p * square + c;
    }
    let near = p * square * x + x;
    let far = (1.0 - 2.0 / (exp(2.0 * x.abs()) + 1.0)).copysign(x);
    if x.abs() < 0.625 { near } else { far }
}

/// Σ f(a, b) over two slices of one length, in 16 running sums that become vectors.
#[inline(always)]
pub(super) fn sum_of(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let ((a16, a_rest), (b16, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    let mut lanes = [0.0f32; 16];
    for (a, b) in a16.iter().zip(b16) {
        for i in 0..16 {
            lanes[i] += f(a[i], b[i]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(&a, &b)| f(a, b)).sum();
    lanes.iter().sum::<f32>() + rest
}

wide! {
    /// Adds every row to `sum`.
    pub(super) fn add_rows(rows: &[f32], sum: &mut [f32]) {
        for row in rows.chunks_exact(sum.len()) {
            sum.iter_mut().zip(row).for_each(|(s, v)| *s += v);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    wide! {
        fn exp_all(values: &mut [f32]) {
            for v in values {
                *v = exp(*v);
            }
        }
    }

    #[test]
    fn exp_agrees_with_double_precision_at_both_widths() {
        let x: Vec<f32> = (0..200_000).map(|i| -87.0 + i as f32 * (175.0 / 200_000.0)).collect();
        let mut y = x.clone();
        exp_all(&mut y);
        for (&x, &y) in x.iter().zip(&y) {
            let expected = f64::from(x).exp();
            assert!((f64::from(y) / expected - 1.0).abs() < 2.5e-7, "exp({x}) = {y}");
            assert_eq!(y.to_bits(), exp(x).to_bits());
        }
    }

    #[test]
    fn exp_keeps_nan_and_stays_finite_outside_its_range() {
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 2e-38 && exp(-1e30) < 2e-38);
        assert!(exp(f32::INFINITY).is_finite() && exp(1e30) > 1e38);
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn sigmoid_and_tanh_agree_with_double_precision_and_keep_nan() {
        for i in -200_000..=200_000 {
            let x = i as f32 * 2e-4;
            let wide = f64::from(x);
            let close = |got: f32, expected: f64| {
                let error = (f64::from(got) - expected).abs();
                assert!(error <= 3e-7 * expected.abs(), "at {x}: {got}, expected {expected}");
            };
            close(sigmoid(x), 1.0 / (1.0 + (-wide).exp()));
            close(tanh(x), wide.tanh());
        }
        assert!(sigmoid(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
        assert_eq!((tanh(0.0), tanh(f32::INFINITY), tanh(-1e30)), (0.0, 1.0, -1.0));
        assert_eq!((sigmoid(0.0), sigmoid(1e30)), (0.5, 1.0));
        assert!((0.0..1e-37).contains(&sigmoid(f32::NEG_INFINITY)));
    }

    #[test]
    fn a_sum_over_pairs_counts_each_pair_once() {
        let a: Vec<f32> = (0..37).map(|i| i as f32).collect();
        assert_eq!(sum_of(&a, &a, |x, y| x + y), 2.0 * 36.0 * 37.0 / 2.0);
    }
}

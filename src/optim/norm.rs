//! Norms of tensors: one order of adding, whatever the width of the processor's vectors.

use crate::util::wide::wide;

/// Sums that go on side by side.
const LANES: usize = 8;

wide! {
    /// √Σ x².
    pub(super) fn norm(x: &[f32]) -> f64 {
        let mut sums = [0f64; LANES];
        let (chunks, rest) = x.as_chunks::<LANES>();
        for chunk in chunks {
            for (sum, &v) in sums.iter_mut().zip(chunk) {
                *sum += f64::from(v) * f64::from(v);
            }
        }
        for (sum, &v) in sums.iter_mut().zip(rest) {
            *sum += f64::from(v) * f64::from(v);
        }
        sums.iter().sum::<f64>().sqrt()
    }
}

/// a / b, or 1 where one of them is 0 or no number: what is scaled then stays as it is.
pub(super) fn ratio(a: f64, b: f64) -> f64 {
    if a > 0.0 && b > 0.0 { a / b } else { 1.0 }
}

//! The Beta(α, α) distribution on 0..1, symmetric about one half: how much of each of two images a
//! mixture has.

use crate::util::rng::Rng;

/// A draw: x / (x + y) of two draws of the gamma distribution, taken by their logarithms, since for
/// small α both are often too small for an `f64`.
pub(super) fn beta(alpha: f64, rng: &mut Rng) -> f32 {
    let (x, y) = (ln_gamma(alpha, rng), ln_gamma(alpha, rng));
    (1.0 / (1.0 + (y - x).exp())) as f32
}

/// The logarithm of a draw of Gamma(α, 1): Marsaglia and Tsang, "A simple method for generating gamma
/// variables" (2000); below 1 by way of α + 1.
fn ln_gamma(alpha: f64, rng: &mut Rng) -> f64 {
    if alpha < 1.0 {
        return ln_gamma(alpha + 1.0, rng) + open(rng).ln() / alpha;
    }
    let d = alpha - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(rng);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && open(rng).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return (d * v).ln();
        }
    }
}

/// A draw of the normal distribution (Box and Muller, 1958).
fn normal(rng: &mut Rng) -> f64 {
    let radius = (-2.0 * open(rng).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.uniform_f64()).cos()
}

/// Uniform in (0, 1].
fn open(rng: &mut Rng) -> f64 {
    1.0 - rng.uniform_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::rng::Purpose;

    #[test]
    fn mean_variance_and_fourth_moment_are_those_of_the_distribution() {
        for (stream, alpha) in [0.02, 0.2, 0.4, 1.0, 2.5, 100.0].into_iter().enumerate() {
            let mut rng = Rng::new(1, Purpose::Synthetic, 0, 0, stream as u64);
            let n = 40_000;
            let (mut sum, mut second, mut fourth) = (0.0, 0.0, 0.0);
            for _ in 0..n {
                let x = beta(alpha, &mut rng);
                assert!((0.0..=1.0).contains(&x), "{x} for {alpha}");
                let distance = f64::from(x) - 0.5;
                sum += f64::from(x);
                second += distance.powi(2);
                fourth += distance.powi(4);
            }
            let n = f64::from(n);
            let variance = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            // Kurtosis of Beta(α, α): 3 − 6 / (2 α + 3).
            let wanted = (3.0 - 6.0 / (2.0 * alpha + 3.0)) * variance * variance;
            assert!((sum / n - 0.5).abs() < 0.01, "{alpha}: mean {}", sum / n);
            let (second, fourth) = (second / n / variance, fourth / n / wanted);
            assert!((second - 1.0).abs() < 0.04, "{alpha}: {second} of the variance");
            assert!((fourth - 1.0).abs() < 0.08, "{alpha}: {fourth} of the fourth moment");
        }
    }
}

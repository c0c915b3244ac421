//! GELU (Hendrycks and Gimpel, 2016), x·Φ(x) with the exact normal distribution, as
//! `torch.nn.functional.gelu`.
//!
//! Φ by formula 7.1.26 of Abramowitz and Stegun (absolute error 7.5e-8): a polynomial times the same
//! exponential that the slope needs, so one exponential gives both.

use super::elementary::exp;
use super::host::{Host, values};
use super::recycle::Buffer;
use crate::error::Result;
use crate::util::wide::wide;
use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use std::sync::OnceLock;

/// x·Φ(x) of any `f32` tensor, within 1e-6. NaN stays NaN.
///
/// # Errors
/// When `x` is not `f32` or the device has no memory.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() {
        Ok(x.contiguous()?.apply_op1(Gelu { slope: OnceLock::new() })?)
    } else {
        Ok(composed(x)?)
    }
}

/// The same of Candle's operations.
pub(super) fn composed(x: &Tensor) -> candle_core::Result<Tensor> {
    x.gelu_erf()
}

/// GELU at `x` and its slope there, Φ(x) + x·φ(x).
#[inline(always)]
fn value_and_slope(x: f32) -> (f32, f32) {
    let bell = exp(-0.5 * x * x);
    let t = 1.0 / (1.0 + 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2 * x.abs());
    let mut p = 1.061_405_4;
    for c in [-1.453_152, 1.421_413_8, -0.284_496_74, 0.254_829_6] {
        p = p * t + c;
    }
    let tail = 0.5 * p * t * bell;
    let below = if x > 0.0 { 1.0 - tail } else { tail };
    (x * below, below + x * (0.398_942_3 * bell))
}

wide! {
    /// Writes GELU of `x` to `out` and replaces `x` by the slope, which is all the backward pass needs.
    pub(super) fn apply_and_keep_slope(x: &mut [f32], out: &mut [f32]) {
        for (x, out) in x.iter_mut().zip(out) {
            (*out, *x) = value_and_slope(*x);
        }
    }
}

wide! {
    /// `grad` times `slope`, value by value.
    pub(super) fn times(grad: &mut [f32], slope: &[f32]) {
        for (g, s) in grad.iter_mut().zip(slope) {
            *g *= s;
        }
    }
}

struct Gelu {
    slope: OnceLock<Buffer>,
}

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let mut x = Buffer::copy_of(values(storage, layout)?);
        let mut out = vec![0.0; x.len()];
        apply_and_keep_slope(&mut x, &mut out);
        // The op is applied once, so the cell is empty.
        let _ = self.slope.set(x);
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, g: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let g = g.contiguous()?;
        let mut dx = Host::of(&g).values()?.to_vec();
        times(&mut dx, self.slope.get().map_or(&[], |slope| slope));
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{assert_agree, check_layer, gradients, no_params, random_tensor};
    use candle_core::Device;

    #[test]
    fn the_gradient_equals_finite_differences_in_both_forms() {
        check_layer(&no_params(), &[3, 17], 1, gelu);
        check_layer(&no_params(), &[3, 17], 1, |x| Ok(composed(x)?));
    }

    #[test]
    fn both_forms_agree() {
        let x = random_tensor(&[7, 33], 3).affine(4.0, 0.0).unwrap();
        let own = gradients(&no_params(), &x, gelu);
        assert_agree(own, gradients(&no_params(), &x, |x| Ok(composed(x)?)));
    }

    /// Φ by its Taylor series around 0, in `f64`: exact enough for |x| ≤ 6.
    fn normal(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / (2.0 * f64::from(n));
            sum += term / f64::from(2 * n + 1);
        }
        0.5 + sum / (2.0 * std::f64::consts::PI).sqrt()
    }

    #[test]
    fn values_and_slopes_are_within_a_millionth_of_the_definition() {
        for i in -50_000..=50_000 {
            let x = i as f32 * 1e-4;
            let (y, slope) = value_and_slope(x);
            let x = f64::from(x);
            let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
            assert!((f64::from(y) - x * normal(x)).abs() < 1e-6, "gelu({x}) = {y}");
            let expected = normal(x) + x * density;
            assert!((f64::from(slope) - expected).abs() < 1e-6, "slope at {x}: {slope}");
        }
    }

    #[test]
    fn far_from_zero_it_is_zero_or_the_identity_and_nan_is_kept() {
        assert_eq!(value_and_slope(20.0), (20.0, 1.0));
        let (y, slope) = value_and_slope(-20.0);
        assert!(y.abs() < 1e-30 && slope.abs() < 1e-30);
        let x = Tensor::new(&[f32::NAN, 1.0], &Device::Cpu).unwrap();
        assert!(gelu(&x).unwrap().to_vec1::<f32>().unwrap()[0].is_nan());
    }
}

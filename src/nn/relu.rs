//! ReLU: max(x, 0), with gradient 0 at 0 (as PyTorch and TensorFlow have it; Candle's own has 1).

use super::host::{Host, values};
use crate::error::Result;
use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

/// max(x, 0) of any `f32` tensor, as `torch.nn.functional.relu`. NaN stays NaN.
///
/// # Errors
/// When `x` is not `f32` or the device has no memory.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() { Ok(x.contiguous()?.apply_op1(Relu)?) } else { Ok(composed(x)?) }
}

/// The same of Candle's operations.
pub(super) fn composed(x: &Tensor) -> candle_core::Result<Tensor> {
    let alive = x.detach().gt(0f32)?.to_dtype(x.dtype())?;
    x.mul(&alive)
}

/// max(v, 0). Written so that NaN is kept: a loss must not look healthy when a weight is not.
#[inline(always)]
pub(super) fn clamp(v: f32) -> f32 {
    if v <= 0.0 { 0.0 } else { v }
}

struct Relu;

impl CustomOp1 for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let out = values(storage, layout)?.iter().map(|&v| clamp(v)).collect();
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, y: &Tensor, g: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let g = g.contiguous()?;
        let dx = masked(Host::of(y).values()?, Host::of(&g).values()?);
        Ok(Some(Tensor::from_vec(dx, y.shape(), y.device())?))
    }
}

/// The gradient `g` where the result `y` of a ReLU is not 0, else 0.
pub(super) fn masked(y: &[f32], g: &[f32]) -> Vec<f32> {
    y.iter().zip(g).map(|(&y, &g)| if y == 0.0 { 0.0 } else { g }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{check_layer, gradients, no_params, random};
    use candle_core::{Device, Var};

    #[test]
    fn the_gradient_equals_finite_differences_in_both_forms() {
        check_layer(&no_params(), &[3, 5], 1, relu);
        check_layer(&no_params(), &[3, 5], 1, |x| Ok(composed(x)?));
    }

    #[test]
    fn the_gradient_at_zero_is_zero_in_both_forms() {
        let x = Var::new(&[-1f32, 0.0, 2.0], &Device::Cpu).unwrap();
        for y in [relu(&x).unwrap(), composed(&x).unwrap()] {
            assert_eq!(y.to_vec1::<f32>().unwrap(), [0.0, 0.0, 2.0]);
            let grads = y.sum_all().unwrap().backward().unwrap();
            assert_eq!(grads.get(&x).unwrap().to_vec1::<f32>().unwrap(), [0.0, 0.0, 1.0]);
        }
    }

    #[test]
    fn nan_is_not_hidden() {
        let x = Tensor::new(&[f32::NAN, -1.0], &Device::Cpu).unwrap();
        for y in [relu(&x).unwrap(), composed(&x).unwrap()] {
            assert!(y.to_vec1::<f32>().unwrap()[0].is_nan());
        }
    }

    #[test]
    fn a_transposed_tensor_is_read_in_its_own_order() {
        let x = Tensor::from_vec(random(6, 1), (2, 3), &Device::Cpu).unwrap();
        let (dx, y) = gradients(&no_params(), &x, |x| relu(&x.t()?));
        let (expected, z) = gradients(&no_params(), &x, |x| Ok(composed(&x.t()?)?));
        assert_eq!((dx, y), (expected, z));
    }
}

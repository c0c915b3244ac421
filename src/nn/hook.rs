//! Where layers are made of Candle's own operations: the way of a gradient into its slot.
//!
//! Candle calls the backward pass of an op once, when the gradient of its result is complete. So an
//! identity op on a parameter sees the whole gradient of that parameter, whatever is built on top.

use super::host::values;
use super::params::Param;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Result, Shape, Tensor};

/// The values of `param` for use in Candle operations; what `backward` finds as their gradient is
/// put into the parameter's slot.
///
/// Call it once per forward pass and use the result wherever the parameter is used. It copies the
/// parameter, which the layers on the CPU avoid.
///
/// # Errors
/// When the device has no memory for the copy.
pub fn tracked(param: &Param) -> Result<Tensor> {
    param.tensor().apply_op1(Hook(param.clone()))
}

struct Hook(Param);

impl CustomOp1 for Hook {
    fn name(&self) -> &'static str {
        "gradient-hook"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let copy = values(storage, layout)?.to_vec();
        Ok((CpuStorage::F32(copy), layout.shape().clone()))
    }

    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        // A parameter owns its storage from the first value to the last, so the copy has its layout.
        Ok((storage.try_clone(layout)?, layout.shape().clone()))
    }

    fn bwd(&self, _arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.flatten_all()?.to_vec1::<f32>()?;
        self.0.put_grad(&grad)?;
        // The gradient is where it belongs: Candle need not keep it. Allowed for variables only.
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{check_layer, params_of};
    use crate::nn::{Init, ParamBuilder};

    #[test]
    fn a_parameter_used_twice_receives_the_sum_of_both_gradients() {
        let (set, param) = params_of(|b: &ParamBuilder| b.param("w", (2, 3), Init::Zeros));
        check_layer(&set, &[4, 2], 1, |x| {
            let w = tracked(&param)?;
            Ok((x.matmul(&w)? + x.sqr()?.matmul(&w)?)?)
        });
    }
}

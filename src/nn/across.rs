//! Sums over all ranks inside a layer, for statistics of the global batch.

use crate::error::Result;
use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Shape, Tensor, bail};
use std::sync::Arc;

/// Replaces each number by its sum over all ranks.
///
/// It is called in forward and in backward passes; a layer that uses it must run in the same order on
/// all ranks, with the same number of calls.
pub type RankSum = Arc<dyn Fn(&mut [f64]) -> Result<()> + Send + Sync>;

/// The sum over a single rank: nothing changes.
#[must_use]
pub fn alone() -> RankSum {
    Arc::new(|_| Ok(()))
}

/// [`RankSum`] on numbers, its error as Candle's.
pub(super) fn total(values: &mut [f64], sum: &RankSum) -> candle_core::Result<()> {
    sum(values).map_err(|error| candle_core::Error::Msg(format!("sum over ranks: {error}")))
}

/// The sum of `x` (contiguous, `f32`) over all ranks as an operation with a gradient.
///
/// Each rank's loss depends on every rank's `x` through the sum, so the gradient of the summed loss is
/// the sum of the gradients over the ranks.
///
/// # Errors
/// Those of `sum`, and when `x` is not `f32`.
pub(super) fn across(x: &Tensor, sum: &RankSum) -> candle_core::Result<Tensor> {
    x.apply_op1(Across(sum.clone()))
}

struct Across(RankSum);

impl Across {
    fn sum(&self, values: &[f32]) -> candle_core::Result<Vec<f32>> {
        let mut sums: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
        total(&mut sums, &self.0)?;
        Ok(sums.into_iter().map(|v| v as f32).collect())
    }
}

impl CustomOp1 for Across {
    fn name(&self) -> &'static str {
        "sum-over-ranks"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let sums = self.sum(super::host::values(storage, layout)?)?;
        Ok((CpuStorage::F32(sums), layout.shape().clone()))
    }

    fn cuda_fwd(
        &self,
        storage: &CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let (sums, shape) = self.cpu_fwd(&storage.to_cpu_storage()?, layout)?;
        Ok((storage.device().storage_from_cpu_storage_owned(sums)?, shape))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        if grad.elem_count() != x.elem_count() {
            bail!("sum over ranks: gradient {:?} for {:?}", grad.shape(), x.shape());
        }
        let sums = self.sum(&grad.flatten_all()?.to_vec1::<f32>()?)?;
        Tensor::from_vec(sums, x.shape(), x.device()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::nn::testing::{check_layer, gradients, no_params, random_tensor};

    fn tripled() -> RankSum {
        Arc::new(|values| {
            values.iter_mut().for_each(|v| *v *= 3.0);
            Ok(())
        })
    }

    #[test]
    fn value_and_gradient_are_summed() {
        let x = random_tensor(&[2, 3], 1);
        let (dx, y) = gradients(&no_params(), &x, |x| Ok(across(x, &tripled())?));
        let (dx_alone, y_alone) = gradients(&no_params(), &x, |x| Ok(across(x, &alone())?));
        assert!(y.iter().zip(&y_alone).all(|(three, one)| *three == 3.0 * one));
        assert!(dx[0].iter().zip(&dx_alone[0]).all(|(three, one)| *three == 3.0 * one));
        check_layer(&no_params(), &[2, 3], 1, |x| Ok(across(x, &alone())?));
    }

    #[test]
    fn an_error_of_the_sum_is_passed_on_in_words() {
        let broken: RankSum = Arc::new(|_| Err(Error::Internal("rank 1 is gone".into())));
        let message = across(&random_tensor(&[2], 1), &broken).unwrap_err().to_string();
        assert!(message.contains("sum over ranks") && message.contains("rank 1 is gone"));
    }
}

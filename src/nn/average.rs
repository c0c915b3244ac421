//! Global average pooling, as `torch.nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)`.

use super::host::{Host, sum, values};
use crate::error::{Error, Result};
use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

/// The mean of each channel of `x` (batch, channels, rows, columns), `f32`: (batch, channels).
///
/// # Errors
/// When `x` has another number of dimensions or images without pixels.
pub fn global_average(x: &Tensor) -> Result<Tensor> {
    match *x.dims() {
        [_, _, rows, cols] if rows > 0 && cols > 0 => {}
        _ => {
            return Err(Error::Internal(format!(
                "global average: expected (batch, channels, at least 1, at least 1), got {:?}",
                x.dims()
            )));
        }
    }
    if x.device().is_cpu() {
        Ok(x.contiguous()?.apply_op1(GlobalAverage)?)
    } else {
        Ok(composed(x)?)
    }
}

/// The same of Candle's operations.
fn composed(x: &Tensor) -> candle_core::Result<Tensor> {
    if x.elem_count() == 0 {
        let (batch, channels, _, _) = x.dims4()?;
        return Tensor::zeros((batch, channels), x.dtype(), x.device());
    }
    x.flatten_from(2)?.mean(2)
}

struct GlobalAverage;

impl CustomOp1 for GlobalAverage {
    fn name(&self) -> &'static str {
        "global-average"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (batch, channels, rows, cols) = layout.shape().dims4()?;
        let share = 1.0 / (rows * cols) as f32;
        let planes = values(storage, layout)?.chunks_exact(rows * cols);
        let out = planes.map(|plane| sum(plane) * share).collect();
        Ok((CpuStorage::F32(out), (batch, channels).into()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let (_, _, rows, cols) = x.dims4()?;
        let share = 1.0 / (rows * cols) as f32;
        let grad = grad.contiguous()?;
        let mut dx = Vec::with_capacity(x.elem_count());
        for g in Host::of(&grad).values()? {
            dx.resize(dx.len() + rows * cols, g * share);
        }
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{assert_agree, check_layer, gradients, no_params, random_tensor};

    const SHAPES: [[usize; 4]; 4] = [[2, 3, 4, 5], [1, 2, 1, 1], [3, 1, 7, 7], [0, 2, 3, 3]];

    #[test]
    fn the_gradient_equals_finite_differences_in_both_forms() {
        for shape in &SHAPES[..3] {
            check_layer(&no_params(), shape, 1, global_average);
            check_layer(&no_params(), shape, 1, |x| Ok(composed(x)?));
        }
    }

    #[test]
    fn both_forms_agree() {
        for shape in SHAPES {
            let x = random_tensor(&shape, 3);
            let own = gradients(&no_params(), &x, global_average);
            assert_agree(own, gradients(&no_params(), &x, |x| Ok(composed(x)?)));
        }
    }

    #[test]
    fn a_shape_without_pixels_is_refused_in_words() {
        let message = global_average(&random_tensor(&[1, 2, 0, 3], 1)).unwrap_err().to_string();
        assert!(message.contains("got [1, 2, 0, 3]"), "{message}");
        assert!(global_average(&random_tensor(&[2, 3], 1)).is_err());
    }
}

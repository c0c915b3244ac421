//! The shortcut without parameters of residual networks where the shape changes (option A of He et al.,
//! 2016): every `stride`-th row and column, and channels of zeros behind those of the input. As
//! `torch.nn.functional.pad(x[:, :, ::s, ::s], (0, 0, 0, 0, 0, more))`.

use super::host::{Host, values};
use crate::error::{Error, Result};
use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

/// `x` (batch, c, rows, columns), `f32`, as (batch, `channels`, ⌈rows / stride⌉, ⌈columns / stride⌉).
///
/// # Errors
/// When `x` has another number of dimensions or more than `channels` channels, or `stride` is 0.
pub fn shortcut(x: &Tensor, channels: usize, stride: usize) -> Result<Tensor> {
    match *x.dims() {
        [_, c, _, _] if c <= channels && stride > 0 => {}
        _ => {
            return Err(Error::Internal(format!(
                "shortcut: stride {stride} from {:?} to {channels} channels",
                x.dims()
            )));
        }
    }
    if x.device().is_cpu() {
        Ok(x.contiguous()?.apply_op1(Shortcut { channels, stride })?)
    } else {
        Ok(composed(x, channels, stride)?)
    }
}

/// The same of Candle's operations.
pub(super) fn composed(x: &Tensor, channels: usize, stride: usize) -> candle_core::Result<Tensor> {
    let (batch, c, rows, cols) = x.dims4()?;
    let (below, across) = (rows.div_ceil(stride), cols.div_ceil(stride));
    if batch == 0 {
        return Tensor::zeros((0, channels, below, across), x.dtype(), x.device());
    }
    let every = |n: usize| Tensor::arange_step(0u32, n as u32, stride as u32, x.device());
    let x = x.index_select(&every(rows)?, 2)?.index_select(&every(cols)?, 3)?;
    if c == channels {
        return Ok(x);
    }
    let zeros = Tensor::zeros((batch, channels - c, below, across), x.dtype(), x.device())?;
    Tensor::cat(&[x, zeros], 1)
}

struct Shortcut {
    channels: usize,
    stride: usize,
}

impl Shortcut {
    /// Calls `f(place in the input, place in the output)` for each value that is kept.
    fn each(&self, shape: &Shape, mut f: impl FnMut(usize, usize)) -> candle_core::Result<()> {
        let (batch, c, rows, cols) = shape.dims4()?;
        let (below, across) = (rows.div_ceil(self.stride), cols.div_ceil(self.stride));
        for plane in 0..batch * c {
            let to = (plane / c * self.channels + plane % c) * below * across;
            for y in 0..below {
                let from = (plane * rows + y * self.stride) * cols;
                (0..across).for_each(|x| f(from + x * self.stride, to + y * across + x));
            }
        }
        Ok(())
    }
}

impl CustomOp1 for Shortcut {
    fn name(&self) -> &'static str {
        "shortcut"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = values(storage, layout)?;
        let (batch, _, rows, cols) = layout.shape().dims4()?;
        let stride = self.stride;
        let shape =
            Shape::from((batch, self.channels, rows.div_ceil(stride), cols.div_ceil(stride)));
        let mut out = vec![0.0; shape.elem_count()];
        self.each(layout.shape(), |from, to| out[to] = x[from])?;
        Ok((CpuStorage::F32(out), shape))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let grad = Host::of(&grad);
        let grad = grad.values()?;
        let mut dx = vec![0.0; x.elem_count()];
        self.each(x.shape(), |from, to| dx[from] = grad[to])?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{check_layer, gradients, no_params, random_tensor};

    /// The shape of the input, the channels of the output, the stride.
    const CASES: [([usize; 4], usize, usize); 6] = [
        ([2, 2, 4, 6], 4, 2),
        ([1, 3, 5, 7], 6, 2),
        ([2, 2, 3, 3], 2, 1),
        ([1, 1, 7, 4], 3, 3),
        ([1, 2, 1, 1], 4, 2),
        ([0, 2, 4, 4], 4, 2),
    ];

    #[test]
    fn the_gradient_equals_finite_differences_in_both_forms() {
        for (shape, channels, stride) in &CASES[..5] {
            check_layer(&no_params(), shape, 1, |x| shortcut(x, *channels, *stride));
            check_layer(&no_params(), shape, 1, |x| Ok(composed(x, *channels, *stride)?));
        }
    }

    #[test]
    fn both_forms_agree_to_the_bit() {
        for (shape, channels, stride) in CASES {
            let x = random_tensor(&shape, 3);
            let own = gradients(&no_params(), &x, |x| shortcut(x, channels, stride));
            let other = gradients(&no_params(), &x, |x| Ok(composed(x, channels, stride)?));
            assert_eq!(own, other, "{shape:?}");
        }
    }

    #[test]
    fn every_second_row_and_column_is_kept_and_zeros_follow() {
        let x = Tensor::arange(0f32, 6.0, &candle_core::Device::Cpu).unwrap();
        let y = shortcut(&x.reshape((1, 1, 2, 3)).unwrap(), 2, 2).unwrap();
        assert_eq!(y.dims(), [1, 2, 1, 2]);
        assert_eq!(y.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [0.0, 2.0, 0.0, 0.0]);
    }

    #[test]
    fn a_shape_that_does_not_fit_is_refused_in_words() {
        let x = random_tensor(&[1, 3, 2, 2], 1);
        let message = shortcut(&x, 2, 2).unwrap_err().to_string();
        assert_eq!(message, "shortcut: stride 2 from [1, 3, 2, 2] to 2 channels");
        assert!(shortcut(&x, 3, 0).is_err());
    }
}

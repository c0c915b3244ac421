//! Convolution, bias, ReLU and max-pooling as one operation.
//!
//! The full-size convolution of one image never leaves the cache: only the pooled values and one byte
//! per window (where the maximum was, or that ReLU cut it) are kept for the backward pass. In LeNet's
//! first layer that is 864 values an image, where separate operations write 3,456 twice.
//!
//! Bias and ReLU come after the maximum: both are monotone, so the result is the same, for a quarter
//! of the work.

use super::conv::{Conv2d, backward_images, forward_images, store_zeros};
use super::direct;
use super::host::{Host, values};
use super::im2col::Geometry;
use super::params::{Param, ParamBuilder};
use super::pool::{self, DEAD, MAX_WINDOW, Plane, alive_sum};
use super::relu;
use super::sparse;
use crate::config;
use crate::error::{Error, Result};
use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor};
use std::sync::OnceLock;

/// A layer `max_pool2d(relu(conv2d(x)), window)`; parameters as [`Conv2d`].
#[derive(Clone)]
pub struct ConvReluPool {
    conv: Conv2d,
    bias: Param,
    window: usize,
}

impl ConvReluPool {
    /// A layer of `c_out` filters of `kernel × kernel` over `c_in` channels, without padding, pooled
    /// over `window × window` blocks.
    ///
    /// # Errors
    /// When the window is not 1–15, or the device has no memory.
    pub fn new(
        params: &ParamBuilder,
        c_in: usize,
        c_out: usize,
        kernel: usize,
        window: usize,
        init: config::Init,
    ) -> Result<ConvReluPool> {
        if !(1..=MAX_WINDOW).contains(&window) {
            return Err(Error::Internal(format!("max-pool: window {window}, expected 1 to 15")));
        }
        let conv = Conv2d::new(params, c_in, c_out, kernel, 0, init)?;
        match conv.bias.clone() {
            Some(bias) => Ok(ConvReluPool { conv, bias, window }),
            None => Err(Error::Internal("a new convolution has no bias".to_owned())),
        }
    }

    /// From (batch, c_in, rows, cols), `f32`, to (batch, c_out, ⌊rows'/window⌋, ⌊cols'/window⌋) with
    /// rows' = rows − kernel + 1.
    ///
    /// # Errors
    /// When `x` has another shape or type.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let geometry = self.conv.geometry(x)?;
        if geometry.out_rows() < self.window || geometry.out_cols() < self.window {
            return Err(Error::Internal(format!(
                "{}: {:?} is too small for one pooling window of {}",
                self.conv.weight.layer(),
                x.dims(),
                self.window
            )));
        }
        if !x.device().is_cpu() {
            return Ok(self.composed(x)?);
        }
        let op = BlockOp { block: self.clone(), geometry, argmax: OnceLock::new() };
        let (weight, bias) = (self.conv.weight.tensor(), self.bias.tensor());
        Ok(x.contiguous()?.apply_op3(weight, bias, op)?)
    }

    /// The same of Candle's operations.
    fn composed(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        relu::composed(&pool::composed(&self.conv.composed(x)?, self.window)?)
    }
}

struct BlockOp {
    block: ConvReluPool,
    geometry: Geometry,
    argmax: OnceLock<Vec<u8>>,
}

impl BlockOp {
    fn plane(&self) -> Plane {
        let (rows, cols) = (self.geometry.out_rows(), self.geometry.out_cols());
        Plane { rows, cols, window: self.block.window }
    }

    /// The backward pass by [`sparse`].
    fn sparse_backward(
        &self,
        x: &Tensor,
        grad: &[f32],
        argmax: &[u8],
    ) -> candle_core::Result<Option<Tensor>> {
        let (conv, g) = (&self.block.conv, self.geometry);
        let mut bias = vec![0.0; conv.c_out()];
        let mut dx = x.track_op().then(|| vec![0.0; x.elem_count()]);
        let (images, weight) = (Host::of(x), Host::of(conv.weight.tensor()));
        let (images, weight) = (images.values()?, weight.values()?);
        conv.weight.write_whole_grad(|slot, how| {
            if images.is_empty() {
                return store_zeros(slot, how);
            }
            let (x, bias, dx) = (images, &mut bias[..], dx.as_deref_mut());
            sparse::backward(sparse::Backward { g, x, weight, grad, argmax, slot, how, bias, dx });
        })?;
        self.block.bias.put_grad(&bias)?;
        dx.map(|dx| Tensor::from_vec(dx, x.shape(), x.device())).transpose()
    }
}

impl CustomOp3 for BlockOp {
    fn name(&self) -> &'static str {
        "conv2d-bias-relu-pool"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (g, plane, bias) = (&self.geometry, self.plane(), values(bias, bias_layout)?);
        let (batch, c_out, pooled) = (x_layout.shape().dims()[0], bias.len(), plane.pooled());
        let mut out = vec![0.0; batch * c_out * pooled];
        let mut argmax = vec![0; out.len()];
        let (x, weight) = (values(x, x_layout)?, values(weight, weight_layout)?);
        if direct::fits(g, c_out, plane.window) {
            let (out, argmax) = (&mut out, &mut argmax);
            direct::forward(direct::Forward { g: *g, x, weight, bias, out, argmax });
        } else {
            forward_images(g, x, weight, c_out, |i, product| {
                let image = i * c_out * pooled..(i + 1) * c_out * pooled;
                for (((product, &bias), out), argmax) in product
                    .chunks_exact(g.positions())
                    .zip(bias)
                    .zip(out[image.clone()].chunks_exact_mut(pooled))
                    .zip(argmax[image].chunks_exact_mut(pooled))
                {
                    plane.pool(product, out, argmax);
                    add_bias_and_cut(out, argmax, bias);
                }
            });
        }
        // The op is applied once, so the cell is empty.
        let _ = self.argmax.set(argmax);
        let shape = (batch, c_out, plane.rows / plane.window, plane.cols / plane.window);
        Ok((CpuStorage::F32(out), shape.into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        _weight: &Tensor,
        _bias: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let grad = Host::of(&grad);
        let grad = grad.values()?;
        let argmax = self.argmax.get().map_or(&[][..], Vec::as_slice);
        let (plane, positions) = (self.plane(), self.geometry.positions());
        let pooled = plane.pooled();
        if direct::fits(&self.geometry, self.block.conv.c_out(), plane.window) {
            return Ok((self.sparse_backward(x, grad, argmax)?, None, None));
        }
        let dx = backward_images(&self.block.conv, &self.geometry, x, |i, product, bias| {
            let first = i * bias.len() * pooled;
            let grads = grad[first..].chunks_exact(pooled);
            let argmax = argmax[first..].chunks_exact(pooled);
            let planes = product.chunks_exact_mut(positions);
            for (((product, bias), grad), argmax) in planes.zip(bias).zip(grads).zip(argmax) {
                plane.unpool(grad, argmax, product);
                *bias += alive_sum(grad, argmax);
            }
        })?;
        Ok((dx, None, None))
    }
}

/// `out + bias`, and where that is not positive 0 and [`DEAD`].
fn add_bias_and_cut(out: &mut [f32], argmax: &mut [u8], bias: f32) {
    for (out, argmax) in out.iter_mut().zip(argmax) {
        let v = *out + bias;
        let dead = v <= 0.0;
        *out = if dead { 0.0 } else { v };
        *argmax = if dead { DEAD } else { *argmax };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{assert_agree, check_layer, gradients, params_of, random_tensor};
    use crate::nn::{ParamBuilder, ParamSet, max_pool2d};

    /// Batch, c_in, rows, cols, c_out, kernel, window. The last eight fill the kernels for few channels in all their ways: one, two and three vectors
    /// of output channels, an odd number of windows, runs of weights from one to five vectors.
    const CASES: [[usize; 7]; 15] = [
        [2, 1, 8, 8, 3, 5, 2],
        [1, 3, 7, 8, 2, 3, 2],
        [3, 2, 6, 7, 4, 2, 2],
        [2, 2, 9, 8, 3, 2, 3],
        [1, 2, 12, 12, 3, 5, 2],
        [1, 2, 5, 5, 2, 3, 1],
        [2, 3, 3, 3, 2, 2, 2],
        [2, 6, 8, 8, 16, 5, 2],
        [1, 3, 8, 9, 17, 3, 2],
        [1, 1, 9, 15, 9, 5, 2],
        [1, 4, 6, 6, 2, 5, 2],
        [1, 7, 6, 8, 2, 5, 2],
        [1, 5, 6, 6, 3, 3, 2],
        [1, 7, 5, 5, 2, 3, 2],
        [1, 64, 4, 4, 8, 3, 2],
    ];

    fn layer([_, c_in, _, _, c_out, kernel, window]: [usize; 7]) -> (ParamSet, ConvReluPool) {
        let init = config::Init::He;
        params_of(|b: &ParamBuilder| {
            ConvReluPool::new(&b.pp("c"), c_in, c_out, kernel, window, init)
        })
    }

    #[test]
    fn gradients_equal_finite_differences_in_both_forms() {
        for case in CASES {
            let (set, block) = layer(case);
            check_layer(&set, &case[..4], 1, |x| block.forward(x));
            check_layer(&set, &case[..4], 1, |x| Ok(block.composed(x)?));
        }
    }

    #[test]
    fn fused_composed_and_separate_layers_agree() {
        for case in CASES {
            let (set, block) = layer(case);
            let x = random_tensor(&case[..4], 7);
            let fused = gradients(&set, &x, |x| block.forward(x));
            assert_agree(fused.clone(), gradients(&set, &x, |x| Ok(block.composed(x)?)));
            let separate = gradients(&set, &x, |x| {
                max_pool2d(&relu::relu(&block.conv.forward(x)?)?, block.window)
            });
            assert_agree(fused, separate);
        }
    }

    #[test]
    fn an_empty_batch_gives_an_empty_result_and_zero_gradients() {
        let (set, block) = layer([0, 2, 6, 6, 3, 3, 2]);
        let x = random_tensor(&[0, 2, 6, 6], 1);
        assert_eq!(block.forward(&x).unwrap().dims(), [0, 3, 2, 2]);
        assert_eq!(block.composed(&x).unwrap().dims(), [0, 3, 2, 2]);
        let (fused, _) = gradients(&set, &x, |x| block.forward(x));
        assert!(fused.iter().flatten().all(|&g| g == 0.0));
    }

    #[test]
    fn a_nan_weight_is_not_hidden_by_the_relu() {
        let (set, block) = layer(CASES[0]);
        for param in &set {
            param.update(|values| values.fill(f32::NAN)).unwrap();
        }
        let y = block.forward(&random_tensor(&CASES[0][..4], 1)).unwrap();
        assert!(y.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|v| v.is_nan()));
    }

    #[test]
    fn a_wrong_shape_is_refused_in_words() {
        let (_, block) = layer(CASES[0]);
        let message = block.forward(&random_tensor(&[2, 1, 5, 8], 1)).unwrap_err().to_string();
        assert!(message.contains("c: [2, 1, 5, 8] is too small"), "{message}");
        assert!(block.forward(&random_tensor(&[2, 2, 8, 8], 1)).is_err());
    }
}

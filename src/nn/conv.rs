//! Two-dimensional convolution with stride 1 and bias, as `torch.nn.functional.conv2d`.
//!
//! Image by image: unroll ([`im2col`]), multiply. The weight gradient of each image is added by the
//! matrix product itself, straight into the gradient bucket; the input gradient is computed only if
//! something below needs it. (Candle's own backward pass always computes it: 11.7 of 41 ms of a LeNet
//! step for the gradient of the pixels.)

use super::gemm::{Mat, matmul};
use super::grads::Write;
use super::hook::tracked;
use super::host::{Host, store, sum, values};
use super::im2col::{Geometry, col2im, im2col};
use super::params::{Init, Param, ParamBuilder};
use crate::config;
use crate::error::{Error, Result};
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Shape, Tensor};

/// A convolution layer: `weight` (c_out, c_in, k, k) and `bias` (c_out), PyTorch's layouts.
#[derive(Clone)]
pub struct Conv2d {
    pub(super) weight: Param,
    pub(super) bias: Param,
    padding: usize,
}

impl Conv2d {
    /// A layer of `c_out` filters of `kernel × kernel` over `c_in` channels, with `padding` zeros on
    /// every side of the image.
    ///
    /// # Errors
    /// When the device has no memory.
    pub fn new(
        params: &ParamBuilder,
        c_in: usize,
        c_out: usize,
        kernel: usize,
        padding: usize,
        init: config::Init,
    ) -> Result<Conv2d> {
        let area = kernel * kernel;
        let init = Init::weights(init, c_in * area, c_out * area);
        let weight = params.param("weight", (c_out, c_in, kernel, kernel), init)?;
        let bias = params.param("bias", c_out, Init::Zeros)?;
        Ok(Conv2d { weight, bias, padding })
    }

    /// The convolution of `x` (batch, c_in, rows, cols), `f32`: (batch, c_out, rows', cols') with
    /// rows' = rows + 2·padding − kernel + 1.
    ///
    /// # Errors
    /// When `x` has another shape or type.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let geometry = self.geometry(x)?;
        if !x.device().is_cpu() {
            return Ok(self.composed(x)?);
        }
        let op = ConvOp { conv: self.clone(), geometry };
        Ok(x.contiguous()?.apply_op3(self.weight.tensor(), self.bias.tensor(), op)?)
    }

    /// The same of Candle's operations.
    pub(super) fn composed(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let c_out = self.c_out();
        if x.dim(0)? == 0 {
            let (rows, cols) = (x.dim(2)? + 2 * self.padding, x.dim(3)? + 2 * self.padding);
            let less = self.kernel() - 1;
            let shape = (0, c_out, rows - less, cols - less);
            return Tensor::zeros(shape, x.dtype(), x.device());
        }
        let bias = tracked(&self.bias)?.reshape((1, c_out, 1, 1))?;
        x.conv2d(&tracked(&self.weight)?, self.padding, 1, 1, 1)?.broadcast_add(&bias)
    }

    /// Checks `x` and gives the sizes of one image.
    pub(super) fn geometry(&self, x: &Tensor) -> Result<Geometry> {
        let (c_in, kernel) = (self.weight.tensor().dims()[1], self.kernel());
        let least = kernel.saturating_sub(2 * self.padding);
        match *x.dims() {
            [_, channels, rows, cols]
                if channels == c_in
                    && rows >= least
                    && cols >= least
                    && x.dtype() == DType::F32 =>
            {
                Ok(Geometry { channels, rows, cols, kernel, padding: self.padding })
            }
            _ => Err(Error::Internal(format!(
                "{}: expected f32 (batch, {c_in}, at least {least}, at least {least}), got {:?} {:?}",
                self.weight.layer(),
                x.dtype(),
                x.dims()
            ))),
        }
    }

    /// Number of filters.
    pub(super) fn c_out(&self) -> usize {
        self.weight.tensor().dims()[0]
    }

    fn kernel(&self) -> usize {
        self.weight.tensor().dims()[2]
    }
}

/// Lets `emit` have the product weight · columns (c_out × positions, without bias) of each image.
pub(super) fn forward_images(
    g: &Geometry,
    x: &[f32],
    weight: &[f32],
    c_out: usize,
    mut emit: impl FnMut(usize, &[f32]),
) {
    let (patch, positions) = (g.patch(), g.positions());
    let mut columns = vec![0.0; patch * positions];
    let mut product = vec![0.0; c_out * positions];
    for (i, image) in x.chunks_exact(g.image()).enumerate() {
        im2col(g, image, &mut columns);
        let (w, c) = (Mat::new(weight, c_out, patch), Mat::new(&columns, patch, positions));
        matmul(&mut product, w, c, Write::Set);
        emit(i, &product);
    }
}

/// The backward pass: gradients of weight and bias go to their slots, that of `x` is returned if
/// needed. `grad_of(i, product, bias)` writes the gradient of what [`forward_images`] emitted for
/// image `i` to `product` and adds its sum over positions to `bias`.
pub(super) fn backward_images(
    conv: &Conv2d,
    g: &Geometry,
    x: &Tensor,
    mut grad_of: impl FnMut(usize, &mut [f32], &mut [f32]),
) -> candle_core::Result<Option<Tensor>> {
    let (patch, positions, c_out) = (g.patch(), g.positions(), conv.c_out());
    let mut columns = vec![0.0; patch * positions];
    let mut product = vec![0.0; c_out * positions];
    let mut bias = vec![0.0; c_out];
    let mut dx = if x.track_op() { Some(vec![0.0; x.elem_count()]) } else { None };
    let (images, weight) = (Host::of(x), Host::of(conv.weight.tensor()));
    let (images, weight) = (images.values()?, Mat::new(weight.values()?, c_out, patch));
    conv.weight.write_grad(|slot, mut how| {
        if images.is_empty() {
            return store_zeros(slot, how);
        }
        for (i, image) in images.chunks_exact(g.image()).enumerate() {
            grad_of(i, &mut product, &mut bias);
            im2col(g, image, &mut columns);
            let grad = Mat::new(&product, c_out, positions);
            matmul(slot, grad, Mat::new(&columns, patch, positions).t(), how);
            how = Write::Add;
            if let Some(dx) = &mut dx {
                matmul(&mut columns, weight.t(), grad, Write::Set);
                col2im(g, &columns, &mut dx[i * g.image()..][..g.image()]);
            }
        }
    })?;
    // After the weight's slot is released: both may lie in one bucket, behind one lock.
    conv.bias.write_grad(|slot, how| store(slot, &bias, how))?;
    dx.map(|dx| Tensor::from_vec(dx, x.shape(), x.device())).transpose()
}

/// The gradient of an empty batch.
pub(super) fn store_zeros(slot: &mut [f32], how: Write) {
    if how == Write::Set {
        slot.fill(0.0);
    }
}

struct ConvOp {
    conv: Conv2d,
    geometry: Geometry,
}

impl CustomOp3 for ConvOp {
    fn name(&self) -> &'static str {
        "conv2d-bias"
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
        let (g, bias) = (&self.geometry, values(bias, bias_layout)?);
        let (batch, c_out) = (x_layout.shape().dims()[0], bias.len());
        let mut out = Vec::with_capacity(batch * c_out * g.positions());
        let (x, weight) = (values(x, x_layout)?, values(weight, weight_layout)?);
        forward_images(g, x, weight, c_out, |_, product| {
            for (row, b) in product.chunks_exact(g.positions()).zip(bias) {
                out.extend(row.iter().map(|v| v + b));
            }
        });
        Ok((CpuStorage::F32(out), (batch, c_out, g.out_rows(), g.out_cols()).into()))
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
        let positions = self.geometry.positions();
        let dx = backward_images(&self.conv, &self.geometry, x, |i, product, bias| {
            product.copy_from_slice(&grad[i * product.len()..][..product.len()]);
            for (row, b) in product.chunks_exact(positions).zip(bias) {
                *b += sum(row);
            }
        })?;
        Ok((dx, None, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{assert_agree, check_layer, gradients, params_of, random_tensor};
    use crate::nn::{ParamBuilder, ParamSet};

    /// Batch, c_in, rows, cols, c_out, kernel, padding.
    const CASES: [[usize; 7]; 6] = [
        [2, 1, 6, 6, 3, 5, 0],
        [1, 3, 5, 7, 2, 3, 0],
        [3, 2, 4, 5, 4, 1, 0],
        [2, 2, 5, 4, 3, 3, 1],
        [1, 2, 12, 12, 3, 5, 0],
        [1, 1, 3, 3, 1, 5, 2],
    ];

    fn layer([_, c_in, _, _, c_out, kernel, padding]: [usize; 7]) -> (ParamSet, Conv2d) {
        let init = config::Init::He;
        params_of(|b: &ParamBuilder| Conv2d::new(&b.pp("c"), c_in, c_out, kernel, padding, init))
    }

    #[test]
    fn gradients_equal_finite_differences_in_both_forms() {
        for case in CASES {
            let (set, conv) = layer(case);
            check_layer(&set, &case[..4], 1, |x| conv.forward(x));
            check_layer(&set, &case[..4], 1, |x| Ok(conv.composed(x)?));
        }
    }

    #[test]
    fn both_forms_agree() {
        for case in CASES {
            let (set, conv) = layer(case);
            let x = random_tensor(&case[..4], 7);
            let own = gradients(&set, &x, |x| conv.forward(x));
            assert_agree(own, gradients(&set, &x, |x| Ok(conv.composed(x)?)));
        }
    }

    #[test]
    fn an_empty_batch_gives_an_empty_result_and_zero_gradients() {
        let (set, conv) = layer([0, 2, 6, 6, 3, 3, 0]);
        let x = random_tensor(&[0, 2, 6, 6], 1);
        assert_eq!(conv.forward(&x).unwrap().dims(), [0, 3, 4, 4]);
        let (own, _) = gradients(&set, &x, |x| conv.forward(x));
        let (composed, _) = gradients(&set, &x, |x| Ok(conv.composed(x)?));
        assert!(own.iter().chain(&composed).flatten().all(|&g| g == 0.0));
    }

    #[test]
    fn an_untracked_input_gets_no_gradient_and_the_weights_get_the_same() {
        let (set, conv) = layer(CASES[1]);
        let x = random_tensor(&CASES[1][..4], 3);
        let (tracked, _) = gradients(&set, &x, |x| conv.forward(x));
        let (untracked, _) = gradients(&set, &x, |x| conv.forward(&x.detach()));
        assert_eq!(tracked[1..], untracked[1..]);
        assert!(untracked[0].iter().all(|&g| g == 0.0));
    }

    #[test]
    fn a_wrong_shape_is_refused_in_words() {
        let (_, conv) = layer(CASES[0]);
        let message = conv.forward(&random_tensor(&[2, 3, 6, 6], 1)).unwrap_err().to_string();
        assert_eq!(
            message,
            "c: expected f32 (batch, 1, at least 5, at least 5), got F32 [2, 3, 6, 6]"
        );
        assert!(conv.forward(&random_tensor(&[2, 1, 4, 6], 1)).is_err());
    }
}

//! Two-dimensional convolution, as `torch.nn.functional.conv2d`.
//!
//! Image by image: unroll ([`im2col`]), multiply. The weight gradient of each image is added by the
//! matrix product itself, straight into the gradient bucket; the input gradient is computed only if
//! something below needs it. (Candle's own backward pass always computes it: 11.7 of 41 ms of a LeNet
//! step for the gradient of the pixels.)

use super::gemm::{Mat, matmul};
use super::grads::Write;
use super::hook::tracked;
use super::host::{Host, sum, values};
use super::im2col::{Geometry, col2im, im2col};
use super::params::{Init, Param, ParamBuilder};
use super::shortcut;
use crate::config;
use crate::error::{Error, Result};
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Shape, Tensor};

/// A convolution layer: `weight` (c_out, c_in, k, k) and `bias` (c_out) if it has one, PyTorch's layouts.
#[derive(Clone)]
pub struct Conv2d {
    pub(super) weight: Param,
    pub(super) bias: Option<Param>,
    padding: usize,
    stride: usize,
}

impl Conv2d {
    /// A layer of `c_out` filters of `kernel × kernel` over `c_in` channels, with bias, stride 1 and
    /// `padding` zeros on every side of the image.
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
        let layer = Conv2d::without_bias(params, [c_in, c_out], kernel, 1, padding, init)?;
        Ok(Conv2d { bias: Some(params.param("bias", c_out, Init::Zeros)?), ..layer })
    }

    /// The same without bias, for `channels` (c_in, c_out), of which every `stride`-th position in both
    /// directions is computed.
    ///
    /// # Errors
    /// When `stride` is 0, or the device has no memory.
    pub fn without_bias(
        params: &ParamBuilder,
        channels: [usize; 2],
        kernel: usize,
        stride: usize,
        padding: usize,
        init: config::Init,
    ) -> Result<Conv2d> {
        if stride == 0 {
            return Err(Error::Internal("convolution: stride 0, expected at least 1".to_owned()));
        }
        let ([c_in, c_out], area) = (channels, kernel * kernel);
        let init = Init::weights(init, c_in * area, c_out * area);
        let weight = params.param("weight", (c_out, c_in, kernel, kernel), init)?;
        Ok(Conv2d { weight, bias: None, padding, stride })
    }

    /// The convolution of `x` (batch, c_in, rows, cols), `f32`: (batch, c_out, rows', cols') with
    /// rows' = ⌊(rows + 2·padding − kernel) / stride⌋ + 1.
    ///
    /// # Errors
    /// When `x` has another shape or type.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let geometry = self.geometry(x)?;
        if !x.device().is_cpu() {
            return Ok(self.composed(x)?);
        }
        let op = ConvOp { conv: self.clone(), geometry };
        Ok(x.contiguous()?.apply_op2(self.weight.tensor(), op)?)
    }

    /// The same of Candle's operations.
    pub(super) fn composed(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (c_out, stride) = (self.c_out(), self.stride);
        let moves = |n: usize| n + 2 * self.padding - self.kernel();
        let (down, right) = (moves(x.dim(2)?), moves(x.dim(3)?));
        if x.dim(0)? == 0 {
            let shape = (0, c_out, down / stride + 1, right / stride + 1);
            return Tensor::zeros(shape, x.dtype(), x.device());
        }
        let weight = tracked(&self.weight)?;
        let y = if down % stride == right % stride {
            x.conv2d(&weight, self.padding, stride, 1, 1)?
        } else {
            // Candle's backward pass takes what is left over in the columns to be that of the rows.
            shortcut::composed(&x.conv2d(&weight, self.padding, 1, 1, 1)?, c_out, stride)?
        };
        match &self.bias {
            Some(bias) => y.broadcast_add(&tracked(bias)?.reshape((1, c_out, 1, 1))?),
            None => Ok(y),
        }
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
                let (padding, stride) = (self.padding, self.stride);
                Ok(Geometry { channels, rows, cols, kernel, padding, stride })
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
    if let Some(param) = &conv.bias {
        param.put_grad(&bias)?;
    }
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

impl CustomOp2 for ConvOp {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (g, c_out) = (&self.geometry, self.conv.c_out());
        let bias = self.conv.bias.as_ref().map(|bias| Host::of(bias.tensor()));
        let bias = bias.as_ref().map(Host::values).transpose()?;
        let batch = x_layout.shape().dims()[0];
        let mut out = Vec::with_capacity(batch * c_out * g.positions());
        let (x, weight) = (values(x, x_layout)?, values(weight, weight_layout)?);
        forward_images(g, x, weight, c_out, |_, product| {
            let Some(bias) = bias else { return out.extend_from_slice(product) };
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
        _y: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let grad = Host::of(&grad);
        let grad = grad.values()?;
        let (positions, has_bias) = (self.geometry.positions(), self.conv.bias.is_some());
        let dx = backward_images(&self.conv, &self.geometry, x, |i, product, bias| {
            product.copy_from_slice(&grad[i * product.len()..][..product.len()]);
            if has_bias {
                for (row, b) in product.chunks_exact(positions).zip(bias) {
                    *b += sum(row);
                }
            }
        })?;
        Ok((dx, None))
    }
}

#[cfg(test)]
#[path = "conv_tests.rs"]
mod tests;

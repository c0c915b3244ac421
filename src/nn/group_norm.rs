//! Group normalisation of images (Wu and He, 2018), as `torch.nn.GroupNorm`, with what often follows it:
//! the addition of a shortcut and ReLU.
//!
//! Mean and variance are those of a group of channels of one sample, so a sample's result depends neither
//! on its batch nor on the number of ranks.

use super::groups::{Plan, backward, normalise};
use super::hook::tracked;
use super::host::Host;
use super::params::{Init, Param, ParamBuilder};
use super::recycle::Buffer;
use super::relu;
use crate::error::{Error, Result};
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Shape, Tensor};
use std::sync::OnceLock;

/// (x − mean) / √(variance + eps) · weight + bias; `weight` and `bias` (channels), mean and variance over
/// each of `groups` groups of neighbouring channels of each sample.
#[derive(Clone)]
pub struct GroupNorm {
    weight: Param,
    bias: Param,
    groups: usize,
    eps: f32,
}

impl GroupNorm {
    /// A layer for images of `channels` channels; weight 1, bias 0. PyTorch's `eps` is 1e-5.
    ///
    /// # Errors
    /// When the groups do not divide the channels, or the device has no memory.
    pub fn new(
        params: &ParamBuilder,
        groups: usize,
        channels: usize,
        eps: f32,
    ) -> Result<GroupNorm> {
        if groups == 0 || channels == 0 || !channels.is_multiple_of(groups) {
            return Err(Error::Internal(format!(
                "group norm: {channels} channels in {groups} groups of one size"
            )));
        }
        let weight = params.param("weight", channels, Init::Zeros)?;
        weight.update(|values| values.fill(1.0))?;
        let bias = params.param("bias", channels, Init::Zeros)?;
        Ok(GroupNorm { weight, bias, groups, eps })
    }

    /// `x` (batch, channels, rows, columns), `f32`, normalised.
    ///
    /// # Errors
    /// When `x` has another shape or type.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.apply(x, false)
    }

    /// max(0, normalised `x`), see [`super::relu()`].
    ///
    /// # Errors
    /// As [`GroupNorm::forward`].
    pub fn forward_relu(&self, x: &Tensor) -> Result<Tensor> {
        self.apply(x, true)
    }

    /// max(0, normalised `x` + `shortcut`), the end of a residual block.
    ///
    /// # Errors
    /// As [`GroupNorm::forward`], and when `shortcut` has another shape than `x`.
    pub fn forward_add_relu(&self, x: &Tensor, shortcut: &Tensor) -> Result<Tensor> {
        self.check(x)?;
        if shortcut.shape() != x.shape() || shortcut.dtype() != DType::F32 {
            return Err(Error::Internal(format!(
                "{}: a shortcut {:?} {:?} to {:?}",
                self.weight.layer(),
                shortcut.dtype(),
                shortcut.dims(),
                x.dims()
            )));
        }
        if !x.device().is_cpu() {
            return Ok(relu::composed(&(self.composed(x)? + shortcut)?)?);
        }
        let (x, shortcut) = (x.contiguous()?, shortcut.contiguous()?);
        Ok(x.apply_op3(self.weight.tensor(), &shortcut, self.op(true))?)
    }

    fn apply(&self, x: &Tensor, relu: bool) -> Result<Tensor> {
        self.check(x)?;
        if x.device().is_cpu() {
            return Ok(x.contiguous()?.apply_op2(self.weight.tensor(), self.op(relu))?);
        }
        let y = self.composed(x)?;
        Ok(if relu { relu::composed(&y)? } else { y })
    }

    fn op(&self, relu: bool) -> GroupNormOp {
        GroupNormOp { layer: self.clone(), relu, stats: OnceLock::new() }
    }

    fn check(&self, x: &Tensor) -> Result<()> {
        let channels = self.channels();
        match x.dims() {
            [_, c, _, _] if *c == channels && x.dtype() == DType::F32 => Ok(()),
            dims => Err(Error::Internal(format!(
                "{}: expected f32 (batch, {channels}, rows, columns), got {:?} {dims:?}",
                self.weight.layer(),
                x.dtype()
            ))),
        }
    }

    /// [`GroupNorm::forward`] of Candle's operations.
    fn composed(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        if x.elem_count() == 0 {
            return x.zeros_like();
        }
        let rows = x.contiguous()?.reshape((x.dim(0)?, self.groups, ()))?;
        let centred = rows.broadcast_sub(&rows.mean_keepdim(2)?)?;
        let variance = centred.sqr()?.mean_keepdim(2)?;
        let normal = centred.broadcast_div(&(variance + f64::from(self.eps))?.sqrt()?)?;
        let shape = (1, self.channels(), 1, 1);
        let (weight, bias) = (tracked(&self.weight)?, tracked(&self.bias)?);
        normal
            .reshape(x.shape())?
            .broadcast_mul(&weight.reshape(shape)?)?
            .broadcast_add(&bias.reshape(shape)?)
    }

    fn channels(&self) -> usize {
        self.weight.tensor().elem_count()
    }
}

struct GroupNormOp {
    layer: GroupNorm,
    relu: bool,
    stats: OnceLock<Buffer>,
}

impl GroupNormOp {
    /// Lets `f` use the parameters.
    fn with_plan<R>(&self, shape: &Shape, f: impl FnOnce(&Plan) -> R) -> candle_core::Result<R> {
        let (_, _, rows, cols) = shape.dims4()?;
        let (weight, bias) = (&self.layer.weight, &self.layer.bias);
        let (weight, bias) = (Host::of(weight.tensor()), Host::of(bias.tensor()));
        let (weight, bias) = (weight.values()?, bias.values()?);
        let (groups, eps) = (self.layer.groups, self.layer.eps);
        let plane = (rows * cols).max(1);
        Ok(f(&Plan { weight, bias, groups, plane, eps, relu: self.relu }))
    }

    fn fwd(
        &self,
        (x, layout): (&CpuStorage, &Layout),
        shortcut: Option<&[f32]>,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = super::host::values(x, layout)?;
        let mut out = vec![0.0; x.len()];
        let stats =
            self.with_plan(layout.shape(), |plan| normalise(plan, x, shortcut, &mut out))?;
        // The op is applied once, so the cell is empty.
        let _ = self.stats.set(stats);
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    /// The gradient behind the ReLU.
    fn behind_relu(&self, y: &Tensor, grad: &Tensor) -> candle_core::Result<Vec<f32>> {
        let grad = grad.contiguous()?;
        let grad = Host::of(&grad);
        match self.relu {
            true => Ok(relu::masked(Host::of(y).values()?, grad.values()?)),
            false => Ok(grad.values()?.to_vec()),
        }
    }

    /// Turns the gradient behind the ReLU, `dx`, into that of `x`; gives it if it is wanted.
    fn gradient(&self, x: &Tensor, mut dx: Vec<f32>) -> candle_core::Result<Option<Tensor>> {
        let stats = self.stats.get().map_or(&[][..], |stats| stats);
        let zeros = || vec![0.0; self.layer.channels()];
        let mut sums = [zeros(), zeros()];
        let values = Host::of(x);
        let values = values.values()?;
        self.with_plan(x.shape(), |plan| backward(plan, values, stats, &mut dx, &mut sums))?;
        self.layer.weight.put_grad(&sums[0])?;
        self.layer.bias.put_grad(&sums[1])?;
        x.track_op().then(|| Tensor::from_vec(dx, x.shape(), x.device())).transpose()
    }
}

impl CustomOp2 for GroupNormOp {
    fn name(&self) -> &'static str {
        "group-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        _weight: &CpuStorage,
        _weight_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.fwd((x, layout), None)
    }

    fn bwd(
        &self,
        x: &Tensor,
        _weight: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((self.gradient(x, self.behind_relu(y, grad)?)?, None))
    }
}

impl CustomOp3 for GroupNormOp {
    fn name(&self) -> &'static str {
        "group-norm-add-relu"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        _weight: &CpuStorage,
        _weight_layout: &Layout,
        shortcut: &CpuStorage,
        shortcut_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.fwd((x, layout), Some(super::host::values(shortcut, shortcut_layout)?))
    }

    fn bwd(
        &self,
        x: &Tensor,
        _weight: &Tensor,
        shortcut: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        // The shortcut's gradient is the one behind the ReLU as it is: only here it is needed twice.
        let before = self.behind_relu(y, grad)?;
        let dx = self.gradient(x, before.clone())?;
        let wanted = shortcut.track_op();
        let before = wanted.then(|| Tensor::from_vec(before, y.shape(), y.device())).transpose()?;
        Ok((dx, None, before))
    }
}

#[cfg(test)]
#[path = "group_norm_tests.rs"]
mod tests;

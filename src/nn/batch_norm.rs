//! Batch normalization of images, as `torch.nn.BatchNorm2d` (Ioffe and Szegedy, 2015).
//!
//! In training the statistics are those of the global batch: the sums of all ranks are joined in the
//! forward and in the backward pass, as in `torch.nn.SyncBatchNorm`. So results do not depend on how
//! many ranks share a batch, beyond rounding.

use super::across::{RankSum, across, total};
use super::channels::Images;
use super::grads::Write;
use super::hook::tracked;
use super::host::{Host, store, values};
use super::params::{Init, Param, ParamBuilder};
use crate::error::{Error, Result};
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Shape, Tensor};
use std::sync::{Arc, Mutex, PoisonError};

/// Added to variances, PyTorch's default.
const EPS: f32 = 1e-5;
/// The weight of a new batch in the running statistics, PyTorch's default.
const MOMENTUM: f64 = 0.1;

/// Averages over past batches, one value per channel. They are part of a model's state.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    /// Means.
    pub mean: Vec<f32>,
    /// Unbiased variances.
    pub var: Vec<f32>,
}

/// Batch normalization with a `weight` (1 at first) and a `bias` (0 at first) per channel.
///
/// Clones share parameters and running statistics.
#[derive(Clone)]
pub struct BatchNorm2d {
    weight: Param,
    bias: Param,
    running: Arc<Mutex<Running>>,
}

impl BatchNorm2d {
    /// A layer for images of `channels` channels.
    ///
    /// # Errors
    /// When the device has no memory.
    pub fn new(params: &ParamBuilder, channels: usize) -> Result<BatchNorm2d> {
        let weight = params.param("weight", channels, Init::Zeros)?;
        weight.update(|values| values.fill(1.0))?;
        let bias = params.param("bias", channels, Init::Zeros)?;
        let running = Running { mean: vec![0.0; channels], var: vec![1.0; channels] };
        Ok(BatchNorm2d { weight, bias, running: Arc::new(Mutex::new(running)) })
    }

    /// A copy of the running statistics.
    #[must_use]
    pub fn running(&self) -> Running {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the running statistics, as when a checkpoint is read.
    ///
    /// # Errors
    /// When there is not one mean and one variance per channel.
    pub fn set_running(&self, running: Running) -> Result<()> {
        let channels = self.channels();
        if running.mean.len() != channels || running.var.len() != channels {
            return Err(Error::Internal(format!(
                "{}: {} means and {} variances for {channels} channels",
                self.weight.layer(),
                running.mean.len(),
                running.var.len()
            )));
        }
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = running;
        Ok(())
    }

    /// `x` (batch, channels, rows, columns), `f32`, normalized per channel.
    ///
    /// In training (`train`) with the statistics of the batches of all ranks, which `sum` joins; then
    /// forward and backward passes must run in the same order on all ranks, and the running
    /// statistics learn. Else with the running statistics, and `sum` is not called.
    ///
    /// # Errors
    /// Those of `sum`; when `x` has another shape or type; in training when the global batch has fewer
    /// than two values per channel; and, not on the CPU, when this rank has none.
    pub fn forward(&self, x: &Tensor, train: bool, sum: &RankSum) -> Result<Tensor> {
        let channels = self.channels();
        match *x.dims() {
            [_, c, rows, cols] if c == channels && rows * cols > 0 && x.dtype() == DType::F32 => {}
            _ => {
                return Err(Error::Internal(format!(
                    "{}: expected f32 (batch, {channels}, rows, columns), got {:?} {:?}",
                    self.weight.layer(),
                    x.dtype(),
                    x.dims()
                )));
            }
        }
        if x.device().is_cpu() { self.fused(x, train, sum) } else { self.composed(x, train, sum) }
    }

    fn channels(&self) -> usize {
        self.bias.tensor().elem_count()
    }

    fn fused(&self, x: &Tensor, train: bool, sum: &RankSum) -> Result<Tensor> {
        let x = x.contiguous()?;
        let channels = self.channels();
        let op = if train {
            let mut sums = images(&x)?.moments(Host::of(&x).values()?);
            sums.push((x.elem_count() / channels) as f64);
            sum(&mut sums)?;
            let count = sums[2 * channels];
            self.check_count(count)?;
            let mean: Vec<f64> = sums[..channels].iter().map(|s| s / count).collect();
            let squares = sums[channels..2 * channels].iter().zip(&mean);
            // Rounding may leave a constant channel with a variance just below 0; NaN must stay.
            let clamp = |v: f64| if v < 0.0 { 0.0 } else { v };
            let var: Vec<f64> = squares.map(|(s, mean)| clamp(s / count - mean * mean)).collect();
            self.learn(count, &mean, &var);
            let [mean, var] = [mean, var].map(|v| v.iter().map(|&v| v as f32).collect());
            Normalize::new(self, Running { mean, var }, Some((sum.clone(), count)))
        } else {
            Normalize::new(self, self.running(), None)
        };
        Ok(x.apply_op3(self.weight.tensor(), self.bias.tensor(), op)?)
    }

    fn check_count(&self, count: f64) -> Result<()> {
        if count >= 2.0 {
            return Ok(());
        }
        Err(Error::Data(format!(
            "{}: batch normalization in training needs at least two values per channel, and the \
             global batch has {count}: use a larger batch",
            self.weight.layer()
        )))
    }

    /// Moves the running statistics towards those of a batch of `count` values per channel.
    fn learn(&self, count: f64, mean: &[f64], var: &[f64]) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let blend = |old: &mut f32, new: f64| {
            *old = (f64::from(*old) * (1.0 - MOMENTUM) + new * MOMENTUM) as f32;
        };
        running.mean.iter_mut().zip(mean).for_each(|(old, &new)| blend(old, new));
        let unbiased = count / (count - 1.0);
        running.var.iter_mut().zip(var).for_each(|(old, &new)| blend(old, new * unbiased));
    }

    /// The same of Candle's operations, and sums over ranks between them.
    fn composed(&self, x: &Tensor, train: bool, sum: &RankSum) -> Result<Tensor> {
        let channels = self.channels();
        let row = |t: &Tensor| t.reshape((1, channels, 1, 1));
        let (centered, var) = if train {
            if x.elem_count() == 0 {
                return Err(Error::Data(format!(
                    "{}: on this device each rank needs at least one sample of each batch: use a \
                     larger batch or fewer ranks",
                    self.weight.layer()
                )));
            }
            let mut count = [(x.elem_count() / channels) as f64];
            sum(&mut count)?;
            self.check_count(count[0])?;
            let mean = |t: &Tensor| across(&t.sum((0, 2, 3))?, sum)?.affine(1.0 / count[0], 0.0);
            let center = mean(x)?;
            let centered = x.broadcast_sub(&row(&center)?)?;
            let var = mean(&centered.sqr()?)?;
            let read = |t: &Tensor| t.to_dtype(DType::F64)?.to_vec1::<f64>();
            self.learn(count[0], &read(&center)?, &read(&var)?);
            (centered, var)
        } else {
            let running = self.running();
            let tensor = |v| Tensor::from_vec(v, channels, x.device());
            (x.broadcast_sub(&row(&tensor(running.mean)?)?)?, tensor(running.var)?)
        };
        let deviation = row(&var.affine(1.0, f64::from(EPS))?.sqrt()?)?;
        let y = centered.broadcast_div(&deviation)?;
        let y = y.broadcast_mul(&row(&tracked(&self.weight)?)?)?;
        Ok(y.broadcast_add(&row(&tracked(&self.bias)?)?)?)
    }
}

fn images(x: &Tensor) -> candle_core::Result<Images> {
    let (_, channels, rows, cols) = x.dims4()?;
    Ok(Images { channels, area: rows * cols })
}

struct Normalize {
    layer: BatchNorm2d,
    mean: Vec<f32>,
    /// 1/√(variance + EPS).
    inverse: Vec<f32>,
    /// In training: the sum over ranks, and the number of values per channel on all of them.
    batch: Option<(RankSum, f64)>,
}

impl Normalize {
    fn new(layer: &BatchNorm2d, by: Running, batch: Option<(RankSum, f64)>) -> Normalize {
        let inverse = by.var.iter().map(|v| 1.0 / (v + EPS).sqrt()).collect();
        Normalize { layer: layer.clone(), mean: by.mean, inverse, batch }
    }

    fn scale(&self, weight: &[f32]) -> Vec<f32> {
        weight.iter().zip(&self.inverse).map(|(w, i)| w * i).collect()
    }

    fn write_grads(&self, sums: &[f64]) -> candle_core::Result<()> {
        let (bias, weight) = sums.split_at(self.mean.len());
        let bias: Vec<f32> = bias.iter().map(|&b| b as f32).collect();
        let scaled = weight.iter().zip(&self.inverse).map(|(w, &i)| (w * f64::from(i)) as f32);
        let weight: Vec<f32> = scaled.collect();
        let put = |from: Vec<f32>| move |slot: &mut [f32], how: Write| store(slot, &from, how);
        self.layer.bias.write_grad(put(bias))?;
        self.layer.weight.write_grad(put(weight))
    }
}

impl CustomOp3 for Normalize {
    fn name(&self) -> &'static str {
        "batch-norm"
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
        let (_, channels, rows, cols) = x_layout.shape().dims4()?;
        let images = Images { channels, area: rows * cols };
        let scale = self.scale(values(weight, weight_layout)?);
        let (x, bias) = (values(x, x_layout)?, values(bias, bias_layout)?);
        let out = images.scaled(x, &self.mean, &scale, bias);
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }

    /// dx = scale · (dy − mean(dy) − x̂ · mean(dy · x̂)), the means over the global batch; with running
    /// statistics, which do not depend on x, dx = scale · dy.
    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (images, grad) = (images(x)?, grad.contiguous()?);
        let (x_host, grad) = (Host::of(x), Host::of(&grad));
        let (values, g) = (x_host.values()?, grad.values()?);
        let mut sums = images.products(g, values, &self.mean);
        self.write_grads(&sums)?;
        if !x.track_op() {
            return Ok((None, None, None));
        }
        match &self.batch {
            Some((sum, count)) => {
                total(&mut sums, sum)?;
                sums.iter_mut().for_each(|s| *s /= count);
            }
            None => sums.fill(0.0),
        }
        let scale = self.scale(Host::of(weight).values()?);
        let (shift, products) = sums.split_at(images.channels);
        let shift: Vec<f32> = shift.iter().map(|&s| s as f32).collect();
        let factors = scale.iter().zip(&self.inverse).zip(products);
        let pull: Vec<f32> = factors.map(|((s, i), &p)| s * i * i * p as f32).collect();
        let dx = images.pulled((g, &shift, &scale), (values, &self.mean, &pull));
        Ok((Some(Tensor::from_vec(dx, x.shape(), x.device())?), None, None))
    }
}

#[cfg(test)]
#[path = "batch_norm_tests.rs"]
mod tests;

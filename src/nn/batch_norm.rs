//! Batch normalisation of images (Ioffe and Szegedy, 2015), as `torch.nn.BatchNorm2d`, over the batch
//! of all ranks when given a way to sum over them (as `torch.nn.SyncBatchNorm`).

use super::elementary::sum_of;
use super::hook::tracked;
use super::host::{Host, sum, values};
use super::params::{Init, Param, ParamBuilder};
use crate::error::{Error, Result};
use crate::util::wide::wide;
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Shape, Tensor};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Sums the values over all ranks in place. A collective: it is called once in each training forward
/// pass and once in each backward pass, on ranks without samples, too, with equal lengths.
pub type SumOverRanks = Arc<dyn Fn(&mut [f64]) -> Result<()> + Send + Sync>;

/// What evaluation normalises with: moving averages over the training batches.
#[derive(Clone, Debug, PartialEq)]
pub struct RunningStats {
    /// Mean of each channel.
    pub mean: Vec<f32>,
    /// Variance of each channel (divided by n − 1).
    pub var: Vec<f32>,
    /// Training batches seen.
    pub batches: u64,
}

/// (x − mean) / √(variance + eps) · weight + bias for each channel; `weight` and `bias` (channels).
#[derive(Clone)]
pub struct BatchNorm2d {
    weight: Param,
    bias: Param,
    eps: f64,
    momentum: f64,
    running: Arc<Mutex<RunningStats>>,
    sum_over_ranks: Option<SumOverRanks>,
}

impl BatchNorm2d {
    /// A layer for images of `channels` channels; weight 1, bias 0, eps 1e-5, momentum 0.1.
    ///
    /// # Errors
    /// When the device has no memory.
    pub fn new(params: &ParamBuilder, channels: usize) -> Result<BatchNorm2d> {
        let weight = params.param("weight", channels, Init::Zeros)?;
        weight.update(|values| values.fill(1.0))?;
        let bias = params.param("bias", channels, Init::Zeros)?;
        let (mean, var) = (vec![0.0; channels], vec![1.0; channels]);
        let running = Arc::new(Mutex::new(RunningStats { mean, var, batches: 0 }));
        Ok(BatchNorm2d { weight, bias, eps: 1e-5, momentum: 0.1, running, sum_over_ranks: None })
    }

    /// The same layer whose mean and variance are those of all ranks' samples together.
    #[must_use]
    pub fn over_ranks(self, sum: SumOverRanks) -> BatchNorm2d {
        BatchNorm2d { sum_over_ranks: Some(sum), ..self }
    }

    /// A copy of the moving averages.
    #[must_use]
    pub fn running(&self) -> RunningStats {
        self.lock().clone()
    }

    /// Overwrites the moving averages, as when a saved model is read.
    ///
    /// # Errors
    /// [`Error::Data`] when the lengths are not the number of channels or a variance is negative or
    /// NaN.
    pub fn set_running(&self, stats: RunningStats) -> Result<()> {
        let channels = self.channels();
        if stats.mean.len() != channels || stats.var.len() != channels {
            return Err(Error::Data(format!(
                "{}: running statistics of {} and {} channels, the layer has {channels}",
                self.weight.layer(),
                stats.mean.len(),
                stats.var.len()
            )));
        }
        if let Some(i) = stats.var.iter().position(|v| v.is_nan() || *v < 0.0) {
            return Err(Error::Data(format!(
                "{}: the running variance of channel {i} is {}",
                self.weight.layer(),
                stats.var[i]
            )));
        }
        *self.lock() = stats;
        Ok(())
    }

    /// `x` (batch, channels, rows, cols), `f32`, normalised with the statistics of the batch, which
    /// move the averages, if `train`, else with the averages.
    ///
    /// # Errors
    /// When `x` has another shape or type; when summing over ranks fails; when it is wanted on a
    /// device other than the CPU, where it does not exist.
    pub fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let channels = self.channels();
        if x.rank() != 4 || x.dims()[1] != channels || x.dtype() != DType::F32 {
            return Err(Error::Internal(format!(
                "{}: expected f32 (batch, {channels}, rows, cols), got {:?} {:?}",
                self.weight.layer(),
                x.dtype(),
                x.dims()
            )));
        }
        if x.device().is_cpu() {
            let op = BatchNormOp { layer: self.clone(), train, used: OnceLock::new() };
            return Ok(x.contiguous()?.apply_op2(self.weight.tensor(), op)?);
        }
        if train && self.sum_over_ranks.is_some() {
            return Err(Error::Internal(format!(
                "{}: batch normalisation over the samples of all ranks exists on the CPU only",
                self.weight.layer()
            )));
        }
        Ok(self.composed(x, train)?)
    }

    /// The same of Candle's operations, without other ranks.
    fn composed(&self, x: &Tensor, train: bool) -> candle_core::Result<Tensor> {
        let shape = (1, self.channels(), 1, 1);
        if x.elem_count() == 0 {
            return x.zeros_like();
        }
        let (mean, variance) = if train {
            let mean = x.mean_keepdim((0, 2, 3))?;
            let variance = x.broadcast_sub(&mean)?.sqr()?.mean_keepdim((0, 2, 3))?;
            let count = x.elem_count() / self.channels();
            let host = |t: &Tensor| -> candle_core::Result<Vec<f64>> {
                Ok(t.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f64::from).collect())
            };
            self.move_averages(count as f64, &host(&mean)?, &host(&variance)?);
            (mean, variance)
        } else {
            let RunningStats { mean, var, .. } = self.running();
            let tensor = |v: Vec<f32>| Tensor::from_vec(v, shape, x.device());
            (tensor(mean)?, tensor(var)?)
        };
        let normal = x.broadcast_sub(&mean)?.broadcast_div(&(variance + self.eps)?.sqrt()?)?;
        let (weight, bias) = (tracked(&self.weight)?, tracked(&self.bias)?);
        normal.broadcast_mul(&weight.reshape(shape)?)?.broadcast_add(&bias.reshape(shape)?)
    }

    fn channels(&self) -> usize {
        self.weight.tensor().elem_count()
    }

    fn lock(&self) -> MutexGuard<'_, RunningStats> {
        // Two vectors of floats: whatever a panic left there is a number.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sum_over_ranks(&self, values: &mut [f64]) -> candle_core::Result<()> {
        match &self.sum_over_ranks {
            Some(sum) => sum(values).map_err(candle_core::Error::wrap),
            None => Ok(()),
        }
    }

    /// `variance` is that of `count` values, divided by `count`.
    fn move_averages(&self, count: f64, mean: &[f64], variance: &[f64]) {
        let mut running = self.lock();
        running.batches += 1;
        let toward = |old: &mut f32, new: f64| {
            *old = ((1.0 - self.momentum) * f64::from(*old) + self.momentum * new) as f32;
        };
        running.mean.iter_mut().zip(mean).for_each(|(old, &new)| toward(old, new));
        // PyTorch divides by n − 1 here and refuses a single value; one value has no spread to add.
        let unbias = if count > 1.0 { count / (count - 1.0) } else { 1.0 };
        running.var.iter_mut().zip(variance).for_each(|(old, &new)| toward(old, new * unbias));
    }

    /// The statistics of the batch of all ranks; they move the averages.
    fn of_batch(&self, x: &[f32], plane: usize) -> candle_core::Result<Used> {
        let channels = self.channels();
        let mut sums = vec![0.0; 2 * channels + 1];
        for (i, plane) in x.chunks_exact(plane.max(1)).enumerate() {
            let (total, square) = plane_sums(plane);
            sums[2 * (i % channels)] += total;
            sums[2 * (i % channels) + 1] += square;
        }
        sums[2 * channels] = (x.len() / channels) as f64;
        self.sum_over_ranks(&mut sums)?;
        let count = sums[2 * channels];
        let share = if count > 0.0 { 1.0 / count } else { 0.0 };
        let pairs = sums.chunks_exact(2).take(channels);
        let (mean, variance): (Vec<f64>, Vec<f64>) = pairs
            .map(|pair| {
                let mean = pair[0] * share;
                // In f64 the difference of f32 squares is exact enough: 1e-16 of mean². NaN stays.
                let variance = pair[1] * share - mean * mean;
                (mean, if variance < 0.0 { 0.0 } else { variance })
            })
            .unzip();
        if count > 0.0 {
            self.move_averages(count, &mean, &variance);
        }
        let scale = variance.iter().map(|v| (1.0 / (v + self.eps).sqrt()) as f32).collect();
        Ok(Used { count, mean: mean.iter().map(|&v| v as f32).collect(), scale })
    }

    fn of_running(&self) -> Used {
        let RunningStats { mean, var, .. } = self.running();
        let scale = |v: f32| (1.0 / (f64::from(v) + self.eps).sqrt()) as f32;
        Used { count: 0.0, mean, scale: var.into_iter().map(scale).collect() }
    }
}

/// What a forward pass normalised with.
struct Used {
    /// Values per channel over all ranks.
    count: f64,
    mean: Vec<f32>,
    /// 1 / √(variance + eps)
    scale: Vec<f32>,
}

wide! {
    /// Σ v and Σ v² of one plane: in `f32` about the plane's own mean, joined in `f64`.
    fn plane_sums(plane: &[f32]) -> (f64, f64) {
        let n = plane.len() as f64;
        let first = plane.first().copied().unwrap_or(0.0);
        let off = f64::from(sum_of(plane, plane, |v, _| v - first));
        let mean = f64::from(first) + off / n;
        let near = mean as f32;
        let square = f64::from(sum_of(plane, plane, |v, _| (v - near) * (v - near)));
        let slip = mean - f64::from(near);
        (mean * n, square + n * (mean * mean - slip * slip))
    }
}

wide! {
    fn normalise(plane: &[f32], mean: f32, factor: f32, bias: f32, out: &mut [f32]) {
        out.iter_mut().zip(plane).for_each(|(out, v)| *out = (v - mean) * factor + bias);
    }
}

wide! {
    /// dx = factor · (g − along − (v − mean) · across)
    fn plane_gradient(
        plane: &[f32],
        grad: &[f32],
        mean: f32,
        factor: f32,
        along: f32,
        across: f32,
        dx: &mut [f32],
    ) {
        for ((dx, v), g) in dx.iter_mut().zip(plane).zip(grad) {
            *dx = factor * (g - along - (v - mean) * across);
        }
    }
}

wide! {
    /// Σ g · (v − mean)
    fn along_mean(plane: &[f32], grad: &[f32], mean: f32) -> f32 {
        sum_of(plane, grad, |v, g| g * (v - mean))
    }
}

struct BatchNormOp {
    layer: BatchNorm2d,
    train: bool,
    used: OnceLock<Used>,
}

impl BatchNormOp {
    /// Gradients of bias and weight in pairs, from this rank's samples.
    fn sums(&self, x: &[f32], grad: &[f32], plane: usize, used: &Used) -> Vec<f64> {
        let channels = self.layer.channels();
        let mut sums = vec![0.0; 2 * channels];
        let planes = x.chunks_exact(plane.max(1)).zip(grad.chunks_exact(plane.max(1)));
        for (i, (x, grad)) in planes.enumerate() {
            let c = i % channels;
            sums[2 * c] += f64::from(sum(grad));
            let product = f64::from(along_mean(x, grad, used.mean[c]));
            sums[2 * c + 1] += product * f64::from(used.scale[c]);
        }
        sums
    }

    fn gradients(
        &self,
        x: &[f32],
        grad: &[f32],
        plane: usize,
        used: &Used,
    ) -> candle_core::Result<Vec<f32>> {
        let layer = &self.layer;
        let mut sums = self.sums(x, grad, plane, used);
        let part = |at: usize| -> Vec<f32> {
            sums.iter().skip(at).step_by(2).map(|&v| v as f32).collect()
        };
        // What other ranks add to these arrives with the gradients themselves.
        layer.bias.put_grad(&part(0))?;
        layer.weight.put_grad(&part(1))?;
        if self.train {
            layer.sum_over_ranks(&mut sums)?;
        }
        let share = if self.train && used.count > 0.0 { 1.0 / used.count } else { 0.0 };
        let weight = Host::of(layer.weight.tensor());
        let weight = weight.values()?;
        let mut dx = vec![0.0; x.len()];
        let plane = plane.max(1);
        let planes = x.chunks_exact(plane).zip(grad.chunks_exact(plane));
        for (i, ((x, grad), dx)) in planes.zip(dx.chunks_exact_mut(plane)).enumerate() {
            let c = i % weight.len();
            let scale = used.scale[c];
            let along = (sums[2 * c] * share) as f32;
            let across = (sums[2 * c + 1] * share) as f32 * scale;
            plane_gradient(x, grad, used.mean[c], weight[c] * scale, along, across, dx);
        }
        Ok(dx)
    }
}

impl CustomOp2 for BatchNormOp {
    fn name(&self) -> &'static str {
        "batch-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (_, channels, rows, cols) = layout.shape().dims4()?;
        let (x, weight) = (values(x, layout)?, values(weight, weight_layout)?);
        let (bias, plane) = (Host::of(self.layer.bias.tensor()), (rows * cols).max(1));
        let bias = bias.values()?;
        let used = match self.train {
            true => self.layer.of_batch(x, rows * cols)?,
            false => self.layer.of_running(),
        };
        let mut out = vec![0.0; x.len()];
        for (i, (x, out)) in x.chunks_exact(plane).zip(out.chunks_exact_mut(plane)).enumerate() {
            let c = i % channels;
            normalise(x, used.mean[c], weight[c] * used.scale[c], bias[c], out);
        }
        // The op is applied once, so the cell is empty.
        let _ = self.used.set(used);
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        _weight: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let Some(used) = self.used.get() else {
            candle_core::bail!("batch norm: backward without forward");
        };
        let (_, _, rows, cols) = x.dims4()?;
        let grad = grad.contiguous()?;
        let (host, grad) = (Host::of(x), Host::of(&grad));
        let dx = self.gradients(host.values()?, grad.values()?, rows * cols, used)?;
        let dx =
            if x.track_op() { Some(Tensor::from_vec(dx, x.shape(), x.device())?) } else { None };
        Ok((dx, None))
    }
}

#[cfg(test)]
#[path = "batch_norm_tests.rs"]
mod tests;

//! Softmax cross-entropy, one loss per sample, as
//! `torch.nn.functional.cross_entropy(logits, labels, label_smoothing=…, reduction="none")`, and for
//! samples with two labels.
//!
//! Per sample, because a mean over a local batch cannot be joined with other ranks' means: the caller
//! weighs, sums and divides once by the global weight.
//!
//! With the wanted distribution q over K classes, ℓ = −Σ q_k log softmax(z)_k = log Σ exp(z_k) − Σ q_k z_k
//! and ∂ℓ/∂z = softmax(z) − q. Of a sample with labels a and b (share s of b), smoothed by ε,
//! q = (1 − ε) · ((1 − s) · onehot(a) + s · onehot(b)) + ε / K.

use super::host::{Host, values};
use crate::error::{Error, Result};
use crate::util::label::IGNORED;
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor};

/// What the logits of a batch should say.
#[derive(Debug, Clone, Copy)]
pub struct Targets<'a> {
    /// The label of each row; [`IGNORED`] where it does not count.
    pub labels: &'a [u32],
    /// A second label of each sample and its share; empty where no sample has one.
    pub mixed: &'a [(u32, f32)],
    /// So much of each label is spread evenly over all classes.
    pub smoothing: f32,
}

impl<'a> Targets<'a> {
    /// One label for each sample.
    #[must_use]
    pub fn plain(labels: &'a [u32]) -> Targets<'a> {
        Targets { labels, mixed: &[], smoothing: 0.0 }
    }

    fn is_plain(&self) -> bool {
        self.mixed.is_empty() && self.smoothing == 0.0
    }
}

/// `−log softmax(logits)[label]` for each row of `logits` (batch, classes), `f32`: shape (batch).
///
/// # Errors
/// When shapes or types differ from these, or a label is not below the number of classes.
pub fn cross_entropy(logits: &Tensor, labels: &[u32]) -> Result<Tensor> {
    cross_entropy_to(logits, Targets::plain(labels))
}

/// The same for labels that are mixed or smoothed.
///
/// # Errors
/// As [`cross_entropy`].
pub fn cross_entropy_to(logits: &Tensor, targets: Targets) -> Result<Tensor> {
    check(logits, targets)?;
    if logits.device().is_cpu() {
        let (labels, mixed) = (targets.labels.to_vec(), targets.mixed.to_vec());
        let op = CrossEntropy { labels, mixed, smoothing: targets.smoothing };
        Ok(logits.contiguous()?.apply_op1(op)?)
    } else {
        Ok(composed(logits, targets)?)
    }
}

/// How many rows of `logits` (batch, classes), `f32`, have their maximum at their label; at a second
/// label, its share counts. Among equal maxima the first counts; a row with NaN is never correct.
///
/// # Errors
/// As [`cross_entropy`].
pub fn correct(logits: &Tensor, targets: Targets) -> Result<f64> {
    let classes = check(logits, targets)?;
    let logits = logits.flatten_all()?.to_vec1::<f32>()?;
    let hits = logits.chunks_exact(classes).enumerate().map(|(i, row)| {
        let best = highest(row);
        let at = |label: u32| f64::from(best == Some(label as usize));
        let (own, second) = (targets.labels[i], targets.mixed.get(i));
        second.map_or(at(own), |&(other, share)| {
            let share = f64::from(share);
            at(own) * (1.0 - share) + at(other) * share
        })
    });
    Ok(hits.sum())
}

/// Where the first maximum of a row is; `None` if the row has NaN.
fn highest(row: &[f32]) -> Option<usize> {
    let mut best = 0;
    for (i, &v) in row.iter().enumerate() {
        if v > row[best] {
            best = i;
        }
    }
    (!row.iter().any(|v| v.is_nan())).then_some(best)
}

/// Checks shapes and labels; gives the number of classes.
fn check(logits: &Tensor, targets: Targets) -> Result<usize> {
    let Targets { labels, mixed, .. } = targets;
    let classes = match *logits.dims() {
        [batch, classes] if batch == labels.len() && classes > 0 => classes,
        _ => {
            return Err(Error::Internal(format!(
                "cross-entropy: expected logits ({}, classes) for {} labels, got {:?}",
                labels.len(),
                labels.len(),
                logits.dims()
            )));
        }
    };
    if logits.dtype() != DType::F32 {
        let dtype = logits.dtype();
        return Err(Error::Internal(format!("cross-entropy: expected f32, got {dtype:?}")));
    }
    if !mixed.is_empty() && mixed.len() != labels.len() {
        let (one, two) = (labels.len(), mixed.len());
        return Err(Error::Internal(format!("cross-entropy: {one} labels, {two} second labels")));
    }
    let counted = labels.iter().enumerate().filter(|(_, label)| **label != IGNORED);
    let all = counted.chain(mixed.iter().map(|(label, _)| label).enumerate());
    match all.into_iter().find(|(_, label)| **label as usize >= classes) {
        None => Ok(classes),
        Some((i, label)) => Err(Error::Data(format!(
            "label {label} of sample {i} in the batch is out of range: the model has {classes} classes, \
             0 to {}",
            classes - 1
        ))),
    }
}

/// The same of Candle's operations.
fn composed(logits: &Tensor, targets: Targets) -> candle_core::Result<Tensor> {
    let device = logits.device();
    if targets.labels.is_empty() {
        return Tensor::zeros(0, logits.dtype(), device);
    }
    // The loss does not depend on what is subtracted, so its gradient need not be followed.
    let shifted = logits.broadcast_sub(&logits.detach().max_keepdim(1)?)?;
    let log_sum = shifted.exp()?.sum(1)?.log()?;
    // Where a label is ignored, any class will do: the loss is multiplied by 0.
    let counts = |&label: &u32| f32::from(u8::from(label != IGNORED));
    let labels: Vec<u32> =
        targets.labels.iter().map(|&l| if l == IGNORED { 0 } else { l }).collect();
    let counted = if targets.labels.contains(&IGNORED) {
        let counted: Vec<f32> = targets.labels.iter().map(counts).collect();
        Some(Tensor::from_vec(counted, labels.len(), device)?)
    } else {
        None
    };
    let only_counted = |losses: Tensor| counted.as_ref().map_or(Ok(losses.clone()), |c| losses * c);
    if targets.is_plain() {
        let places = Tensor::from_slice(&labels, (labels.len(), 1), device)?;
        return only_counted((log_sum - shifted.gather(&places, 1)?.squeeze(1)?)?);
    }
    let classes = logits.dims2()?.1;
    let mut wanted = vec![targets.smoothing / classes as f32; logits.elem_count()];
    for (i, row) in wanted.chunks_exact_mut(classes).enumerate() {
        let (other, share) = targets.mixed.get(i).copied().unwrap_or((0, 0.0));
        row[labels[i] as usize] += (1.0 - targets.smoothing) * (1.0 - share);
        row[other as usize] += (1.0 - targets.smoothing) * share;
    }
    let wanted = Tensor::from_vec(wanted, logits.shape(), device)?;
    only_counted((log_sum - (shifted * wanted)?.sum(1)?)?)
}

struct CrossEntropy {
    labels: Vec<u32>,
    mixed: Vec<(u32, f32)>,
    smoothing: f32,
}

impl CrossEntropy {
    /// Σ q_k (z_k − max) of row `i`.
    fn wanted(&self, i: usize, row: &[f32], max: f32) -> f32 {
        let own = row[self.labels[i] as usize] - max;
        let labels = match self.mixed.get(i) {
            Some(&(other, share)) if share > 0.0 => {
                (1.0 - share) * own + share * (row[other as usize] - max)
            }
            _ => own,
        };
        if self.smoothing == 0.0 {
            return labels;
        }
        let mean = row.iter().map(|&v| v - max).sum::<f32>() / row.len() as f32;
        (1.0 - self.smoothing) * labels + self.smoothing * mean
    }

    /// Takes `g` · q of row `i` from its gradient.
    fn subtract_wanted(&self, i: usize, gradient: &mut [f32], g: f32) {
        let labels = g * (1.0 - self.smoothing);
        let (other, share) = self.mixed.get(i).copied().unwrap_or((0, 0.0));
        gradient[self.labels[i] as usize] -= labels * (1.0 - share);
        gradient[other as usize] -= labels * share;
        if self.smoothing > 0.0 {
            let each = g * self.smoothing / gradient.len() as f32;
            gradient.iter_mut().for_each(|v| *v -= each);
        }
    }
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let classes = layout.shape().dims2()?.1;
        let rows = values(storage, layout)?.chunks_exact(classes).enumerate();
        let losses: Vec<f32> = rows
            .map(|(i, row)| {
                if self.labels[i] == IGNORED {
                    return 0.0;
                }
                let max = largest(row);
                let sum: f32 = row.iter().map(|&v| (v - max).exp()).sum();
                sum.ln() - self.wanted(i, row, max)
            })
            .collect();
        let shape = Shape::from(losses.len());
        Ok((CpuStorage::F32(losses), shape))
    }

    /// softmax(logits) − q, times the gradient of the sample's loss.
    fn bwd(
        &self,
        logits: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        let classes = logits.dims2()?.1;
        let grad = grad.contiguous()?;
        let (logits_values, grad) = (Host::of(logits), Host::of(&grad));
        let rows = logits_values.values()?.chunks_exact(classes).enumerate();
        let mut out = Vec::with_capacity(logits.elem_count());
        for ((i, row), &g) in rows.zip(grad.values()?) {
            let (start, max) = (out.len(), largest(row));
            if self.labels[i] == IGNORED {
                out.resize(start + classes, 0.0);
                continue;
            }
            out.extend(row.iter().map(|&v| (v - max).exp()));
            let softmax = &mut out[start..];
            let scale = g / softmax.iter().sum::<f32>();
            softmax.iter_mut().for_each(|p| *p *= scale);
            self.subtract_wanted(i, softmax, g);
        }
        Ok(Some(Tensor::from_vec(out, logits.shape(), logits.device())?))
    }
}

fn largest(row: &[f32]) -> f32 {
    row.iter().fold(f32::NEG_INFINITY, |a, &v| a.max(v))
}

#[cfg(test)]
#[path = "loss_tests.rs"]
mod tests;

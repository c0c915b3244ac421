//! Softmax cross-entropy, one loss per sample, as
//! `torch.nn.functional.cross_entropy(logits, labels, reduction="none")`.
//!
//! Per sample, because a mean over a local batch cannot be joined with other ranks' means: the caller
//! weighs, sums and divides once by the global weight.

use super::host::{Host, values};
use crate::error::{Error, Result};
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor};

/// `−log softmax(logits)[label]` for each row of `logits` (batch, classes), `f32`: shape (batch).
///
/// # Errors
/// When shapes or types differ from these, or a label is not below the number of classes.
pub fn cross_entropy(logits: &Tensor, labels: &[u32]) -> Result<Tensor> {
    check(logits, labels)?;
    if logits.device().is_cpu() {
        Ok(logits.contiguous()?.apply_op1(CrossEntropy { labels: labels.to_vec() })?)
    } else {
        Ok(composed(logits, labels)?)
    }
}

/// How many rows of `logits` (batch, classes), `f32`, have their maximum at their label. Among equal
/// maxima the first counts; a row with NaN is never correct.
///
/// # Errors
/// As [`cross_entropy`].
pub fn correct(logits: &Tensor, labels: &[u32]) -> Result<u64> {
    let classes = check(logits, labels)?;
    let logits = logits.flatten_all()?.to_vec1::<f32>()?;
    let hits = logits.chunks_exact(classes).zip(labels).filter(|(row, label)| {
        let mut best = 0;
        for (i, &v) in row.iter().enumerate() {
            if v > row[best] {
                best = i;
            }
        }
        best == **label as usize && !row.iter().any(|v| v.is_nan())
    });
    Ok(hits.count() as u64)
}

/// Checks shapes and labels; gives the number of classes.
fn check(logits: &Tensor, labels: &[u32]) -> Result<usize> {
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
    match labels.iter().position(|&label| label as usize >= classes) {
        None => Ok(classes),
        Some(i) => Err(Error::Data(format!(
            "label {} of sample {i} in the batch is out of range: the model has {classes} classes, \
             0 to {}",
            labels[i],
            classes - 1
        ))),
    }
}

/// The same of Candle's operations.
fn composed(logits: &Tensor, labels: &[u32]) -> candle_core::Result<Tensor> {
    if labels.is_empty() {
        return Tensor::zeros(0, logits.dtype(), logits.device());
    }
    // The loss does not depend on what is subtracted, so its gradient need not be followed.
    let shifted = logits.broadcast_sub(&logits.detach().max_keepdim(1)?)?;
    let labels = Tensor::from_slice(labels, (labels.len(), 1), logits.device())?;
    let log_sum = shifted.exp()?.sum(1)?.log()?;
    log_sum - shifted.gather(&labels, 1)?.squeeze(1)?
}

struct CrossEntropy {
    labels: Vec<u32>,
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
        let rows = values(storage, layout)?.chunks_exact(classes);
        let losses: Vec<f32> = rows
            .zip(&self.labels)
            .map(|(row, &label)| {
                let max = largest(row);
                let sum: f32 = row.iter().map(|&v| (v - max).exp()).sum();
                sum.ln() - (row[label as usize] - max)
            })
            .collect();
        let shape = Shape::from(losses.len());
        Ok((CpuStorage::F32(losses), shape))
    }

    /// softmax(logits) − onehot(label), times the gradient of the sample's loss.
    fn bwd(
        &self,
        logits: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        let classes = logits.dims2()?.1;
        let grad = grad.contiguous()?;
        let (logits_values, grad) = (Host::of(logits), Host::of(&grad));
        let rows = logits_values.values()?.chunks_exact(classes);
        let mut out = Vec::with_capacity(logits.elem_count());
        for ((row, &label), &g) in rows.zip(&self.labels).zip(grad.values()?) {
            let (start, max) = (out.len(), largest(row));
            out.extend(row.iter().map(|&v| (v - max).exp()));
            let softmax = &mut out[start..];
            let scale = g / softmax.iter().sum::<f32>();
            softmax.iter_mut().for_each(|p| *p *= scale);
            softmax[label as usize] -= g;
        }
        Ok(Some(Tensor::from_vec(out, logits.shape(), logits.device())?))
    }
}

fn largest(row: &[f32]) -> f32 {
    row.iter().fold(f32::NEG_INFINITY, |a, &v| a.max(v))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{assert_agree, check_layer, gradients, no_params, random_tensor};
    use candle_core::Device;

    const LABELS: [u32; 4] = [2, 0, 6, 3];

    #[test]
    fn the_gradient_equals_finite_differences_in_both_forms() {
        for batch in [1, 4] {
            let labels = &LABELS[..batch];
            check_layer(&no_params(), &[batch, 7], 1, |x| cross_entropy(x, labels));
            check_layer(&no_params(), &[batch, 7], 1, |x| Ok(composed(x, labels)?));
        }
    }

    #[test]
    fn both_forms_agree() {
        let x = random_tensor(&[4, 7], 2).affine(5.0, 0.0).unwrap();
        let own = gradients(&no_params(), &x, |x| cross_entropy(x, &LABELS));
        assert_agree(own, gradients(&no_params(), &x, |x| Ok(composed(x, &LABELS)?)));
    }

    #[test]
    fn equal_logits_cost_the_logarithm_of_the_number_of_classes() {
        let x = Tensor::zeros((1, 10), DType::F32, &Device::Cpu).unwrap();
        let loss = cross_entropy(&x, &[4]).unwrap().to_vec1::<f32>().unwrap();
        assert!((f64::from(loss[0]) - 10f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn huge_logits_give_finite_losses_and_nan_gives_nan() {
        let x = Tensor::new(&[[1e30f32, -1e30], [1000.0, 999.0], [f32::NAN, 0.0]], &Device::Cpu);
        let losses = cross_entropy(&x.unwrap(), &[0, 1, 1]).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(losses[0], 0.0);
        assert!((losses[1] - 1.313_261_7).abs() < 1e-6);
        assert!(losses[2].is_nan());
    }

    #[test]
    fn an_empty_batch_has_no_losses_and_its_sum_goes_back_without_error() {
        let x = random_tensor(&[0, 7], 1);
        let (dx, losses) = gradients(&no_params(), &x, |x| cross_entropy(x, &[]));
        assert!(dx[0].is_empty() && losses.is_empty());
        assert_eq!(composed(&x, &[]).unwrap().dims(), [0]);
        assert_eq!(correct(&x, &[]).unwrap(), 0);
    }

    #[test]
    fn a_label_out_of_range_is_a_data_error_that_names_it() {
        let error = cross_entropy(&random_tensor(&[2, 7], 1), &[6, 7]).unwrap_err();
        assert_eq!(error.exit_code(), 65);
        assert!(error.to_string().contains("label 7 of sample 1"), "{error}");
        assert!(cross_entropy(&random_tensor(&[2, 7], 1), &[1]).is_err());
    }

    #[test]
    fn the_first_maximum_counts_and_nan_is_never_correct() {
        let nan = f32::NAN;
        let rows = [[1f32, 3.0, 3.0], [5.0, 5.0, 5.0], [nan, 1.0, 2.0], [1.0, 2.0, nan]];
        let x = Tensor::new(&rows, &Device::Cpu).unwrap();
        assert_eq!(correct(&x, &[1, 0, 0, 1]).unwrap(), 2);
        assert_eq!(correct(&x, &[2, 1, 2, 2]).unwrap(), 0);
    }
}

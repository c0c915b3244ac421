//! Losses of numbers, one per sample, as `torch.nn.functional.mse_loss`, `l1_loss` and `huber_loss` with
//! `reduction="none"`; why per sample, [`super::loss`] says.
//!
//! With d = output − target: d²; |d|; and d² / 2 where |d| ≤ δ, else δ (|d| − δ / 2) (Huber, 1964).

use super::host::{Host, values};
use crate::error::{Error, Result};
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor};

/// How far an output is from its target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Distance {
    /// d²
    Squared,
    /// |d|
    Absolute,
    /// Squared near 0, absolute from this difference on.
    Huber(f32),
}

impl Distance {
    fn of(self, d: f32) -> f32 {
        match self {
            Distance::Squared => d * d,
            Distance::Absolute => d.abs(),
            Distance::Huber(delta) if d.abs() <= delta => 0.5 * d * d,
            Distance::Huber(delta) => delta * (d.abs() - 0.5 * delta),
        }
    }

    /// Its derivative; 0 at 0.
    fn slope(self, d: f32) -> f32 {
        let sign = if d > 0.0 { 1.0 } else { -1.0 };
        match self {
            _ if d == 0.0 => 0.0,
            Distance::Squared => 2.0 * d,
            Distance::Absolute => sign * if d.is_nan() { d } else { 1.0 },
            Distance::Huber(delta) if d.abs() <= delta => d,
            Distance::Huber(delta) => sign * if d.is_nan() { d } else { delta },
        }
    }
}

/// The distance of each of `outputs` (batch, 1), `f32`, from its target: shape (batch).
///
/// # Errors
/// [`Error::Internal`] when shapes or types differ from these.
pub fn distance(outputs: &Tensor, targets: &[f32], kind: Distance) -> Result<Tensor> {
    if outputs.dims() != [targets.len(), 1] || outputs.dtype() != DType::F32 {
        let (dims, n) = (outputs.dims(), targets.len());
        return Err(Error::Internal(format!(
            "regression: expected f32 outputs ({n}, 1) for {n} targets, got {dims:?}"
        )));
    }
    if outputs.device().is_cpu() {
        return Ok(outputs.contiguous()?.apply_op1(Op { targets: targets.to_vec(), kind })?);
    }
    Ok(composed(outputs, targets, kind)?)
}

/// The same of Candle's operations.
fn composed(outputs: &Tensor, targets: &[f32], kind: Distance) -> candle_core::Result<Tensor> {
    let targets = Tensor::from_slice(targets, targets.len(), outputs.device())?;
    let d = (outputs.squeeze(1)? - targets)?;
    match kind {
        Distance::Squared => d.sqr(),
        // The gradient of Candle's `abs` is 1 at 0.
        Distance::Absolute => &d * d.detach().sign()?,
        Distance::Huber(delta) => {
            // With c = d cut to ±δ: c · (d − c / 2); where it is cut, c is a constant.
            let near = d.abs()?.le(f64::from(delta))?.to_dtype(DType::F32)?;
            let far = d.detach().sign()?.affine(f64::from(delta), 0.0)?;
            let c = ((&d * &near)? + (far * near.affine(-1.0, 1.0)?)?)?;
            &c * (d - (&c * 0.5)?)?
        }
    }
}

struct Op {
    targets: Vec<f32>,
    kind: Distance,
}

impl CustomOp1 for Op {
    fn name(&self) -> &'static str {
        "regression"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let outputs = values(storage, layout)?.iter().zip(&self.targets);
        let losses: Vec<f32> = outputs.map(|(y, t)| self.kind.of(y - t)).collect();
        let shape = Shape::from(losses.len());
        Ok((CpuStorage::F32(losses), shape))
    }

    fn bwd(
        &self,
        outputs: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let (of, grad) = (Host::of(outputs), Host::of(&grad));
        let pairs = of.values()?.iter().zip(&self.targets).zip(grad.values()?);
        let slopes: Vec<f32> = pairs.map(|((y, t), g)| g * self.kind.slope(y - t)).collect();
        Ok(Some(Tensor::from_vec(slopes, outputs.shape(), outputs.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    const OUTPUTS: [f32; 6] = [1.0, -2.0, 0.5, 3.0, 4.0, -1.5];
    const TARGETS: [f32; 6] = [0.0, -2.0, 0.75, 0.5, 2.5, -3.0];
    const KINDS: [Distance; 3] = [Distance::Squared, Distance::Absolute, Distance::Huber(1.5)];

    type Losses = fn(&Tensor, &[f32], Distance) -> Tensor;

    /// Losses and gradient of their sum, each loss weighed by another number.
    fn both(kind: Distance, losses: Losses) -> (Vec<f32>, Vec<f32>) {
        let outputs = Var::from_slice(&OUTPUTS, (6, 1), &Device::Cpu).unwrap();
        let found = losses(&outputs, &TARGETS, kind);
        let weights =
            Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0, 5.0, 6.0], 6, &Device::Cpu).unwrap();
        let grads = (&found * weights).unwrap().sum_all().unwrap().backward().unwrap();
        let grad = grads.get(&outputs).unwrap().flatten_all().unwrap();
        (found.to_vec1().unwrap(), grad.to_vec1().unwrap())
    }

    #[test]
    fn losses_and_gradients_are_those_of_pytorch() {
        // d = 1, 0, −0.25, 2.5, 1.5, 1.5; torch.nn.functional with reduction="none", then autograd.
        let expected = [
            ([1.0, 0.0, 0.0625, 6.25, 2.25, 2.25], [2.0, 0.0, -1.5, 20.0, 15.0, 18.0]),
            ([1.0, 0.0, 0.25, 2.5, 1.5, 1.5], [1.0, 0.0, -3.0, 4.0, 5.0, 6.0]),
            ([0.5, 0.0, 0.03125, 2.625, 1.125, 1.125], [1.0, 0.0, -0.75, 6.0, 7.5, 9.0]),
        ];
        for (kind, (losses, grad)) in KINDS.into_iter().zip(expected) {
            let found = both(kind, |y, t, kind| distance(y, t, kind).unwrap());
            assert_eq!(found, (losses.to_vec(), grad.to_vec()), "{kind:?}");
        }
    }

    #[test]
    fn the_form_for_other_devices_is_the_same() {
        for kind in KINDS {
            let ours = both(kind, |y, t, kind| distance(y, t, kind).unwrap());
            let theirs = both(kind, |y, t, kind| composed(y, t, kind).unwrap());
            assert_eq!(ours, theirs, "{kind:?}");
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        for kind in KINDS {
            assert!(kind.of(f32::NAN).is_nan() && kind.slope(f32::NAN).is_nan(), "{kind:?}");
        }
    }

    #[test]
    fn outputs_of_another_shape_are_refused() {
        let outputs = Tensor::zeros((6, 2), DType::F32, &Device::Cpu).unwrap();
        assert!(distance(&outputs, &TARGETS, Distance::Squared).is_err());
    }
}

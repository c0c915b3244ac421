//! Causal attention of several heads, as
//! `torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)` between the two
//! projections of a transformer's block (Vaswani et al., 2017).
//!
//! Position i looks at positions 0 to i only. Where a gradient is wanted the probabilities are kept,
//! about batch · heads · time² / 2 numbers: the backward pass then has four products and no
//! exponential.

use super::heads::{BLOCK, Heads, Scratch};
use super::host::{Host, values};
use crate::error::{Error, Result};
use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Shape, Tensor};
use std::sync::OnceLock;

/// From `qkv` (batch, time, 3·width), `f32`, to (batch, time, width).
///
/// The last dimension holds queries, keys and values one after another, each head after head: the
/// layout of `qkv.view(batch, time, 3, heads, width / heads)`.
///
/// # Errors
/// When `qkv` has another number of dimensions or type, or 3·`heads` does not divide its last one.
pub fn causal_attention(qkv: &Tensor, heads: usize) -> Result<Tensor> {
    let shape = match *qkv.dims() {
        [batch, time, last]
            if heads > 0
                && last > 0
                && last.is_multiple_of(3 * heads)
                && qkv.dtype() == DType::F32 =>
        {
            Heads { batch, time, heads, size: last / (3 * heads) }
        }
        _ => {
            return Err(Error::Internal(format!(
                "attention: expected f32 (batch, time, a multiple of 3 times {heads} heads), \
                 got {:?} {:?}",
                qkv.dtype(),
                qkv.dims()
            )));
        }
    };
    if !qkv.device().is_cpu() {
        return Ok(composed(qkv, shape)?);
    }
    let op = Attention { shape, keep: qkv.track_op(), probabilities: OnceLock::new() };
    Ok(qkv.contiguous()?.apply_op1(op)?)
}

/// The same of Candle's operations.
fn composed(qkv: &Tensor, shape: Heads) -> candle_core::Result<Tensor> {
    let Heads { batch, time, heads, size } = shape;
    if qkv.elem_count() == 0 {
        return Tensor::zeros((batch, time, shape.width()), qkv.dtype(), qkv.device());
    }
    let split = qkv.reshape(vec![batch, time, 3, heads, size])?.permute(vec![2, 0, 3, 1, 4])?;
    let part = |i: usize| split.get(i)?.contiguous();
    let scores = part(0)?.matmul(&part(1)?.t()?)?.affine(f64::from(shape.scale()), 0.0)?;
    let scores = scores.broadcast_add(&mask(time, qkv.device())?)?;
    // The result does not depend on what is subtracted, so its gradient need not be followed.
    let weights = scores.broadcast_sub(&scores.detach().max_keepdim(3)?)?.exp()?;
    let probabilities = weights.broadcast_div(&weights.sum_keepdim(3)?)?;
    probabilities.matmul(&part(2)?)?.transpose(1, 2)?.reshape((batch, time, shape.width()))
}

/// 0 where row i may see column j (j ≤ i), else −∞.
fn mask(time: usize, device: &Device) -> candle_core::Result<Tensor> {
    let allowed = |at: usize| if at % time <= at / time { 0.0 } else { f32::NEG_INFINITY };
    let values: Vec<f32> = (0..time * time).map(allowed).collect();
    Tensor::from_vec(values, (time, time), device)
}

struct Attention {
    shape: Heads,
    keep: bool,
    probabilities: OnceLock<Vec<f32>>,
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "causal-attention"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (qkv, shape) = (values(storage, layout)?, self.shape);
        let (kept, head_len) = (self.keep, shape.probabilities());
        let heads = if kept { shape.batch * shape.heads } else { 1 };
        let mut probabilities = vec![0.0; heads * head_len];
        let mut out = vec![0.0; shape.batch * shape.time * shape.width()];
        let mut tile = vec![0.0; BLOCK * shape.size];
        for at in shape.each() {
            let from = if kept { at.index * head_len } else { 0 };
            let probabilities = &mut probabilities[from..from + head_len];
            at.forward(at.inputs(qkv), at.outputs_mut(&mut out), probabilities, &mut tile);
        }
        if kept {
            // The op is applied once, so the cell is empty.
            let _ = self.probabilities.set(probabilities);
        }
        Ok((CpuStorage::F32(out), (shape.batch, shape.time, shape.width()).into()))
    }

    fn bwd(&self, qkv: &Tensor, _y: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let shape = self.shape;
        let Some(probabilities) = self.probabilities.get() else {
            candle_core::bail!("attention: backward of a forward pass without gradients");
        };
        let dy = dy.contiguous()?;
        let (x, dy) = (Host::of(qkv), Host::of(&dy));
        let (x, dy) = (x.values()?, dy.values()?);
        let mut dx = vec![0.0; qkv.elem_count()];
        let mut scratch = Scratch::new(shape);
        for at in shape.each() {
            let probabilities = &probabilities[at.index * shape.probabilities()..];
            let (x, dy) = (at.inputs(x), at.outputs(dy));
            at.backward(x, dy, probabilities, at.inputs_mut(&mut dx), &mut scratch);
        }
        Ok(Some(Tensor::from_vec(dx, qkv.shape(), qkv.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{assert_agree, check_layer, gradients, no_params, random_tensor};

    /// Batch, time, heads, width of one head; some times are below, at and above [`BLOCK`].
    const CASES: [[usize; 4]; 6] =
        [[2, 3, 2, 4], [1, 1, 1, 1], [2, 17, 3, 5], [1, 64, 2, 8], [1, 65, 1, 3], [2, 150, 2, 4]];

    fn input(case: [usize; 4]) -> ([usize; 3], Heads) {
        let [batch, time, heads, size] = case;
        ([batch, time, 3 * heads * size], Heads { batch, time, heads, size })
    }

    #[test]
    fn the_gradient_equals_finite_differences_in_both_forms() {
        for case in CASES {
            let (shape, heads) = input(case);
            check_layer(&no_params(), &shape, 1, |x| causal_attention(x, heads.heads));
            check_layer(&no_params(), &shape, 1, |x| Ok(composed(x, heads)?));
        }
    }

    #[test]
    fn both_forms_agree() {
        for case in CASES {
            let (shape, heads) = input(case);
            let x = random_tensor(&shape, 2).affine(3.0, 0.0).unwrap();
            let own = gradients(&no_params(), &x, |x| causal_attention(x, heads.heads));
            assert_agree(own, gradients(&no_params(), &x, |x| Ok(composed(x, heads)?)));
        }
    }

    /// Made by:
    /// ```python
    /// x = ((torch.arange(36.) * 7 % 11 - 5) / 2).reshape(1, 3, 12).requires_grad_()
    /// q, k, v = x.view(1, 3, 3, 2, 2).permute(2, 0, 3, 1, 4)
    /// y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    /// y = y.transpose(1, 2).reshape(1, 3, 4)
    /// (y * (torch.arange(12.).view(1, 3, 4) - 4)).sum().backward()
    /// print(y.flatten().tolist(), x.grad.flatten().tolist())
    /// ```
    #[test]
    fn values_and_gradients_equal_pytorch() {
        const Y: [f32; 12] = [
            -2.0, 1.5, -0.5, -2.5, -1.929812, 1.459893, -0.5283321, -2.450419, 1.493364,
            -0.5038952, -2.079035, 0.3028837,
        ];
        const DX: [f32; 36] = [
            0.0,
            0.0,
            0.0,
            0.0,
            0.0291846,
            -0.03127431,
            -0.8552775,
            2.052333,
            -3.998007,
            -2.017562,
            1.133833,
            3.313361,
            0.05558283,
            -0.09727,
            -0.1283749,
            -0.128375,
            -0.06023567,
            0.1089021,
            0.8235508,
            -1.957152,
            3.988224,
            5.005334,
            4.808607,
            5.619485,
            -0.1114654,
            0.06697825,
            -2.906143,
            -2.557148,
            0.03105121,
            -0.07762803,
            0.03172681,
            -0.09518044,
            0.009783467,
            0.01222933,
            0.05756046,
            0.06715386,
        ];
        let x: Vec<f32> = (0..36).map(|i| ((i * 7 % 11) as f32 - 5.0) / 2.0).collect();
        let x = candle_core::Var::from_vec(x, (1, 3, 12), &Device::Cpu).unwrap();
        let weights: Vec<f32> = (0..12).map(|i| i as f32 - 4.0).collect();
        let weights = Tensor::from_vec(weights, (1, 3, 4), &Device::Cpu).unwrap();
        let y = causal_attention(&x, 2).unwrap();
        let store = (&y * weights).unwrap().sum_all().unwrap().backward().unwrap();
        let read = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let close = |(a, b): (&f32, &f32)| (a - b).abs() < 2e-6 * b.abs().max(1.0);
        assert!(read(&y).iter().zip(&Y).all(close), "{:?}", read(&y));
        let dx = read(store.get(&x).unwrap());
        assert!(dx.iter().zip(&DX).all(close), "{dx:?}");
    }

    #[test]
    fn a_later_position_changes_nothing_before_it() {
        let (shape, heads) = input([1, 130, 2, 3]);
        let x = random_tensor(&shape, 3);
        let changed = [x.narrow(1, 0, 100).unwrap(), x.narrow(1, 100, 30).unwrap().neg().unwrap()];
        let changed = Tensor::cat(&changed, 1).unwrap();
        let rows = |x: &Tensor| {
            causal_attention(x, heads.heads).unwrap().squeeze(0).unwrap().to_vec2::<f32>().unwrap()
        };
        let (before, after) = (rows(&x), rows(&changed));
        assert_eq!(before[..100], after[..100]);
        assert!(before[100..].iter().zip(&after[100..]).all(|(a, b)| a != b));
    }

    #[test]
    fn a_forward_pass_without_gradients_gives_the_same_bits() {
        let (shape, heads) = input(CASES[5]);
        let x = random_tensor(&shape, 4);
        let (_, tracked) = gradients(&no_params(), &x, |x| causal_attention(x, heads.heads));
        let plain = causal_attention(&x, heads.heads).unwrap().flatten_all().unwrap();
        assert_eq!(plain.to_vec1::<f32>().unwrap(), tracked);
    }

    #[test]
    fn huge_scores_give_finite_results_and_nan_is_not_hidden() {
        let (shape, heads) = input(CASES[2]);
        let x = random_tensor(&shape, 5).affine(1e4, 0.0).unwrap();
        let (dx, y) = gradients(&no_params(), &x, |x| causal_attention(x, heads.heads));
        assert!(y.iter().chain(&dx[0]).all(|v| v.is_finite()));
        let x = Tensor::full(f32::NAN, &shape, &Device::Cpu).unwrap();
        let y = causal_attention(&x, heads.heads).unwrap().flatten_all().unwrap();
        assert!(y.to_vec1::<f32>().unwrap().iter().all(|v| v.is_nan()));
    }

    #[test]
    fn an_empty_batch_gives_an_empty_result_in_both_forms() {
        for case in [[0, 5, 2, 3], [2, 0, 2, 3]] {
            let (shape, heads) = input(case);
            let x = random_tensor(&shape, 1);
            let (dx, y) = gradients(&no_params(), &x, |x| causal_attention(x, heads.heads));
            assert!(dx[0].is_empty() && y.is_empty());
            assert_eq!(composed(&x, heads).unwrap().dims(), [case[0], case[1], 6]);
        }
    }

    #[test]
    fn a_wrong_shape_is_refused_in_words() {
        let message = causal_attention(&random_tensor(&[2, 3, 10], 1), 2).unwrap_err().to_string();
        assert!(message.contains("3 times 2 heads") && message.contains("[2, 3, 10]"), "{message}");
        assert!(causal_attention(&random_tensor(&[2, 12], 1), 2).is_err());
        assert!(causal_attention(&random_tensor(&[2, 3, 12], 1), 0).is_err());
    }
}

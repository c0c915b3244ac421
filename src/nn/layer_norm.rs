//! Layer normalisation (Ba, Kiros and Hinton, 2016) over the last dimension, as `torch.nn.LayerNorm`.
//!
//! Forward reads each row from memory once (mean, then variance, then the result, while the row is in
//! the first-level cache); backward reads input and gradient once and gives all three gradients.

use super::elementary::sum_of;
use super::hook::tracked;
use super::host::Host;
use super::params::{Init, Param, ParamBuilder};
use super::recycle::Buffer;
use crate::error::{Error, Result};
use crate::util::wide::wide;
use candle_core::{CpuStorage, CustomOp2, D, DType, Layout, Shape, Tensor};
use std::sync::OnceLock;

/// (x − mean) / √(variance + eps) · weight + bias for each row; `weight` and `bias` (width).
#[derive(Clone)]
pub struct LayerNorm {
    weight: Param,
    bias: Param,
    eps: f32,
}

impl LayerNorm {
    /// A layer for rows of `width` values; weight 1, bias 0. PyTorch's `eps` is 1e-5.
    ///
    /// # Errors
    /// When the width is 0, or the device has no memory.
    pub fn new(params: &ParamBuilder, width: usize, eps: f32) -> Result<LayerNorm> {
        if width == 0 {
            return Err(Error::Internal("layer norm: rows of 0 values".to_owned()));
        }
        let weight = params.param("weight", width, Init::Zeros)?;
        weight.update(|values| values.fill(1.0))?;
        let bias = params.param("bias", width, Init::Zeros)?;
        Ok(LayerNorm { weight, bias, eps })
    }

    /// `x` (…, width), `f32`, with every row normalised.
    ///
    /// # Errors
    /// When `x` has another shape or type.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let width = self.width();
        if x.dims().last() != Some(&width) || x.dtype() != DType::F32 {
            return Err(Error::Internal(format!(
                "{}: expected f32 (…, {width}), got {:?} {:?}",
                self.weight.layer(),
                x.dtype(),
                x.dims()
            )));
        }
        if !x.device().is_cpu() {
            return Ok(self.composed(x)?);
        }
        let op = LayerNormOp { layer: self.clone(), stats: OnceLock::new() };
        Ok(x.contiguous()?.apply_op2(self.weight.tensor(), op)?)
    }

    /// The same of Candle's operations.
    pub(super) fn composed(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        if x.elem_count() == 0 {
            return x.zeros_like();
        }
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let normal = centred.broadcast_div(&(variance + f64::from(self.eps))?.sqrt()?)?;
        normal.broadcast_mul(&tracked(&self.weight)?)?.broadcast_add(&tracked(&self.bias)?)
    }

    fn width(&self) -> usize {
        self.weight.tensor().elem_count()
    }

    /// Normalises the rows of `x` into `out`; gives mean and 1 / √(variance + eps) of each row.
    pub(super) fn apply(&self, x: &[f32], out: &mut [f32]) -> candle_core::Result<Buffer> {
        let width = self.width();
        let (weight, bias) = (Host::of(self.weight.tensor()), Host::of(self.bias.tensor()));
        let (weight, bias) = (weight.values()?, bias.values()?);
        let mut stats = Buffer::take(2 * (x.len() / width));
        normalise(x, weight, bias, self.eps, out, &mut stats);
        Ok(stats)
    }

    /// The backward pass, in place: `grad` of the result becomes that of `x`, plus `base` if given.
    /// The parameters' gradients go to their slots.
    pub(super) fn gradients(
        &self,
        x: &[f32],
        stats: &[f32],
        grad: &mut [f32],
        base: Option<&[f32]>,
    ) -> candle_core::Result<()> {
        let weight = Host::of(self.weight.tensor());
        let mut sums = [vec![0.0; self.width()], vec![0.0; self.width()]];
        let [by_weight, by_bias] = &mut sums;
        backward(x, weight.values()?, stats, grad, base, by_weight, by_bias);
        self.weight.put_grad(&sums[0])?;
        self.bias.put_grad(&sums[1])
    }
}

wide! {
    fn normalise(
        x: &[f32],
        weight: &[f32],
        bias: &[f32],
        eps: f32,
        out: &mut [f32],
        stats: &mut [f32],
    ) {
        let width = weight.len();
        let share = 1.0 / width as f32;
        let rows = x.chunks_exact(width).zip(out.chunks_exact_mut(width));
        for ((x, out), stats) in rows.zip(stats.chunks_exact_mut(2)) {
            let mean = sum_of(x, x, |v, _| v) * share;
            // From the mean, not E[x²] − E[x]², which cancels when the mean is large.
            let variance = sum_of(x, x, |v, _| (v - mean) * (v - mean)) * share;
            let scale = 1.0 / (variance + eps).sqrt();
            stats.copy_from_slice(&[mean, scale]);
            for (((out, x), w), b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
                *out = (x - mean) * scale * w + b;
            }
        }
    }
}

wide! {
    /// With n the normalised row and h = grad · weight: dx = scale · (h − mean(h) − n · mean(h · n)).
    fn backward(
        x: &[f32],
        weight: &[f32],
        stats: &[f32],
        grad: &mut [f32],
        base: Option<&[f32]>,
        by_weight: &mut [f32],
        by_bias: &mut [f32],
    ) {
        let width = weight.len();
        let share = 1.0 / width as f32;
        let rows = x.chunks_exact(width).zip(grad.chunks_exact_mut(width));
        for (row, ((x, grad), stats)) in rows.zip(stats.chunks_exact(2)).enumerate() {
            let (mean, scale) = (stats[0], stats[1]);
            let (along, across) = row_sums(x, grad, weight, mean, scale);
            let (along, across) = (along * share, across * share);
            let terms = grad.iter_mut().zip(x).zip(weight);
            for (((g, x), w), (dw, db)) in terms.zip(by_weight.iter_mut().zip(by_bias.iter_mut())) {
                let normal = (x - mean) * scale;
                *dw += *g * normal;
                *db += *g;
                *g = scale * (*g * w - along - normal * across);
            }
            if let Some(base) = base {
                let base = &base[row * width..(row + 1) * width];
                grad.iter_mut().zip(base).for_each(|(g, b)| *g += b);
            }
        }
    }
}

/// Σ h and Σ h · n of one row.
#[inline(always)]
fn row_sums(x: &[f32], grad: &[f32], weight: &[f32], mean: f32, scale: f32) -> (f32, f32) {
    let ((x16, x_rest), (g16, g_rest)) = (x.as_chunks::<16>(), grad.as_chunks::<16>());
    let (w16, w_rest) = weight.as_chunks::<16>();
    let mut sums = [[0.0f32; 16]; 2];
    for ((x, g), w) in x16.iter().zip(g16).zip(w16) {
        for i in 0..16 {
            let h = g[i] * w[i];
            sums[0][i] += h;
            sums[1][i] += h * ((x[i] - mean) * scale);
        }
    }
    let [mut along, mut across] = sums.map(|lanes| lanes.iter().sum::<f32>());
    for ((x, g), w) in x_rest.iter().zip(g_rest).zip(w_rest) {
        along += g * w;
        across += g * w * ((x - mean) * scale);
    }
    (along, across)
}

struct LayerNormOp {
    layer: LayerNorm,
    stats: OnceLock<Buffer>,
}

impl CustomOp2 for LayerNormOp {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        _weight: &CpuStorage,
        _weight_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = super::host::values(x, layout)?;
        let mut out = vec![0.0; x.len()];
        // The op is applied once, so the cell is empty.
        let _ = self.stats.set(self.layer.apply(x, &mut out)?);
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        _weight: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let mut dx = Host::of(&grad).values()?.to_vec();
        let stats = self.stats.get().map_or(&[][..], |stats| stats);
        self.layer.gradients(Host::of(x).values()?, stats, &mut dx, None)?;
        let dx =
            if x.track_op() { Some(Tensor::from_vec(dx, x.shape(), x.device())?) } else { None };
        Ok((dx, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{assert_agree, check_layer, gradients, params_of, random_tensor};
    use crate::nn::{ParamBuilder, ParamSet};

    const SHAPES: [&[usize]; 4] = [&[4, 7], &[2, 3, 33], &[1, 48], &[5, 3]];

    fn layer(width: usize) -> (ParamSet, LayerNorm) {
        params_of(|b: &ParamBuilder| LayerNorm::new(&b.pp("ln"), width, 1e-5))
    }

    #[test]
    fn gradients_equal_finite_differences_in_both_forms() {
        for shape in &SHAPES[..3] {
            let (set, norm) = layer(shape[shape.len() - 1]);
            check_layer(&set, shape, 1, |x| norm.forward(x));
            check_layer(&set, shape, 1, |x| Ok(norm.composed(x)?));
        }
    }

    #[test]
    fn both_forms_agree() {
        for shape in SHAPES {
            let (set, norm) = layer(shape[shape.len() - 1]);
            let x = random_tensor(shape, 7);
            let own = gradients(&set, &x, |x| norm.forward(x));
            assert_agree(own, gradients(&set, &x, |x| Ok(norm.composed(x)?)));
        }
    }

    #[test]
    fn a_new_layer_gives_rows_of_mean_0_and_variance_1_even_far_from_0() {
        let builder = ParamBuilder::new(1, &candle_core::Device::Cpu);
        let norm = LayerNorm::new(&builder, 100, 1e-5).unwrap();
        let x = random_tensor(&[3, 100], 2).affine(1.0, 1000.0).unwrap();
        for row in norm.forward(&x).unwrap().to_vec2::<f32>().unwrap() {
            let mean = row.iter().sum::<f32>() / 100.0;
            let square = row.iter().map(|v| v * v).sum::<f32>() / 100.0;
            assert!(mean.abs() < 1e-3 && (square - 1.0).abs() < 1e-3, "{mean} {square}");
        }
    }

    #[test]
    fn an_empty_batch_gives_an_empty_result_and_zero_gradients() {
        let (set, norm) = layer(6);
        let x = random_tensor(&[0, 6], 1);
        let (own, y) = gradients(&set, &x, |x| norm.forward(x));
        assert!(y.is_empty() && own.iter().flatten().all(|&g| g == 0.0));
        assert_eq!(norm.composed(&x).unwrap().dims(), [0, 6]);
    }

    #[test]
    fn a_wrong_shape_is_refused_in_words() {
        let (_, norm) = layer(6);
        let message = norm.forward(&random_tensor(&[6, 7], 1)).unwrap_err().to_string();
        assert_eq!(message, "ln: expected f32 (…, 6), got F32 [6, 7]");
        assert!(LayerNorm::new(&ParamBuilder::new(1, &candle_core::Device::Cpu), 0, 1e-5).is_err());
    }
}

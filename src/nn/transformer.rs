//! One block of a pre-norm Transformer as one operation (the GPT-2 form: Radford et al., 2019):
//!
//! ```text
//! x₁ = x  + o(attention(qkv(norm1(x))))
//! y  = x₁ + v(gelu(u(norm2(x₁))))
//! ```
//!
//! One operation, because Candle's backward pass fills the gradient of every tensor in its graph with
//! zeros and then adds to it: three passes over 20 MB of activations per block at 1,024 tokens of
//! width 384. Inside the block each gradient is written once, residual sums are the start of a matrix
//! product, and what only lives inside is scratch memory that is used again.

use super::attention::{self, Heads};
use super::grads::Write;
use super::host::{Host, values};
use super::recycle::Buffer;
use super::{LayerNorm, Linear};
use crate::error::{Error, Result};
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Shape, Tensor};
use std::sync::OnceLock;

/// A pre-norm Transformer block of causal self-attention and a two-layer perceptron. The layers `qkv`,
/// `o` and `v` have neither bias nor activation, `u` ends with GELU.
#[derive(Clone)]
pub struct Block {
    /// Before the attention.
    pub ln1: LayerNorm,
    /// To queries, keys and values: (3 · width, width).
    pub qkv: Linear,
    /// From the heads' results: (width, width).
    pub o: Linear,
    /// Before the perceptron.
    pub ln2: LayerNorm,
    /// To the hidden values, with GELU: (hidden, width).
    pub u: Linear,
    /// From the hidden values: (width, hidden).
    pub v: Linear,
    /// Number of heads; must divide the width.
    pub heads: usize,
}

impl Block {
    /// From (batch, time, width), `f32`, to the same shape. Position t sees positions 0 to t.
    ///
    /// # Errors
    /// When `x` has another shape or type, or the layers do not fit each other.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let sizes = self.check(x)?;
        if !x.device().is_cpu() {
            return Ok(self.composed(x, sizes)?);
        }
        let op = BlockOp { block: self.clone(), sizes, kept: OnceLock::new() };
        // A parameter is an argument so that gradients flow even where `x` needs none.
        Ok(x.contiguous()?.apply_op2(self.qkv.weight(), op)?)
    }

    /// The same of Candle's operations.
    fn composed(&self, x: &Tensor, sizes: Heads) -> candle_core::Result<Tensor> {
        let qkv = self.qkv.composed(&self.ln1.composed(x)?)?;
        let x = (x + self.o.composed(&attention::composed(&qkv, sizes)?)?)?;
        let hidden = self.u.composed(&self.ln2.composed(&x)?)?;
        &x + self.v.composed(&hidden)?
    }

    fn check(&self, x: &Tensor) -> Result<Heads> {
        let ((wide, inputs), (hidden, _)) = (self.qkv.sizes(), self.u.sizes());
        let width = self.o.sizes().0;
        let fits = inputs == width
            && wide == 3 * width
            && self.o.sizes().1 == width
            && self.u.sizes().1 == width
            && self.v.sizes() == (width, hidden)
            && self.qkv.is_plain()
            && self.o.is_plain()
            && self.v.is_plain()
            && self.heads > 0
            && width.is_multiple_of(self.heads);
        match *x.dims() {
            [batch, time, last] if fits && last == width && x.dtype() == DType::F32 => {
                Ok(Heads { batch, time, heads: self.heads, width: width / self.heads })
            }
            _ => Err(Error::Internal(format!(
                "transformer block of width {width} with {} heads: expected f32 (batch, time, \
                 {width}) and layers that fit, got {:?} {:?}",
                self.heads,
                x.dtype(),
                x.dims()
            ))),
        }
    }
}

/// What the backward pass needs of the forward pass.
struct Kept {
    stats1: Buffer,
    normal1: Buffer,
    qkv: Buffer,
    heads: Buffer,
    log_sums: Buffer,
    middle: Buffer,
    stats2: Buffer,
    normal2: Buffer,
    hidden: Buffer,
    slope: Option<Buffer>,
}

struct BlockOp {
    block: Block,
    sizes: Heads,
    kept: OnceLock<Kept>,
}

impl BlockOp {
    fn apply(&self, x: &[f32]) -> candle_core::Result<(Vec<f32>, Kept)> {
        let block = &self.block;
        let hidden_len = x.len() / block.o.sizes().0 * block.u.sizes().0;
        let mut normal1 = Buffer::take(x.len());
        let stats1 = block.ln1.apply(x, &mut normal1)?;
        let mut qkv = Buffer::take(3 * x.len());
        block.qkv.apply(&normal1, &mut qkv, Write::Set)?;
        let mut heads = Buffer::take(x.len());
        let log_sums = self.sizes.apply(&qkv, &mut heads);
        let mut middle = Buffer::copy_of(x);
        block.o.apply(&heads, &mut middle, Write::Add)?;
        let mut normal2 = Buffer::take(x.len());
        let stats2 = block.ln2.apply(&middle, &mut normal2)?;
        let mut hidden = Buffer::take(hidden_len);
        let slope = block.u.apply(&normal2, &mut hidden, Write::Set)?;
        let mut y = middle.to_vec();
        block.v.apply(&hidden, &mut y, Write::Add)?;
        let kept =
            Kept { stats1, normal1, qkv, heads, log_sums, middle, stats2, normal2, hidden, slope };
        Ok((y, kept))
    }

    fn gradients(&self, x: &[f32], kept: &Kept, grad: &[f32]) -> candle_core::Result<Vec<f32>> {
        let block = &self.block;
        let mut d_hidden = Buffer::take(kept.hidden.len());
        block.v.parameter_gradients(&kept.hidden, grad)?;
        block.v.input_gradient(grad, &mut d_hidden)?;
        block.u.through(&kept.hidden, kept.slope.as_ref(), &mut d_hidden);
        block.u.parameter_gradients(&kept.normal2, &d_hidden)?;
        let mut d_middle = Buffer::take(x.len());
        block.u.input_gradient(&d_hidden, &mut d_middle)?;
        drop(d_hidden);
        block.ln2.gradients(&kept.middle, &kept.stats2, &mut d_middle, Some(grad))?;

        let mut d_heads = Buffer::take(x.len());
        block.o.parameter_gradients(&kept.heads, &d_middle)?;
        block.o.input_gradient(&d_middle, &mut d_heads)?;
        let mut d_qkv = Buffer::take(3 * x.len());
        let (qkv, log_sums) = (&kept.qkv, &kept.log_sums);
        self.sizes.gradients(qkv, &kept.heads, log_sums, &d_heads, &mut d_qkv);
        block.qkv.parameter_gradients(&kept.normal1, &d_qkv)?;
        let mut dx = vec![0.0; x.len()];
        block.qkv.input_gradient(&d_qkv, &mut dx)?;
        block.ln1.gradients(x, &kept.stats1, &mut dx, Some(&d_middle))?;
        Ok(dx)
    }
}

impl CustomOp2 for BlockOp {
    fn name(&self) -> &'static str {
        "transformer-block"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        _weight: &CpuStorage,
        _weight_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (y, kept) = self.apply(values(x, layout)?)?;
        // The op is applied once, so the cell is empty.
        let _ = self.kept.set(kept);
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        _weight: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let Some(kept) = self.kept.get() else {
            candle_core::bail!("transformer block: backward without forward");
        };
        let grad = grad.contiguous()?;
        let (rows, grad) = (Host::of(x), Host::of(&grad));
        let dx = self.gradients(rows.values()?, kept, grad.values()?)?;
        let dx =
            if x.track_op() { Some(Tensor::from_vec(dx, x.shape(), x.device())?) } else { None };
        Ok((dx, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{
        assert_agree, check_layer, gradients, params_of, random, random_tensor,
    };
    use crate::nn::{Activation, Init, ParamBuilder, ParamSet, causal_attention};

    fn block(width: usize, hidden: usize, heads: usize) -> (ParamSet, Block) {
        let (set, block) = params_of(|b: &ParamBuilder| {
            let linear = |name: &str, outputs: usize, inputs: usize, activation| {
                let weight = b.pp(name).param("weight", (outputs, inputs), Init::Zeros)?;
                Linear::without_bias(weight, activation)
            };
            Ok(Block {
                ln1: LayerNorm::new(&b.pp("ln1"), width, 1e-5)?,
                qkv: linear("qkv", 3 * width, width, Activation::None)?,
                o: linear("o", width, width, Activation::None)?,
                ln2: LayerNorm::new(&b.pp("ln2"), width, 1e-5)?,
                u: linear("u", hidden, width, Activation::Gelu)?,
                v: linear("v", width, hidden, Activation::None)?,
                heads,
            })
        });
        // Smaller weights: scores of a trained size, for which differences are smooth.
        for (i, param) in set.iter().enumerate().filter(|(_, p)| p.tensor().rank() == 2) {
            let values = random(param.tensor().elem_count(), i as u64);
            param.update(|v| v.iter_mut().zip(&values).for_each(|(v, r)| *v = 0.4 * r)).unwrap();
        }
        (set, block)
    }

    #[test]
    fn gradients_equal_finite_differences_in_both_forms() {
        let (set, block) = block(6, 10, 2);
        check_layer(&set, &[2, 5, 6], 1, |x| block.forward(x));
        check_layer(&set, &[2, 5, 6], 1, |x| Ok(block.composed(x, block.check(x)?)?));
    }

    #[test]
    fn the_block_its_composed_form_and_separate_layers_agree() {
        for (width, hidden, heads, shape) in [(6, 10, 2, [2, 5, 6]), (8, 32, 4, [3, 70, 8])] {
            let (set, block) = block(width, hidden, heads);
            let x = random_tensor(&shape, 7);
            let fused = gradients(&set, &x, |x| block.forward(x));
            let composed = gradients(&set, &x, |x| Ok(block.composed(x, block.check(x)?)?));
            assert_agree(fused.clone(), composed);
            let separate = gradients(&set, &x, |x| {
                let qkv = block.qkv.forward(&block.ln1.forward(x)?)?;
                let x = (x + block.o.forward(&causal_attention(&qkv, heads)?)?)?;
                let hidden = block.u.forward(&block.ln2.forward(&x)?)?;
                Ok((&x + block.v.forward(&hidden)?)?)
            });
            assert_agree(fused, separate);
        }
    }

    #[test]
    fn an_empty_batch_gives_an_empty_result_and_zero_gradients() {
        let (set, block) = block(6, 10, 2);
        let x = random_tensor(&[0, 5, 6], 1);
        let (own, y) = gradients(&set, &x, |x| block.forward(x));
        assert!(y.is_empty() && own.iter().flatten().all(|&g| g == 0.0));
    }

    #[test]
    fn layers_that_do_not_fit_are_refused_in_words() {
        let (_, mut block) = block(6, 10, 2);
        let x = random_tensor(&[1, 2, 6], 1);
        block.heads = 4;
        let message = block.forward(&x).unwrap_err().to_string();
        assert!(message.contains("width 6 with 4 heads"), "{message}");
        block.heads = 2;
        std::mem::swap(&mut block.u, &mut block.v);
        assert!(block.forward(&x).is_err());
    }
}

//! Dense layer, as `torch.nn.functional.linear`, with ReLU or GELU when asked.

use super::elementary::add_rows;
use super::gelu;
use super::gemm::{self, Mat, matmul};
use super::grads::Write;
use super::hook::tracked;
use super::host::{Host, values};
use super::params::{Init, Param, ParamBuilder};
use super::recycle::Buffer;
use super::relu;
use crate::config;
use crate::error::{Error, Result};
use crate::util::wide::wide;
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Shape, Tensor};
use std::sync::OnceLock;

/// What follows the dense layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// max(x, 0), see [`super::relu()`].
    Relu,
    /// x·Φ(x), see [`super::gelu()`].
    Gelu,
}

/// A dense layer x·weightᵀ + bias: `weight` (outputs, inputs) and `bias` (outputs) if it has one,
/// PyTorch's layouts.
#[derive(Clone)]
pub struct Linear {
    weight: Param,
    bias: Option<Param>,
    activation: Activation,
}

impl Linear {
    /// A layer from `inputs` to `outputs` values with bias, followed by ReLU if `relu`.
    ///
    /// # Errors
    /// When there are no inputs or no outputs, or the device has no memory.
    pub fn new(
        params: &ParamBuilder,
        inputs: usize,
        outputs: usize,
        relu: bool,
        init: config::Init,
    ) -> Result<Linear> {
        let init = Init::weights(init, inputs, outputs);
        let weight = params.param("weight", (outputs, inputs), init)?;
        let activation = if relu { Activation::Relu } else { Activation::None };
        let layer = Linear::without_bias(weight, activation)?;
        Ok(Linear { bias: Some(params.param("bias", outputs, Init::Zeros)?), ..layer })
    }

    /// A layer without bias over `weight` (outputs, inputs), which may be used elsewhere, too (tied
    /// embedding): gradients add.
    ///
    /// # Errors
    /// When `weight` is not a matrix, or has no rows or columns.
    pub fn without_bias(weight: Param, activation: Activation) -> Result<Linear> {
        let dims = weight.tensor().dims();
        if dims.len() != 2 || dims.contains(&0) {
            return Err(Error::Internal(format!(
                "{}: expected a matrix with rows and columns, got {dims:?}",
                weight.name()
            )));
        }
        Ok(Linear { weight, bias: None, activation })
    }

    /// The same with `bias`, one value for each output.
    #[must_use]
    pub fn with_bias(self, bias: Param) -> Linear {
        Linear { bias: Some(bias), ..self }
    }

    /// From (…, inputs), `f32`, to (…, outputs).
    ///
    /// # Errors
    /// When `x` has another shape or type.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (_, inputs) = self.sizes();
        if x.rank() < 2 || x.dims().last() != Some(&inputs) || x.dtype() != DType::F32 {
            return Err(Error::Internal(format!(
                "{}: expected f32 (batch, {inputs}), got {:?} {:?}",
                self.weight.layer(),
                x.dtype(),
                x.dims()
            )));
        }
        if !x.device().is_cpu() {
            return Ok(self.composed(x)?);
        }
        let op = LinearOp { layer: self.clone(), slope: OnceLock::new() };
        Ok(x.contiguous()?.apply_op2(self.weight.tensor(), op)?)
    }

    /// The same of Candle's operations.
    pub(super) fn composed(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (outputs, inputs) = self.sizes();
        let mut shape = x.dims().to_vec();
        shape[x.rank() - 1] = outputs;
        if x.elem_count() == 0 {
            return Tensor::zeros(shape, x.dtype(), x.device());
        }
        let rows = x.reshape(((), inputs))?;
        let mut y = rows.matmul(&tracked(&self.weight)?.t()?)?;
        if let Some(bias) = &self.bias {
            y = y.broadcast_add(&tracked(bias)?)?;
        }
        let y = match self.activation {
            Activation::None => y,
            Activation::Relu => relu::composed(&y)?,
            Activation::Gelu => gelu::composed(&y)?,
        };
        y.reshape(shape)
    }

    /// The weight as an argument of operations.
    pub(super) fn weight(&self) -> &Tensor {
        self.weight.tensor()
    }

    /// Outputs and inputs.
    pub(super) fn sizes(&self) -> (usize, usize) {
        let dims = self.weight.tensor().dims();
        (dims[0], dims[1])
    }

    /// Whether it is a matrix product and nothing else.
    pub(super) fn is_plain(&self) -> bool {
        self.bias.is_none() && self.activation == Activation::None
    }

    /// The layer on the rows of `x`, into `out`; adds to what is there if `how` says so (only without
    /// bias and activation). With GELU gives the slopes, which [`Linear::through`] wants.
    pub(super) fn apply(
        &self,
        x: &[f32],
        out: &mut [f32],
        how: Write,
    ) -> candle_core::Result<Option<Buffer>> {
        let (outputs, inputs) = self.sizes();
        let (rows, weight) = (x.len() / inputs, Host::of(self.weight.tensor()));
        let x = Mat::new(x, rows, inputs);
        let weight = Mat::new(weight.values()?, outputs, inputs);
        let bias = self.bias.as_ref().map(|bias| Host::of(bias.tensor()));
        let bias = bias.as_ref().map(|bias| bias.values()).transpose()?;
        if rows <= FEW && rows < outputs && how == Write::Set && self.activation != Activation::Gelu
        {
            // The weight is most of the work of reading. `matmul` repacks its right operand but reads
            // the left one as it lies: 28 ms instead of 39 for 64 rows of 4,096 × 4,096.
            let mut turned = Buffer::take(rows * outputs);
            matmul(&mut turned, weight, x.t(), Write::Set);
            turn(&turned, rows, bias, self.activation == Activation::Relu, out);
            return Ok(None);
        }
        if self.activation == Activation::Gelu {
            let mut before = Buffer::take(rows * outputs);
            product(x, weight, bias, &mut before, Write::Set);
            gelu::apply_and_keep_slope(&mut before, out);
            return Ok(Some(before));
        }
        product(x, weight, bias, out, how);
        if self.activation == Activation::Relu {
            out.iter_mut().for_each(|v| *v = relu::clamp(*v));
        }
        Ok(None)
    }

    /// Turns the gradient of the result `y` into that before the activation. `slope` is what
    /// [`Linear::apply`] gave.
    pub(super) fn through(&self, y: &[f32], slope: Option<&Buffer>, grad: &mut [f32]) {
        match (self.activation, slope) {
            (Activation::Gelu, Some(slope)) => gelu::times(grad, slope),
            (Activation::Relu, _) => {
                grad.iter_mut().zip(y).for_each(|(g, &y)| *g = if y == 0.0 { 0.0 } else { *g });
            }
            _ => {}
        }
    }

    /// Puts the gradients of weight and bias into their slots; `grad` is that before the activation.
    pub(super) fn parameter_gradients(&self, x: &[f32], grad: &[f32]) -> candle_core::Result<()> {
        let (outputs, inputs) = self.sizes();
        let rows = x.len() / inputs;
        if let Some(bias) = &self.bias {
            let mut sum = vec![0.0; outputs];
            add_rows(grad, &mut sum);
            bias.put_grad(&sum)?;
        }
        let (grad, x) = (Mat::new(grad, rows, outputs).t(), Mat::new(x, rows, inputs));
        gemm::write_gradient(&self.weight, grad, x)
    }

    /// The gradient of the layer's input; `grad` is that before the activation.
    pub(super) fn input_gradient(&self, grad: &[f32], dx: &mut [f32]) -> candle_core::Result<()> {
        let (outputs, inputs) = self.sizes();
        let weight = Host::of(self.weight.tensor());
        let (rows, weight) = (grad.len() / outputs, weight.values()?);
        let grad = Mat::new(grad, rows, outputs);
        matmul(dx, grad, Mat::new(weight, outputs, inputs), Write::Set);
        Ok(())
    }
}

/// Up to so many rows the weight, not the input, should lie still in the product.
const FEW: usize = 128;

/// x·weightᵀ + bias into `out`. Each row starts as the bias: no pass of its own.
fn product(x: Mat, weight: Mat, bias: Option<&[f32]>, out: &mut [f32], how: Write) {
    let how = match bias {
        Some(bias) => {
            out.chunks_exact_mut(bias.len()).for_each(|row| row.copy_from_slice(bias));
            Write::Add
        }
        None => how,
    };
    matmul(out, x, weight.t(), how);
}

wide! {
    /// Transposes (outputs, rows) to (rows, outputs), adds the bias and cuts at 0 if `cut`.
    fn turn(from: &[f32], rows: usize, bias: Option<&[f32]>, cut: bool, out: &mut [f32]) {
        /// One cache line of the result, and as many of the source.
        const TILE: usize = 16;
        let outputs = from.len() / rows.max(1);
        for first in (0..outputs).step_by(TILE) {
            let end = outputs.min(first + TILE);
            let lines = &from[first * rows..end * rows];
            for (r, out) in out.chunks_exact_mut(outputs).enumerate() {
                let out = &mut out[first..end];
                for (out, line) in out.iter_mut().zip(lines.chunks_exact(rows)) {
                    *out = line[r];
                }
                if let Some(bias) = bias {
                    out.iter_mut().zip(&bias[first..end]).for_each(|(v, b)| *v += b);
                }
                if cut {
                    out.iter_mut().for_each(|v| *v = relu::clamp(*v));
                }
            }
        }
    }
}

struct LinearOp {
    layer: Linear,
    slope: OnceLock<Option<Buffer>>,
}

impl CustomOp2 for LinearOp {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        _weight: &CpuStorage,
        _weight_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (outputs, inputs) = self.layer.sizes();
        let x = values(x, x_layout)?;
        let mut out = vec![0.0; x.len() / inputs * outputs];
        // The op is applied once, so the cell is empty.
        let _ = self.slope.set(self.layer.apply(x, &mut out, Write::Set)?);
        let mut shape = x_layout.dims().to_vec();
        shape[x_layout.dims().len() - 1] = outputs;
        Ok((CpuStorage::F32(out), shape.into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        _weight: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let grad = Host::of(&grad);
        let changed = match self.layer.activation {
            Activation::None => None,
            _ => {
                let mut changed = Buffer::copy_of(grad.values()?);
                let slope = self.slope.get().and_then(Option::as_ref);
                self.layer.through(Host::of(y).values()?, slope, &mut changed);
                Some(changed)
            }
        };
        let grad = changed.as_deref().map_or_else(|| grad.values(), Ok)?;
        self.layer.parameter_gradients(Host::of(x).values()?, grad)?;
        if !x.track_op() {
            return Ok((None, None));
        }
        let mut dx = vec![0.0; x.elem_count()];
        self.layer.input_gradient(grad, &mut dx)?;
        Ok((Some(Tensor::from_vec(dx, x.shape(), x.device())?), None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{assert_agree, check_layer, gradients, params_of, random_tensor};
    use crate::nn::{ParamBuilder, ParamSet};

    /// Batch, inputs, outputs.
    const CASES: [[usize; 3]; 4] = [[4, 7, 5], [1, 3, 2], [3, 1, 1], [2, 33, 17]];

    /// With bias and both of its activations, and without and all.
    fn layers([_, inputs, outputs]: [usize; 3]) -> Vec<(ParamSet, Linear)> {
        let init = config::Init::Glorot;
        let biased = |relu| {
            params_of(|b: &ParamBuilder| Linear::new(&b.pp("fc"), inputs, outputs, relu, init))
        };
        let bare = |activation| {
            params_of(|b: &ParamBuilder| {
                let weight = b.pp("fc").param("weight", (outputs, inputs), Init::Zeros)?;
                Linear::without_bias(weight, activation)
            })
        };
        let [none, relu, gelu] = [Activation::None, Activation::Relu, Activation::Gelu].map(bare);
        vec![biased(false), biased(true), none, relu, gelu]
    }

    fn layer(case: [usize; 3], relu: bool) -> (ParamSet, Linear) {
        layers(case).swap_remove(usize::from(relu))
    }

    #[test]
    fn gradients_equal_finite_differences_in_both_forms() {
        for case in CASES {
            for (set, linear) in layers(case) {
                check_layer(&set, &case[..2], 1, |x| linear.forward(x));
                check_layer(&set, &case[..2], 1, |x| Ok(linear.composed(x)?));
            }
        }
    }

    #[test]
    fn both_forms_agree() {
        for case in CASES.into_iter().chain([[130, 9, 40], [20, 5, 50]]) {
            for (set, linear) in layers(case) {
                let x = random_tensor(&case[..2], 7);
                let own = gradients(&set, &x, |x| linear.forward(x));
                assert_agree(own, gradients(&set, &x, |x| Ok(linear.composed(x)?)));
            }
        }
    }

    #[test]
    fn leading_dimensions_are_rows() {
        for (set, linear) in layers([6, 4, 3]) {
            let rows = random_tensor(&[6, 4], 2);
            let as_rows = gradients(&set, &rows, |x| linear.forward(x));
            let cube = rows.reshape((2, 3, 4)).unwrap();
            assert_eq!(linear.forward(&cube).unwrap().dims(), [2, 3, 3]);
            assert_eq!(linear.composed(&cube).unwrap().dims(), [2, 3, 3]);
            assert_agree(as_rows, gradients(&set, &cube, |x| linear.forward(x)));
        }
    }

    #[test]
    fn two_layers_in_a_row_pass_the_gradient_on() {
        let init = config::Init::He;
        let (set, (first, second)) = params_of(|b: &ParamBuilder| {
            Ok((
                Linear::new(&b.pp("fc1"), 6, 8, true, init)?,
                Linear::new(&b.pp("fc2"), 8, 3, false, init)?,
            ))
        });
        check_layer(&set, &[5, 6], 2, |x| second.forward(&first.forward(x)?));
    }

    #[test]
    fn an_empty_batch_gives_an_empty_result_and_zero_gradients() {
        let (set, linear) = layer([0, 4, 3], true);
        let x = random_tensor(&[0, 4], 1);
        assert_eq!(linear.forward(&x).unwrap().dims(), [0, 3]);
        let (own, _) = gradients(&set, &x, |x| linear.forward(x));
        let (composed, _) = gradients(&set, &x, |x| Ok(linear.composed(x)?));
        assert!(own.iter().chain(&composed).flatten().all(|&g| g == 0.0));
    }

    #[test]
    fn a_wrong_shape_is_refused_in_words() {
        let (_, linear) = layer(CASES[0], false);
        let message = linear.forward(&random_tensor(&[4, 8], 1)).unwrap_err().to_string();
        assert_eq!(message, "fc: expected f32 (batch, 7), got F32 [4, 8]");
        let empty = ParamBuilder::new(1, &candle_core::Device::Cpu);
        assert!(Linear::new(&empty, 0, 3, false, config::Init::He).is_err());
    }
}

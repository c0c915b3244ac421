//! Dense layer, as `torch.nn.functional.linear`, with ReLU when asked.

use super::gemm::{Mat, matmul};
use super::grads::Write;
use super::hook::tracked;
use super::host::{Host, store, values};
use super::params::{Init, Param, ParamBuilder};
use super::relu;
use crate::config;
use crate::error::{Error, Result};
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Shape, Tensor};

/// A dense layer x·weightᵀ + bias: `weight` (outputs, inputs) and `bias` (outputs), PyTorch's layouts.
#[derive(Clone)]
pub struct Linear {
    weight: Param,
    bias: Param,
    relu: bool,
}

impl Linear {
    /// A layer from `inputs` to `outputs` values, followed by ReLU if `relu`.
    ///
    /// # Errors
    /// When the device has no memory.
    pub fn new(
        params: &ParamBuilder,
        inputs: usize,
        outputs: usize,
        relu: bool,
        init: config::Init,
    ) -> Result<Linear> {
        let init = Init::weights(init, inputs, outputs);
        let weight = params.param("weight", (outputs, inputs), init)?;
        let bias = params.param("bias", outputs, Init::Zeros)?;
        Ok(Linear { weight, bias, relu })
    }

    /// From (batch, inputs), `f32`, to (batch, outputs).
    ///
    /// # Errors
    /// When `x` has another shape or type.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let inputs = self.weight.tensor().dims()[1];
        if x.rank() != 2 || x.dims()[1] != inputs || x.dtype() != DType::F32 {
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
        let op = LinearOp(self.clone());
        Ok(x.contiguous()?.apply_op3(self.weight.tensor(), self.bias.tensor(), op)?)
    }

    /// The same of Candle's operations.
    fn composed(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        if x.dim(0)? == 0 {
            let outputs = self.bias.tensor().elem_count();
            return Tensor::zeros((0, outputs), x.dtype(), x.device());
        }
        let y = x.matmul(&tracked(&self.weight)?.t()?)?.broadcast_add(&tracked(&self.bias)?)?;
        if self.relu { relu::composed(&y) } else { Ok(y) }
    }
}

struct LinearOp(Linear);

impl LinearOp {
    /// The three products of the backward pass, `g` (batch × outputs) being the gradient before ReLU.
    fn backward(&self, x: &Tensor, g: &[f32]) -> candle_core::Result<Option<Tensor>> {
        let (batch, inputs) = x.dims2()?;
        let outputs = self.0.bias.tensor().elem_count();
        let grad = Mat::new(g, batch, outputs);
        let mut bias = vec![0.0; outputs];
        for row in g.chunks_exact(outputs) {
            bias.iter_mut().zip(row).for_each(|(b, g)| *b += g);
        }
        self.0.bias.write_grad(|slot, how| store(slot, &bias, how))?;
        let rows = Host::of(x);
        let rows = Mat::new(rows.values()?, batch, inputs);
        self.0.weight.write_grad(|slot, how| matmul(slot, grad.t(), rows, how))?;
        if !x.track_op() {
            return Ok(None);
        }
        let weight = Host::of(self.0.weight.tensor());
        let mut dx = vec![0.0; batch * inputs];
        matmul(&mut dx, grad, Mat::new(weight.values()?, outputs, inputs), Write::Set);
        Tensor::from_vec(dx, (batch, inputs), x.device()).map(Some)
    }
}

impl CustomOp3 for LinearOp {
    fn name(&self) -> &'static str {
        "linear-bias-relu"
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
        let (batch, inputs) = x_layout.shape().dims2()?;
        let bias = values(bias, bias_layout)?;
        let outputs = bias.len();
        // Each row starts as the bias and the product is added: no zero fill, no pass for the bias.
        let mut out = bias.repeat(batch);
        let x = Mat::new(values(x, x_layout)?, batch, inputs);
        let weight = Mat::new(values(weight, weight_layout)?, outputs, inputs);
        matmul(&mut out, x, weight.t(), Write::Add);
        if self.0.relu {
            out.iter_mut().for_each(|v| *v = relu::clamp(*v));
        }
        Ok((CpuStorage::F32(out), (batch, outputs).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        _weight: &Tensor,
        _bias: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let grad = Host::of(&grad);
        let dx = if self.0.relu {
            self.backward(x, &relu::masked(Host::of(y).values()?, grad.values()?))?
        } else {
            self.backward(x, grad.values()?)?
        };
        Ok((dx, None, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{assert_agree, check_layer, gradients, params_of, random_tensor};
    use crate::nn::{ParamBuilder, ParamSet};

    /// Batch, inputs, outputs.
    const CASES: [[usize; 3]; 4] = [[4, 7, 5], [1, 3, 2], [3, 1, 1], [2, 33, 17]];

    fn layer([_, inputs, outputs]: [usize; 3], relu: bool) -> (ParamSet, Linear) {
        let init = config::Init::Glorot;
        params_of(|b: &ParamBuilder| Linear::new(&b.pp("fc"), inputs, outputs, relu, init))
    }

    #[test]
    fn gradients_equal_finite_differences_in_both_forms() {
        for case in CASES {
            for relu in [false, true] {
                let (set, linear) = layer(case, relu);
                check_layer(&set, &case[..2], 1, |x| linear.forward(x));
                check_layer(&set, &case[..2], 1, |x| Ok(linear.composed(x)?));
            }
        }
    }

    #[test]
    fn both_forms_agree() {
        for case in CASES {
            for relu in [false, true] {
                let (set, linear) = layer(case, relu);
                let x = random_tensor(&case[..2], 7);
                let own = gradients(&set, &x, |x| linear.forward(x));
                assert_agree(own, gradients(&set, &x, |x| Ok(linear.composed(x)?)));
            }
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
    }
}

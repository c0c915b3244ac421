//! On a GPU the layers give what they give on the processor: values and all gradients. Run them where
//! there is one: `cargo test --release --features cuda gpu -- --ignored`.

use super::testing::{check_on_gpu, random, random_tensor};
use super::*;
use crate::config;
use crate::error::Result;
use candle_core::{DType, Device, Tensor};

/// Rounding in other orders of sums, as a share of the largest value.
const ROUNDING: f32 = 2e-5;

fn nothing(_: &ParamBuilder) -> Result<()> {
    Ok(())
}

#[test]
#[ignore = "needs a GPU"]
fn dense_layers_on_the_gpu_agree_with_the_processor() {
    for (batch, inputs, outputs) in [(5, 7, 3), (64, 800, 500), (0, 4, 2)] {
        for relu in [false, true] {
            let build =
                |b: &ParamBuilder| Linear::new(&b.pp("l"), inputs, outputs, relu, config::Init::He);
            check_on_gpu(&[batch, inputs], ROUNDING, build, |layer, x| layer.forward(x));
        }
    }
    let build = |b: &ParamBuilder| {
        Linear::without_bias(b.param("w", (9, 6), Init::Zeros)?, Activation::Gelu)
    };
    check_on_gpu(&[2, 3, 6], ROUNDING, build, |layer, x| layer.forward(x));
}

#[test]
#[ignore = "needs a GPU"]
fn convolutions_on_the_gpu_agree_with_the_processor() {
    for [batch, c_in, rows, cols, c_out, kernel, padding] in [
        [2, 1, 6, 6, 3, 5, 0],
        [1, 3, 5, 7, 2, 3, 0],
        [3, 2, 4, 5, 4, 1, 0],
        [2, 2, 5, 4, 3, 3, 1],
        [64, 20, 12, 12, 50, 5, 0],
        [0, 2, 6, 6, 3, 3, 0],
    ] {
        let shape = [batch, c_in, rows, cols];
        let init = config::Init::He;
        let build = |b: &ParamBuilder| Conv2d::new(&b.pp("c"), c_in, c_out, kernel, padding, init);
        check_on_gpu(&shape, ROUNDING, build, |layer, x| layer.forward(x));
    }
    for (shape, kernel, stride) in
        [([2, 3, 8, 8], 3, 2), ([3, 2, 7, 6], 3, 2), ([0, 2, 6, 6], 1, 2)]
    {
        let init = config::Init::He;
        let build = |b: &ParamBuilder| {
            Conv2d::without_bias(&b.pp("c"), [shape[1], 5], kernel, stride, kernel / 2, init)
        };
        check_on_gpu(&shape, ROUNDING, build, |layer, x| layer.forward(x));
    }
    let build = |b: &ParamBuilder| ConvReluPool::new(&b.pp("c"), 2, 4, 3, 2, config::Init::Glorot);
    check_on_gpu(&[3, 2, 9, 8], ROUNDING, build, |layer, x| layer.forward(x));
}

#[test]
#[ignore = "needs a GPU"]
fn what_has_no_parameters_agrees_on_the_gpu() {
    let samples = [4, 9, 2];
    let dropout = Dropout::new(0.3, 0).unwrap();
    check_on_gpu(&[3, 2, 7, 6], 0.0, nothing, |(), x| max_pool2d(x, 2));
    check_on_gpu(&[3, 2, 7, 6], 0.0, nothing, |(), x| shortcut(x, 4, 2));
    check_on_gpu(&[3, 2, 7, 6], ROUNDING, nothing, |(), x| global_average(x));
    check_on_gpu(&[3, 40], 0.0, nothing, |(), x| relu(x));
    check_on_gpu(&[3, 40], ROUNDING, nothing, |(), x| gelu(x));
    check_on_gpu(&[3, 40], 0.0, nothing, |(), x| dropout.forward(x, 1, 2, &samples));
    check_on_gpu(&[4, 7], ROUNDING, nothing, |(), x| cross_entropy(x, &[6, 0, 3, 3]));
    check_on_gpu(&[0, 7], ROUNDING, nothing, |(), x| cross_entropy(x, &[]));
}

#[test]
#[ignore = "needs a GPU"]
fn norms_tables_and_attention_agree_on_the_gpu() {
    let norm = |b: &ParamBuilder| LayerNorm::new(&b.pp("n"), 48, 1e-5);
    check_on_gpu(&[6, 48], ROUNDING, norm, |layer, x| layer.forward(x));
    let norm = |b: &ParamBuilder| GroupNorm::new(&b.pp("n"), 2, 8, 1e-5);
    check_on_gpu(&[3, 8, 5, 6], ROUNDING, norm, |layer, x| layer.forward_relu(x));
    check_on_gpu(&[3, 8, 5, 6], ROUNDING, norm, |layer, x| layer.forward_add_relu(x, x));
    for train in [true, false] {
        let norm = |b: &ParamBuilder| BatchNorm2d::new(&b.pp("n"), 3);
        check_on_gpu(&[4, 3, 5, 6], ROUNDING, norm, |layer, x| layer.forward(x, train));
    }
    let table = |b: &ParamBuilder| Embedding::new(b.param("t", (7, 4), Init::Zeros)?);
    check_on_gpu(&[5, 4], ROUNDING, table, |table, x| Ok((table.forward(&[3, 0, 3, 6, 1])? * x)?));
    check_on_gpu(&[2, 70, 24], ROUNDING, nothing, |(), x| causal_attention(x, 2));
}

#[test]
#[ignore = "needs a GPU"]
fn a_number_that_is_not_finite_stays_so_on_the_gpu() {
    let gpu = Device::new_cuda(0).unwrap();
    let x = Tensor::new(&[[1e30f32, -1e30], [1000.0, 999.0], [f32::NAN, 0.0]], &gpu).unwrap();
    let losses = cross_entropy(&x, &[0, 1, 1]).unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(losses[0], 0.0);
    assert!((losses[1] - 1.313_261_7).abs() < 1e-6);
    assert!(losses[2].is_nan());
    assert_eq!(correct(&x, &[0, 0, 1]).unwrap(), 2);
    for f in [relu, gelu] {
        assert!(f(&x).unwrap().to_vec2::<f32>().unwrap()[2][0].is_nan());
    }
}

#[test]
#[ignore = "needs a GPU"]
fn a_parameter_on_the_gpu_is_read_and_changed_as_on_the_processor() {
    let gpu = Device::new_cuda(0).unwrap();
    let (set, param) = testing::params_on(&gpu, |b| b.param("w", (3, 4), Init::Zeros));
    let (host, _) = testing::params_of(|b| b.param("w", (3, 4), Init::Zeros));
    assert_eq!(set.hash().unwrap(), host.hash().unwrap());
    param.update(|v| v.iter_mut().for_each(|v| *v += 1.0)).unwrap();
    let wanted: Vec<f32> = random(12, 100).iter().map(|v| v + 1.0).collect();
    assert_eq!(param.to_vec().unwrap(), wanted);
    assert_eq!(param.read(<[f32]>::to_vec).unwrap(), wanted);
    let ones = Tensor::ones((1, 3), DType::F32, &gpu).unwrap();
    let product = ones.matmul(param.tensor()).unwrap();
    let sum = wanted.iter().sum::<f32>();
    assert!((product.sum_all().unwrap().to_scalar::<f32>().unwrap() - sum).abs() < 1e-4);
    assert!(random_tensor(&[2], 1).device().is_cpu());
}

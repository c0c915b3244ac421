//! What convolutions promise.

use super::*;
use crate::nn::testing::{assert_agree, check_layer, gradients, params_of, random_tensor};
use crate::nn::{ParamBuilder, ParamSet};

/// Batch, c_in, rows, cols, c_out, kernel, padding.
const CASES: [[usize; 7]; 6] = [
    [2, 1, 6, 6, 3, 5, 0],
    [1, 3, 5, 7, 2, 3, 0],
    [3, 2, 4, 5, 4, 1, 0],
    [2, 2, 5, 4, 3, 3, 1],
    [1, 2, 12, 12, 3, 5, 0],
    [1, 1, 3, 3, 1, 5, 2],
];

fn layer([_, c_in, _, _, c_out, kernel, padding]: [usize; 7]) -> (ParamSet, Conv2d) {
    let init = config::Init::He;
    params_of(|b: &ParamBuilder| Conv2d::new(&b.pp("c"), c_in, c_out, kernel, padding, init))
}

/// Batch, c_in, rows, cols, c_out, kernel, padding, stride; without bias.
const WITHOUT_BIAS: [[usize; 8]; 7] = [
    [2, 2, 5, 4, 3, 3, 1, 1],
    [2, 2, 6, 8, 3, 3, 1, 2],
    [1, 3, 7, 5, 2, 3, 1, 2],
    [2, 2, 7, 6, 3, 1, 0, 2],
    [1, 2, 8, 9, 2, 3, 0, 3],
    [1, 1, 2, 1, 2, 3, 1, 2],
    [1, 1, 11, 9, 2, 5, 2, 4],
];

/// The shape of the input, the parameters and the layer of every case.
fn layers() -> Vec<([usize; 4], ParamSet, Conv2d)> {
    let shape = |case: &[usize]| [case[0], case[1], case[2], case[3]];
    let with_bias = CASES.iter().map(|&case| {
        let (set, conv) = layer(case);
        (shape(&case), set, conv)
    });
    let without = WITHOUT_BIAS.iter().map(|case| {
        let [_, c_in, _, _, c_out, kernel, padding, stride] = *case;
        let (set, conv) = params_of(|b: &ParamBuilder| {
            let (b, init) = (b.pp("c"), config::Init::He);
            Conv2d::without_bias(&b, [c_in, c_out], kernel, stride, padding, init)
        });
        (shape(case), set, conv)
    });
    with_bias.chain(without).collect()
}

#[test]
fn gradients_equal_finite_differences_in_both_forms() {
    for (shape, set, conv) in layers() {
        check_layer(&set, &shape, 1, |x| conv.forward(x));
        check_layer(&set, &shape, 1, |x| Ok(conv.composed(x)?));
    }
}

#[test]
fn both_forms_agree() {
    for (shape, set, conv) in layers() {
        let x = random_tensor(&shape, 7);
        let own = gradients(&set, &x, |x| conv.forward(x));
        assert_agree(own, gradients(&set, &x, |x| Ok(conv.composed(x)?)));
    }
}

#[test]
fn an_empty_batch_gives_an_empty_result_and_zero_gradients() {
    let (set, conv) = layer([0, 2, 6, 6, 3, 3, 0]);
    let x = random_tensor(&[0, 2, 6, 6], 1);
    assert_eq!(conv.forward(&x).unwrap().dims(), [0, 3, 4, 4]);
    let (own, _) = gradients(&set, &x, |x| conv.forward(x));
    let (composed, _) = gradients(&set, &x, |x| Ok(conv.composed(x)?));
    assert!(own.iter().chain(&composed).flatten().all(|&g| g == 0.0));
    for ([_, c_in, rows, cols], set, conv) in layers() {
        let x = random_tensor(&[0, c_in, rows, cols], 1);
        assert_eq!(conv.forward(&x).unwrap().dims(), conv.composed(&x).unwrap().dims());
        assert!(gradients(&set, &x, |x| conv.forward(x)).0.iter().flatten().all(|&g| g == 0.0));
    }
}

#[test]
fn an_untracked_input_gets_no_gradient_and_the_weights_get_the_same() {
    let (set, conv) = layer(CASES[1]);
    let x = random_tensor(&CASES[1][..4], 3);
    let (tracked, _) = gradients(&set, &x, |x| conv.forward(x));
    let (untracked, _) = gradients(&set, &x, |x| conv.forward(&x.detach()));
    assert_eq!(tracked[1..], untracked[1..]);
    assert!(untracked[0].iter().all(|&g| g == 0.0));
}

#[test]
fn a_wrong_shape_is_refused_in_words() {
    let (_, conv) = layer(CASES[0]);
    let message = conv.forward(&random_tensor(&[2, 3, 6, 6], 1)).unwrap_err().to_string();
    assert_eq!(message, "c: expected f32 (batch, 1, at least 5, at least 5), got F32 [2, 3, 6, 6]");
    assert!(conv.forward(&random_tensor(&[2, 1, 4, 6], 1)).is_err());
    let builder = ParamBuilder::new(1, &candle_core::Device::Cpu);
    assert!(Conv2d::without_bias(&builder, [1, 1], 3, 0, 1, config::Init::He).is_err());
}

//! What group normalisation promises.

use super::*;
use crate::nn::testing::{
    assert_agree, check_layer, check_model, gradients, params_of, random_tensor,
};
use crate::nn::{ParamBuilder, ParamSet};
use candle_core::Device;

/// Batch, channels, rows, columns; groups.
const CASES: [([usize; 4], usize); 5] =
    [([2, 4, 3, 5], 2), ([1, 6, 4, 4], 6), ([3, 8, 2, 3], 1), ([2, 8, 7, 7], 4), ([1, 4, 1, 5], 2)];

fn layer(groups: usize, channels: usize) -> (ParamSet, GroupNorm) {
    params_of(|b: &ParamBuilder| GroupNorm::new(&b.pp("n"), groups, channels, 1e-5))
}

type Form = fn(&GroupNorm, &Tensor) -> Result<Tensor>;

/// A shortcut that depends on the input.
fn shortcut(x: &Tensor) -> Result<Tensor> {
    Ok(x.affine(-0.7, 0.3)?)
}

/// The three layers, each in our form and of Candle's operations.
const FORMS: [[Form; 2]; 3] = [
    [|n, x| n.forward(x), |n, x| Ok(n.composed(x)?)],
    [|n, x| n.forward_relu(x), |n, x| Ok(relu::composed(&n.composed(x)?)?)],
    [
        |n, x| n.forward_add_relu(x, &shortcut(x)?),
        |n, x| Ok(relu::composed(&(n.composed(x)? + shortcut(x)?)?)?),
    ],
];

#[test]
fn gradients_equal_finite_differences_in_both_forms() {
    for (shape, groups) in &CASES[..4] {
        let (set, norm) = layer(*groups, shape[1]);
        let [plain, with_relu @ ..] = &FORMS;
        for form in plain {
            check_layer(&set, shape, 1, |x| form(&norm, x));
        }
        for form in with_relu.as_flattened() {
            check_model(&set, shape, 1, |x| form(&norm, x));
        }
    }
}

#[test]
fn both_forms_agree() {
    for (shape, groups) in CASES {
        let (set, norm) = layer(groups, shape[1]);
        let x = random_tensor(&shape, 7);
        for [own, composed] in FORMS {
            let own = gradients(&set, &x, |x| own(&norm, x));
            assert_agree(own, gradients(&set, &x, |x| composed(&norm, x)));
        }
    }
}

#[test]
fn each_group_of_a_new_layer_has_mean_0_and_variance_1_even_far_from_0() {
    let norm = GroupNorm::new(&ParamBuilder::new(1, &Device::Cpu), 2, 6, 1e-5).unwrap();
    let x = random_tensor(&[2, 6, 8, 8], 2).affine(1.0, 1000.0).unwrap();
    let y = norm.forward(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for group in y.chunks(3 * 64) {
        let mean = group.iter().sum::<f32>() / 192.0;
        let square = group.iter().map(|v| v * v).sum::<f32>() / 192.0;
        assert!(mean.abs() < 1e-3 && (square - 1.0).abs() < 1e-3, "{mean} {square}");
    }
}

#[test]
fn a_samples_bits_do_not_depend_on_its_batch() {
    let (set, norm) = layer(4, 8);
    let x = random_tensor(&[3, 8, 5, 3], 1);
    let [form, _] = FORMS[2];
    let alone = |i: usize| {
        gradients(&set, &x.narrow(0, i, 1).unwrap().contiguous().unwrap(), |x| form(&norm, x))
    };
    let y = form(&norm, &x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let parts: Vec<f32> = (0..3).flat_map(|i| alone(i).1).collect();
    assert_eq!(y, parts);
}

#[test]
fn an_empty_batch_gives_an_empty_result_and_zero_gradients() {
    let (set, norm) = layer(2, 4);
    let x = random_tensor(&[0, 4, 3, 3], 1);
    for form in FORMS.as_flattened() {
        let (own, y) = gradients(&set, &x, |x| form(&norm, x));
        assert!(y.is_empty() && own.iter().flatten().all(|&g| g == 0.0));
    }
}

#[test]
fn nan_is_not_hidden() {
    let (_, norm) = layer(2, 4);
    let x = Tensor::full(f32::NAN, (1, 4, 2, 2), &Device::Cpu).unwrap();
    for form in FORMS.as_flattened() {
        let y = form(&norm, &x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(y.iter().all(|v| v.is_nan()));
    }
}

#[test]
fn a_wrong_shape_is_refused_in_words() {
    let (_, norm) = layer(2, 4);
    let message = norm.forward(&random_tensor(&[2, 3, 4, 4], 1)).unwrap_err().to_string();
    assert_eq!(message, "n: expected f32 (batch, 4, rows, columns), got F32 [2, 3, 4, 4]");
    let x = random_tensor(&[1, 4, 2, 2], 1);
    let other = random_tensor(&[1, 4, 2, 1], 1);
    let message = norm.forward_add_relu(&x, &other).unwrap_err().to_string();
    assert_eq!(message, "n: a shortcut F32 [1, 4, 2, 1] to [1, 4, 2, 2]");
    for (groups, channels) in [(0, 4), (3, 4), (1, 0)] {
        let builder = ParamBuilder::new(1, &Device::Cpu);
        assert!(GroupNorm::new(&builder, groups, channels, 1e-5).is_err());
    }
}

//! Promises of the loss.

use super::*;
use crate::nn::testing::{assert_agree, check_layer, gradients, no_params, random_tensor};
use candle_core::Device;

const LABELS: [u32; 4] = [2, 0, 6, 3];

#[test]
fn the_gradient_equals_finite_differences_in_both_forms() {
    for batch in [1, 4] {
        let labels = &LABELS[..batch];
        check_layer(&no_params(), &[batch, 7], 1, |x| cross_entropy(x, labels));
        check_layer(&no_params(), &[batch, 7], 1, |x| Ok(composed(x, Targets::plain(labels))?));
    }
}

#[test]
fn both_forms_agree() {
    let x = random_tensor(&[4, 7], 2).affine(5.0, 0.0).unwrap();
    let own = gradients(&no_params(), &x, |x| cross_entropy(x, &LABELS));
    assert_agree(own, gradients(&no_params(), &x, |x| Ok(composed(x, Targets::plain(&LABELS))?)));
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
    assert_eq!(composed(&x, Targets::plain(&[])).unwrap().dims(), [0]);
    assert_eq!(correct(&x, Targets::plain(&[])).unwrap(), 0.0);
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
    assert_eq!(correct(&x, Targets::plain(&[1, 0, 0, 1])).unwrap(), 2.0);
    assert_eq!(correct(&x, Targets::plain(&[2, 1, 2, 2])).unwrap(), 0.0);
}

/// Two labels for each sample, one of them none, one the same twice; smoothed.
const HARD: Targets = Targets {
    labels: &LABELS,
    mixed: &[(4, 0.25), (0, 0.0), (6, 0.5), (1, 0.875)],
    smoothing: 0.15,
};

/// Each part of [`HARD`] alone, and all of it.
fn hard_ones() -> [Targets<'static>; 3] {
    [Targets { smoothing: 0.0, ..HARD }, Targets { mixed: &[], ..HARD }, HARD]
}

#[test]
fn mixed_and_smoothed_labels_have_the_gradient_of_finite_differences_in_both_forms() {
    for targets in hard_ones() {
        check_layer(&no_params(), &[4, 7], 1, |x| cross_entropy_to(x, targets));
        check_layer(&no_params(), &[4, 7], 1, |x| Ok(composed(x, targets)?));
        let x = random_tensor(&[4, 7], 2).affine(5.0, 0.0).unwrap();
        let own = gradients(&no_params(), &x, |x| cross_entropy_to(x, targets));
        assert_agree(own, gradients(&no_params(), &x, |x| Ok(composed(x, targets)?)));
    }
}

#[test]
fn the_loss_is_the_cross_entropy_with_the_wanted_distribution() {
    let x = random_tensor(&[4, 7], 3).affine(4.0, 0.0).unwrap();
    let rows = x.to_vec2::<f32>().unwrap();
    for targets in hard_ones() {
        let losses = cross_entropy_to(&x, targets).unwrap().to_vec1::<f32>().unwrap();
        for (i, row) in rows.iter().enumerate() {
            // By the definition, in f64: −Σ q log p.
            let exp: Vec<f64> = row.iter().map(|&z| f64::from(z).exp()).collect();
            let (other, share) = targets.mixed.get(i).copied().unwrap_or((0, 0.0));
            let (share, smoothing) = (f64::from(share), f64::from(targets.smoothing));
            let wanted: f64 = (0..7)
                .map(|k| {
                    let is = |label: u32| f64::from(label as usize == k);
                    let labels = (1.0 - share) * is(targets.labels[i]) + share * is(other);
                    let q = (1.0 - smoothing) * labels + smoothing / 7.0;
                    -q * (exp[k] / exp.iter().sum::<f64>()).ln()
                })
                .sum();
            assert!((f64::from(losses[i]) - wanted).abs() < 1e-5, "{} {wanted}", losses[i]);
        }
    }
}

#[test]
fn a_share_of_nothing_is_the_plain_loss_bit_for_bit() {
    let x = random_tensor(&[4, 7], 4);
    let mixed = &[(3, 0.0); 4];
    let both = |targets| gradients(&no_params(), &x, |x| cross_entropy_to(x, targets));
    let plain = Targets::plain(&LABELS);
    assert_eq!(both(Targets { mixed, ..plain }), both(plain));
}

#[test]
fn a_hit_on_the_second_label_counts_its_share() {
    let x = Tensor::new(&[[0f32, 1.0], [1.0, 0.0], [0.0, 1.0]], &Device::Cpu).unwrap();
    let mixed = &[(1, 0.25), (1, 0.75), (1, 0.5)];
    // 0.25 through the second label, 0.25 through the first, 1 through both.
    let targets = Targets { mixed, ..Targets::plain(&[0, 0, 1]) };
    assert_eq!(correct(&x, targets).unwrap(), 1.5);
    let short = Targets { mixed: &mixed[1..], ..targets };
    assert!(correct(&x, short).unwrap_err().to_string().contains("3 labels, 2 second labels"));
    let wrong = Targets { mixed: &[(0, 0.5), (2, 0.5), (0, 0.5)], ..targets };
    assert!(cross_entropy_to(&x, wrong).unwrap_err().to_string().contains("label 2 of sample 1"));
}

#[test]
fn a_label_that_is_ignored_has_neither_loss_nor_gradient_and_the_others_keep_theirs() {
    let x = random_tensor(&[4, 7], 3);
    let labels = [2, IGNORED, 6, 3];
    for smoothing in [0.0, 0.1] {
        let targets = Targets { smoothing, ..Targets::plain(&labels) };
        let all = Targets { smoothing, ..Targets::plain(&LABELS) };
        let (dx, losses) = gradients(&no_params(), &x, |x| cross_entropy_to(x, targets));
        let (dx_all, losses_all) = gradients(&no_params(), &x, |x| cross_entropy_to(x, all));
        assert_eq!((losses[1], &dx[0][7..14]), (0.0, &[0.0; 7][..]));
        assert_eq!(
            [losses[0], losses[2], losses[3]],
            [losses_all[0], losses_all[2], losses_all[3]]
        );
        assert_eq!((&dx[0][..7], &dx[0][14..]), (&dx_all[0][..7], &dx_all[0][14..]));
        let own = gradients(&no_params(), &x, |x| cross_entropy_to(x, targets));
        assert_agree(own, gradients(&no_params(), &x, |x| Ok(composed(x, targets)?)));
        let wanted = x.argmax(1).unwrap().to_vec1::<u32>().unwrap();
        let some = [wanted[0], IGNORED, wanted[2], IGNORED];
        assert_eq!(correct(&x, Targets::plain(&some)).unwrap(), 2.0);
    }
}

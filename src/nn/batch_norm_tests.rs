//! What batch normalisation promises.

use super::*;
use crate::nn::testing::{assert_agree, check_layer, gradients, params_of, random_tensor};
use crate::nn::{ParamBuilder, ParamSet};
use std::sync::mpsc::{Receiver, Sender, channel};

const SHAPES: [[usize; 4]; 3] = [[3, 2, 4, 5], [4, 3, 1, 1], [1, 1, 7, 6]];

fn layer(channels: usize) -> (ParamSet, BatchNorm2d) {
    params_of(|b: &ParamBuilder| BatchNorm2d::new(&b.pp("bn"), channels))
}

fn stats(channels: usize) -> RunningStats {
    let mean = (0..channels).map(|c| 0.3 * c as f32).collect();
    let var = (0..channels).map(|c| 0.5 + c as f32).collect();
    RunningStats { mean, var, batches: 7 }
}

#[test]
fn gradients_equal_finite_differences_in_both_forms_and_both_modes() {
    for shape in SHAPES {
        for train in [true, false] {
            let (set, norm) = layer(shape[1]);
            let fixed = stats(shape[1]);
            let reset = || norm.set_running(fixed.clone()).unwrap();
            reset();
            check_layer(&set, &shape, 1, |x| norm.forward(x, train));
            reset();
            check_layer(&set, &shape, 1, |x| Ok(norm.composed(x, train)?));
        }
    }
}

#[test]
fn both_forms_agree_and_move_the_averages_alike() {
    for shape in SHAPES {
        let x = random_tensor(&shape, 7).affine(2.0, 1.5).unwrap();
        for train in [true, false] {
            let ((set, norm), (other_set, other)) = (layer(shape[1]), layer(shape[1]));
            let own = gradients(&set, &x, |x| norm.forward(x, train));
            assert_agree(own, gradients(&other_set, &x, |x| Ok(other.composed(x, train)?)));
            let (a, b) = (norm.running(), other.running());
            assert_eq!((a.batches, b.batches), (u64::from(train), u64::from(train)));
            for (a, b) in a.mean.iter().chain(&a.var).zip(b.mean.iter().chain(&b.var)) {
                assert!((a - b).abs() < 1e-6, "{a} {b}");
            }
        }
    }
}

#[test]
fn averages_move_by_a_tenth_towards_the_mean_and_the_unbiased_variance() {
    let (_, norm) = layer(1);
    let x = Tensor::new(&[1f32, 2.0, 3.0, 6.0], &candle_core::Device::Cpu).unwrap();
    norm.forward(&x.reshape((2, 1, 1, 2)).unwrap(), true).unwrap();
    let RunningStats { mean, var, batches } = norm.running();
    // Mean 3; squares of the distances 4 + 1 + 0 + 9, divided by 3.
    assert!((mean[0] - 0.3).abs() < 1e-6 && (var[0] - (0.9 + 1.4 / 3.0)).abs() < 1e-6);
    assert_eq!(batches, 1);
}

#[test]
fn a_large_mean_does_not_swallow_the_variance() {
    let builder = ParamBuilder::new(1, &candle_core::Device::Cpu);
    let norm = BatchNorm2d::new(&builder, 1).unwrap();
    let x = random_tensor(&[4, 1, 8, 8], 1).affine(1.0, 4096.0).unwrap();
    let y = norm.forward(&x, true).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let square = y.iter().map(|v| v * v).sum::<f32>() / y.len() as f32;
    assert!((square - 1.0).abs() < 2e-3, "{square}");
}

/// A sum over two ranks, each a thread.
fn pair() -> [SumOverRanks; 2] {
    let ((to_b, from_a), (to_a, from_b)) = (channel::<Vec<f64>>(), channel());
    let rank = |to: Sender<Vec<f64>>, from: Receiver<Vec<f64>>| -> SumOverRanks {
        let from = Mutex::new(from);
        Arc::new(move |values: &mut [f64]| {
            to.send(values.to_vec()).unwrap();
            let other = from.lock().unwrap().recv().unwrap();
            assert_eq!(other.len(), values.len());
            values.iter_mut().zip(other).for_each(|(v, o)| *v += o);
            Ok(())
        })
    };
    [rank(to_b, from_b), rank(to_a, from_a)]
}

#[test]
fn two_ranks_with_parts_of_a_batch_compute_what_one_does_with_all_of_it() {
    let whole = random_tensor(&[5, 2, 3, 3], 4).affine(1.0, 0.5).unwrap();
    let (set, norm) = layer(2);
    // The square makes the gradient depend on the values.
    let expected = gradients(&set, &whole, |x| Ok(norm.forward(x, true)?.sqr()?));
    let weights = crate::nn::testing::random(whole.elem_count(), 999);
    for cut in [2, 0] {
        let [left, right] = pair();
        let part = |sum: SumOverRanks, rows: std::ops::Range<usize>| {
            let (set, norm) = layer(2);
            let norm = norm.over_ranks(sum);
            let x =
                candle_core::Var::from_tensor(&whole.narrow(0, rows.start, rows.len()).unwrap());
            let (x, at) = (x.unwrap(), rows.start * 18..rows.end * 18);
            let y = norm.forward(&x, true).unwrap().sqr().unwrap();
            let mix = Tensor::from_slice(&weights[at], x.shape(), x.device()).unwrap();
            let store = (y * mix).unwrap().sum_all().unwrap().backward().unwrap();
            let dx = store.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let grads: Vec<_> = (0..2).map(|i| set.grads().read(i, <[f32]>::to_vec)).collect();
            (dx, grads, norm.running())
        };
        let (a, b) = std::thread::scope(|scope| {
            let a = scope.spawn(|| part(left, 0..cut));
            let b = scope.spawn(|| part(right, cut..5));
            (a.join().unwrap(), b.join().unwrap())
        });
        assert_eq!(a.2, b.2);
        assert_eq!(a.2.batches, 1);
        let mut both = vec![[a.0, b.0].concat()];
        for (a, b) in a.1.iter().zip(&b.1) {
            both.push(a.iter().zip(b).map(|(a, b)| a + b).collect());
        }
        assert_agree((both, vec![]), (expected.0.clone(), vec![]));
    }
}

#[test]
fn an_error_while_summing_over_ranks_stops_the_pass_and_keeps_its_words() {
    let (_, norm) = layer(1);
    let norm = norm.over_ranks(Arc::new(|_| Err(Error::Internal("rank 3 is gone".into()))));
    let message = norm.forward(&random_tensor(&[1, 1, 2, 2], 1), true).unwrap_err().to_string();
    assert!(message.contains("rank 3 is gone"), "{message}");
    assert!(norm.forward(&random_tensor(&[1, 1, 2, 2], 1), false).is_ok());
}

#[test]
fn an_empty_batch_leaves_the_averages_alone_and_nan_is_not_hidden() {
    let (set, norm) = layer(2);
    let before = norm.running();
    let x = random_tensor(&[0, 2, 3, 3], 1);
    let (own, y) = gradients(&set, &x, |x| norm.forward(x, true));
    assert!(y.is_empty() && own.iter().flatten().all(|&g| g == 0.0));
    assert_eq!(norm.running(), before);
    let nan = random_tensor(&[2, 2, 3, 3], 1).affine(f64::NAN, 0.0).unwrap();
    let y = norm.forward(&nan, true).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(y.iter().all(|v| v.is_nan()));
}

#[test]
fn what_does_not_fit_is_refused_in_words() {
    let (_, norm) = layer(2);
    let message = norm.forward(&random_tensor(&[1, 3, 2, 2], 1), true).unwrap_err().to_string();
    assert_eq!(message, "bn: expected f32 (batch, 2, rows, cols), got F32 [1, 3, 2, 2]");
    for (mean, var) in [(vec![0.0; 3], vec![1.0; 2]), (vec![0.0; 2], vec![1.0, -1.0])] {
        let error = norm.set_running(RunningStats { mean, var, batches: 0 }).unwrap_err();
        assert_eq!(error.exit_code(), 65);
    }
}

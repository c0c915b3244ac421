//! Promises of batch normalization.

use super::*;
use crate::nn::across::alone;
use crate::nn::testing::{assert_agree, check_layer, gradients, params_of, random, random_tensor};
use crate::nn::{ParamBuilder, ParamSet};
use candle_core::Device;
use std::sync::Barrier;

/// Batch, channels, rows, columns.
const CASES: [[usize; 4]; 4] = [[4, 3, 2, 3], [2, 1, 5, 7], [7, 2, 1, 1], [3, 2, 6, 6]];

fn layer(channels: usize) -> (ParamSet, BatchNorm2d) {
    let (set, norm) = params_of(|b: &ParamBuilder| BatchNorm2d::new(&b.pp("bn"), channels));
    let mean = random(channels, 41);
    let var = random(channels, 42).iter().map(|v| v + 1.5).collect();
    norm.set_running(Running { mean, var }).unwrap();
    (set, norm)
}

#[test]
fn gradients_equal_finite_differences_in_both_forms() {
    for case in CASES {
        for train in [true, false] {
            let (set, norm) = layer(case[1]);
            check_layer(&set, &case, 1, |x| norm.forward(x, train, &alone()));
            check_layer(&set, &case, 1, |x| norm.composed(x, train, &alone()));
        }
    }
}

#[test]
fn both_forms_agree() {
    for case in CASES {
        for train in [true, false] {
            let ((set, norm), (other_set, other)) = (layer(case[1]), layer(case[1]));
            let x = random_tensor(&case, 7).affine(2.0, 0.5).unwrap();
            let own = gradients(&set, &x, |x| norm.forward(x, train, &alone()));
            let composed = gradients(&other_set, &x, |x| other.composed(x, train, &alone()));
            assert_agree(own, composed);
            let (a, b) = (norm.running(), other.running());
            let pairs = a.mean.iter().chain(&a.var).zip(b.mean.iter().chain(&b.var));
            pairs.for_each(|(a, b)| assert!((a - b).abs() < 1e-6, "{a} and {b}"));
        }
    }
}

/// The sum over two ranks that are threads.
fn pair() -> [RankSum; 2] {
    let shared = Arc::new((Barrier::new(2), Mutex::new([Vec::new(), Vec::new()])));
    [0, 1].map(|rank| -> RankSum {
        let shared = shared.clone();
        Arc::new(move |values: &mut [f64]| {
            let (barrier, parts) = &*shared;
            parts.lock().unwrap()[rank] = values.to_vec();
            barrier.wait();
            let sums = parts.lock().unwrap().clone();
            barrier.wait();
            values.iter_mut().enumerate().for_each(|(i, v)| *v = sums[0][i] + sums[1][i]);
            Ok(())
        })
    })
}

/// Gradients of the input and of the parameters, outputs, and running statistics of one rank.
type Outcome = (Vec<Vec<f32>>, Vec<f32>, Running);

fn run(x: &Tensor, weights: &Tensor, fused: bool, sum: &RankSum) -> Outcome {
    let (set, norm) = layer(x.dims()[1]);
    let x = candle_core::Var::from_tensor(x).unwrap();
    set.grads().begin_step();
    let form = if fused { BatchNorm2d::fused } else { BatchNorm2d::composed };
    let y = form(&norm, &x, true, sum).unwrap();
    let store = (&y * weights).unwrap().sum_all().unwrap().backward().unwrap();
    let read = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let mut grads = vec![store.get(&x).map(read).unwrap_or_default()];
    grads.extend((0..2).map(|i| set.grads().read(i, <[f32]>::to_vec)));
    (grads, read(&y), norm.running())
}

#[test]
fn two_ranks_with_parts_of_a_batch_equal_one_with_all_of_it() {
    let shape = [5, 3, 4, 3];
    let (x, weights) = (random_tensor(&shape, 8), random_tensor(&shape, 9));
    for (fused, cut) in [(true, 2), (true, 5), (true, 0), (false, 2)] {
        let (whole_grads, whole_y, whole_running) = run(&x, &weights, fused, &alone());
        let part = |rank: usize| {
            let (from, len) = if rank == 0 { (0, cut) } else { (cut, 5 - cut) };
            [&x, &weights].map(|t| t.narrow(0, from, len).unwrap().copy().unwrap())
        };
        let [left, right] = std::thread::scope(|scope| {
            let sums = pair();
            [0, 1]
                .map(|rank| {
                    let (sum, [x, weights]) = (sums[rank].clone(), part(rank));
                    scope.spawn(move || run(&x, &weights, fused, &sum))
                })
                .map(|rank| rank.join().unwrap())
        });
        let add = |i: usize| left.0[i].iter().zip(&right.0[i]).map(|(a, b)| a + b).collect();
        let grads = vec![[&left.0[0][..], &right.0[0]].concat(), add(1), add(2)];
        assert_agree((grads, [left.1, right.1].concat()), (whole_grads, whole_y));
        assert_eq!(left.2, right.2);
        let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-6;
        assert!(left.2.mean.iter().zip(&whole_running.mean).all(close));
        assert!(left.2.var.iter().zip(&whole_running.var).all(close));
    }
}

/// Made by:
/// ```python
/// x = ((torch.arange(24.) * 7 % 11 - 5) / 2).reshape(2, 2, 2, 3).requires_grad_()
/// m = torch.nn.BatchNorm2d(2)
/// m.weight.data.copy_(torch.tensor([1.5, -0.5])); m.bias.data.copy_(torch.tensor([0.25, 2.0]))
/// c = (torch.arange(24.) * 5 % 13 - 4).reshape(2, 2, 2, 3)
/// for mode in (m.train, m.eval):
///     mode(); x.grad = m.weight.grad = m.bias.grad = None
///     y = m(x); (y * c).sum().backward()
///     for t in (y, x.grad, m.weight.grad, m.bias.grad, m.running_mean, m.running_var):
///         print(t.flatten().tolist())
/// ```
#[rustfmt::skip]
const TORCH: [([f32; 24], [f32; 24], [f32; 2]); 2] = [
    (
        [-2.268274, 0.9861109, -0.8735376, 2.380847, 0.5211987, -1.33845, 1.25167, 1.893096,
         2.534521, 1.412027, 2.053452, 2.694878, 0.9861109, -0.8735376, 2.380847, 0.5211987,
         -1.33845, 1.915935, 1.893096, 2.534521, 1.412027, 2.053452, 2.694878, 1.572383],
        [-4.637338, -0.8045237, 4.311059, -3.943842, 1.17174, 6.287323, 1.510555, -0.723437,
         1.211839, 0.711522, -1.522469, 0.412806, 1.984949, -4.987184, -1.154369, 3.961213,
         -3.01092, 0.8218943, -1.685575, 0.2497, -0.2506165, 1.684659, -0.5493325, -1.049649],
        [4.855749, 18.38754],
    ),
    (
        [-3.225168, 1.599859, -1.157299, 3.667727, 0.9105691, -1.846589, 1.058142, 1.98456,
         2.910978, 1.289746, 2.216164, 3.142582, 1.599859, -1.157299, 3.667727, 0.9105691,
         -1.846589, 2.978438, 1.98456, 2.910978, 1.289746, 2.216164, 3.142582, 1.521351],
        [-5.514316, 1.378579, 8.271473, -2.757158, 4.135736, 11.02863, -0.0, -2.316045,
         1.389627, -0.9264179, -3.242463, 0.4632089, 5.514316, -5.514316, 1.378579, 8.271473,
         -2.757158, 4.135736, -3.705672, -0.0, -2.316045, 1.389627, -0.9264179, -3.242463],
        [10.64569, 18.49748],
    ),
];
const RUNNING: [[f32; 2]; 2] = [[0.02083333, -0.03333334], [1.183902, 1.165151]];

#[test]
fn values_gradients_and_running_statistics_equal_pytorch() {
    let (set, norm) = params_of(|b: &ParamBuilder| BatchNorm2d::new(&b.pp("bn"), 2));
    norm.set_running(Running { mean: vec![0.0; 2], var: vec![1.0; 2] }).unwrap();
    norm.weight.update(|w| w.copy_from_slice(&[1.5, -0.5])).unwrap();
    norm.bias.update(|b| b.copy_from_slice(&[0.25, 2.0])).unwrap();
    let x: Vec<f32> = (0..24).map(|i| ((i * 7 % 11) as f32 - 5.0) / 2.0).collect();
    let x = candle_core::Var::from_vec(x, (2, 2, 2, 3), &Device::Cpu).unwrap();
    let c: Vec<f32> = (0..24).map(|i| (i * 5 % 13) as f32 - 4.0).collect();
    let c = Tensor::from_vec(c, (2, 2, 2, 3), &Device::Cpu).unwrap();
    let read = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let same = |got: &[f32], expected: &[f32]| {
        assert_eq!(got.len(), expected.len());
        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 3e-6 * b.abs().max(1.0);
        assert!(got.iter().zip(expected).all(close), "{got:?}, PyTorch {expected:?}");
    };
    for ((y, dx, dw), train) in TORCH.iter().zip([true, false]) {
        set.grads().begin_step();
        let out = norm.forward(&x, train, &alone()).unwrap();
        let store = (&out * &c).unwrap().sum_all().unwrap().backward().unwrap();
        same(&read(&out), y);
        same(&read(store.get(&x).unwrap()), dx);
        // In name order: bias, weight.
        set.grads().read(0, |db| same(db, &[20.0, 29.0]));
        set.grads().read(1, |got| same(got, dw));
        same(&norm.running().mean, &RUNNING[0]);
        same(&norm.running().var, &RUNNING[1]);
    }
}

#[test]
fn a_new_layer_starts_as_the_identity_up_to_statistics() {
    let builder = ParamBuilder::new(1, &Device::Cpu);
    let norm = BatchNorm2d::new(&builder, 2).unwrap();
    let x = random_tensor(&[2, 2, 3, 3], 1);
    let y = norm.forward(&x, false, &alone()).unwrap();
    let largest = (y - x).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(largest < 1e-5, "{largest}");
    assert_eq!(norm.running(), Running { mean: vec![0.0; 2], var: vec![1.0; 2] });
}

#[test]
fn a_constant_channel_becomes_the_bias_and_nan_is_not_hidden() {
    let (_, norm) = layer(1);
    let bias = norm.bias.to_vec().unwrap()[0];
    let read = |x: f32| {
        let x = Tensor::full(x, (3, 1, 4, 4), &Device::Cpu).unwrap();
        let y = norm.forward(&x, true, &alone()).unwrap().flatten_all().unwrap();
        y.to_vec1::<f32>().unwrap()
    };
    assert!(read(1234.567).iter().all(|y| (y - bias).abs() < 1e-3));
    assert!(read(f32::NAN).iter().all(|y| y.is_nan()));
}

#[test]
fn what_cannot_be_normalized_is_refused_in_words() {
    let (_, norm) = layer(2);
    let error = |shape: &[usize]| {
        norm.forward(&random_tensor(shape, 1), true, &alone()).unwrap_err().to_string()
    };
    assert!(error(&[1, 2, 1, 1]).contains("at least two values per channel"));
    assert!(error(&[4, 3, 1, 1]).contains("expected f32 (batch, 2, rows, columns)"));
    let wrong = Running { mean: vec![0.0; 3], var: vec![1.0; 2] };
    let message = norm.set_running(wrong).unwrap_err().to_string();
    assert!(message.contains("bn: 3 means and 2 variances for 2 channels"), "{message}");
}

//! Helpers of the layers' tests: finite differences, and all gradients of a layer at once.

use super::{ParamBuilder, ParamSet};
use crate::error::Result;
use crate::util::rng::{Purpose, Rng};
use candle_core::{Device, Tensor, Var};

/// `n` numbers in [-1, 1), a function of `seed`.
pub(crate) fn random(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = Rng::new(seed, Purpose::Synthetic, 0, 0, 0);
    (0..n).map(|_| rng.symmetric(1.0)).collect()
}

/// A random `f32` tensor on the CPU.
pub(crate) fn random_tensor(shape: &[usize], seed: u64) -> Tensor {
    Tensor::from_vec(random(shape.iter().product(), seed), shape, &Device::Cpu).unwrap()
}

/// A layer built by `build`, and the set of its parameters, all at random values.
pub(crate) fn params_of<L>(build: impl FnOnce(&ParamBuilder) -> Result<L>) -> (ParamSet, L) {
    params_on(&Device::Cpu, build)
}

/// The same on `device`.
pub(crate) fn params_on<L>(
    device: &Device,
    build: impl FnOnce(&ParamBuilder) -> Result<L>,
) -> (ParamSet, L) {
    let builder = ParamBuilder::new(5, device);
    let layer = build(&builder).unwrap();
    let set = builder.finish(1 << 20, 1 << 20).unwrap();
    for (i, param) in set.iter().enumerate() {
        param.update(|v| v.copy_from_slice(&random(v.len(), 100 + i as u64))).unwrap();
    }
    (set, layer)
}

/// The empty set.
pub(crate) fn no_params() -> ParamSet {
    params_of(|_| Ok(())).0
}

/// The weights that make one number of a layer's output.
fn mix(out: &Tensor) -> Vec<f32> {
    random(out.elem_count(), 999)
}

fn loss(out: &Tensor) -> Tensor {
    let weights = Tensor::from_vec(mix(out), out.shape(), out.device()).unwrap();
    (out * weights).unwrap().sum_all().unwrap()
}

/// The gradients of a random mix of the outputs: the input's first, then each parameter's; and the
/// outputs.
pub(crate) fn gradients(
    set: &ParamSet,
    x: &Tensor,
    forward: impl Fn(&Tensor) -> Result<Tensor>,
) -> (Vec<Vec<f32>>, Vec<f32>) {
    let x = Var::from_tensor(x).unwrap();
    set.grads().begin_step();
    let out = forward(&x).unwrap();
    let store = loss(&out).backward().unwrap();
    set.grads().zero_missing();
    let dx = match store.get(&x) {
        Some(dx) => dx.flatten_all().unwrap().to_vec1().unwrap(),
        None => vec![0.0; x.elem_count()],
    };
    let mut all = vec![dx];
    all.extend((0..set.iter().count()).map(|i| set.grads().read(i, <[f32]>::to_vec)));
    (all, out.flatten_all().unwrap().to_vec1().unwrap())
}

/// Checks the gradients of the input and of every parameter against central differences, and that a
/// second backward pass without `begin_step` doubles the parameters' gradients.
pub(crate) fn check_layer(
    set: &ParamSet,
    shape: &[usize],
    seed: u64,
    forward: impl Fn(&Tensor) -> Result<Tensor>,
) {
    check_with_step(set, shape, seed, 4e-3, forward);
}

/// As [`check_layer`], for models of several layers: their kinks lie closer, so the step is smaller
/// and the loss must be of size 1 to 10, or rounding hides the difference.
pub(crate) fn check_model(
    set: &ParamSet,
    shape: &[usize],
    seed: u64,
    forward: impl Fn(&Tensor) -> Result<Tensor>,
) {
    check_with_step(set, shape, seed, 5e-4, forward);
}

fn check_with_step(
    set: &ParamSet,
    shape: &[usize],
    seed: u64,
    step: f32,
    forward: impl Fn(&Tensor) -> Result<Tensor>,
) {
    let x = random_tensor(shape, seed);
    let (analytic, _) = gradients(set, &x, &forward);
    let value = |x: &Tensor| -> f64 {
        let out = forward(x).unwrap();
        let values = out.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        values.iter().zip(mix(&out)).map(|(&o, w)| f64::from(o) * f64::from(w)).sum()
    };
    let moved = |j: usize, by: f32| -> f64 {
        let mut values = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        values[j] += by;
        value(&Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    };
    check_tensor("input", &analytic[0], step, value(&x), moved);
    for (param, gradient) in set.iter().zip(&analytic[1..]) {
        check_tensor(param.name(), gradient, step, value(&x), |j, by| {
            let before = param.to_vec().unwrap();
            param.update(|v| v[j] += by).unwrap();
            let value = value(&x);
            param.update(|v| v.copy_from_slice(&before)).unwrap();
            value
        });
    }
    check_adding(set, &x, &analytic, forward);
}

/// `moved(j, by)` is the loss with element `j` changed by `by`; `here` the loss with none changed.
fn check_tensor(
    name: &str,
    analytic: &[f32],
    step: f32,
    here: f64,
    moved: impl Fn(usize, f32) -> f64,
) {
    let largest = analytic.iter().fold(0f64, |a, &g| a.max(f64::from(g.abs())));
    let (mut kinks, mut checked) = (0, 0);
    for j in (0..analytic.len()).step_by(analytic.len().div_ceil(300).max(1)) {
        let by = f64::from(step);
        let right = (moved(j, step) - here) / by;
        let left = (here - moved(j, -step)) / by;
        // Slopes that differ on the two sides: a ReLU or a maximum switched between them, and the
        // central difference means nothing there.
        if (right - left).abs() > 0.05 * largest {
            kinks += 1;
            continue;
        }
        checked += 1;
        let (expected, got) = (0.5 * (left + right), f64::from(analytic[j]));
        let error = (expected - got).abs();
        // Half the difference of the slopes is what a small kink can shift the central difference by.
        let allowed = 2e-2 * got.abs().max(0.1 * largest) + 0.5 * (right - left).abs();
        assert!(
            error <= allowed,
            "{name}[{j}]: finite difference {expected}, backward {got}, largest {largest}"
        );
    }
    assert!(kinks * 5 <= checked, "{name}: {kinks} kinks, {checked} values checked");
}

fn check_adding(
    set: &ParamSet,
    x: &Tensor,
    once: &[Vec<f32>],
    forward: impl Fn(&Tensor) -> Result<Tensor>,
) {
    set.grads().begin_step();
    for _ in 0..2 {
        loss(&forward(&x.detach()).unwrap()).backward().unwrap();
    }
    for (i, once) in once[1..].iter().enumerate() {
        set.grads().read(i, |twice| {
            let largest = once.iter().fold(0f32, |a, g| a.max(g.abs()));
            let close = |(&one, &two): (&f32, &f32)| (two - 2.0 * one).abs() <= 1e-5 * largest;
            assert!(once.iter().zip(twice).all(close), "parameter {i} does not add");
        });
    }
}

/// Checks that two forms of a layer give equal outputs and gradients, within rounding.
pub(crate) fn assert_agree(left: (Vec<Vec<f32>>, Vec<f32>), right: (Vec<Vec<f32>>, Vec<f32>)) {
    let tensors = |(mut gradients, outputs): (Vec<Vec<f32>>, Vec<f32>)| {
        gradients.push(outputs);
        gradients
    };
    for (i, (left, right)) in tensors(left).iter().zip(&tensors(right)).enumerate() {
        assert_eq!(left.len(), right.len());
        let largest = left.iter().fold(0f32, |a, g| a.max(g.abs()));
        for (j, (a, b)) in left.iter().zip(right).enumerate() {
            assert!((a - b).abs() <= 1e-5 * largest, "tensor {i}[{j}]: {a} and {b}");
        }
    }
}

/// Checks that a layer gives on the first GPU what it gives on the processor, outputs and gradients,
/// within `allowed` of the largest value of each tensor, and on the GPU the same bits twice.
#[cfg(feature = "cuda")]
pub(crate) fn check_on_gpu<L>(
    shape: &[usize],
    allowed: f32,
    build: impl Fn(&ParamBuilder) -> Result<L>,
    forward: impl Fn(&L, &Tensor) -> Result<Tensor>,
) {
    let on = |device: &Device| {
        let (set, layer) = params_on(device, &build);
        let x = random_tensor(shape, 3).to_device(device).unwrap();
        let (mut tensors, out) = gradients(&set, &x, |x| forward(&layer, x));
        tensors.push(out);
        tensors
    };
    let gpu = Device::new_cuda(0).unwrap();
    let (host, first) = (on(&Device::Cpu), on(&gpu));
    let mut worst = 0f32;
    for (i, (a, b)) in host.iter().zip(&first).enumerate() {
        assert_eq!(a.len(), b.len(), "tensor {i}");
        let largest = a.iter().fold(0f32, |m, v| m.max(v.abs()));
        for (j, (a, b)) in a.iter().zip(b).enumerate() {
            let apart = (a - b).abs();
            assert!(apart <= allowed * largest, "tensor {i}[{j}]: {a} here, {b} on the GPU");
            worst = worst.max(if largest > 0.0 { apart / largest } else { 0.0 });
        }
    }
    println!("{shape:?}: at most {worst:.1e} of the largest value apart");
    assert!(first == on(&gpu), "{shape:?}: other bits the second time");
}

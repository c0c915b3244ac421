//! One training step of LeNet-5 on one thread: our layers and optimizer beside stock Candle's
//! (`candle_nn::Conv2d`, `max_pool2d`, `Linear`, `AdamW`), in turn within one process.
//!
//!     taskset -c 0 cargo bench --bench step -- [BATCH] [alone]
//!
//! Prints samples per second of each round and the ratio of the medians; `alone` leaves stock Candle
//! out, so that a profiler sees our step and nothing else. Candle's max-pool backward
//! is wrong (a maximum gets a quarter of its gradient), so only the speeds compare, not the losses.
#![allow(clippy::unwrap_used)]

use annulus::config;
use annulus::model::{self, Pass};
use annulus::nn::{ParamBuilder, cross_entropy};
use annulus::optim;
use candle_core::{DType, Device, Tensor};
use candle_nn::{AdamW, Conv2d, Linear, Module, Optimizer, ParamsAdamW, VarBuilder, VarMap};
use std::time::Instant;

const BATCH: usize = 64;
const SAMPLES: usize = 1280;
const ROUNDS: usize = 7;

fn batch(size: usize) -> (Tensor, Vec<u32>) {
    let pixels: Vec<f32> = (0..size * 784).map(|i| ((i * 37) % 256) as f32 / 255.0).collect();
    let labels = (0..size as u32).map(|i| i % 10).collect();
    (Tensor::from_vec(pixels, (size, 1, 28, 28), &Device::Cpu).unwrap(), labels)
}

/// Returns a closure that takes one step with our layers.
fn ours(size: usize) -> impl FnMut() {
    let model = serde_json::json!({"kind": "lenet5"});
    let rule = serde_json::json!({"kind": "adamw", "lr": 1e-3});
    let model: config::Model = serde_json::from_value(model).unwrap();
    let rule: config::Optimizer = serde_json::from_value(rule).unwrap();
    let builder = ParamBuilder::new(1, &Device::Cpu);
    let net = model::build(&model, &[1, 28, 28], 10, &builder).unwrap();
    let params = builder.finish(1 << 20, 25 << 20).unwrap();
    let lens: Vec<usize> = params.iter().map(|p| p.var().elem_count()).collect();
    let mut rule = optim::build(&rule, &lens).unwrap();
    let (x, labels) = batch(size);
    let samples: Vec<u64> = (0..size as u64).collect();
    move || {
        params.grads().begin_step();
        let pass = Pass { train: true, seed: 1, epoch: 0, samples: &samples };
        let logits = net.forward(&x, &pass).unwrap();
        let loss = cross_entropy(&logits, &labels).unwrap().mean_all().unwrap();
        loss.backward().unwrap();
        rule.begin_step(1e-3);
        for (i, param) in params.iter().enumerate() {
            let update = |theta: &mut [f32]| {
                params.grads().read(i, |grad| rule.update(i, theta, grad, 1.0));
            };
            param.update(update).unwrap();
        }
    }
}

struct Stock {
    conv1: Conv2d,
    conv2: Conv2d,
    fc1: Linear,
    fc2: Linear,
}

impl Stock {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let x = self.conv1.forward(x)?.relu()?.max_pool2d(2)?;
        let x = self.conv2.forward(&x)?.relu()?.max_pool2d(2)?;
        self.fc2.forward(&self.fc1.forward(&x.flatten_from(1)?)?.relu()?)
    }
}

/// Returns a closure that takes one step with Candle's own layers.
fn stock(size: usize) -> impl FnMut() {
    let vars = VarMap::new();
    let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    let net = Stock {
        conv1: candle_nn::conv2d(1, 6, 5, Default::default(), vb.pp("conv1")).unwrap(),
        conv2: candle_nn::conv2d(6, 16, 5, Default::default(), vb.pp("conv2")).unwrap(),
        fc1: candle_nn::linear(256, 120, vb.pp("fc1")).unwrap(),
        fc2: candle_nn::linear(120, 10, vb.pp("fc2")).unwrap(),
    };
    let mut optimizer = AdamW::new(vars.all_vars(), ParamsAdamW::default()).unwrap();
    let (x, labels) = batch(size);
    let labels = Tensor::from_vec(labels, size, &Device::Cpu).unwrap();
    move || {
        let loss = candle_nn::loss::cross_entropy(&net.forward(&x).unwrap(), &labels).unwrap();
        optimizer.backward_step(&loss).unwrap();
    }
}

/// The speed of about `samples` samples in batches of `size`.
fn samples_per_s(step: &mut impl FnMut(), size: usize, samples: usize) -> f64 {
    let steps = samples.div_ceil(size);
    step();
    let start = Instant::now();
    (0..steps).for_each(|_| step());
    (steps * size) as f64 / start.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    annulus::util::malloc::keep_freed_memory();
    let args: Vec<String> = std::env::args().collect();
    let size = args.iter().find_map(|a| a.parse().ok()).unwrap_or(BATCH);
    let (mut ours, mut stock) = (ours(size), stock(size));
    if args.iter().any(|a| a == "alone") {
        let rounds = (0..ROUNDS).map(|_| samples_per_s(&mut ours, size, 10 * SAMPLES)).collect();
        println!("batch {size}: median {:.0} samples/s", median(rounds));
        return;
    }
    let (mut a, mut b) = (Vec::new(), Vec::new());
    println!("LeNet-5, batch {size}, AdamW, samples/s: annulus, stock Candle");
    for round in 0..ROUNDS {
        // A B, B A, A B …: a machine that slows down meanwhile harms both alike.
        if round % 2 == 0 {
            a.push(samples_per_s(&mut ours, size, SAMPLES));
            b.push(samples_per_s(&mut stock, size, SAMPLES));
        } else {
            b.push(samples_per_s(&mut stock, size, SAMPLES));
            a.push(samples_per_s(&mut ours, size, SAMPLES));
        }
        println!("  {:8.0} {:8.0}", a[round], b[round]);
    }
    let (a, b) = (median(a), median(b));
    println!("median {a:.0} and {b:.0}: {:.1} times stock Candle", a / b);
}

//! Training steps (forward, backward, AdamW) of a recurrent language model on one thread: 2 layers of 256,
//! windows of 128 tokens, 65 in the vocabulary, batch 16.
//!
//!     taskset -c 0 cargo bench --bench recurrent -- lstm 20
//!
//! Without a number it takes one step for each line on its input and answers with the milliseconds of forward,
//! backward and update, so that `scripts/extra/recurrent_speed.py` can take turns with PyTorch.
#![allow(clippy::unwrap_used)]

use annulus::config;
use annulus::model::{self, Model, Pass};
use annulus::nn::{ParamBuilder, ParamSet, cross_entropy};
use annulus::optim::{self, Optimizer};
use candle_core::{Device, Tensor};
use std::io::{BufRead, Write};
use std::time::Instant;

const BATCH: usize = 16;
const WINDOW: usize = 128;
const VOCABULARY: usize = 65;

struct Trained {
    net: Box<dyn Model>,
    params: ParamSet,
    rule: Box<dyn Optimizer>,
    x: Tensor,
    labels: Vec<u32>,
}

impl Trained {
    fn new(kind: &str) -> Trained {
        let model = serde_json::json!({"kind": kind, "width": 256, "layers": 2});
        let rule = serde_json::json!({"kind": "adamw", "lr": 1e-3});
        let model: config::Model = serde_json::from_value(model).unwrap();
        let rule: config::Optimizer = serde_json::from_value(rule).unwrap();
        let builder = ParamBuilder::new(1, &Device::Cpu);
        let net = model::build(&model, &[WINDOW], VOCABULARY, &builder).unwrap();
        let params = builder.finish(1 << 20, 25 << 20).unwrap();
        let lens: Vec<usize> = params.iter().map(|p| p.var().elem_count()).collect();
        let tokens = |by: usize| (by..by + BATCH * WINDOW).map(|i| i * i % VOCABULARY);
        let x: Vec<f32> = tokens(0).map(|token| token as f32).collect();
        Trained {
            net,
            params,
            rule: optim::build(&rule, &lens).unwrap(),
            x: Tensor::from_vec(x, (BATCH, WINDOW), &Device::Cpu).unwrap(),
            labels: tokens(1).map(|token| token as u32).collect(),
        }
    }

    /// One step; the milliseconds of its parts and the loss.
    fn step(&mut self) -> ([f64; 3], f32) {
        let Trained { net, params, rule, x, labels } = self;
        params.grads().begin_step();
        let samples: Vec<u64> = (0..BATCH as u64).collect();
        let pass = Pass { train: true, seed: 1, epoch: 0, samples: &samples };
        let start = Instant::now();
        let loss = cross_entropy(&net.forward(x, &pass).unwrap(), labels).unwrap();
        let loss = loss.mean_all().unwrap();
        let forward = Instant::now();
        drop(loss.backward().unwrap());
        let backward = Instant::now();
        rule.begin_step(1e-3);
        for (i, param) in params.iter().enumerate() {
            let update = |theta: &mut [f32]| {
                params.grads().read(i, |grad| rule.update(i, theta, grad, 1.0));
            };
            param.update(update).unwrap();
        }
        let parts = [forward - start, backward - forward, backward.elapsed()];
        (parts.map(|part| part.as_secs_f64() * 1e3), loss.to_scalar().unwrap())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    annulus::util::malloc::keep_freed_memory();
    let kind = std::env::args().find(|a| a == "gru").unwrap_or_else(|| "lstm".to_owned());
    let mut trained = Trained::new(&kind);
    let Some(steps) = std::env::args().find_map(|a| a.parse::<usize>().ok()) else {
        for line in std::io::stdin().lock().lines() {
            line.unwrap();
            let [forward, backward, update] = trained.step().0;
            println!("{forward} {backward} {update}");
            std::io::stdout().flush().unwrap();
        }
        return;
    };
    let taken: Vec<([f64; 3], f32)> = (0..steps + 2).map(|_| trained.step()).skip(2).collect();
    let part = |i: usize| median(taken.iter().map(|(parts, _)| parts[i]).collect());
    let all = median(taken.iter().map(|(parts, _)| parts.iter().sum()).collect());
    println!(
        "{kind} 2 × 256, {BATCH} × {WINDOW} tokens: {:.0} tokens/s (forward {:.1}, backward {:.1}, AdamW \
         {:.1} ms; loss {:.3})",
        (BATCH * WINDOW) as f64 / all * 1e3,
        part(0),
        part(1),
        part(2),
        taken[steps - 1].1
    );
}

//! One training step (forward, backward, AdamW) of a GPT on one thread: 6 blocks of width 384, 256
//! positions, 65 tokens, batch 4.
//!
//!     taskset -c 0 cargo bench --bench gpt
//!
//! Prints tokens per second and the milliseconds of each part, medians over the steps. The second,
//! optional argument after `--` is the number of steps.
#![allow(clippy::unwrap_used)]

use annulus::config;
use annulus::model::{Gpt, GptShape};
use annulus::nn::{ParamBuilder, cross_entropy};
use annulus::optim;
use candle_core::Device;
use std::time::Instant;

const SHAPE: GptShape = GptShape { vocab: 65, context: 256, width: 384, layers: 6, heads: 6 };
const BATCH: usize = 4;
const WARM_UP: usize = 2;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    annulus::util::malloc::keep_freed_memory();
    let steps = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(8);
    let rule: config::Optimizer =
        serde_json::from_value(serde_json::json!({"kind": "adamw", "lr": 1e-3})).unwrap();
    let builder = ParamBuilder::new(1, &Device::Cpu);
    let model = Gpt::new(&SHAPE, &builder).unwrap();
    let params = builder.finish(1 << 20, 25 << 20).unwrap();
    let lens: Vec<usize> = params.iter().map(|p| p.var().elem_count()).collect();
    let mut rule = optim::build(&rule, &lens).unwrap();
    let count = BATCH * SHAPE.context;
    let tokens: Vec<u32> = (0..count as u32).map(|i| i * i % 65).collect();
    let targets: Vec<u32> = (0..count as u32).map(|i| (i + 1) * (i + 1) % 65).collect();
    let (mut parts, mut last) = ([vec![], vec![], vec![]], 0.0);
    for step in 0..steps + WARM_UP {
        params.grads().begin_step();
        let start = Instant::now();
        let logits = model.forward(&tokens, BATCH).unwrap();
        let loss = cross_entropy(&logits, &targets).unwrap().mean_all().unwrap();
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
        let times = [forward - start, backward - forward, backward.elapsed()];
        if step >= WARM_UP {
            for (part, time) in parts.iter_mut().zip(times) {
                part.push(time.as_secs_f64() * 1e3);
            }
        }
        last = loss.to_scalar::<f32>().unwrap();
    }
    let [forward, backward, update] = parts.map(median);
    let rate = count as f64 / (forward + backward + update) * 1e3;
    println!(
        "GPT 6 × 384, {BATCH} × 256 tokens: {rate:.0} tokens/s (forward {forward:.0}, backward \
         {backward:.0}, AdamW {update:.0} ms; loss {last:.3})"
    );
}

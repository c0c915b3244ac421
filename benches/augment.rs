//! How many images a second one thread changes, by transform, beside reading them alone.
//!
//!     taskset -c 0 cargo bench --bench augment
//!
//! MNIST images in batches of 64, medians of rounds that take the transforms in turn.
#![allow(clippy::unwrap_used)]

use annulus::config::{Card, Transform};
use annulus::data::augment::Worker;
use annulus::data::{self, Augment, Batch, Dataset, Sampler, Sampling};
use std::path::Path;
use std::time::Instant;

const BATCH: u64 = 64;
const BATCHES: u64 = 60;
const ROUNDS: usize = 7;

const LISTS: [(&str, &str); 11] = [
    ("reading alone", "[]"),
    ("shift", r#"[{"kind": "shift", "pixels": 2}]"#),
    ("crop", r#"[{"kind": "crop", "pixels": 2}]"#),
    ("flip", r#"[{"kind": "flip", "probability": 1}]"#),
    ("rotate", r#"[{"kind": "rotate", "degrees": 15}]"#),
    ("elastic", r#"[{"kind": "elastic"}]"#),
    ("jitter", r#"[{"kind": "jitter", "brightness": 0.3, "contrast": 0.3}]"#),
    ("erase", r#"[{"kind": "erase", "probability": 1}]"#),
    ("mixup", r#"[{"kind": "mixup"}]"#),
    ("cutmix", r#"[{"kind": "cutmix"}]"#),
    ("shift, cutmix", r#"[{"kind": "shift", "pixels": 2}, {"kind": "cutmix"}]"#),
];

fn main() {
    let card = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/lenet-mnist.json");
    let card = Card::load(&card, &[]).unwrap();
    let (images, _) = data::open(&card.data).unwrap();
    let shape = images.sample_shape();
    let build = |list: &str| {
        let list: Vec<Transform> = serde_json::from_str(list).unwrap();
        Augment::new(&list, card.data.normalize, 1, shape).unwrap()
    };
    let all: Vec<(&str, Augment)> = LISTS.iter().map(|(name, list)| (*name, build(list))).collect();
    let mut speeds = vec![Vec::new(); all.len()];
    for round in 0..ROUNDS {
        for ((_, augment), speeds) in all.iter().zip(&mut speeds) {
            speeds.push(samples_per_s(augment, images.as_ref(), round as u64));
        }
    }
    println!("images of {shape:?}: 1,000 a second, µs an image, µs more than reading");
    let mut reading = 0.0;
    for ((name, _), mut speeds) in all.iter().zip(speeds) {
        speeds.sort_by(f64::total_cmp);
        let speed = speeds[ROUNDS / 2];
        let micros = 1e6 / speed;
        reading = if reading == 0.0 { micros } else { reading };
        println!("  {name:14} {:8.0} {micros:7.2} {:7.2}", speed / 1e3, micros - reading);
    }
}

fn samples_per_s(augment: &Augment, images: &dyn Dataset, epoch: u64) -> f64 {
    let sampler = Sampler::new(images.len() as u64, BATCH, 1);
    let draws = Sampling::default().draws(&sampler, epoch);
    let mut worker = Worker::new(augment);
    let mut batch = Batch { epoch, ..Batch::default() };
    let mut step = |i: u64| {
        let positions = sampler.global_batch(i);
        batch.fill(images, positions.map(|p| draws.at(p))).unwrap();
        worker.change(&mut batch, images, &draws).unwrap();
    };
    step(0);
    let start = Instant::now();
    (0..BATCHES).for_each(&mut step);
    (BATCH * BATCHES) as f64 / start.elapsed().as_secs_f64()
}

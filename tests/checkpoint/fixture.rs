//! Snapshots to save, and the comparison with what comes back.

use annulus::checkpoint::model_file::Named;
use annulus::checkpoint::{Bits, Found, Group, Keep, Resume, Snapshot, Store, find};
use serde_json::json;
use std::path::{Path, PathBuf};

/// A stream of 64-bit numbers (SplitMix64): the same in every run of the tests.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// A tensor of arbitrary bits: among them are NaNs of many kinds, infinities, subnormals.
fn tensor(name: &str, shape: &[usize], numbers: &mut Numbers) -> Named {
    let mut values: Vec<f32> =
        (0..shape.iter().product()).map(|_| f32::from_bits(numbers.next() as u32)).collect();
    // These for sure: a signalling NaN with a payload, a quiet one, minus zero, the smallest number.
    for (value, bits) in values.iter_mut().zip([0x7f80_1234u32, 0xffc0_0001, 0x8000_0000, 1]) {
        *value = f32::from_bits(bits);
    }
    Named { name: name.to_owned(), shape: shape.to_vec(), values }
}

/// The state of an imagined run after `step` steps.
pub fn snapshot(step: u64) -> Snapshot {
    let mut n = Numbers(step);
    let model = vec![
        tensor("conv1.bias", &[6], &mut n),
        tensor("conv1.weight", &[6, 1, 5, 5], &mut n),
        tensor("empty", &[0, 3], &mut n),
        tensor("scale", &[], &mut n),
    ];
    let optimizer = vec![
        tensor("conv1.bias.exp_avg", &[6], &mut n),
        tensor("conv1.weight.exp_avg", &[6, 1, 5, 5], &mut n),
    ];
    let group = |name: &str, tensors| Group { name: name.to_owned(), tensors };
    Snapshot {
        step,
        epoch: step / 100,
        position: u64::MAX - step,
        metrics_bytes: step * 200,
        world_size: 3,
        proven: step,
        score: Some(step as f64 / 3.0),
        state: json!({"kind": "adam", "watched": Bits(f64::NAN), "seed": u64::MAX, "third": 1.0 / 3.0}),
        card: format!("{{\"seed\": {step}}}\n"),
        groups: vec![
            group("best", model.clone()),
            group("model", model),
            group("optimizer", optimizer),
        ],
        companions: Vec::new(),
    }
}

/// Every field as text or bits, so that two snapshots are equal if and only if these are.
fn bits(s: &Snapshot) -> (String, Vec<(String, Vec<u32>)>) {
    let mut tensors = Vec::new();
    for group in &s.groups {
        for t in &group.tensors {
            let values = t.values.iter().map(|v| v.to_bits()).collect();
            tensors.push((format!("{}/{} {:?}", group.name, t.name, t.shape), values));
        }
    }
    let score = s.score.map(f64::to_bits);
    let numbers = [s.step, s.epoch, s.position, s.metrics_bytes, s.world_size];
    (format!("{numbers:?} {score:?} {} {}", s.state, s.card), tensors)
}

/// Fails unless both are equal to the last bit.
pub fn assert_same(found: &Snapshot, expected: &Snapshot) {
    assert!(bits(found) == bits(expected), "step {} is not what was saved", expected.step);
}

/// The newest sound checkpoint, which must be what was saved at its step.
pub fn newest(dir: &Path) -> Found {
    let found = find(dir, &Resume::Auto).unwrap().expect("a checkpoint");
    assert_same(&found.snapshot, &snapshot(found.snapshot.step));
    found
}

pub fn folder(dir: &Path, step: u64) -> PathBuf {
    dir.join(format!("step-{step:08}"))
}

/// Saves these steps into `dir`.
pub fn saved(dir: &Path, keep: Keep, steps: &[u64]) -> Store {
    let store = Store::open(dir, keep).unwrap();
    for step in steps {
        let saved = store.save(&snapshot(*step)).unwrap();
        assert_eq!(saved.warnings, Vec::<String>::new());
    }
    store
}

/// The names in a folder, in order.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for name in names(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(&from, &to).unwrap();
        }
    }
}

//! Promises of the whole pipeline: keyed by sample and epoch, and nothing else.

use super::*;
use crate::data::{Cut, Draw, Feed, Loader, Sampler, Sampling};
use proptest::prelude::*;
use std::sync::Arc;

/// Every kind, with everything that can be drawn.
const ALL: &str = r#"[
  {"kind": "shift", "pixels": 2, "fill": 0.5}, {"kind": "crop", "pixels": 2}, {"kind": "flip"},
  {"kind": "flip", "axis": "vertical"}, {"kind": "rotate", "degrees": 15}, {"kind": "elastic"},
  {"kind": "jitter", "brightness": 0.3, "contrast": 0.3, "saturation": 0.3}, {"kind": "erase"},
  {"kind": "mixup", "probability": 0.5}, {"kind": "cutmix", "probability": 0.7}
]"#;

const NORMALIZE: Normalize = Normalize { mean: 0.25, std: 0.5 };

/// 40 colour images of 7 × 6 with smooth content; sample i has label i % 5.
struct Pictures;

impl Dataset for Pictures {
    fn len(&self) -> usize {
        40
    }
    fn sample_shape(&self) -> &[usize] {
        &[3, 7, 6]
    }
    fn classes(&self) -> usize {
        5
    }
    fn read(&self, index: usize, out: &mut [f32]) -> Result<u32> {
        for (i, value) in out.iter_mut().enumerate() {
            *value = ((index * 126 + i) as f32 * 0.7).sin() - 0.1;
        }
        Ok(index as u32 % 5)
    }
    fn fingerprint(&self) -> String {
        String::new()
    }
}

fn augment(list: &str, seed: u64) -> Augment {
    let list: Vec<Wanted> = serde_json::from_str(list).unwrap();
    Augment::new(&list, NORMALIZE, seed, Pictures.sample_shape()).unwrap()
}

/// What becomes of sample `sample` in `epoch`.
fn changed(list: &str, seed: u64, epoch: u64, sample: u64) -> (Vec<f32>, Vec<(u32, f32)>) {
    let augment = augment(list, seed);
    let mut batch = Batch { epoch, ..Batch::default() };
    batch.fill(&Pictures, [Draw::of(sample)].into_iter()).unwrap();
    let draws = Sampling::default().draws(&Sampler::new(40, 8, seed), epoch);
    Worker::new(&augment).change(&mut batch, &Pictures, &draws).unwrap();
    (batch.images, batch.mixed)
}

fn unchanged(sample: u64) -> Vec<f32> {
    let mut out = vec![0.0; 126];
    Pictures.read(sample as usize, &mut out).unwrap();
    out
}

/// Epoch, sample, image, second label and its share.
type Seen = (u64, u64, Vec<f32>, (u32, f32));

/// Two epochs of all ranks, by epoch and sample.
fn two_epochs(world: usize, cut: Cut, from: u64) -> Vec<Seen> {
    let sampler = Sampler::new(40, 7, 3);
    let mut all = Vec::new();
    for rank in 0..world {
        let (sampling, augment) = (Sampling::default(), Arc::new(augment(ALL, 3)));
        let steps = from..2 * sampler.steps_per_epoch();
        let feed = Feed { sampler, sampling, augment, rank, world, cut, steps, ahead: 2 };
        let mut loader = Loader::start(Arc::new(Pictures), feed).unwrap();
        while let Some(batch) = loader.next_batch().unwrap() {
            for (i, image) in batch.images.chunks(126).enumerate() {
                all.push((batch.epoch, batch.samples[i], image.to_vec(), batch.mixed[i]));
            }
            loader.recycle(batch);
        }
    }
    all.sort_by_key(|one| (one.0, one.1));
    all
}

#[test]
fn a_sample_of_an_epoch_is_the_same_at_any_rank_count_cut_and_start() {
    let whole = two_epochs(1, Cut::Ranks(1), 0);
    assert_eq!(whole.len(), 80);
    for (world, cut) in [(2, Cut::Ranks(1)), (3, Cut::Ranks(2)), (4, Cut::Leaves(5))] {
        assert_eq!(two_epochs(world, cut, 0), whole, "{world} ranks");
    }
    // Resumed in the middle of the first epoch: what is left is the same.
    let rest = two_epochs(2, Cut::Ranks(1), 3);
    assert_eq!(rest.len(), 80 - 21);
    assert!(rest.iter().all(|one| whole.contains(one)));
}

#[test]
fn epochs_samples_and_seeds_are_changed_differently_by_each_kind() {
    let kinds: Vec<serde_json::Value> = serde_json::from_str(ALL).unwrap();
    for mut kind in kinds {
        kind["probability"] = 1.into();
        let list = format!("[{kind}]");
        let distinct = |runs: Vec<(u64, u64)>| {
            let mut seen: Vec<Vec<u32>> = runs
                .into_iter()
                .map(|(seed, epoch)| {
                    changed(&list, seed, epoch, 11).0.iter().map(|v| v.to_bits()).collect()
                })
                .collect();
            seen.sort();
            seen.dedup();
            seen.len()
        };
        // A flip that always happens has one outcome; a shift by two pixels has 25.
        let (epochs, seeds) = (
            distinct((0..20).map(|epoch| (1, epoch)).collect()),
            distinct((0..20).map(|seed| (seed, 1)).collect()),
        );
        match kind["kind"].as_str() {
            Some("flip") => assert_eq!((epochs, seeds), (1, 1)),
            _ => assert!(epochs > 9 && seeds > 9, "{list}: {epochs} and {seeds} of 20"),
        }
    }
}

#[test]
fn two_transforms_of_one_kind_draw_apart() {
    let list = r#"[{"kind": "flip"}, {"kind": "flip"}]"#;
    // If both drew alike, they would cancel each time.
    let flipped = (0..40).filter(|&s| changed(list, 1, 0, s).0 != unchanged(s)).count();
    assert!((8..33).contains(&flipped), "{flipped} of 40");
}

#[test]
fn a_probability_is_the_share_of_images_that_change() {
    for share in [0.0, 0.2, 1.0] {
        let list = format!(r#"[{{"kind": "flip", "probability": {share}}}]"#);
        let images = (0..50).flat_map(|epoch| (0..40).map(move |sample| (epoch, sample)));
        let hits = images.filter(|&(e, s)| changed(&list, 1, e, s).0 != unchanged(s)).count();
        assert!((hits as f64 / 2000.0 - share).abs() < 0.03, "{hits} of 2000 at {share}");
    }
}

#[test]
fn the_other_image_of_a_mixture_is_one_of_the_epoch_as_it_is_in_it() {
    let before = r#"{"kind": "shift", "pixels": 3}"#;
    let list = format!(r#"[{before}, {{"kind": "mixup", "alpha": 1}}]"#);
    let mut others = Vec::new();
    for sample in 0..40 {
        let (image, mixed) = changed(&list, 1, 4, sample);
        let own = changed(&format!("[{before}]"), 1, 4, sample).0;
        let (label, share) = mixed[0];
        let blend = |other: &[f32]| {
            let pairs = own.iter().zip(other);
            pairs.map(|(a, b)| a + (b - a) * share).collect::<Vec<f32>>()
        };
        let is_other =
            |other: &u64| blend(&changed(&format!("[{before}]"), 1, 4, *other).0) == image;
        let other = (0..40).find(is_other).expect("a sample of the epoch");
        assert_eq!(label, other as u32 % 5);
        others.push(other);
    }
    others.sort_unstable();
    others.dedup();
    assert!(others.len() > 15, "the others are few: {others:?}");
}

#[test]
fn of_several_mixtures_one_at_most_is_done() {
    let both = |p: f32, q: f32| {
        let list = format!(
            r#"[{{"kind": "mixup", "probability": {p}}}, {{"kind": "cutmix", "probability": {q}}}]"#
        );
        changed(&list, 1, 0, 7)
    };
    let alone = changed(r#"[{"kind": "mixup"}]"#, 1, 0, 7);
    assert_eq!(both(1.0, 1.0), alone);
    assert_ne!(both(0.0, 1.0), alone);
    assert_eq!(both(0.0, 0.0), (unchanged(7), vec![(2, 0.0)]));
}

#[test]
fn what_does_not_fit_the_images_is_refused_before_training() {
    let refused = |list: &str, shape: &[usize]| {
        let list: Vec<Wanted> = serde_json::from_str(list).unwrap();
        let error = Augment::new(&list, NORMALIZE, 1, shape).unwrap_err();
        assert_eq!(error.exit_code(), 78);
        error.to_string()
    };
    let text = refused(r#"[{"kind": "flip"}, {"kind": "crop", "pixels": 9}]"#, &[1, 8, 8]);
    assert!(text.contains("data.augment.1: images of 8×8"), "{text}");
    let text = refused(r#"[{"kind": "jitter", "saturation": 0.1}]"#, &[1, 8, 8]);
    assert!(text.contains("data.augment.0: saturation"), "{text}");
    let text = refused(r#"[{"kind": "flip"}]"#, &[64]);
    assert!(text.contains("the samples have shape [64]"), "{text}");
}

proptest! {
    #[test]
    fn parameters_that_ask_for_nothing_change_nothing(seed: u64, epoch in 0u64..99, sample in 0u64..40) {
        for list in [
            "[]",
            r#"[{"kind": "shift", "pixels": 0}]"#,
            r#"[{"kind": "crop", "pixels": 0}]"#,
            r#"[{"kind": "flip", "probability": 0}]"#,
            r#"[{"kind": "rotate", "degrees": 0}]"#,
            r#"[{"kind": "elastic", "alpha": 0}]"#,
            r#"[{"kind": "jitter", "brightness": 0, "contrast": 0, "saturation": 0}]"#,
            r#"[{"kind": "erase", "probability": 0}]"#,
            r#"[{"kind": "flip", "probability": 1}, {"kind": "flip", "probability": 1}]"#,
        ] {
            prop_assert_eq!(changed(list, seed, epoch, sample).0, unchanged(sample), "{}", list);
        }
    }

    #[test]
    fn values_stay_between_black_and_white_and_repeat(seed: u64, epoch in 0u64..99, sample in 0u64..40) {
        let (image, mixed) = changed(ALL, seed, epoch, sample);
        // The pictures lie in −1.1 to 0.9; black is at −0.5, white at 1.5.
        prop_assert!(image.iter().all(|v| (-1.1..=1.5).contains(v)));
        prop_assert!(mixed.len() == 1 && mixed[0].0 < 5 && (0.0..=1.0).contains(&mixed[0].1));
        prop_assert_eq!((image, mixed), changed(ALL, seed, epoch, sample));
    }
}

//! A folder of files, most of them bad, and what each is told.

use annulus::config::{Card, Data};
use annulus::data::{self, SharedDataset};
use annulus::error::{Error, Result};
use annulus::util::rng::{Purpose, Rng};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub struct Museum(tempfile::TempDir);

impl Museum {
    pub fn new() -> Museum {
        Museum(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// A whole card whose `data` section is this one; paths start at the museum's folder.
    pub fn card(&self, data: &Value) -> Result<Card> {
        let model = if data.get("text").is_some() {
            json!({"kind": "gpt", "width": 8, "layers": 1, "heads": 2})
        } else {
            json!({"kind": "mlp", "hidden": [8]})
        };
        let card = json!({
            "data": data,
            "model": model,
            "train": {"global_batch": 16, "epochs": 1},
        });
        Card::load(&self.put("card.json", card.to_string().as_bytes()), &[])
    }

    pub fn open(&self, data: &Value) -> Result<SharedDataset> {
        let start = Instant::now();
        let opened = self.card(data).and_then(|card| data::open(&card.data));
        assert!(start.elapsed() < Duration::from_secs(2), "{data} took {:?}", start.elapsed());
        opened.map(|(train, _)| train)
    }

    /// The error of this data set: of this exit code and with these words.
    #[track_caller]
    pub fn refuses(&self, data: &Value, code: u8, words: &[&str]) -> Error {
        let error = self.open(data).map(|_| ()).expect_err("it was taken");
        let message = error.to_string();
        assert_eq!(error.exit_code(), code, "{message}");
        for word in words {
            assert!(message.contains(word), "`{word}` is missing: {message}");
        }
        error
    }
}

/// The numbers and the label of a sample.
pub fn sample(set: &SharedDataset, index: usize) -> Result<(Vec<f32>, u32)> {
    let mut out = vec![0.0; set.sample_len()];
    let label = set.read(index, &mut out)?;
    Ok((out, label))
}

/// Noise from a seed.
pub fn noise(seed: u64) -> Rng {
    Rng::new(seed, Purpose::Synthetic, 0, 0, 0)
}

/// A number below `n`.
pub fn below(rng: &mut Rng, n: usize) -> usize {
    rng.next_u32() as usize % n
}

/// Changes up to three places of `bytes`, half of them among the first `header` bytes, where they
/// matter most.
pub fn mutate(bytes: &mut Vec<u8>, header: usize, rng: &mut Rng) {
    for _ in 0..=below(rng, 3) {
        if bytes.is_empty() {
            return;
        }
        let at = below(rng, bytes.len());
        let at = if rng.next_u32().is_multiple_of(2) { at } else { at % header };
        match rng.next_u32() % 6 {
            0 => bytes[at] ^= 1 << (rng.next_u32() % 8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][below(rng, 5)],
            2 => bytes.truncate(at),
            3 => bytes.insert(at, rng.next_u32() as u8),
            4 => bytes[at] = b"0123456789,'\"{}()\n -"[below(rng, 20)],
            _ => bytes.extend_from_within(at..),
        }
    }
}

/// Opens and reads through whatever `mutants` leaves in the museum: an error names the file or the card's
/// field, and nothing panics. Gives how many were taken and how many refused.
pub fn survives(
    museum: &Museum,
    data: &Value,
    cases: u64,
    mut mutant: impl FnMut(&mut Rng),
) -> (usize, usize) {
    let card: Data = museum.card(data).unwrap().data;
    let (mut taken, mut refused) = (0, 0);
    for case in 0..cases {
        mutant(&mut noise(case));
        let outcome = data::open(&card).and_then(|(train, _)| {
            (0..train.len().min(50)).try_for_each(|i| {
                let (values, label) = sample(&train, i)?;
                assert!(values.iter().all(|v| v.is_finite()) && (label as usize) < train.classes());
                Ok(())
            })
        });
        match outcome {
            Ok(()) => taken += 1,
            Err(error) => {
                assert!([65, 66, 78].contains(&error.exit_code()), "case {case}: {error}");
                assert!(error.to_string().contains("exhibit"), "case {case}: {error}");
                refused += 1;
            }
        }
    }
    (taken, refused)
}

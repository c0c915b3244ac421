//! What a checkpoint holds: everything that makes the rest of the run come out the same.

use super::model_file::{self, Named};
use crate::error::Result;
use crate::util::files::Growing;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::path::Path;

/// A run between two steps, on the host.
///
/// The caller fills it and may fill it again once it comes back from the writer, without new memory.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Optimizer steps done.
    pub step: u64,
    /// Epochs done, counted from 0.
    pub epoch: u64,
    /// Samples of the current epoch's order already used: the data position of the whole job.
    pub position: u64,
    /// Length of `metrics.jsonl` in bytes at this step; a resumed run cuts the file back to it.
    pub metrics_bytes: u64,
    /// Number of ranks that made it.
    pub world_size: u64,
    /// The replicas of all ranks were last found the same after so many steps. The newest checkpoint of
    /// that step or before is kept: it is the one to go back to should they turn out to differ.
    pub proven: u64,
    /// How good it is, larger is better, so that pruning keeps the best; `None` before the first
    /// evaluation. NaN counts as `None`.
    pub score: Option<f64>,
    /// All else, up to 256 KiB as JSON: early stopping, schedule, seed, counters. JSON has no NaN
    /// and no infinity: floats go in as [`Bits`].
    pub state: Value,
    /// The checked card, as JSON text.
    pub card: String,
    /// Tensors in named groups: `model`, `optimizer`, `best`, …
    pub groups: Vec<Group>,
    /// Files beside it that must be on the disk before it counts: the metrics that it belongs to.
    pub companions: Vec<Growing>,
}

/// Tensors that lie in one file.
#[derive(Debug, Clone, Default)]
pub struct Group {
    /// Lower-case letters, digits, `_` and `-`: the file is `<name>.safetensors`.
    pub name: String,
    /// The tensors, in any order; they come back in the order of their names.
    pub tensors: Vec<Named>,
}

impl Snapshot {
    /// The tensors of a group.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&[Named]> {
        self.groups.iter().find(|g| g.name == name).map(|g| g.tensors.as_slice())
    }

    /// The tensors of a group, taken out.
    pub fn take_group(&mut self, name: &str) -> Option<Vec<Named>> {
        let at = self.groups.iter().position(|g| g.name == name)?;
        Some(self.groups.swap_remove(at).tensors)
    }

    /// Compares a group with the names and shapes that are needed, in name order. `path` is the
    /// checkpoint's folder, for the message. A group that is not there has no tensors.
    ///
    /// # Errors
    /// [`crate::error::Error::Data`] listing every missing, unknown and differently shaped tensor.
    pub fn check_fits(
        &self,
        path: &Path,
        group: &str,
        needed: &[(String, Vec<usize>)],
    ) -> Result<()> {
        let file = path.join(format!("{group}.safetensors"));
        model_file::check_fits(&file, self.group(group).unwrap_or_default(), needed)
    }
}

/// A float by its bits, for JSON: 16 hexadecimal digits, exact for every value, NaN included.
#[derive(Debug, Clone, Copy)]
pub struct Bits(pub f64);

impl PartialEq for Bits {
    fn eq(&self, other: &Bits) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Serialize for Bits {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{:016x}", self.0.to_bits()))
    }
}

impl<'de> Deserialize<'de> for Bits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        match u64::from_str_radix(&text, 16) {
            Ok(bits) if digits => Ok(Bits(f64::from_bits(bits))),
            _ => Err(serde::de::Error::custom("expected the 16 hexadecimal digits of a float")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_float_survives_json_by_its_bits() {
        for bits in [0, 1, u64::MAX, 0x7ff0_0000_0000_0001, (-0.0f64).to_bits(), 0.1f64.to_bits()] {
            let value = serde_json::to_value(Bits(f64::from_bits(bits))).unwrap();
            let back: Bits = serde_json::from_value(value).unwrap();
            assert_eq!(back.0.to_bits(), bits);
        }
        for text in ["\"\"", "\"+000000000000000\"", "\"00000000000000000\"", "1.0", "null"] {
            assert!(serde_json::from_str::<Bits>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_group_that_does_not_fit_names_its_file_and_every_difference() {
        let tensors = vec![Named { name: "w".into(), shape: vec![1], values: vec![0.0] }];
        let groups = vec![Group { name: "model".into(), tensors }];
        let snapshot = Snapshot { groups, ..Snapshot::default() };
        let needed = [("b".to_owned(), vec![2]), ("w".to_owned(), vec![2])];
        let error = snapshot.check_fits(Path::new("c"), "model", &needed).unwrap_err();
        assert_eq!(error.exit_code(), 65);
        let text = error.to_string();
        for part in ["c/model.safetensors", "b is missing", "w has shape [1]"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(snapshot.check_fits(Path::new("c"), "best", &needed).is_err());
        assert!(snapshot.check_fits(Path::new("c"), "best", &[]).is_ok());
    }
}

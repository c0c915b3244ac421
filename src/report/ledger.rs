//! `ledger.jsonl`: what a run computed, by its bits, and the comparison of two of them.
//!
//! The first line says what the run is, then there is one line a step; a resumed run adds a line that
//! is left out of comparisons. Everything in it follows from card, data, program and rank count alone:
//! no time, no path, no host.

use crate::error::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::path::Path;

/// Its name in a run folder.
pub const LEDGER: &str = "ledger.jsonl";

/// 64 bits as 16 hexadecimal digits: JSON numbers lose some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hex(pub u64);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:016x}", self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        match u64::from_str_radix(&text, 16) {
            Ok(bits) if digits => Ok(Hex(bits)),
            _ => Err(serde::de::Error::custom("expected 16 hexadecimal digits")),
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Line {
    /// The first: what the run is.
    Run(About),
    /// A step.
    Step(Step),
    /// The run went on from a checkpoint.
    Resume {
        /// Steps done.
        step: u64,
        /// Ranks from here on.
        ranks: usize,
    },
}

/// What a run is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// BLAKE3 of the card: `Card::hash`.
    pub card: String,
    /// Fingerprint of the training data.
    pub data: String,
    /// Version of annulus.
    pub program: String,
    /// Number of ranks at the start.
    pub ranks: usize,
    /// What `hashes` of steps are of, in this order: parameters, then moments.
    pub tensors: Vec<String>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Counted from 1.
    pub step: u64,
    /// Bits of the mean loss over the global batch, an f64.
    pub loss: Hex,
    /// Bits of the gradient's norm before clipping, an f64.
    pub grad_norm: Hex,
    /// Hash of which samples make up the global batch, in which order.
    pub order: Hex,
    /// The update was left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
    /// Hash of each tensor after the step, where it is the turn of this step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hashes: Vec<Hex>,
}

/// A whole ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Book {
    /// What the run is.
    pub about: About,
    /// Its steps by number.
    pub steps: BTreeMap<u64, Step>,
}

/// Reads the ledger at `path`. A last line without its end, as a killed run leaves it, does not count.
///
/// # Errors
/// [`Error::NoInput`] when it is not there; [`Error::Data`] with the number of the line that cannot be
/// read.
pub fn read(path: &Path) -> Result<Book> {
    let text = std::fs::read(path).map_err(|e| Error::reading(path, &e))?;
    let whole = text.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
    let bad = |number: usize, why: &dyn std::fmt::Display| {
        Error::Data(format!("{}, line {number}: {why}", path.display()))
    };
    let (mut about, mut steps) = (None, BTreeMap::new());
    for (i, line) in text[..whole].split_inclusive(|&b| b == b'\n').enumerate() {
        match serde_json::from_slice(line).map_err(|e| bad(i + 1, &e))? {
            Line::Run(first) if i == 0 => about = Some(first),
            Line::Run(_) => return Err(bad(i + 1, &"a second first line")),
            _ if i == 0 => return Err(bad(1, &"expected the line of kind `run`")),
            Line::Resume { .. } => {}
            Line::Step(step) => {
                if steps.last_key_value().is_some_and(|(last, _)| *last >= step.step) {
                    return Err(bad(i + 1, &format_args!("step {} comes again", step.step)));
                }
                steps.insert(step.step, step);
            }
        }
    }
    let about = about.ok_or_else(|| bad(1, &"the ledger is empty"))?;
    Ok(Book { about, steps })
}

/// What two runs have in common, and where they part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Steps that both have written down.
    pub common: usize,
    /// The first of them that differs, and in what.
    pub step: Option<(u64, String)>,
    /// The first step after which parameters differ: the first tensor that does, and how many do.
    pub tensor: Option<(u64, String, usize)>,
    /// The last step before it after which parameters were the same.
    pub same_after: Option<u64>,
}

/// Compares the steps of two runs.
#[must_use]
pub fn compare(a: &Book, b: &Book) -> Difference {
    let mut found = Difference::default();
    for (number, x) in &a.steps {
        let Some(y) = b.steps.get(number) else { continue };
        found.common += 1;
        if found.step.is_none() {
            found.step = in_what(x, y).map(|what| (*number, what));
        }
        if found.tensor.is_some() || x.hashes.is_empty() || y.hashes.is_empty() {
            continue;
        }
        found.tensor = first_tensor(a, b, x, y).map(|(name, count)| (*number, name, count));
        if found.tensor.is_none() {
            found.same_after = Some(*number);
        }
    }
    found
}

/// In what two lines of one step differ, but for hashes of tensors.
fn in_what(x: &Step, y: &Step) -> Option<String> {
    let mut parts = Vec::new();
    if x.order != y.order {
        parts.push("the samples of the batch or their order".to_owned());
    }
    let float = |name: &str, x: Hex, y: Hex| {
        let (p, q) = (f64::from_bits(x.0), f64::from_bits(y.0));
        format!("the {name}: {p} ({:016x}) and {q} ({:016x})", x.0, y.0)
    };
    if x.loss != y.loss {
        parts.push(float("loss", x.loss, y.loss));
    }
    if x.grad_norm != y.grad_norm {
        parts.push(float("gradient's norm", x.grad_norm, y.grad_norm));
    }
    if x.skipped != y.skipped {
        let who = if x.skipped { "first" } else { "second" };
        parts.push(format!("the {who} run left the update out"));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn first_tensor(a: &Book, b: &Book, x: &Step, y: &Step) -> Option<(String, usize)> {
    let (names, others) = (&a.about.tensors, &b.about.tensors);
    if names != others || x.hashes.len() != y.hashes.len() {
        return Some(("the runs have other tensors".to_owned(), names.len().max(others.len())));
    }
    let differ: Vec<usize> = (0..x.hashes.len()).filter(|&i| x.hashes[i] != y.hashes[i]).collect();
    let first = differ.first()?;
    let name = names.get(*first).cloned().unwrap_or_else(|| format!("tensor {first}"));
    Some((name, differ.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        let tensors = vec!["a".to_owned(), "b".to_owned()];
        About { card: "c".into(), data: "d".into(), program: "p".into(), ranks: 2, tensors }
    }

    fn book(steps: &[(u64, u64, &[u64])]) -> Book {
        let step = |&(step, loss, hashes): &(u64, u64, &[u64])| {
            let hashes = hashes.iter().map(|&h| Hex(h)).collect();
            let (loss, zero) = (Hex(loss), Hex(0));
            (step, Step { step, loss, grad_norm: zero, order: zero, skipped: false, hashes })
        };
        Book { about: about(), steps: steps.iter().map(step).collect() }
    }

    #[test]
    fn the_first_step_and_the_first_tensor_that_differ_are_told_apart() {
        let a = book(&[(1, 5, &[]), (2, 6, &[1, 2]), (3, 7, &[]), (4, 8, &[3, 4])]);
        let b = book(&[(2, 6, &[1, 2]), (3, 9, &[]), (4, 9, &[3, 5]), (5, 0, &[])]);
        let found = compare(&a, &b);
        assert_eq!(found.common, 3);
        let (step, what) = found.step.unwrap();
        assert!(step == 3 && what.contains("the loss: ") && what.contains("0000000000000009"));
        assert_eq!(found.tensor, Some((4, "b".to_owned(), 1)));
        assert_eq!(found.same_after, Some(2));
        assert_eq!(compare(&a, &a).step, None);
        assert_eq!(compare(&a, &a).tensor, None);
    }

    #[test]
    fn a_ledger_comes_back_as_written_and_a_line_cut_by_a_crash_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LEDGER);
        let written = book(&[(1, u64::MAX, &[1, 2]), (2, 0, &[])]);
        let mut text = String::new();
        let resume = Line::Resume { step: 1, ranks: 3 };
        let steps = written.steps.values().map(|s| Line::Step(s.clone()));
        for line in [Line::Run(about()), resume].into_iter().chain(steps) {
            text += &(serde_json::to_string(&line).unwrap() + "\n");
        }
        std::fs::write(&path, text.clone() + "{\"kind\":\"st").unwrap();
        assert_eq!(read(&path).unwrap(), written);
        for (spoilt, place) in [
            (text.replace("\"step\":2", "\"step\":1"), "line 4: step 1 comes again"),
            (text.replace("\"ranks\":3", "\"ranks\":x"), "line 2: "),
            (text.replace("ffffffffffffffff", "ffff"), "line 3: expected 16 hexadecimal"),
            (text.lines().skip(1).map(|l| format!("{l}\n")).collect(), "line 1: expected the line"),
            (String::new(), "the ledger is empty"),
        ] {
            std::fs::write(&path, spoilt).unwrap();
            let error = read(&path).unwrap_err();
            assert_eq!(error.exit_code(), 65);
            assert!(error.to_string().contains(place), "{error}");
        }
        assert_eq!(read(&folder.path().join("none")).unwrap_err().exit_code(), 66);
    }
}

//! What is kept, what is removed and why, which document is in which part and file.

use super::minhash::{Kept, LANES, Signature};
use super::{Options, Record};
use crate::data::prepare::plan::PARTS;
use crate::error::{Error, Result};
use std::ops::Range;

/// Bytes of text of a file; a longer document has one of its own.
const FILE: usize = 32 << 20;

/// Why a document is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It cannot be used; its record says why.
    Refused,
    /// The words of this document are the same.
    Duplicate(u32),
    /// This document agrees in so many of the permutations.
    Near(u32, u32),
}

/// The fate of all documents.
#[derive(Debug)]
pub struct Plan {
    /// The documents of training, validation and test, in the order of the sources.
    pub parts: [Vec<u32>; 3],
    /// Those that are not kept, in the order of the sources.
    pub removed: Vec<(u32, Removed)>,
}

/// For each document that is not kept because of itself or an equal one before it, why; the order is that of the
/// documents.
#[must_use]
pub fn refused_and_equal(records: &[Record]) -> Vec<(u32, Removed)> {
    let mut order: Vec<u32> = (0..records.len() as u32).collect();
    order.retain(|&i| records[i as usize].refused.is_none());
    order.sort_unstable_by_key(|&i| (&records[i as usize].hash, i));
    let mut removed: Vec<(u32, Removed)> = order
        .chunk_by(|&a, &b| records[a as usize].hash == records[b as usize].hash)
        .flat_map(|same| same[1..].iter().map(|&i| (i, Removed::Duplicate(same[0]))))
        .collect();
    let refused = (0..records.len()).filter(|&i| records[i].refused.is_some());
    removed.extend(refused.map(|i| (i as u32, Removed::Refused)));
    removed.sort_unstable_by_key(|&(i, _)| i);
    removed
}

/// Looks for near-duplicates among the documents that are not in `removed`. Show it the signatures of all
/// documents, in their order, by [`Near::see`].
#[derive(Debug)]
pub struct Near<'a> {
    kept: Kept,
    removed: &'a [(u32, Removed)],
    next: u32,
    found: Vec<(u32, Removed)>,
}

impl<'a> Near<'a> {
    /// Of `count` documents those in `removed`, in order, are passed over.
    #[must_use]
    pub fn new(count: usize, removed: &'a [(u32, Removed)], options: &Options) -> Near<'a> {
        let kept = Kept::new(options.alike, count - removed.len());
        Near { kept, removed, next: 0, found: Vec::new() }
    }

    /// The next document.
    pub fn see(&mut self, signature: Option<&Signature>) {
        let number = self.next;
        self.next += 1;
        if self.removed.first().is_some_and(|&(removed, _)| removed == number) {
            self.removed = &self.removed[1..];
        } else if let Some(signature) = signature
            && let Some((first, agreeing)) = self.kept.place(number, signature)
        {
            self.found.push((number, Removed::Near(first, agreeing as u32)));
        }
    }

    /// What was found, in order, as numbers: document, the one that it nearly equals, permutations in which
    /// they agree.
    #[must_use]
    pub fn found(self) -> Vec<[u32; 3]> {
        let numbers = |(i, why)| match why {
            Removed::Near(of, agreeing) => Some([i, of, agreeing]),
            _ => None,
        };
        self.found.into_iter().filter_map(numbers).collect()
    }
}

/// Splits what is neither in `removed` nor in `near`. A document's part follows from the seed and its hash.
///
/// # Errors
/// [`Error::Data`] if a part that was asked for is empty.
pub fn make(
    records: &[Record],
    mut removed: Vec<(u32, Removed)>,
    near: &[[u32; 3]],
    options: &Options,
) -> Result<Plan> {
    removed.extend(near.iter().map(|&[i, of, agreeing]| (i, Removed::Near(of, agreeing))));
    removed.sort_unstable_by_key(|&(i, _)| i);
    let mut gone = removed.iter().map(|&(i, _)| i).peekable();
    let kept = (0..records.len() as u32).filter(|i| gone.next_if_eq(i).is_none());
    let mut drawn: Vec<(u128, u32)> =
        kept.map(|i| (draw(options.seed, &records[i as usize].hash), i)).collect();
    drawn.sort_unstable();
    let rooms = options.split.map(|share| (share * drawn.len() as f64).round() as usize);
    let mut parts = [const { Vec::new() }; 3];
    for part in [2, 1, 0] {
        let count = if part == 0 { drawn.len() } else { rooms[part].min(drawn.len()) };
        parts[part] = drawn.drain(..count).map(|(_, i)| i).collect();
        parts[part].sort_unstable();
    }
    for (part, share) in options.split.iter().enumerate() {
        if *share > 0.0 && parts[part].is_empty() {
            return Err(too_few(PARTS[part], *share, records, &removed));
        }
    }
    Ok(Plan { parts, removed })
}

fn too_few(part: &str, share: f64, records: &[Record], removed: &[(u32, Removed)]) -> Error {
    let whys = removed.iter().map(|(i, why)| why.kind(&records[*i as usize]));
    let reasons = crate::data::prepare::plan::counts(whys);
    let reasons: Vec<_> = reasons.iter().map(|(why, count)| format!("{count} {why}")).collect();
    Error::Data(format!(
        "the part `{part}` (share {share}) would be empty: {} of {} documents are left; removed: {}",
        records.len() - removed.len(),
        records.len(),
        if reasons.is_empty() { "none".to_owned() } else { reasons.join(", ") }
    ))
}

/// A place drawn for content.
fn draw(seed: u64, hash: &[u8; 32]) -> u128 {
    let mut drawn = blake3::Hasher::new();
    drawn.update(&seed.to_le_bytes()).update(hash);
    let mut bytes = [0; 16];
    drawn.finalize_xof().fill(&mut bytes);
    u128::from_be_bytes(bytes)
}

impl Removed {
    /// The reason, by which documents are counted up to its first colon.
    #[must_use]
    pub fn kind(self, record: &Record) -> &str {
        match self {
            Removed::Refused => record.refused.as_deref().unwrap_or_default(),
            Removed::Duplicate(_) => "duplicate",
            Removed::Near(..) => "near-duplicate",
        }
    }

    /// All of it.
    #[must_use]
    pub fn told(self, record: &Record, name: impl Fn(u32) -> String) -> String {
        match self {
            Removed::Refused => self.kind(record).to_owned(),
            Removed::Duplicate(of) => format!("duplicate of {}", name(of)),
            Removed::Near(of, agreeing) => {
                let percent = 100.0 * f64::from(agreeing) / LANES as f64;
                format!("near-duplicate of {}: {percent:.0} % of the runs are the same", name(of))
            }
        }
    }
}

/// The files to write: part, number in the part, and documents of the part.
#[must_use]
pub fn files(
    plan: &Plan,
    records: &[Record],
    options: &Options,
) -> Vec<(usize, usize, Range<usize>)> {
    let mut files = Vec::new();
    for (part, documents) in plan.parts.iter().enumerate() {
        let (mut start, mut bytes, mut number) = (0, 0, 0);
        for (end, &document) in documents.iter().enumerate() {
            let more = records[document as usize].size[0] as usize + options.end.len();
            if end > start && (bytes + more > FILE || end - start == options.shard) {
                files.push((part, number, start..end));
                (start, bytes, number) = (end, 0, number + 1);
            }
            bytes += more;
        }
        if start < documents.len() {
            files.push((part, number, start..documents.len()));
        }
    }
    files
}

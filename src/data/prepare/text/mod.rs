//! Documents: lines of JSON Lines files, text files, or what lies between the separators in them.
//!
//! | file | holds |
//! |---|---|
//! | [`sources`] | the files, cut into pieces of work |
//! | `pieces` | the documents that begin in a range of a file |
//! | [`clean`] | bytes of any encoding become text; a field of a line of JSON |
//! | [`words`] | what makes two documents equal; runs of words |
//! | [`minhash`] | signatures, and which documents have nearly the same runs |
//! | [`plan`] | what is kept, what is removed and why, which document is in which part and file |
//! | [`shard`] | a file of documents, with hash and counts |
//! | [`tokenizer`] | tokens by a `tokenizer.json` |
//!
//! Of a document that was looked at only its [`Record`] stays in memory, and its signature while
//! near-duplicates are looked for; the text is read again when it is written.

pub mod clean;
pub mod minhash;
mod pieces;
pub mod plan;
pub mod shard;
pub mod sources;
pub mod tokenizer;
pub mod words;

use crate::error::{Error, Result};
use minhash::Signature;
use serde::{Deserialize, Serialize};
use sources::{Kind, Place, Reading};
use std::path::Path;

/// What the tokens of the prepared text are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tokens {
    /// Bytes of UTF-8.
    Bytes,
    /// Characters that occur in the training part.
    Characters,
    /// Those of a `tokenizer.json`.
    Tokenizer,
}

/// What is wished for.
#[derive(Debug, Clone, Serialize)]
pub struct Options {
    /// Of the split.
    pub seed: u64,
    /// Shares of training, validation and test.
    pub split: [f64; 3],
    /// The field of a line of JSON that has the text.
    pub field: String,
    /// The line between two documents of a text file; without it a file is one document.
    pub separator: Option<String>,
    /// Documents of fewer characters are removed.
    pub min_chars: usize,
    /// Documents that have this share of their runs of words in common are near-duplicates; with 1 only
    /// those with the same words are.
    pub alike: f64,
    /// What is a token.
    pub tokens: Tokens,
    /// The hash of the tokenizer's file.
    pub tokenizer: Option<String>,
    /// Follows each document: a text, or the name of a token of the tokenizer.
    pub end: String,
    /// Tokens of a window, in the card's section.
    pub context: usize,
    /// Documents of a file at most.
    pub shard: usize,
}

/// What was found when a document was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Where it lies.
    pub place: Place,
    /// Hash of its words as they are written, white space aside; see [`words::hash`].
    pub hash: [u8; 32],
    /// Bytes, characters and words of the cleaned text.
    pub size: [u32; 3],
    /// What was repaired: bits of [`clean::REPAIRS`].
    pub repaired: u8,
    /// Why it cannot be used.
    pub refused: Option<String>,
}

/// Looks at a document: its record, and its signature if it can be used and has words. `bytes` are its first
/// ones only if it is longer than [`sources::LONGEST`].
///
/// # Panics
/// Never: a document has less than 4 GiB.
#[must_use]
pub fn examine(
    kind: Kind,
    place: Place,
    bytes: &[u8],
    options: &Options,
) -> (Record, Option<Signature>) {
    let refused = |why: String| {
        let refused = Some(why);
        (Record { place, hash: [0; 32], size: [0; 3], repaired: 0, refused }, None)
    };
    let (text, repaired) = match clean::document(kind, place, bytes, &options.field) {
        Ok(found) => found,
        Err(why) => return refused(why),
    };
    let characters = text.chars().count();
    if text.is_empty() {
        return refused("empty".to_owned());
    }
    if characters < options.min_chars {
        return refused(format!(
            "too short: {characters} characters where {} are the least (--min-chars)",
            options.min_chars
        ));
    }
    let hash = words::hash(&text);
    let (count, runs) = words::runs(&text);
    let size = [text.len() as u32, characters as u32, count];
    let signature = (!runs.is_empty()).then(|| minhash::sign(&runs));
    (Record { place, hash, size, repaired, refused: None }, signature)
}

/// The cleaned text of a document that was kept.
///
/// # Errors
/// [`Error::Data`] if it is not what it was when it was looked at.
pub fn text(reading: &mut Reading, record: &Record, options: &Options) -> Result<String> {
    let (kind, bytes) = reading.read(record.place)?;
    let found = clean::document(kind, record.place, &bytes, &options.field).ok();
    let same = found.filter(|(text, _)| words::hash(text) == record.hash);
    let (text, _) = same.ok_or_else(|| reading.changed(record.place))?;
    Ok(text.into_owned())
}

/// Whether the sources are documents rather than pictures or a table: files whose names end so, or folders that
/// hold such files and no pictures.
///
/// # Errors
/// [`Error::NoInput`] if one is missing; [`Error::Usage`] if only some are documents.
pub fn is_text(paths: &[impl AsRef<Path>]) -> Result<bool> {
    let mut count = 0;
    for path in paths {
        count += usize::from(sources::holds_text(path.as_ref())?);
    }
    if count > 0 && count < paths.len() {
        return Err(Error::Usage(
            "some sources are text (.txt, .jsonl) and others are not; prepare them one by one"
                .to_owned(),
        ));
    }
    Ok(count > 0)
}

//! Tokens by a `tokenizer.json` of Hugging Face (cargo feature `tokenizers`).
//!
//! Documents are encoded as a whole, without the tokens that a model's template puts round them, without
//! truncation and padding; a special token that a text spells out is text like any other.

use crate::error::{Error, Result};
use std::path::Path;

/// Bytes of a tokenizer's file.
#[cfg(feature = "tokenizers")]
const FILE: u64 = 64 << 20;

/// A tokenizer.
#[cfg(feature = "tokenizers")]
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    blake3: String,
    classes: usize,
    /// Follows each document.
    end: Vec<u32>,
}

#[cfg(feature = "tokenizers")]
impl Tokenizer {
    /// Reads a file; `end` is the name of the token that follows each document, or empty.
    ///
    /// # Errors
    /// [`Error::NoInput`] if it is missing; [`Error::Data`] if it is no tokenizer, one that draws at random, or
    /// has other tokens than a card can have.
    pub fn open(path: &Path, end: &str) -> Result<Tokenizer> {
        use super::shard::VOCABULARY;
        let wrong = |what: String| Error::Data(format!("{}: {what}", path.display()));
        let (file, size) = crate::data::formats::source::regular(path)?;
        if size > FILE {
            return Err(wrong(format!("has more than {} MiB", FILE >> 20)));
        }
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(file, size), &mut bytes)
            .map_err(|e| Error::reading(path, &e))?;
        let json: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|e| wrong(format!("is no tokenizer: {e}")))?;
        if json["model"]["dropout"].as_f64().is_some_and(|share| share > 0.0) {
            return Err(wrong("draws merges at random; set model.dropout to null".to_owned()));
        }
        let read = tokenizers::Tokenizer::from_bytes(&bytes);
        let mut inner = read.map_err(|e| wrong(format!("is no tokenizer: {e}")))?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| wrong(e.to_string()))?;
        inner.set_encode_special_tokens(true);
        let classes = inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        if !(2..=VOCABULARY).contains(&classes) {
            return Err(wrong(format!("has {classes} tokens; a card can have 2 to {VOCABULARY}")));
        }
        let end = if end.is_empty() {
            Vec::new()
        } else {
            let known = inner.token_to_id(end).ok_or_else(|| no_token(&inner, end));
            vec![known.map_err(wrong)?]
        };
        let blake3 = blake3::hash(&bytes).to_hex().to_string();
        Ok(Tokenizer { inner, blake3, classes, end })
    }

    /// The hash of its file.
    #[must_use]
    pub fn blake3(&self) -> &str {
        &self.blake3
    }

    /// One more than its highest token.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Appends a document's tokens and what ends it.
    ///
    /// # Errors
    /// [`Error::Data`] with the tokenizer's words.
    pub fn push(&self, text: &str, out: &mut Vec<u32>) -> Result<()> {
        let encoded = self.inner.encode_fast(text, false);
        let encoded = encoded.map_err(|e| Error::Data(format!("the tokenizer fails: {e}")))?;
        out.extend_from_slice(encoded.get_ids());
        out.extend_from_slice(&self.end);
        Ok(())
    }
}

#[cfg(feature = "tokenizers")]
fn no_token(inner: &tokenizers::Tokenizer, end: &str) -> String {
    let added = inner.get_added_tokens_decoder();
    let mut special: Vec<&str> =
        added.values().filter(|t| t.special).map(|t| t.content.as_str()).collect();
    special.sort_unstable();
    let special = if special.is_empty() { "none".to_owned() } else { special.join(", ") };
    format!("has no token `{end}` (--end); its special tokens: {special}")
}

/// None: the program was built without it.
#[cfg(not(feature = "tokenizers"))]
#[derive(Debug)]
pub enum Tokenizer {}

#[cfg(not(feature = "tokenizers"))]
impl Tokenizer {
    /// Refuses.
    ///
    /// # Errors
    /// [`Error::Usage`] always.
    pub fn open(path: &Path, _: &str) -> Result<Tokenizer> {
        Err(Error::Usage(format!(
            "--tokenizer {}: this program was built without the cargo feature `tokenizers`",
            path.display()
        )))
    }

    /// The hash of its file.
    #[must_use]
    pub fn blake3(&self) -> &str {
        match *self {}
    }

    /// One more than its highest token.
    #[must_use]
    pub fn classes(&self) -> usize {
        match *self {}
    }

    /// Appends a document's tokens.
    ///
    /// # Errors
    /// Never.
    pub fn push(&self, _: &str, _: &mut Vec<u32>) -> Result<()> {
        match *self {}
    }
}

//! A file of documents, as the readers of text and tokens take it.

use super::plan::Plan;
use super::sources::{Reading, Sources};
use super::tokenizer::Tokenizer;
use super::{Options, Record, Tokens, text};
use crate::data::prepare::plan::PARTS;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// The most tokens that a card can have.
pub(super) const VOCABULARY: usize = 65_536;

/// What is known of a written file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Written {
    /// Its name.
    pub file: String,
    /// Hash of its bytes.
    pub blake3: String,
    /// Its documents.
    pub documents: usize,
    /// Bytes of their text.
    pub bytes: u64,
    /// Characters of their text.
    pub characters: u64,
    /// Words of their text.
    pub words: u64,
    /// Tokens of the file, with those that end documents.
    pub tokens: u64,
    /// Characters that are in no training document and stand as another one.
    pub replaced: u64,
}

/// The same, with the tokens that are in the file, each once, in order.
#[derive(Debug, Serialize, Deserialize)]
pub struct Note {
    /// What everybody sees.
    pub written: Written,
    /// Bytes, code points, or tokens of the tokenizer.
    pub seen: Vec<u32>,
}

/// Tokens of the training files, each once, in order.
#[derive(Debug)]
pub struct Vocabulary(Vec<u32>);

impl Vocabulary {
    /// Those of the training files.
    #[must_use]
    pub fn of(notes: &[Note]) -> Vocabulary {
        let mut all: Vec<u32> = Vec::new();
        for note in notes.iter().filter(|note| note.written.file.starts_with(PARTS[0])) {
            all.extend(&note.seen);
            all.sort_unstable();
            all.dedup();
        }
        Vocabulary(all)
    }

    /// How many different ones there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Its characters, in order.
    #[must_use]
    pub fn characters(&self) -> String {
        self.0.iter().filter_map(|&c| char::from_u32(c)).collect()
    }

    fn has(&self, c: char) -> bool {
        self.0.binary_search(&(c as u32)).is_ok()
    }

    /// What stands for a character that it does not have.
    fn stand_in(&self) -> char {
        let first = self.0.first().and_then(|&c| char::from_u32(c));
        if self.has(' ') { ' ' } else { first.unwrap_or(' ') }
    }
}

/// The name of a file.
#[must_use]
pub fn name(part: usize, number: usize, tokens: Tokens) -> String {
    let kind = if tokens == Tokens::Tokenizer { "bin" } else { "txt" };
    format!("{}-{number:05}.{kind}", PARTS[part])
}

/// What the files are made from.
#[derive(Debug)]
pub struct Job<'a> {
    /// The sources.
    pub sources: &'a Sources,
    /// What was found in them.
    pub records: &'a [Record],
    /// What becomes of it.
    pub plan: &'a Plan,
    /// The wishes.
    pub options: &'a Options,
    /// What makes tokens, if they are neither bytes nor characters.
    pub tokenizer: Option<&'a Tokenizer>,
}

impl Job<'_> {
    /// The classes of a card.
    ///
    /// # Errors
    /// [`Error::Data`] if a card cannot have as many, or so few.
    pub fn classes(&self, vocabulary: &Vocabulary) -> Result<usize> {
        match (self.tokenizer, self.options.tokens, vocabulary.count()) {
            (Some(tokenizer), ..) => Ok(tokenizer.classes()),
            (None, Tokens::Characters, n @ 2..=VOCABULARY) => Ok(n),
            (None, Tokens::Characters, n) => Err(Error::Data(format!(
                "the training part has {n} different characters; 2 to {VOCABULARY} can be tokens; \
                 give --tokens bytes"
            ))),
            (None, ..) => Ok(256),
        }
    }

    /// The bytes of a file, and what is known of it. Characters are those of `vocabulary`, if one is given.
    ///
    /// # Errors
    /// As [`text`].
    pub fn make(
        &self,
        file: String,
        documents: &[u32],
        vocabulary: Option<&Vocabulary>,
    ) -> Result<(Vec<u8>, Note)> {
        let mut reading = Reading::of(self.sources);
        let (mut out, mut ids) = (String::new(), Vec::new());
        let (mut size, mut replaced) = ([0; 3], 0);
        for &document in documents {
            let record = &self.records[document as usize];
            let text = text(&mut reading, record, self.options)?;
            size.iter_mut().zip(record.size).for_each(|(sum, size)| *sum += u64::from(size));
            if let Some(tokenizer) = self.tokenizer {
                tokenizer.push(&text, &mut ids)?;
                continue;
            }
            for text in [&*text, &*self.options.end] {
                match vocabulary {
                    Some(vocabulary) => replaced += push_known(&mut out, text, vocabulary),
                    None => out.push_str(text),
                }
            }
        }
        let (seen, tokens) = match self.options.tokens {
            Tokens::Bytes => (seen(out.bytes().map(u32::from), 256), out.len()),
            Tokens::Characters => {
                (seen(out.chars().map(u32::from), 0x11_0000), out.chars().count())
            }
            Tokens::Tokenizer => (seen(ids.iter().copied(), VOCABULARY as u32), ids.len()),
        };
        let whole = match self.tokenizer {
            // A vocabulary has at most 65,536 tokens.
            Some(_) => ids.iter().flat_map(|&id| (id as u16).to_le_bytes()).collect(),
            None => out.into_bytes(),
        };
        let [bytes, characters, words] = size;
        let blake3 = blake3::hash(&whole).to_hex().to_string();
        let (documents, tokens) = (documents.len(), tokens as u64);
        let written =
            Written { file, blake3, documents, bytes, characters, words, tokens, replaced };
        Ok((whole, Note { written, seen }))
    }
}

/// Appends a text, with another character in the place of each that the vocabulary does not have; gives their
/// number.
fn push_known(out: &mut String, text: &str, vocabulary: &Vocabulary) -> u64 {
    let mut replaced = 0;
    out.extend(text.chars().map(|c| {
        if vocabulary.has(c) {
            return c;
        }
        replaced += 1;
        vocabulary.stand_in()
    }));
    replaced
}

/// The different tokens, all below `most`, in order.
fn seen(tokens: impl Iterator<Item = u32>, most: u32) -> Vec<u32> {
    let mut seen = vec![false; most as usize];
    tokens.for_each(|token| seen[token as usize] = true);
    (0..most).filter(|&token| seen[token as usize]).collect()
}

//! A file as a row of tokens, read from its place when it is needed.

use super::utf8::{self, Characters};
use crate::config::{Data, Format, Ids, Text, Vocabulary};
use crate::data::formats::source::Source;
use crate::error::{Error, Result};
use std::path::Path;
use std::sync::Arc;

/// What the tokens of a data set are.
pub enum Kind {
    /// Bytes.
    Bytes,
    /// Little-endian whole numbers of so many bytes, all below the number of classes.
    Ids(usize, usize),
    /// Characters of a vocabulary.
    Characters(Arc<Characters>),
}

impl Kind {
    /// What the card says; a vocabulary of characters is collected from all training files.
    ///
    /// # Errors
    /// When they cannot be read or have another number of characters than the card has classes.
    pub fn of(card: &Data, text: &Text) -> Result<Kind> {
        if card.format == Format::Tokens {
            let width = if text.ids == Some(Ids::U32) { 4 } else { 2 };
            return Ok(Kind::Ids(width, card.classes));
        }
        if text.vocabulary.unwrap_or_default() == Vocabulary::Bytes {
            return Ok(Kind::Bytes);
        }
        let found = Characters::of_files(&card.train.files)?;
        if found.count() != card.classes {
            let files: Vec<_> = card.train.files.iter().map(|f| f.display().to_string()).collect();
            return Err(Error::Data(format!(
                "{}: the training text has {} different characters, data.classes is {}; set data.classes to {1}",
                files.join(", "),
                found.count(),
                card.classes
            )));
        }
        Ok(Kind::Characters(Arc::new(found)))
    }
}

enum Encoding {
    Bytes,
    Ids(usize),
    Characters(Arc<Characters>, utf8::Index),
}

/// The tokens of one file.
pub struct Tokens {
    source: Source,
    encoding: Encoding,
    len: u64,
}

impl Tokens {
    /// Opens a file and looks at every token of it, bytes aside.
    ///
    /// # Errors
    /// [`Error::NoInput`] when it cannot be read; [`Error::Data`] when it is empty or packed, when numbers
    /// are cut or too large, and when characters are broken or not in the vocabulary.
    pub fn open(path: &Path, kind: &Kind) -> Result<Tokens> {
        let source = Source::open(path)?;
        let (encoding, len) = match kind {
            Kind::Bytes => {
                source.refuse_gzip()?;
                (Encoding::Bytes, source.size())
            }
            Kind::Ids(width, classes) => {
                check_ids(&source, *width, *classes)?;
                (Encoding::Ids(*width), source.size() / *width as u64)
            }
            Kind::Characters(known) => {
                source.refuse_gzip()?;
                let index = utf8::index(&source, |c| known.id(c).map(drop))?;
                let len = index.count();
                (Encoding::Characters(known.clone(), index), len)
            }
        };
        Ok(Tokens { source, encoding, len })
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.len
    }

    /// Fills `out` with the tokens from number `at` on.
    ///
    /// # Errors
    /// When the file has been cut or changed since it was opened.
    pub fn read(&self, at: u64, out: &mut [u32]) -> Result<()> {
        let source = &self.source;
        match &self.encoding {
            Encoding::Bytes => source.with(at, out.len(), |bytes| {
                out.iter_mut().zip(bytes).for_each(|(id, &byte)| *id = u32::from(byte));
                Ok(())
            }),
            Encoding::Ids(width) => source.with(at * *width as u64, out.len() * width, |bytes| {
                let ids = bytes.chunks_exact(*width).map(id);
                out.iter_mut().zip(ids).for_each(|(place, id)| *place = id);
                Ok(())
            }),
            Encoding::Characters(known, index) => index.read(source, at, out, |c| known.id(c)),
        }
    }

    /// What tokens stand for, unless they are just numbers.
    pub fn text(&self, tokens: &[u32]) -> Option<String> {
        match &self.encoding {
            Encoding::Bytes => {
                let bytes: Vec<u8> = tokens.iter().map(|&token| token as u8).collect();
                Some(String::from_utf8_lossy(&bytes).into_owned())
            }
            Encoding::Ids(_) => None,
            Encoding::Characters(known, _) => Some(known.text(tokens)),
        }
    }

    /// Takes all of the file into `hash`, and what its tokens are.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn hash(&self, hash: &mut blake3::Hasher) -> Result<()> {
        match &self.encoding {
            Encoding::Bytes => _ = hash.update(b"bytes"),
            Encoding::Ids(width) => _ = hash.update(format!("ids {width}").as_bytes()),
            Encoding::Characters(known, _) => _ = hash.update(known.to_text().as_bytes()),
        }
        self.source.pass(0..self.source.size(), 1, |piece| {
            hash.update(piece);
            Ok(())
        })
    }

    /// A data error about the file.
    pub fn wrong(&self, what: &str) -> Error {
        self.source.wrong(what)
    }
}

/// A number of 2 or 4 bytes.
fn id(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |id, &byte| id << 8 | u32::from(byte))
}

fn check_ids(source: &Source, width: usize, classes: usize) -> Result<()> {
    let size = source.size();
    if !size.is_multiple_of(width as u64) {
        return Err(source.wrong(format!(
            "has {size} bytes, which is not a whole number of tokens of {width} bytes: is data.text.ids right?"
        )));
    }
    let mut seen = 0;
    source.pass(0..size, width, |piece| {
        let wrong = |bytes: &[u8]| id(bytes) as usize >= classes;
        let place = piece.chunks_exact(width).position(wrong);
        if let Some(i) = place {
            let found = id(&piece[i * width..][..width]);
            return Err(source.wrong(format!(
                "token {} is {found}; data.classes is {classes}, so that tokens are 0 to {}",
                seen + i,
                classes - 1
            )));
        }
        seen += piece.len() / width;
        Ok(())
    })
}

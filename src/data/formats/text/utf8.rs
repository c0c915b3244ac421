//! Characters of UTF-8 files: where they lie, and which ones there are.

use crate::data::formats::source::Source;
use crate::error::{Error, Result};
use std::path::PathBuf;

/// Characters from one place that is remembered to the next. A read passes over half as many in the mean; an
/// index takes at most 8 bytes for each 256 of the file.
const EVERY: u64 = 256;

/// The bytes of the longest character.
const LONGEST: u64 = 4;

/// The characters of a vocabulary, numbered in the order of their code points.
#[derive(Debug, PartialEq, Eq)]
pub struct Characters {
    sorted: Vec<char>,
}

impl Characters {
    /// Those that occur in the files.
    ///
    /// # Errors
    /// When a file cannot be read or is not UTF-8.
    pub fn of_files(files: &[PathBuf]) -> Result<Characters> {
        // A bit for each code point.
        let mut seen = vec![0u64; 0x11_0000 / 64];
        for path in files {
            let source = Source::open(path)?;
            source.refuse_gzip()?;
            index(&source, |c| {
                seen[c as usize / 64] |= 1 << (c as usize % 64);
                Ok(())
            })?;
        }
        let has = |c: &char| seen[*c as usize / 64] >> (*c as usize % 64) & 1 == 1;
        Ok(Characters { sorted: ('\0'..=char::MAX).filter(has).collect() })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// The number of a character.
    ///
    /// # Errors
    /// What is wrong with it, when it is not in the vocabulary.
    pub fn id(&self, c: char) -> std::result::Result<u32, String> {
        let found = self.sorted.binary_search(&c);
        found.map(|i| i as u32).map_err(|_| {
            format!(
                "the character {c:?} is not in the vocabulary, which has those of data.train only"
            )
        })
    }

    /// The characters with these numbers.
    pub fn text(&self, ids: &[u32]) -> String {
        ids.iter().filter_map(|&id| self.sorted.get(id as usize)).collect()
    }

    /// All of them, in order.
    pub fn to_text(&self) -> String {
        self.sorted.iter().collect()
    }
}

/// Where the characters of a file lie.
#[derive(Debug)]
pub struct Index {
    /// The byte at which every [`EVERY`]th character begins.
    starts: Vec<u64>,
    len: u64,
}

/// Goes through a file once, shows each character to `see` and remembers where they lie.
///
/// # Errors
/// [`Error::Data`] with the line and the byte where the file is not UTF-8 or `see` finds something wrong.
pub fn index(
    source: &Source,
    mut see: impl FnMut(char) -> std::result::Result<(), String>,
) -> Result<Index> {
    let mut index = Index { starts: Vec::new(), len: 0 };
    let mut line = 1;
    // The bytes of a character that the next piece completes, and where the first of them is.
    let (mut open, mut at) = (Vec::new(), 0);
    source.pass(0..source.size(), 1, |piece| {
        open.extend_from_slice(piece);
        let (good, broken) = valid(&open);
        for (i, c) in good.char_indices() {
            let wrong =
                |what| Err(source.wrong(format!("line {line}, byte {}: {what}", at + i as u64)));
            see(c).or_else(wrong)?;
            if index.len.is_multiple_of(EVERY) {
                index.starts.push(at + i as u64);
            }
            index.len += 1;
            line += u64::from(c == '\n');
        }
        let used = good.len();
        if broken {
            return Err(not_utf8(source, line, at + used as u64));
        }
        at += used as u64;
        open.drain(..used);
        Ok(())
    })?;
    if open.is_empty() { Ok(index) } else { Err(not_utf8(source, line, at)) }
}

/// The text at the start of `bytes`, and whether what follows is broken rather than cut.
fn valid(bytes: &[u8]) -> (&str, bool) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text, false),
        Err(e) => {
            let text = std::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or_default();
            (text, e.error_len().is_some())
        }
    }
}

fn not_utf8(source: &Source, line: u64, byte: u64) -> Error {
    source.wrong(format!(
        "line {line}, byte {byte}: is not UTF-8; convert the file (iconv -t UTF-8) or give \
         data.text.vocabulary `bytes`"
    ))
}

impl Index {
    /// Characters in the file.
    pub fn count(&self) -> u64 {
        self.len
    }

    /// Fills `out` with the numbers of the characters from number `at` on.
    ///
    /// # Errors
    /// When the file has been cut or changed since the index was made.
    pub fn read(
        &self,
        source: &Source,
        at: u64,
        out: &mut [u32],
        id: impl Fn(char) -> std::result::Result<u32, String>,
    ) -> Result<()> {
        let place = |number: u64| self.starts.get((number / EVERY) as usize).copied();
        let past = |what: &str| {
            Err(source.wrong(format!(
                "{what} at character {at}: was the file changed since it was opened?"
            )))
        };
        let Some(from) = place(at) else { return past("ends") };
        // To the next remembered place behind the last character, or to the end of the file.
        let to = place(at + out.len() as u64 + EVERY).unwrap_or(source.size());
        let most = (at % EVERY + out.len() as u64) * LONGEST;
        source.with(from, (to - from).min(most) as usize, |bytes| {
            let mut characters = valid(bytes).0.chars().skip((at % EVERY) as usize);
            for place in out.iter_mut() {
                let Some(c) = characters.next() else { return past("has other bytes") };
                match id(c) {
                    Ok(number) => *place = number,
                    Err(what) => return past(&what),
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_part_of_any_text_is_found(
            text in proptest::collection::vec(any::<char>(), 1..2000),
            at in 0..2000usize,
            len in 0..600usize,
        ) {
            let whole: String = text.iter().collect();
            let (_folder, path) = file(whole.as_bytes());
            let known = Characters::of_files(std::slice::from_ref(&path)).unwrap();
            let source = Source::open(&path).unwrap();
            let index = index(&source, |c| known.id(c).map(drop)).unwrap();
            prop_assert_eq!(index.count(), text.len() as u64);
            let at = at % text.len();
            let end = text.len().min(at + len);
            let mut out = vec![0; end - at];
            index.read(&source, at as u64, &mut out, |c| known.id(c)).unwrap();
            let all: Vec<char> = known.to_text().chars().collect();
            let found: Vec<char> = out.iter().map(|&id| all[id as usize]).collect();
            prop_assert_eq!(&found[..], &text[at..end]);
        }
    }

    #[test]
    fn a_character_that_two_pieces_share_is_whole() {
        // Pieces have 1 MiB; characters of 3 bytes do not divide it.
        let text = "€".repeat(400_000);
        let (_folder, path) = file(text.as_bytes());
        let index = index(&Source::open(&path).unwrap(), |c| {
            if c == '€' { Ok(()) } else { Err(format!("{c:?}")) }
        });
        assert_eq!(index.unwrap().count(), 400_000);
    }

    #[test]
    fn what_is_not_utf_8_is_told_with_its_line_and_byte() {
        for (bytes, place) in [
            (&b"ab\nc\xffd"[..], "line 2, byte 4"),
            (b"ab\n\n\xe2\x82", "line 3, byte 4"),
            (b"\xff\xfea\0", "line 1, byte 0"),
        ] {
            let (_folder, path) = file(bytes);
            let error = Characters::of_files(&[path]).unwrap_err().to_string();
            assert!(error.contains(place) && error.contains("iconv"), "{error}");
        }
    }
}

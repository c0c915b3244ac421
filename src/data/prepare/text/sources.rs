//! Files of documents, cut into pieces of work.
//!
//! A piece is a range of the bytes of all files laid end to end, each followed by one byte more, so that an
//! empty file has a place, too. The documents of a piece are those that begin in it, wherever they end. So
//! every document belongs to one piece, and which pieces there are changes nothing but who does the work.

use super::super::pictures::walk;
use super::super::short;
use super::pieces::{lines, separated, whole};
use crate::data::formats::folder::is_picture;
use crate::data::formats::source::{Source, regular};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Bytes of a document; longer ones are removed. Each is in memory as a whole.
pub const LONGEST: u64 = 16 << 20;

/// Bytes of a piece: a 64th of all, within these.
const PIECE: Range<u64> = 64 << 10..16 << 20;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A document in a field of each line.
    Json,
    /// Text.
    Text,
    /// Nothing that is read, for this reason; the file is one item.
    Refused(&'static str),
}

const OTHER: Kind = Kind::Refused("no text: its name ends in none of txt, jsonl, ndjson");
const UTF_16: Kind =
    Kind::Refused("encoding: is UTF-16; convert the file (iconv -f UTF-16 -t UTF-8)");
const UNREADABLE: Kind = Kind::Refused("unreadable: cannot be opened, or is no ordinary file");

/// Where a document lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its file.
    pub file: u32,
    /// Its first byte.
    pub start: u64,
    /// Its bytes.
    pub len: u64,
}

#[derive(Debug)]
pub(super) struct SourceFile {
    pub(super) path: PathBuf,
    name: String,
    kind: Kind,
    pub(super) size: u64,
    /// When it was changed last, in nanoseconds.
    time: u64,
    /// Where it begins among all.
    at: u64,
}

/// The files.
#[derive(Debug)]
pub struct Sources {
    files: Vec<SourceFile>,
    separator: Option<String>,
    total: u64,
    /// Bytes of a piece.
    piece: u64,
}

impl Sources {
    /// Lists the files, those of folders sorted.
    ///
    /// # Errors
    /// When one cannot be read, or there are none.
    pub fn open(paths: &[PathBuf], separator: Option<&str>) -> Result<Sources> {
        let separator = separator.map(str::to_owned);
        let mut sources = Sources { files: Vec::new(), separator, total: 0, piece: PIECE.start };
        for path in paths {
            if path.is_dir() {
                let mut found = Vec::new();
                walk(path, "", &mut found)?;
                found.sort_unstable();
                for below in found {
                    sources.add(path.join(&below), format!("{}/{below}", short(path)))?;
                }
            } else {
                sources.add(path.clone(), short(path))?;
            }
        }
        sources.piece = (sources.total / 64).clamp(PIECE.start, PIECE.end);
        Ok(sources)
    }

    fn add(&mut self, path: PathBuf, name: String) -> Result<()> {
        let about = std::fs::symlink_metadata(&path).map_err(|e| Error::reading(&path, &e))?;
        let about = std::fs::metadata(&path).unwrap_or(about);
        let kind = match kind(&name) {
            OTHER => OTHER,
            kind => seen(&path, kind),
        };
        let size = about.len();
        let time = about.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        let time = time.unwrap_or_default().as_nanos() as u64;
        self.files.push(SourceFile { path, name, kind, size, time, at: self.total });
        self.total += size + 1;
        Ok(())
    }

    /// Number of pieces.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.total.div_ceil(self.piece) as usize
    }

    /// Name and size of each file.
    pub fn files(&self) -> impl ExactSizeIterator<Item = (&str, u64)> {
        self.files.iter().map(|file| (&*file.name, file.size))
    }

    /// The name of document `number` of a file, from 1 on: with it, as the line of a file of lines; without
    /// it where the file is the document.
    #[must_use]
    pub fn name(&self, place: Place, number: usize) -> String {
        let file = &self.files[place.file as usize];
        match (file.kind, &self.separator) {
            (Kind::Json, _) => format!("{}:{number}", file.name),
            (Kind::Text, Some(_)) => format!("{}#{number}", file.name),
            _ => file.name.clone(),
        }
    }

    /// Names, lengths and times of all files.
    pub fn sign(&self, hash: &mut blake3::Hasher) {
        for file in &self.files {
            hash.update(file.name.as_bytes()).update(&[0]);
            hash.update(&file.size.to_le_bytes()).update(&file.time.to_le_bytes());
        }
    }

    /// Shows `see` every document that begins in a piece, of long ones the first [`LONGEST`] bytes.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn documents(&self, piece: usize, mut see: impl FnMut(Kind, Place, &[u8])) -> Result<()> {
        let all = piece as u64 * self.piece..(piece as u64 + 1) * self.piece;
        let first = self.files.partition_point(|file| file.at + file.size < all.start);
        for (number, file) in self.files.iter().enumerate().skip(first) {
            if file.at >= all.end {
                break;
            }
            let starts = all.start.saturating_sub(file.at)..all.end - file.at;
            let mut show = |start: u64, len: u64, bytes: &[u8]| {
                see(file.kind, Place { file: number as u32, start, len }, bytes);
            };
            match (file.kind, &self.separator) {
                (Kind::Json, _) => lines(file, starts, &mut show)?,
                (Kind::Text, Some(line)) => separated(file, starts, line.as_bytes(), &mut show)?,
                (Kind::Text, None) if starts.start == 0 => whole(file, &mut show)?,
                (Kind::Refused(_), _) if starts.start == 0 => show(0, file.size, &[]),
                _ => {}
            }
        }
        Ok(())
    }
}

fn kind(name: &str) -> Kind {
    let end = name.rsplit_once('.').map_or("", |(_, end)| end).to_ascii_lowercase();
    match end.as_str() {
        "jsonl" | "ndjson" => Kind::Json,
        "txt" => Kind::Text,
        _ => OTHER,
    }
}

/// What a file of this kind turns out to be when it is opened.
fn seen(path: &Path, kind: Kind) -> Kind {
    let Ok((file, size)) = regular(path) else { return UNREADABLE };
    let mut start = [0; 2];
    match file.read_exact_at(&mut start, 0) {
        Err(_) if size >= 2 => UNREADABLE,
        _ if matches!(start, [0xff, 0xfe] | [0xfe, 0xff]) => UTF_16,
        _ => kind,
    }
}

/// Reads documents, and keeps the file of the last one open.
#[derive(Debug)]
pub struct Reading<'a> {
    sources: &'a Sources,
    open: Option<(u32, Source)>,
}

impl<'a> Reading<'a> {
    /// From these files.
    #[must_use]
    pub fn of(sources: &'a Sources) -> Reading<'a> {
        Reading { sources, open: None }
    }

    /// The kind and the bytes of a document.
    ///
    /// # Errors
    /// When its file has gone or been cut.
    pub fn read(&mut self, place: Place) -> Result<(Kind, Vec<u8>)> {
        let file = &self.sources.files[place.file as usize];
        let source = match self.open.take() {
            Some((number, source)) if number == place.file => source,
            _ => Source::open(&file.path)?,
        };
        let mut bytes = vec![0; place.len.min(LONGEST) as usize];
        source.read_at(place.start, &mut bytes)?;
        self.open = Some((place.file, source));
        Ok((file.kind, bytes))
    }

    /// That a document is not what it was.
    #[must_use]
    pub fn changed(&self, place: Place) -> Error {
        let name = self.sources.files[place.file as usize].path.display();
        Error::Data(format!("{name}: has changed while it was prepared; start again"))
    }
}

/// Whether a source is text.
pub(super) fn holds_text(path: &Path) -> Result<bool> {
    let about = std::fs::metadata(path).map_err(|e| Error::reading(path, &e))?;
    if !about.is_dir() {
        return Ok(kind(&short(path)) != OTHER);
    }
    let mut found = Vec::new();
    walk(path, "", &mut found)?;
    let text = found.iter().any(|name| kind(name) != OTHER);
    Ok(text && !found.iter().any(|name| is_picture(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// File, start and bytes of all documents, piece by piece.
    fn found(sources: &Sources) -> Vec<(u32, u64, Vec<u8>)> {
        let mut found = Vec::new();
        for piece in 0..sources.pieces() {
            let see = |_, place: Place, bytes: &[u8]| {
                assert_eq!(place.len, bytes.len() as u64);
                found.push((place.file, place.start, bytes.to_vec()));
            };
            sources.documents(piece, see).unwrap();
        }
        found
    }

    fn documents(text: &str, separator: Option<&str>) -> Vec<(u64, Vec<u8>)> {
        let mut all = vec![(0, Vec::new())];
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            let ends = separator
                .is_none_or(|s| [s, &format!("{s}\r")].contains(&line.trim_end_matches('\n')));
            at += line.len();
            if separator.is_none() || !ends {
                all.last_mut().unwrap().1.extend_from_slice(line.as_bytes());
            }
            if ends && at < text.len() {
                all.push((at as u64, Vec::new()));
            }
        }
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn each_document_is_in_one_piece_whatever_the_pieces_are(
            files in proptest::collection::vec((any::<bool>(), "(a{0,9}|--|--x|\r|\n|\n--\n|\n--\r\n){0,20}"), 1..5),
            piece in 1..40u64,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let mut paths = Vec::new();
            let mut expected = Vec::new();
            for (i, (json, text)) in files.iter().enumerate() {
                let path = folder.path().join(format!("{i}.{}", if *json { "jsonl" } else { "txt" }));
                std::fs::write(&path, text).unwrap();
                paths.push(path);
                let separator = (!json).then_some("--");
                let these = documents(text, separator).into_iter();
                expected.extend(these.map(|(start, bytes)| (i as u32, start, bytes)));
            }
            let mut sources = Sources::open(&paths, Some("--")).unwrap();
            sources.piece = piece;
            prop_assert_eq!(found(&sources), expected.clone());
            let mut reading = Reading::of(&sources);
            for (file, start, bytes) in expected.iter().filter(|(.., bytes)| !bytes.is_empty()) {
                let place = Place { file: *file, start: *start, len: bytes.len() as u64 };
                prop_assert_eq!(&reading.read(place).unwrap().1, bytes);
            }
        }
    }

    #[test]
    fn a_long_document_is_seen_by_its_first_bytes_and_the_next_one_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let long = "ab ".repeat(6 << 20);
        for (name, text) in
            [("a.txt", format!("{long}\n--\nshort\n")), ("b.jsonl", format!("{long}\nshort\n"))]
        {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            let sources = Sources::open(&[path], Some("--")).unwrap();
            let mut found = Vec::new();
            for piece in 0..sources.pieces() {
                let see = |_, place: Place, bytes: &[u8]| found.push((place.len, bytes.to_vec()));
                sources.documents(piece, see).unwrap();
            }
            assert_eq!(found.len(), 2, "{name}");
            assert_eq!((found[0].0, found[0].1.len() as u64), (long.len() as u64 + 1, LONGEST));
            assert_eq!(found[1], (6, b"short\n".to_vec()));
        }
    }
}

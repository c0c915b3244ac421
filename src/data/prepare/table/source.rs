//! The files of a table, and the spans of them that are read one by one.

use super::borders::{BLOCK, Scan, State, lines};
use crate::data::formats::source::Source;
use crate::data::limits;
use crate::data::prepare::short;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// CSV files with the same header.
#[derive(Debug)]
pub struct Sources {
    files: Vec<File>,
    /// Names of the columns.
    pub header: Vec<String>,
}

#[derive(Debug)]
struct File {
    source: Source,
    name: String,
    /// The byte after the header, and the line breaks up to it.
    body: (u64, u64),
}

/// Whole rows of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Which file.
    pub file: usize,
    /// Its first byte and the one after its last.
    pub bytes: (u64, u64),
    /// The line, from 1, at its first byte.
    pub line: u64,
}

/// A block of a file: some bytes.
#[derive(Debug, Clone, Copy)]
pub struct Block {
    file: usize,
    bytes: (u64, u64),
}

impl Sources {
    /// Opens the files and reads their headers.
    ///
    /// # Errors
    /// When a file cannot be read, is packed, or has another header than the first.
    pub fn open(paths: &[PathBuf]) -> Result<Sources> {
        let mut all = Sources { files: Vec::new(), header: Vec::new() };
        for (i, path) in paths.iter().enumerate() {
            let source = Source::open(path)?;
            source.refuse_gzip()?;
            let (header, body) = header(&source)?;
            if i == 0 {
                all.header = header;
            } else if header != all.header {
                let what = "its first line names other columns than the first file's";
                return Err(source.wrong(what));
            }
            all.files.push(File { source, name: short(path), body });
        }
        Ok(all)
    }

    /// A data error about the first file.
    pub fn wrong(&self, what: impl std::fmt::Display) -> Error {
        match self.files.first() {
            Some(file) => file.source.wrong(what),
            None => Error::Data(what.to_string()),
        }
    }

    /// The name of a file.
    #[must_use]
    pub fn name(&self, file: usize) -> &str {
        &self.files[file].name
    }

    /// Names, lengths and times of all files.
    ///
    /// # Errors
    /// When one has gone.
    pub fn sign(&self, hash: &mut blake3::Hasher) -> Result<()> {
        for file in &self.files {
            let path = file.source.path();
            let about = std::fs::metadata(path).map_err(|e| Error::reading(path, &e))?;
            hash.update(file.name.as_bytes()).update(&[0]);
            for number in [about.len() as i64, about.mtime(), about.mtime_nsec()] {
                hash.update(&number.to_le_bytes());
            }
        }
        Ok(())
    }

    /// Of each file its name, its length and the hash of the hashes of its blocks.
    #[must_use]
    pub fn facts(&self, blocks: &[Block], scans: &[Scan]) -> Vec<(String, u64, String)> {
        let fact = |(i, file): (usize, &File)| {
            let mut hash = blake3::Hasher::new();
            for (_, scan) in blocks.iter().zip(scans).filter(|(block, _)| block.file == i) {
                hash.update(scan.blake3.as_bytes());
            }
            let hash = hash.finalize().to_hex().to_string();
            (file.name.clone(), file.source.size(), hash)
        };
        self.files.iter().enumerate().map(fact).collect()
    }

    /// The blocks of all files.
    #[must_use]
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        for (file, of) in self.files.iter().enumerate() {
            let size = of.source.size();
            for start in (of.body.0..size).step_by(BLOCK as usize) {
                blocks.push(Block { file, bytes: (start, size.min(start + BLOCK)) });
            }
        }
        blocks
    }

    /// Scans a block.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn scan(&self, block: &Block) -> Result<Scan> {
        let (start, end) = block.bytes;
        let mut bytes = vec![0; (end - start) as usize];
        self.files[block.file].source.read_at(start, &mut bytes)?;
        Ok(Scan::of(&bytes))
    }

    /// The rows that begin in each block.
    ///
    /// # Errors
    /// [`Error::Data`] if a row is too long, as after a quote without a partner.
    pub fn spans(&self, blocks: &[Block], scans: &[Scan]) -> Result<Vec<Span>> {
        let mut spans: Vec<Span> = Vec::new();
        let (mut state, mut above, mut file) = (State::Row, 0, usize::MAX);
        for (block, scan) in blocks.iter().zip(scans) {
            if block.file != file {
                (state, above, file) = (State::Row, self.files[block.file].body.1, block.file);
            }
            let way = scan.from(state);
            if let Some((first, before)) = way.first {
                let start = block.bytes.0 + first;
                let end = self.files[file].source.size();
                if let Some(last) = spans.last_mut().filter(|last| last.file == file) {
                    last.bytes.1 = start;
                }
                spans.push(Span { file, bytes: (start, end), line: 1 + above + before });
            }
            (state, above) = (way.end, above + scan.lines);
        }
        let most = BLOCK + limits::CSV_ROW_BYTES as u64;
        match spans.iter().find(|span| span.bytes.1 - span.bytes.0 > most) {
            None => Ok(spans),
            Some(span) => Err(self.files[span.file].source.wrong(format!(
                "after line {}: {}",
                span.line,
                too_long()
            ))),
        }
    }

    /// Shows `row` each row of a span, with its line; what it finds wrong is told with file and line.
    ///
    /// # Errors
    /// When the file cannot be read or a row is too long; those of `row`.
    pub fn rows(
        &self,
        span: &Span,
        mut row: impl FnMut(u64, &csv::ByteRecord) -> std::result::Result<(), String>,
    ) -> Result<()> {
        let source = &self.files[span.file].source;
        let mut bytes = vec![0; (span.bytes.1 - span.bytes.0) as usize];
        source.read_at(span.bytes.0, &mut bytes)?;
        let mut reader = reader(&bytes);
        let mut record = csv::ByteRecord::new();
        let (mut line, mut counted) = (span.line, 0);
        loop {
            let mut at = reader.position().byte() as usize;
            let more = reader.read_byte_record(&mut record);
            if !more.map_err(|e| source.wrong(format!("after line {line}: {e}")))? {
                return Ok(());
            }
            while matches!(bytes.get(at), Some(b'\n' | b'\r')) {
                at += 1;
            }
            line += lines(&bytes[counted..at]);
            counted = at;
            let outcome = match reader.position().byte() as usize - at > limits::CSV_ROW_BYTES {
                true => Err(too_long()),
                false => row(line, &record),
            };
            outcome.map_err(|what| source.wrong(format!("line {line}: {what}")))?;
        }
    }
}

fn too_long() -> String {
    format!("a row is longer than {} bytes; is a quote missing its partner?", limits::CSV_ROW_BYTES)
}

fn reader(bytes: &[u8]) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes)
}

/// The names of the columns, and where the rows begin: byte, line breaks before it.
fn header(source: &Source) -> Result<(Vec<String>, (u64, u64))> {
    let mut bytes = vec![0; source.size().min(limits::CSV_ROW_BYTES as u64) as usize];
    source.read_at(0, &mut bytes)?;
    let mut reader = reader(&bytes);
    let mut record = csv::ByteRecord::new();
    let found = reader.read_byte_record(&mut record).map_err(|e| source.wrong(e))?;
    let end = reader.position().byte();
    if !found {
        return Err(source.wrong("is empty; its first line names the columns"));
    }
    let mut names: Vec<String> = Vec::new();
    for cell in &record {
        let name = std::str::from_utf8(cell).map_or("", str::trim);
        if name.is_empty() || name.contains(char::is_control) || names.iter().any(|n| n == name) {
            return Err(source.wrong("its first line must name every column, each once, in UTF-8"));
        }
        names.push(name.to_owned());
    }
    let before = lines(&bytes[..end as usize]);
    Ok((names, (end, before)))
}

//! The rows of a CSV file, one after another or from their places, in bounded memory.
//!
//! RFC 4180 with the `csv` crate: quoted cells may hold delimiters, quotes (doubled) and line breaks;
//! lines end in LF or CRLF; empty lines and a byte order mark are skipped. Every row has as many cells as
//! the first one.

use super::source::Source;
use crate::config::Csv;
use crate::data::limits;
use crate::error::{Error, Result};
use csv::{ByteRecord, ErrorKind, ReaderBuilder};
use std::io::Read;

/// How cells are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// Between two cells.
    pub delimiter: u8,
    /// Around a cell; without it, nothing is quoted.
    pub quote: Option<u8>,
}

/// Commas and double quotes.
pub const PLAIN: Dialect = Dialect { delimiter: b',', quote: Some(b'"') };

impl Dialect {
    /// The card's.
    pub fn of(wanted: &Csv) -> Dialect {
        let byte = |text: &str| text.bytes().next();
        Dialect { delimiter: byte(&wanted.delimiter).unwrap_or(b','), quote: byte(&wanted.quote) }
    }

    fn reader<R: Read>(self, buffer: usize, from: R) -> csv::Reader<R> {
        ReaderBuilder::new()
            .has_headers(false)
            .delimiter(self.delimiter)
            .quote(self.quote.unwrap_or(b'"'))
            .quoting(self.quote.is_some())
            .buffer_capacity(buffer)
            .from_reader(from)
    }

    /// The first row in `bytes`.
    ///
    /// # Errors
    /// When there is none.
    pub fn row(self, bytes: &[u8], record: &mut ByteRecord) -> csv::Result<bool> {
        self.reader(bytes.len().max(1), bytes).read_byte_record(record)
    }
}

/// Bytes read at once.
const BUFFER: usize = 64 << 10;

/// A pass over the rows of a file.
pub struct Rows<'a> {
    source: &'a Source,
    dialect: Dialect,
    reader: csv::Reader<Metered<'a>>,
    record: ByteRecord,
}

/// The file from its beginning, as far as a row may be long.
struct Metered<'a> {
    source: &'a Source,
    at: u64,
    left: usize,
}

impl Read for Metered<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let rest = self.source.size() - self.at;
        let n = out.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        if n > self.left {
            return Err(std::io::Error::other(Error::Data(String::new())));
        }
        self.source.read_at(self.at, &mut out[..n]).map_err(std::io::Error::other)?;
        (self.at, self.left) = (self.at + n as u64, self.left - n);
        Ok(n)
    }
}

impl<'a> Rows<'a> {
    /// Starts at the first row.
    pub fn of(source: &'a Source, dialect: Dialect) -> Rows<'a> {
        let reader = dialect.reader(BUFFER, Metered { source, at: 0, left: 0 });
        Rows { source, dialect, reader, record: ByteRecord::new() }
    }

    /// The next row and the byte before which there is nothing of it.
    ///
    /// # Errors
    /// [`Error::Data`] if it has another number of cells than the first one, or is too long; as
    /// [`Source::read_at`].
    pub fn next_row(&mut self) -> Result<Option<(u64, &ByteRecord)>> {
        self.reader.get_mut().left = limits::CSV_ROW_BYTES + BUFFER;
        let at = self.reader.position().byte();
        match self.reader.read_byte_record(&mut self.record) {
            Ok(true) => Ok(Some((at, &self.record))),
            Ok(false) => Ok(None),
            Err(e) => Err(self.failed(at, &e)),
        }
    }

    /// The first row: taken, or only looked at.
    ///
    /// # Errors
    /// As [`Rows::next_row`].
    pub fn first(&mut self, take: bool) -> Result<Option<(u64, ByteRecord)>> {
        let mut again = Rows::of(self.source, self.dialect);
        let rows = if take { self } else { &mut again };
        Ok(rows.next_row()?.map(|(at, row)| (at, row.clone())))
    }

    /// The byte after the last row.
    pub fn at(&self) -> u64 {
        self.reader.position().byte()
    }

    /// The file.
    pub fn source(&self) -> &'a Source {
        self.source
    }

    fn failed(&self, at: u64, error: &csv::Error) -> Error {
        let what = match error.kind() {
            ErrorKind::UnequalLengths { expected_len, len, .. } => {
                format!("has {len} cells where the first row has {expected_len}")
            }
            ErrorKind::Io(e) => match e.get_ref().and_then(|e| e.downcast_ref::<Error>()) {
                Some(error @ Error::Io(_)) => return error.clone(),
                _ => format!(
                    "is longer than {} bytes; is a quote missing its partner?",
                    limits::CSV_ROW_BYTES
                ),
            },
            _ => error.to_string(),
        };
        wrong_at(self.source, at, what)
    }
}

/// A data error about the row after byte `at`, with its line.
pub fn wrong_at(source: &Source, at: u64, what: impl std::fmt::Display) -> Error {
    match line(source, at) {
        Ok(line) => source.wrong(format!("line {line}: {what}")),
        Err(error) => error,
    }
}

/// The line of the first row after byte `at`, counted from 1. Only a file that is refused is counted.
fn line(source: &Source, at: u64) -> Result<u64> {
    let mut lines = 1;
    source.pass(0..at, 1, |bytes| {
        lines += bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
        Ok(())
    })?;
    // Empty lines before the row, and what is left of the end of the line before it.
    let mut byte = [0];
    for at in at..source.size() {
        source.read_at(at, &mut byte)?;
        match byte[0] {
            b'\n' => lines += 1,
            b'\r' => {}
            _ => break,
        }
    }
    Ok(lines)
}

/// The text of a cell without the spaces around it.
///
/// # Errors
/// When it is not UTF-8 or holds control characters, which a stray quote or another encoding brings.
pub fn text(cell: &[u8]) -> std::result::Result<&str, String> {
    let text = std::str::from_utf8(cell).map_err(|e| {
        let byte = cell[e.valid_up_to()];
        format!("is not UTF-8 (byte {byte:02x}); is the file in another encoding?")
    })?;
    match text.chars().find(|c| c.is_control() && *c != '\t') {
        None => Ok(text.trim()),
        Some('\n' | '\r') => Err("holds a line break; is a quote missing its partner?".to_owned()),
        Some('\0') => Err("holds a zero byte; is the file UTF-16?".to_owned()),
        Some(c) => Err(format!("holds the control character {}", c.escape_default())),
    }
}

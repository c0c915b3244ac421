//! The rows of a span, looked at and written down, so that no row is parsed a second time.
//!
//! ```text
//!   8 bytes   length of the head
//!   head      JSON: number of rows, classes, values of categories, refused rows with the reason
//!   16 n      hash of each row's content        (n rows)
//!   4 n       its line after the span's first
//!   4 n       its class, a place in the head's list
//!   16 n      hash of its group                 (if there is a column of groups)
//!   8 n       its time                          (if there is a column of times)
//!   s n       its numbers (f64, NaN: missing) and categories (u32, 0: missing, else a place from 1)
//!   4 bytes   CRC-32 of all that
//! ```

use super::cells::{is_missing, text};
use super::layout::{Field, Layout};
use super::source::{Sources, Span};
use crate::data::limits;
use crate::error::{Error, Result};
use csv::ByteRecord;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::HashMap;

/// The class of a row that is refused.
pub const REFUSED: u32 = u32::MAX;

/// What stands before the rows.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Head {
    /// Number of rows.
    pub rows: usize,
    /// Names of classes, as they were first seen.
    pub classes: Vec<String>,
    /// Of each column of categories the values, as they were first seen.
    pub values: Vec<Vec<String>>,
    /// Rows that cannot be used, and why.
    pub refused: Vec<(u32, String)>,
    /// Rows with text that was read as Windows-1252, and the column.
    pub repaired: Vec<(u32, String)>,
}

/// Rows as they are written down.
#[derive(Debug, Default)]
pub struct Chunk {
    head: Head,
    hashes: Vec<u8>,
    lines: Vec<u8>,
    classes: Vec<u8>,
    groups: Vec<u8>,
    times: Vec<u8>,
    rows: Vec<u8>,
}

/// Places of texts in the order in which they were first seen.
#[derive(Default)]
struct Seen(HashMap<String, u32>);

impl Seen {
    /// The place of `text`; appends it to `list` if it is new.
    fn place(&mut self, text: &str, list: &mut Vec<String>) -> u32 {
        if let Some(&place) = self.0.get(text) {
            return place;
        }
        let place = list.len() as u32;
        self.0.insert(text.to_owned(), place);
        list.push(text.to_owned());
        place
    }
}

/// Why a row cannot be used: for this reason it is removed, or all ends with this error.
enum Fault {
    Remove(String),
    Stop(String),
}

/// Looks at the rows of spans.
pub struct Examiner<'a> {
    layout: &'a Layout,
    chunk: Chunk,
    classes: Seen,
    values: Vec<Seen>,
    /// What the content of a row is hashed from.
    content: Vec<u8>,
    /// Numbers and categories of a row.
    row: Vec<u8>,
}

/// The rows of a span, looked at.
///
/// # Errors
/// When the file cannot be read; [`Error::Data`] with line and column if a value is not of its declared kind, or
/// a column has too many values for categories.
pub fn examine(sources: &Sources, span: &Span, layout: &Layout) -> Result<Vec<u8>> {
    let mut examiner = Examiner {
        layout,
        chunk: Chunk::default(),
        classes: Seen::default(),
        values: layout.categories.iter().map(|_| Seen::default()).collect(),
        content: Vec::new(),
        row: Vec::new(),
    };
    examiner.chunk.head.values = vec![Vec::new(); layout.categories.len()];
    sources.rows(span, |line, row| examiner.take((line - span.line) as u32, row))?;
    examiner.chunk.bytes()
}

impl Examiner<'_> {
    fn take(&mut self, line: u32, row: &ByteRecord) -> std::result::Result<(), String> {
        self.content.clear();
        self.row.clear();
        let number = self.chunk.head.rows as u32;
        let chunk = &self.chunk;
        let before = (chunk.groups.len(), chunk.times.len(), chunk.head.repaired.len());
        let class = match self.check(number, row) {
            Ok(class) => class,
            Err(Fault::Stop(what)) => return Err(what),
            Err(Fault::Remove(why)) => {
                let chunk = &mut self.chunk;
                chunk.head.refused.push((number, why));
                chunk.head.repaired.truncate(before.2);
                // As many bytes as other rows have.
                let layout = self.layout;
                chunk.groups.resize(before.0 + 16 * usize::from(layout.group.is_some()), 0);
                chunk.times.resize(before.1 + 8 * usize::from(layout.time.is_some()), 0);
                self.row.clear();
                self.row.resize(layout.stride(), 0);
                REFUSED
            }
        };
        let chunk = &mut self.chunk;
        let hash = blake3::hash(&self.content);
        chunk.hashes.extend_from_slice(&hash.as_bytes()[..16]);
        chunk.lines.extend_from_slice(&line.to_le_bytes());
        chunk.classes.extend_from_slice(&class.to_le_bytes());
        chunk.rows.extend_from_slice(&self.row);
        chunk.head.rows += 1;
        Ok(())
    }

    /// Takes all cells of a row; gives its class.
    fn check(&mut self, number: u32, row: &ByteRecord) -> std::result::Result<u32, Fault> {
        let layout = self.layout;
        if row.len() != layout.width {
            let (is, should) = (row.len(), layout.width);
            let what = format!("row length: {is} cells where the header has {should}");
            return Err(Fault::Remove(what));
        }
        let (cell, name) = &layout.label;
        let class = self.text(number, row, *cell, name)?;
        if is_missing(&class) {
            return Err(Fault::Remove("missing value: it has no label".to_owned()));
        }
        for field in &layout.numbers {
            let value = self.number(number, row, field)?;
            self.row.extend_from_slice(&value.unwrap_or(f64::NAN).to_le_bytes());
            match value {
                None => self.content.push(0),
                Some(value) => {
                    self.content.push(1);
                    self.content.extend_from_slice(&value.to_le_bytes());
                }
            }
        }
        for (i, field) in layout.categories.iter().enumerate() {
            let place = self.category(number, row, field, i)?;
            self.row.extend_from_slice(&place.to_le_bytes());
        }
        if let Some((cell, name)) = &layout.group {
            let text = self.text(number, row, *cell, name)?;
            if is_missing(&text) {
                return Err(absent(name));
            }
            let hash = blake3::hash(text.as_bytes());
            self.chunk.groups.extend_from_slice(&hash.as_bytes()[..16]);
        }
        if let Some(field) = &layout.time {
            let time = self.number(number, row, field)?.ok_or_else(|| absent(&field.name))?;
            self.chunk.times.extend_from_slice(&time.to_le_bytes());
        }
        Ok(self.classes.place(&class, &mut self.chunk.head.classes))
    }

    fn text<'r>(
        &mut self,
        number: u32,
        row: &'r ByteRecord,
        cell: usize,
        name: &str,
    ) -> std::result::Result<Cow<'r, str>, Fault> {
        match text(&row[cell], self.layout.repair) {
            Some((text, repaired)) => {
                if repaired {
                    self.chunk.head.repaired.push((number, name.to_owned()));
                }
                Ok(text)
            }
            None => {
                let kind =
                    if self.layout.repair { "neither UTF-8 nor Windows-1252" } else { "not UTF-8" };
                Err(Fault::Remove(format!("encoding: column `{name}` is {kind}")))
            }
        }
    }

    fn number(
        &mut self,
        number: u32,
        row: &ByteRecord,
        field: &Field,
    ) -> std::result::Result<Option<f64>, Fault> {
        let text = self.text(number, row, field.cell, &field.name)?;
        if is_missing(&text) {
            return if field.drops() { Err(absent(&field.name)) } else { Ok(None) };
        }
        let value = field.parse(&text).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            let (name, shown, wanted) = (&field.name, shown.escape_debug(), field.wanted());
            match field.declared {
                true => Fault::Stop(format!(
                    "column `{name}` holds `{shown}`, which is no {wanted}, as it was said to be"
                )),
                false => Fault::Remove(format!("not a {wanted}: column `{name}` holds `{shown}`")),
            }
        })?;
        Ok(Some(value))
    }

    /// The place of a category, from 1; 0 for a missing one.
    fn category(
        &mut self,
        number: u32,
        row: &ByteRecord,
        field: &Field,
        i: usize,
    ) -> std::result::Result<u32, Fault> {
        let text = self.text(number, row, field.cell, &field.name)?;
        if is_missing(&text) {
            if field.drops() {
                return Err(absent(&field.name));
            }
            self.content.push(0);
            return Ok(0);
        }
        self.content.push(2);
        self.content.extend_from_slice(&(text.len() as u64).to_le_bytes());
        self.content.extend_from_slice(text.as_bytes());
        let values = &mut self.chunk.head.values[i];
        let place = self.values[i].place(&text, values);
        if values.len() > limits::PREPARE_CATEGORIES {
            return Err(Fault::Stop(too_many(&field.name)));
        }
        Ok(place + 1)
    }
}

fn absent(name: &str) -> Fault {
    Fault::Remove(format!("missing value: column `{name}`"))
}

/// What is wrong with a column of categories that has too many values.
#[must_use]
pub fn too_many(name: &str) -> String {
    format!(
        "column `{name}` has more than {} values and is not numeric; leave it out (--ignore {name}, or \
         prepare.table.ignore)",
        limits::PREPARE_CATEGORIES
    )
}

impl Chunk {
    fn bytes(&self) -> Result<Vec<u8>> {
        let head = serde_json::to_vec(&self.head)
            .map_err(|e| Error::Internal(format!("rows written down: {e}")))?;
        let parts =
            [&self.hashes, &self.lines, &self.classes, &self.groups, &self.times, &self.rows];
        let mut bytes =
            Vec::with_capacity(12 + head.len() + parts.map(Vec::len).iter().sum::<usize>());
        bytes.extend_from_slice(&(head.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&head);
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        Ok(bytes)
    }
}

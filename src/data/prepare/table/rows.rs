//! All rows of a table, as far as a decision over them needs it: about 30 bytes a row. Their numbers stay in the
//! files in which [`chunk`](super::chunk) wrote them down.

use super::chunk::{Head, REFUSED, too_many};
use super::layout::Layout;
use super::source::{Sources, Span};
use crate::data::formats::source::Source;
use crate::data::limits;
use crate::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Rows that are prepared together: a place has 32 bits, and some values stand for something else.
pub const MOST: usize = u32::MAX as usize - 16;

/// All rows, in the order of the sources.
#[derive(Debug, Default)]
pub struct Rows {
    /// Hash of the content.
    pub hashes: Vec<u128>,
    /// Place of the class in `names`, or [`REFUSED`].
    pub classes: Vec<u32>,
    /// Names of the classes of rows that are not refused, sorted.
    pub names: Vec<String>,
    /// Hash of the group; empty without groups.
    pub groups: Vec<u128>,
    /// When it was; empty without times.
    pub times: Vec<f64>,
    /// Why rows are refused.
    pub refused: BTreeMap<u32, String>,
    /// How often text was read as Windows-1252, by column.
    pub repaired: BTreeMap<String, u64>,
    /// Of each column of categories all values, sorted.
    pub values: Vec<Vec<String>>,
    lines: Vec<u32>,
    chunks: Vec<Written>,
    stride: usize,
}

/// A chunk in its file.
#[derive(Debug)]
struct Written {
    path: PathBuf,
    span: Span,
    head: Head,
    /// Its first row.
    first: usize,
    /// Where the numbers of the first row stand.
    at: u64,
    /// For each column of categories what the values of the chunk are in those of all.
    places: Vec<Vec<u32>>,
}

/// Whether these bytes are a whole chunk.
#[must_use]
pub fn is_whole(bytes: &[u8]) -> bool {
    let split = bytes.split_last_chunk::<4>();
    split.is_some_and(|(rest, crc)| crc32fast::hash(rest).to_le_bytes() == *crc)
}

impl Rows {
    /// Reads what was written down of each span.
    ///
    /// # Errors
    /// When a file is not what was written; [`Error::Data`] if there are too many rows, classes or categories.
    pub fn read(layout: &Layout, spans: &[Span], files: &[PathBuf]) -> Result<Rows> {
        let mut rows = Rows { stride: layout.stride(), ..Rows::default() };
        for (span, path) in spans.iter().zip(files) {
            rows.take(layout, *span, path)?;
        }
        rows.name_classes()?;
        rows.name_values(layout)?;
        Ok(rows)
    }

    fn take(&mut self, layout: &Layout, span: Span, path: &Path) -> Result<()> {
        let source = Source::open(path)?;
        let mut length = [0; 8];
        source.read_at(0, &mut length)?;
        let length = u64::from_le_bytes(length);
        if length > source.size() {
            return Err(source.wrong("is not what was written"));
        }
        let mut head = vec![0; length as usize];
        source.read_at(8, &mut head)?;
        let head: Head = serde_json::from_slice(&head).map_err(|e| source.wrong(e))?;
        let (n, first) = (head.rows, self.hashes.len());
        if first + n > MOST {
            return Err(source.wrong(format!("more than {MOST} rows cannot be prepared together")));
        }
        let groups = 16 * usize::from(layout.group.is_some());
        let times = 8 * usize::from(layout.time.is_some());
        let whole = 12 + length + (n * (16 + 4 + 4 + groups + times + self.stride)) as u64;
        if whole != source.size() {
            return Err(source.wrong("is not what was written"));
        }
        let mut at = 8 + length;
        let mut part = |size: usize| -> Result<Vec<u8>> {
            let mut bytes = vec![0; size * n];
            source.read_at(at, &mut bytes)?;
            at += bytes.len() as u64;
            Ok(bytes)
        };
        self.hashes.extend(part(16)?.as_chunks().0.iter().map(|b| u128::from_le_bytes(*b)));
        self.lines.extend(part(4)?.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)));
        self.classes.extend(part(4)?.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)));
        self.groups.extend(part(groups)?.as_chunks().0.iter().map(|b| u128::from_le_bytes(*b)));
        self.times.extend(part(times)?.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)));
        for (row, why) in &head.refused {
            self.refused.insert(first as u32 + row, why.clone());
        }
        for (_, column) in &head.repaired {
            *self.repaired.entry(column.clone()).or_default() += 1;
        }
        let head = Head { refused: Vec::new(), repaired: Vec::new(), ..head };
        let (path, places) = (path.to_owned(), Vec::new());
        self.chunks.push(Written { path, span, head, first, at, places });
        Ok(())
    }

    /// Sorts the classes of all chunks and gives each row the place of its own.
    fn name_classes(&mut self) -> Result<()> {
        let all: BTreeSet<&String> = self.chunks.iter().flat_map(|c| &c.head.classes).collect();
        if all.len() > limits::CSV_VALUES {
            return Err(Error::Data(format!(
                "prepare.table.label: the column has more than {} values; is it a number?",
                limits::CSV_VALUES
            )));
        }
        let names: Vec<String> = all.into_iter().cloned().collect();
        for chunk in &self.chunks {
            let places: Vec<u32> = places(&chunk.head.classes, &names);
            for class in &mut self.classes[chunk.first..chunk.first + chunk.head.rows] {
                *class = places.get(*class as usize).copied().unwrap_or(REFUSED);
            }
        }
        self.names = names;
        Ok(())
    }

    /// The same of each column of categories; the rows stay as they are written.
    fn name_values(&mut self, layout: &Layout) -> Result<()> {
        for (column, field) in layout.categories.iter().enumerate() {
            let of = |chunk: &Written| chunk.head.values[column].clone();
            let all: BTreeSet<String> = self.chunks.iter().flat_map(of).collect();
            if all.len() > limits::PREPARE_CATEGORIES {
                return Err(Error::Data(too_many(&field.name)));
            }
            let values: Vec<String> = all.into_iter().collect();
            for chunk in &mut self.chunks {
                let places = places(&chunk.head.values[column], &values);
                chunk.places.push(places);
                chunk.head.values[column] = Vec::new();
            }
            self.values.push(values);
        }
        Ok(())
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The place of the chunk that has a row.
    fn chunk_of(&self, row: usize) -> usize {
        self.chunks.partition_point(|chunk| chunk.first <= row) - 1
    }

    /// File and line of a row.
    #[must_use]
    pub fn name(&self, sources: &Sources, row: usize) -> String {
        let span = &self.chunks[self.chunk_of(row)].span;
        let line = span.line + u64::from(self.lines[row]);
        format!("{}:{line}", sources.name(span.file))
    }

    /// Shows `f` the numbers and categories of all rows, in order: the row, the numbers (NaN: missing), the place
    /// of each category in `values` (nothing: missing).
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn each(&self, mut f: impl FnMut(usize, &View)) -> Result<()> {
        for chunk in &self.chunks {
            let n = chunk.head.rows;
            let range = chunk.at..chunk.at + (n * self.stride) as u64;
            let mut row = chunk.first;
            Source::open(&chunk.path)?.pass(range, self.stride, |bytes| {
                for bytes in bytes.chunks_exact(self.stride) {
                    f(row, &View { bytes, places: &chunk.places });
                    row += 1;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Shows `f` some rows, each with its place in `order`, which is sorted by row: so each file is opened once.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn pick(&self, order: &[(u32, usize)], mut f: impl FnMut(usize, &View)) -> Result<()> {
        let mut bytes = vec![0; self.stride];
        for rows in
            order.chunk_by(|a, b| self.chunk_of(a.0 as usize) == self.chunk_of(b.0 as usize))
        {
            let chunk = &self.chunks[self.chunk_of(rows[0].0 as usize)];
            let source = Source::open(&chunk.path)?;
            for &(row, place) in rows {
                let at = chunk.at + ((row as usize - chunk.first) * self.stride) as u64;
                source.read_at(at, &mut bytes)?;
                f(place, &View { bytes: &bytes, places: &chunk.places });
            }
        }
        Ok(())
    }
}

/// The numbers and categories of a row.
pub struct View<'a> {
    bytes: &'a [u8],
    places: &'a [Vec<u32>],
}

impl View<'_> {
    /// The number in column `i` of the numbers; NaN if it is missing.
    #[must_use]
    pub fn number(&self, i: usize) -> f64 {
        self.bytes.as_chunks().0.get(i).map_or(f64::NAN, |bytes| f64::from_le_bytes(*bytes))
    }

    /// The place of the category in column `i` of the categories, among all its values.
    #[must_use]
    pub fn category(&self, i: usize) -> Option<u32> {
        let from = self.bytes.len() - 4 * self.places.len();
        let code = self.bytes[from..].as_chunks().0.get(i).map_or(0, |b| u32::from_le_bytes(*b));
        self.places[i].get((code as usize).wrapping_sub(1)).copied()
    }
}

/// The place of each text in a sorted list that has it.
fn places(texts: &[String], sorted: &[String]) -> Vec<u32> {
    texts.iter().map(|text| sorted.binary_search(text).unwrap_or_default() as u32).collect()
}

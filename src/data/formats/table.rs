//! CSV files: one sample a row, its features and label in columns that the card names.
//!
//! ```text
//!   age,colour,species        columns: age numeric, colour category (blue, red), species label
//!   12,red,wolf          →    12  0 1   label 1
//!   7,blue,fox           →     7  1 0   label 0
//! ```
//!
//! One pass when the files are opened parses every cell that is used, so that whatever is wrong with one is
//! told, with line and column, before training. Features stay in memory if they fit a limit; else only the
//! place and label of each row (12 bytes), and a row is parsed again when its sample is used.

use super::columns::Columns;
use super::rows::{Dialect, Rows, wrong_at};
use super::source::Source;
use crate::config::{Data, Split};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::util::allocator;
use csv::ByteRecord;

/// Samples of CSV files.
#[derive(Debug)]
pub struct Table {
    parts: Vec<Part>,
    columns: Columns,
    dialect: Dialect,
    shape: [usize; 1],
    classes: usize,
    labels: Vec<u32>,
    /// The features of all rows, or nothing where they do not fit.
    values: Option<Vec<f32>>,
    /// The byte before each row; empty where the features are in memory.
    places: Vec<u64>,
    fingerprint: String,
}

/// A file of the table.
#[derive(Debug)]
struct Part {
    source: Source,
    /// Rows in the files before.
    first: usize,
    /// The byte after its last row.
    end: u64,
    /// Which cell each column of the card is.
    cells: Vec<usize>,
}

impl Table {
    /// Opens one part of a card's data set; its training part says which categories and classes there are.
    /// Features of up to `memory` bytes are kept.
    ///
    /// # Errors
    /// [`Error::NoInput`] if a file is missing; [`Error::Data`], with line and column, if a row has not as
    /// many cells as the first or a cell is not what its column says; [`Error::Config`] if there are not as
    /// many classes as the card says.
    pub fn open(card: &Data, split: &Split, limit: Option<usize>, memory: usize) -> Result<Table> {
        let wanted = super::given(card.csv.as_ref(), "csv")?;
        let dialect = Dialect::of(wanted);
        let columns = Columns::of(wanted, card)?;
        let mut table = Table {
            shape: [columns.width()],
            columns,
            dialect,
            parts: Vec::new(),
            classes: card.classes,
            labels: Vec::new(),
            values: Some(Vec::new()),
            places: Vec::new(),
            fingerprint: String::new(),
        };
        let mut hash = blake3::Hasher::new();
        for path in &split.files {
            let source = Source::open(path)?;
            source.refuse_gzip()?;
            let limit = limit.unwrap_or(usize::MAX);
            table.take(source, wanted.header, [limit, memory], &mut hash)?;
        }
        if table.labels.is_empty() {
            let path = split.files.first().map(|path| path.display().to_string());
            return Err(Error::Data(format!("{}: has no rows", path.unwrap_or_default())));
        }
        if table.values.is_some() {
            table.places = Vec::new();
        }
        hash.update(bytemuck::cast_slice(&table.labels));
        table.fingerprint = hash.finalize().to_hex().to_string();
        Ok(table)
    }

    /// Appends the rows of a file, up to `limit` in all.
    fn take(
        &mut self,
        source: Source,
        header: bool,
        [limit, memory]: [usize; 2],
        hash: &mut blake3::Hasher,
    ) -> Result<()> {
        let first = self.labels.len();
        let mut rows = Rows::of(&source, self.dialect);
        let cells = self.columns.cells(&mut rows, header)?;
        let mut features = vec![0.0; self.shape[0]];
        while self.labels.len() < limit {
            let Some((at, row)) = rows.next_row()? else { break };
            let label = self
                .columns
                .parse(row, &cells, &mut features)
                .map_err(|what| wrong_at(&source, at, what))?;
            hash.update(bytemuck::cast_slice(&features));
            let room = || {
                self.labels.try_reserve(1)?;
                self.places.try_reserve(1)
            };
            allocator::may_fail(room).map_err(|_| {
                Error::Internal(format!("no memory for more than {} rows", self.labels.len()))
            })?;
            self.labels.push(label);
            self.places.push(at);
            self.keep(&features, memory);
        }
        let end = rows.at();
        self.parts.push(Part { source, first, end, cells });
        Ok(())
    }

    /// Keeps the features of a row, or none at all from the row on with which they do not fit any more.
    fn keep(&mut self, features: &[f32], memory: usize) {
        let Some(values) = &mut self.values else { return };
        let fits = 4 * (values.len() + features.len()) <= memory;
        if fits && allocator::may_fail(|| values.try_reserve(features.len())).is_ok() {
            values.extend_from_slice(features);
        } else {
            self.values = None;
        }
    }

    /// Parses a row again.
    fn parse(&self, index: usize, out: &mut [f32]) -> Result<u32> {
        let part = self.parts.partition_point(|part| part.first <= index) - 1;
        let Part { source, end, cells, .. } = &self.parts[part];
        let of_next = self.parts.get(part + 1).map_or(self.labels.len(), |next| next.first);
        let (at, end) =
            (self.places[index], if index + 1 < of_next { self.places[index + 1] } else { *end });
        source.with(at, (end - at) as usize, |bytes| {
            let mut row = ByteRecord::new();
            let parsed = match self.dialect.row(bytes, &mut row) {
                Ok(true) if cells.iter().all(|&cell| cell < row.len()) => {
                    self.columns.parse(&row, cells, out)
                }
                _ => Err("is no row any more".to_owned()),
            };
            parsed.map_err(|what| wrong_at(source, at, format!("{what}; has the file changed?")))
        })
    }
}

impl Dataset for Table {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn sample_shape(&self) -> &[usize] {
        &self.shape
    }

    fn predicts_numbers(&self) -> bool {
        self.columns.predict_numbers()
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn read(&self, index: usize, out: &mut [f32]) -> Result<u32> {
        let label = super::label_of(&self.labels, index, out.len() == self.shape[0])?;
        match &self.values {
            Some(values) => out.copy_from_slice(&values[index * out.len()..][..out.len()]),
            None if self.parse(index, out)? == label => {}
            None => return Err(super::no_sample(index, self.len())),
        }
        Ok(label)
    }

    fn label(&self, index: usize) -> Result<u32> {
        super::label_of(&self.labels, index, true)
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

//! CSV files with a header: a column of labels, columns of numbers, columns of categories.
//!
//! A column is numeric when nine of ten of its cells that are not missing are numbers; a row in which such a
//! cell is something else is removed. Other columns are categories, one number for each value (one-hot).
//! Mean, standard deviation and values are those of the training part.

use super::{Missing, Options, Record, short};
use crate::data::formats::source::regular;
use crate::data::limits;
use crate::error::{Error, Result};
use csv::ByteRecord;
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Rows in memory.
#[derive(Debug)]
pub struct Table {
    files: Vec<String>,
    header: Vec<String>,
    /// File, line, cells.
    rows: Vec<(usize, u64, ByteRecord)>,
    label: usize,
    /// The columns of features, and whether they are numeric.
    features: Vec<(usize, bool)>,
    /// The columns of groups and of times.
    apart: [Option<usize>; 2],
    missing: Missing,
    /// Of all files.
    hash: blake3::Hash,
}

/// What a column of features becomes.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Column {
    /// (value - mean) / std.
    Numeric {
        /// Its name.
        name: String,
        /// Its cell in a row.
        #[serde(skip)]
        cell: usize,
        /// Of the training part.
        mean: f64,
        /// Of the training part.
        std: f64,
    },
    /// A one at the place of its value, else zeros.
    Category {
        /// Its name.
        name: String,
        /// Its cell in a row.
        #[serde(skip)]
        cell: usize,
        /// Of the training part, sorted.
        values: Vec<String>,
    },
    /// The same in all of the training part: left out.
    Constant {
        /// Its name.
        name: String,
    },
}

impl Table {
    /// Reads all rows and finds out what the columns hold.
    ///
    /// # Errors
    /// When a file cannot be read, is too large, or has another header than the first; when there is no
    /// column of labels or no rows.
    pub fn open(paths: &[PathBuf], options: &Options) -> Result<Table> {
        let (mut header, mut rows) = (Vec::new(), Vec::new());
        let mut hash = blake3::Hasher::new();
        let mut room = limits::PREPARE_TABLE;
        for (file, path) in paths.iter().enumerate() {
            let bytes = load(path, &mut room)?;
            hash.update(blake3::hash(&bytes).as_bytes());
            let names = read(path, &bytes, file, &mut rows)?;
            if file == 0 {
                header = names;
            } else if names != header {
                return Err(wrong(
                    path,
                    "its first line names other columns than the first file's",
                ));
            }
        }
        let first = &paths[0];
        let label = header.iter().position(|name| *name == options.label).ok_or_else(|| {
            let label = &options.label;
            let names = header.join("`, `");
            wrong(first, format!("has no column `{label}` (--label); its columns are `{names}`"))
        })?;
        if let Some(name) = options.ignore.iter().find(|name| !header.contains(name)) {
            return Err(wrong(first, format!("has no column `{name}` (--ignore)")));
        }
        let place = |name: &Option<String>, option: &str| match name {
            None => Ok(None),
            Some(name) if *name == options.label => Err(wrong(
                first,
                format!("column `{name}` is the label; it cannot be {option}, too"),
            )),
            Some(name) => match header.iter().position(|found| found == name) {
                None => Err(wrong(first, format!("has no column `{name}` ({option})"))),
                place => Ok(place),
            },
        };
        let apart = [place(&options.group, "--group")?, place(&options.time, "--time")?];
        if rows.is_empty() {
            return Err(wrong(first, "has no rows below its header"));
        }
        let files = paths.iter().map(|path| short(path)).collect();
        let (features, missing, hash) = (Vec::new(), options.missing, hash.finalize());
        let mut table = Table { files, header, rows, label, features, apart, missing, hash };
        for cell in 0..table.header.len() {
            let other = cell == label || apart.contains(&Some(cell));
            if !other && !options.ignore.contains(&table.header[cell]) {
                table.features.push((cell, table.is_numeric(cell)));
            }
        }
        if table.features.is_empty() {
            return Err(wrong(
                first,
                "has no columns beside the label; there is nothing to learn from",
            ));
        }
        Ok(table)
    }

    fn is_numeric(&self, cell: usize) -> bool {
        let (mut numbers, mut others) = (0usize, 0usize);
        for (.., row) in &self.rows {
            match row.get(cell).map(std::str::from_utf8) {
                Some(Ok(text)) if is_missing(text) => {}
                Some(Ok(text)) if number(text).is_some() => numbers += 1,
                _ => others += 1,
            }
        }
        numbers > 0 && others * 9 <= numbers
    }

    /// Number of rows.
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// File and line of a row.
    pub fn name(&self, i: usize) -> String {
        let (file, line, _) = &self.rows[i];
        format!("{}:{line}", self.files[*file])
    }

    /// The content of all files.
    pub fn sign(&self, hash: &mut blake3::Hasher) {
        self.files.iter().for_each(|file| {
            hash.update(file.as_bytes()).update(&[0]);
        });
        hash.update(self.hash.as_bytes());
    }

    /// Looks at a row.
    pub fn examine(&self, i: usize) -> Record {
        let (.., row) = &self.rows[i];
        self.check(row).unwrap_or_else(|why| Record::refused("", why))
    }

    fn check(&self, row: &ByteRecord) -> std::result::Result<Record, String> {
        if row.len() != self.header.len() {
            let (is, should) = (row.len(), self.header.len());
            return Err(format!("row length: {is} cells where the header has {should}"));
        }
        let class = self.text(row, self.label)?;
        if is_missing(class) {
            return Err("missing value: it has no label".to_owned());
        }
        let mut hash = blake3::Hasher::new();
        for &(cell, numeric) in &self.features {
            let text = self.text(row, cell)?;
            let name = &self.header[cell];
            if is_missing(text) {
                if self.missing == Missing::Drop {
                    return Err(format!("missing value: column `{name}`"));
                }
                hash.update(&[0]);
            } else if numeric {
                let value = number(text).ok_or_else(|| {
                    let text: String = text.chars().take(40).collect();
                    format!("not a number: column `{name}` holds `{}`", text.escape_debug())
                })?;
                // Both zeros are one value.
                hash.update(&[1]).update(&(value + 0.0).to_le_bytes());
            } else {
                hash.update(&[2]).update(&(text.len() as u64).to_le_bytes());
                hash.update(text.as_bytes());
            }
        }
        let [group, time] = self.apart.map(|cell| match cell {
            None => Ok(None),
            Some(cell) => match self.text(row, cell)? {
                text if is_missing(text) => {
                    Err(format!("missing value: column `{}`", self.header[cell]))
                }
                text => Ok(Some(text.to_owned())),
            },
        });
        let hash = hash.finalize().to_hex().to_string();
        Ok(Record { group: group?, time: time?, ..Record::of(hash, class) })
    }

    fn text<'a>(&self, row: &'a ByteRecord, cell: usize) -> std::result::Result<&'a str, String> {
        std::str::from_utf8(&row[cell])
            .map(str::trim)
            .map_err(|_| format!("encoding: column `{}` is not UTF-8", self.header[cell]))
    }

    /// What each column becomes, from the rows of the training part.
    ///
    /// # Errors
    /// [`Error::Data`] if a column has too many values to be a category, or all columns are constant.
    pub fn fit(&self, rows: &[usize]) -> Result<Vec<Column>> {
        let mut columns = Vec::new();
        for &(cell, numeric) in &self.features {
            let cells = rows.iter().filter_map(|&i| self.text(&self.rows[i].2, cell).ok());
            let name = self.header[cell].clone();
            columns.push(if numeric {
                let (mean, std) = moments(cells.filter_map(number));
                match std > 0.0 {
                    true => Column::Numeric { name, cell, mean, std },
                    false => Column::Constant { name },
                }
            } else {
                let mut values = BTreeSet::new();
                for text in cells {
                    values.insert(category(text));
                    if values.len() > limits::PREPARE_CATEGORIES {
                        return Err(Error::Data(format!(
                            "column `{name}` has more than {} values and is not numeric; leave it \
                             out with --ignore {name}",
                            limits::PREPARE_CATEGORIES
                        )));
                    }
                }
                match values.len() {
                    0 | 1 => Column::Constant { name },
                    _ => Column::Category {
                        name,
                        cell,
                        values: values.into_iter().map(str::to_owned).collect(),
                    },
                }
            });
        }
        if columns.iter().all(|column| matches!(column, Column::Constant { .. })) {
            return Err(Error::Data(format!(
                "{}: every column is the same in all rows of the training part; there is nothing to \
                 learn from",
                self.files.join(", ")
            )));
        }
        Ok(columns)
    }

    /// The numbers of a row that was not refused.
    #[must_use]
    pub fn sample(&self, i: usize, columns: &[Column]) -> Vec<f32> {
        let (.., row) = &self.rows[i];
        let mut out = Vec::new();
        for column in columns {
            match column {
                Column::Numeric { cell, mean, std, .. } => {
                    let value = self.text(row, *cell).ok().and_then(number);
                    out.push(value.map_or(0.0, |value| ((value - mean) / std) as f32));
                }
                Column::Category { cell, values, .. } => {
                    let text = self.text(row, *cell).map_or("", category);
                    out.extend(values.iter().map(|value| f32::from(u8::from(value == text))));
                }
                Column::Constant { .. } => {}
            }
        }
        out
    }
}

/// All of a file, if there is room.
fn load(path: &Path, room: &mut u64) -> Result<Vec<u8>> {
    let (mut file, size) = regular(path)?;
    if size > *room {
        let most = limits::PREPARE_TABLE >> 20;
        return Err(wrong(path, format!("tables of at most {most} MiB together are prepared")));
    }
    *room -= size;
    let mut bytes = Vec::with_capacity(size as usize + 1);
    file.by_ref().take(size).read_to_end(&mut bytes).map_err(|e| Error::reading(path, &e))?;
    Ok(bytes)
}

/// Appends the rows of a file; gives the names of its columns.
fn read(
    path: &Path,
    bytes: &[u8],
    file: usize,
    rows: &mut Vec<(usize, u64, ByteRecord)>,
) -> Result<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    let mut header: Option<Vec<String>> = None;
    for row in reader.byte_records() {
        let row = row.map_err(|e| wrong(path, e))?;
        let line = row.position().map_or(0, csv::Position::line);
        if header.is_some() {
            rows.push((file, line, row));
            continue;
        }
        let mut names: Vec<String> = Vec::new();
        for cell in &row {
            let name = std::str::from_utf8(cell).map_or("", str::trim);
            if name.is_empty() || name.contains(char::is_control) || names.iter().any(|n| n == name)
            {
                return Err(wrong(
                    path,
                    "its first line must name every column, each once, in UTF-8",
                ));
            }
            names.push(name.to_owned());
        }
        header = Some(names);
    }
    header.ok_or_else(|| wrong(path, "is empty; its first line names the columns"))
}

/// How a cell without a value is written.
fn is_missing(text: &str) -> bool {
    matches!(text.trim(), "" | "NA" | "N/A" | "NaN" | "nan" | "null" | "NULL" | "None" | "?")
}

fn category(text: &str) -> &str {
    if is_missing(text) { "" } else { text }
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|value: &f64| value.is_finite())
}

/// Mean and standard deviation, by Welford: no cancellation where the mean is large.
fn moments(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (mut n, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for value in values {
        n += 1.0;
        let off: f64 = value - mean;
        mean += off / n;
        squares += off * (value - mean);
    }
    (mean, if n > 0.0 { (squares / n).sqrt() } else { 0.0 })
}

fn wrong(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::Data(format!("{}: {what}", path.display().to_string().escape_debug()))
}

//! Apache Parquet files: tables whose columns are stored one by one, decoded row by row when they are opened.
//!
//! The cells become text and then features as those of CSV files do ([`Columns`]): a number stands for itself,
//! a boolean is 1 or 0, dates and times are the numbers that the file stores (days, milliseconds,
//! microseconds), null and NaN are missing values. Only the columns that the card names are decoded. Decoding
//! costs more than reading, so the features of all rows are kept ([`Store`]).
//!
//! What the footer declares is compared with the file's size first. The `parquet` crate panics on some broken
//! files; that becomes an error as well.

use super::columns::{Columns, Visit};
use super::names::list;
use super::source::{self, Source};
use super::store::Store;
use crate::config::{Data, Split};
use crate::data::{Dataset, limits};
use crate::error::{Error, Result};
use crate::util::panics::caught;
use csv::ByteRecord;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use parquet::schema::types::{Type, TypePtr};
use std::fmt::Display;
use std::path::Path;

/// Samples of Parquet files.
#[derive(Debug)]
pub struct ParquetSet {
    shape: [usize; 1],
    classes: usize,
    labels: Vec<u32>,
    /// Whether labels are numbers to predict.
    numbers: bool,
    features: Store,
    fingerprint: String,
}

impl ParquetSet {
    /// Opens one part of a card's data set; its training part says which categories and classes there are.
    /// Features of up to `memory` bytes are kept there, more in a temporary file.
    ///
    /// # Errors
    /// [`Error::NoInput`] if a file is missing; [`Error::Data`], with row and column, if it is damaged or a
    /// cell is not what its column says; [`Error::Config`] if there are not as many classes as the card says.
    pub fn open(
        card: &Data,
        split: &Split,
        limit: Option<usize>,
        memory: usize,
    ) -> Result<ParquetSet> {
        let columns = Columns::of(super::given(card.csv.as_ref(), "csv")?, card)?;
        let width = columns.width();
        let (mut labels, mut features) = (Vec::new(), Store::new(width, memory));
        let mut hash = blake3::Hasher::new();
        let mut row = vec![0.0; width];
        let limit = limit.unwrap_or(usize::MAX);
        for path in &split.files {
            let mut failed = None;
            scan(path, columns.names(), &mut |cells, places| {
                if labels.len() >= limit {
                    return Ok(false);
                }
                labels.push(columns.parse(cells, places, &mut row)?);
                hash.update(bytemuck::cast_slice(&row));
                failed = features.push(&row).err();
                Ok(failed.is_none())
            })?;
            failed.map_or(Ok(()), Err)?;
        }
        features.finish()?;
        if labels.is_empty() {
            let path = split.files.first().map(|path| path.display().to_string());
            return Err(Error::Data(format!("{}: has no rows", path.unwrap_or_default())));
        }
        hash.update(bytemuck::cast_slice(&labels));
        let fingerprint = hash.finalize().to_hex().to_string();
        let (classes, numbers) = (card.classes, columns.predict_numbers());
        Ok(ParquetSet { shape: [width], classes, labels, numbers, features, fingerprint })
    }
}

impl Dataset for ParquetSet {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn sample_shape(&self) -> &[usize] {
        &self.shape
    }

    fn predicts_numbers(&self) -> bool {
        self.numbers
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn read(&self, index: usize, out: &mut [f32]) -> Result<u32> {
        let label = super::label_of(&self.labels, index, out.len() == self.shape[0])?;
        self.features.read(index, out)?;
        Ok(label)
    }

    fn label(&self, index: usize) -> Result<u32> {
        super::label_of(&self.labels, index, true)
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

/// Shows `visit` the cells of the columns `names`, row after row, until it says that it has seen enough.
///
/// # Errors
/// As [`ParquetSet::open`].
pub fn scan(path: &Path, names: &[String], visit: Visit) -> Result<()> {
    let wrong = |what: &dyn Display| Error::Data(format!("{}: {what}", path.display()));
    let damaged = |what: &dyn Display| wrong(&format!("is no Parquet file or damaged: {what}"));
    Source::open(path)?.refuse_gzip()?;
    let (file, size) = source::regular(path)?;
    let reader = caught(|| SerializedFileReader::new(file))
        .map_err(|words| damaged(&words))?
        .map_err(|e| damaged(&e))?;
    check_claims(&reader, size).map_err(|what| wrong(&what))?;
    let projection = project(&reader, names).map_err(|what| wrong(&what))?;
    let mut rows = caught(|| RowIter::from_file_into(Box::new(reader)).project(Some(projection)))
        .map_err(|words| damaged(&words))?
        .map_err(|e| damaged(&e))?;
    let mut record = ByteRecord::new();
    let mut places = Vec::new();
    for number in 1.. {
        let in_row = |what: &dyn Display| wrong(&format!("row {number}: {what}"));
        let next = caught(|| rows.next().transpose()).map_err(|words| damaged(&words))?;
        let Some(row) = next.map_err(|e| damaged(&e))? else { break };
        if places.is_empty() {
            places = order(&row, names);
        }
        record.clear();
        for (name, field) in row.get_column_iter() {
            let cell = text(field)
                .map_err(|what| in_row(&format!("column `{}`: {what}", name.escape_debug())))?;
            record.push_field(&cell);
        }
        if !visit(&record, &places).map_err(|what| in_row(&what))? {
            break;
        }
    }
    Ok(())
}

/// Which cell of the rows each of these columns is.
fn order(row: &Row, names: &[String]) -> Vec<usize> {
    let titles: Vec<&String> = row.get_column_iter().map(|(name, _)| name).collect();
    names.iter().filter_map(|name| titles.iter().position(|title| *title == name)).collect()
}

/// Refuses what the file's size cannot carry.
fn check_claims(
    reader: &SerializedFileReader<std::fs::File>,
    size: u64,
) -> std::result::Result<(), String> {
    let metadata = reader.metadata();
    let most = limits::PARQUET_ROWS_ALWAYS
        .saturating_add(size.saturating_mul(limits::PARQUET_ROWS_PER_BYTE));
    let mut rows = 0u64;
    for group in metadata.row_groups() {
        rows = rows.saturating_add(u64::try_from(group.num_rows()).unwrap_or(u64::MAX));
        for column in group.columns() {
            let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            let start = start.min(column.data_page_offset());
            let end = u64::try_from(start)
                .ok()
                .and_then(|start| start.checked_add(u64::try_from(column.compressed_size()).ok()?));
            if end.is_none_or(|end| end > size) {
                return Err(format!(
                    "the footer places column `{}` outside the file's {size} bytes; is the file cut?",
                    column.column_path().string().escape_debug()
                ));
            }
        }
    }
    if rows > most {
        return Err(format!("the footer declares {rows} rows, which {size} bytes cannot carry"));
    }
    Ok(())
}

/// The schema of the columns `names` alone.
fn project(
    reader: &SerializedFileReader<std::fs::File>,
    names: &[String],
) -> std::result::Result<Type, String> {
    let root = reader.metadata().file_metadata().schema();
    let titles: Vec<String> =
        root.get_fields().iter().map(|field| field.name().to_owned()).collect();
    let mut fields: Vec<TypePtr> = Vec::new();
    for name in names {
        let shown = name.escape_debug();
        let found: Vec<&TypePtr> = root.get_fields().iter().filter(|f| f.name() == name).collect();
        match found[..] {
            [field] if field.is_primitive() => fields.push(field.clone()),
            [_] => {
                return Err(format!(
                    "column `{shown}` holds lists or structures; columns of single values are read"
                ));
            }
            [] => {
                return Err(format!(
                    "there is no column `{shown}`; the columns are {}",
                    list(&titles)
                ));
            }
            _ => return Err(format!("two columns are named `{shown}`")),
        }
    }
    Type::group_type_builder(root.name()).with_fields(fields).build().map_err(|e| e.to_string())
}

/// A cell as it would stand in a CSV file; empty where the value is missing.
fn text(field: &Field) -> std::result::Result<Vec<u8>, String> {
    let float = |value: f64| if value.is_nan() { String::new() } else { value.to_string() };
    Ok(match field {
        Field::Null => Vec::new(),
        Field::Bool(value) => vec![b'0' + u8::from(*value)],
        Field::Byte(n) => n.to_string().into_bytes(),
        Field::Short(n) => n.to_string().into_bytes(),
        Field::Int(n) | Field::Date(n) | Field::TimeMillis(n) => n.to_string().into_bytes(),
        Field::Long(n)
        | Field::TimeMicros(n)
        | Field::TimestampMillis(n)
        | Field::TimestampMicros(n) => n.to_string().into_bytes(),
        Field::UByte(n) => n.to_string().into_bytes(),
        Field::UShort(n) => n.to_string().into_bytes(),
        Field::UInt(n) => n.to_string().into_bytes(),
        Field::ULong(n) => n.to_string().into_bytes(),
        Field::Float16(value) => float(f64::from(value.to_f32())).into_bytes(),
        Field::Float(value) => float(f64::from(*value)).into_bytes(),
        Field::Double(value) => float(*value).into_bytes(),
        Field::Decimal(_) => field.to_string().into_bytes(),
        Field::Str(text) => text.clone().into_bytes(),
        Field::Bytes(bytes) => bytes.data().to_vec(),
        Field::Group(_) | Field::ListInternal(_) | Field::MapInternal(_) => {
            return Err("holds a list or a structure".to_owned());
        }
    })
}

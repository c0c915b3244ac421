//! The columns of a table: what the cells of a row become.

use super::names::{Classes, Names, list};
use super::rows::{Dialect, Rows, text, wrong_at};
use super::source::Source;
use crate::config::{Column, ColumnKind, Csv, Data, Format};
use crate::data::limits;
use crate::error::{Error, Result};
use crate::util::label;
use csv::ByteRecord;
use std::collections::BTreeSet;
use std::path::Path;

/// Takes a row and which of its cells the wanted columns are; says whether it wants to see more, or what is
/// wrong with the row.
pub type Visit<'a> = &'a mut dyn FnMut(&ByteRecord, &[usize]) -> std::result::Result<bool, String>;

/// What the cells of a row become.
#[derive(Debug)]
pub struct Columns {
    names: Vec<String>,
    kinds: Vec<Kind>,
    /// Texts that stand for a missing value.
    missing: Vec<String>,
}

#[derive(Debug)]
enum Kind {
    /// One number: (x − mean) / std.
    Numeric { fill: Option<f64>, mean: f64, std: f64 },
    /// A 1 at the place of the value among as many places as there are values.
    Category { values: Names, fill: Option<String> },
    /// The label.
    Label(Classes),
    /// The number to predict: (x − mean) / std.
    Target { mean: f64, std: f64 },
}

impl Columns {
    /// The columns that a card names. Where it does not say which values a column has, the training files
    /// are read for them.
    ///
    /// # Errors
    /// As opening and reading those files; [`Error::Config`] if there are not as many classes as the card
    /// says, or more features than a sample may have.
    pub fn of(wanted: &Csv, card: &Data) -> Result<Columns> {
        let mut found = find_values(wanted, card)?.into_iter();
        let mut kinds = Vec::new();
        for column in &wanted.columns {
            let mut values = column.values.clone();
            let given = !values.is_empty();
            let place = format!("column `{}`", column.name.escape_debug());
            kinds.push(match column.kind {
                ColumnKind::Numeric => Kind::Numeric {
                    fill: column.fill.as_deref().and_then(|fill| fill.trim().parse().ok()),
                    mean: column.mean.unwrap_or(0.0),
                    std: column.std.unwrap_or(1.0),
                },
                ColumnKind::Target => Kind::Target {
                    mean: column.mean.unwrap_or(0.0),
                    std: column.std.unwrap_or(1.0),
                },
                ColumnKind::Category => {
                    if !given {
                        values = found.next().unwrap_or_default().into_iter().collect();
                    }
                    Kind::Category { values: Names::new(values), fill: column.fill.clone() }
                }
                ColumnKind::Label if given => {
                    Kind::Label(Classes::named(values, card.classes, place)?)
                }
                ColumnKind::Label => {
                    let found = found.next().unwrap_or_default();
                    let file = card.train.files.first().map(|path| path.display().to_string());
                    let place = format!("{}: {place}", file.unwrap_or_default());
                    Kind::Label(Classes::found(found, card.classes, place)?)
                }
            });
        }
        let names = wanted.columns.iter().map(|column| column.name.clone()).collect();
        let columns = Columns { names, kinds, missing: wanted.missing.clone() };
        columns.check()?;
        Ok(columns)
    }

    /// Every filled value is one that there is, and a sample is not too wide.
    fn check(&self) -> Result<()> {
        for (name, kind) in self.names.iter().zip(&self.kinds) {
            if let Kind::Category { values, fill: Some(fill) } = kind
                && values.place(fill).is_none()
            {
                return Err(Error::Config(format!(
                    "data.csv.columns: `fill` of `{}` is `{}`, which is none of its values: {}",
                    name.escape_debug(),
                    fill.escape_debug(),
                    list(values.list())
                )));
            }
        }
        if self.width() > limits::TABLE_FEATURES {
            return Err(Error::Config(format!(
                "data.csv.columns: make {} features a sample; at most {} are taken",
                self.width(),
                limits::TABLE_FEATURES
            )));
        }
        Ok(())
    }

    /// Features of a sample.
    pub fn width(&self) -> usize {
        let of = |kind: &Kind| match kind {
            Kind::Numeric { .. } => 1,
            Kind::Category { values, .. } => values.list().len(),
            Kind::Label(_) | Kind::Target { .. } => 0,
        };
        self.kinds.iter().map(of).sum()
    }

    /// Which cell of a row each column is. Takes the header from `rows`, if there is one.
    ///
    /// # Errors
    /// [`Error::Data`] if a column is not there, or twice.
    pub fn cells(&self, rows: &mut Rows, header: bool) -> Result<Vec<usize>> {
        cells(&self.names, rows, header)
    }

    /// The names of the columns, in the card's order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether the label of a row is a number to predict.
    pub fn predict_numbers(&self) -> bool {
        self.kinds.iter().any(|kind| matches!(kind, Kind::Target { .. }))
    }

    /// Writes the features of a row and gives its label.
    ///
    /// # Errors
    /// The column, and what is wrong with its cell.
    pub fn parse(
        &self,
        row: &ByteRecord,
        cells: &[usize],
        out: &mut [f32],
    ) -> std::result::Result<u32, String> {
        let (mut rest, mut label) = (out, 0);
        for ((kind, name), &cell) in self.kinds.iter().zip(&self.names).zip(cells) {
            let place = |what: String| format!("column `{}`: {what}", name.escape_debug());
            let text = present(row, cell, &self.missing).map_err(place)?;
            match kind {
                Kind::Numeric { fill, mean, std } => {
                    let (out, others) = rest.split_at_mut(1);
                    let number = match text {
                        Some(text) => number(text).map_err(place)?,
                        None => fill.ok_or_else(|| place(absent()))?,
                    };
                    out[0] = scaled(number, *mean, *std).map_err(place)?;
                    rest = others;
                }
                Kind::Category { values, fill } => {
                    let (out, others) = rest.split_at_mut(values.list().len());
                    let text = text.or(fill.as_deref()).ok_or_else(|| place(absent()))?;
                    let at = values.place(text).ok_or_else(|| {
                        let (shown, values) = (text.escape_debug(), list(values.list()));
                        place(format!("`{shown}` is not one of its values: {values}"))
                    })?;
                    out.fill(0.0);
                    out[at as usize] = 1.0;
                    rest = others;
                }
                Kind::Label(classes) => {
                    let text = text.ok_or_else(|| place("the label is missing".to_owned()))?;
                    label = classes.number(text).map_err(place)?;
                }
                Kind::Target { mean, std } => {
                    let text = text.ok_or_else(|| place("the number is missing".to_owned()))?;
                    let target = number(text).and_then(|number| scaled(number, *mean, *std));
                    label = label::of_number(target.map_err(place)?);
                }
            }
        }
        Ok(label)
    }
}

/// The text of a cell, if it is not a missing value.
fn present<'a>(
    row: &'a ByteRecord,
    cell: usize,
    missing: &[String],
) -> std::result::Result<Option<&'a str>, String> {
    let text = text(row.get(cell).unwrap_or_default())?;
    Ok(Some(text).filter(|text| !text.is_empty() && !missing.iter().any(|m| m == text)))
}

fn absent() -> String {
    "the value is missing; give the column a `fill`, or the row a value".to_owned()
}

/// A finite number.
fn number(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        Ok(_) => Err(format!("`{}` is not finite", text.escape_debug())),
        Err(_) => Err(format!("`{}` is not a number", text.escape_debug())),
    }
}

/// (number − mean) / std in 32 bits.
fn scaled(number: f64, mean: f64, std: f64) -> std::result::Result<f32, String> {
    let scaled = ((number - mean) / std) as f32;
    scaled.is_finite().then_some(scaled).ok_or_else(|| format!("{number:e} does not fit 32 bits"))
}

/// Which cell of a row each of these names is. Takes the header from `rows`, if there is one; else a
/// column's name is its number.
fn cells(names: &[String], rows: &mut Rows, header: bool) -> Result<Vec<usize>> {
    let Some((at, first)) = rows.first(header)? else { return Ok(Vec::new()) };
    let titles: Vec<String> = match header {
        true => first.iter().map(|cell| text(cell).unwrap_or_default().to_owned()).collect(),
        false => (1..=first.len()).map(|number| number.to_string()).collect(),
    };
    let cell = |name: &String| {
        let shown = name.escape_debug();
        let mut cells = titles.iter().enumerate().filter(|(_, title)| *title == name);
        match (cells.next(), cells.next()) {
            (Some((cell, _)), None) => Ok(cell),
            (Some(_), Some(_)) => Err(format!("two columns are named `{shown}`")),
            (None, _) => {
                Err(format!("there is no column `{shown}`; the columns are {}", list(&titles)))
            }
        }
    };
    let cells: std::result::Result<_, _> = names.iter().map(cell).collect();
    cells.map_err(|what| wrong_at(rows.source(), at, what))
}

/// The values that the training files have in each column whose values the card does not give.
fn find_values(wanted: &Csv, card: &Data) -> Result<Vec<BTreeSet<String>>> {
    let open = |column: &&Column| {
        let number = matches!(column.kind, ColumnKind::Numeric | ColumnKind::Target);
        !number && column.values.is_empty()
    };
    let names: Vec<String> =
        wanted.columns.iter().filter(open).map(|column| column.name.clone()).collect();
    let mut found = vec![BTreeSet::new(); names.len()];
    if names.is_empty() {
        return Ok(found);
    }
    for path in &card.train.files {
        scan(card, wanted, path, &names, &mut |row, cells| {
            for ((values, &cell), name) in found.iter_mut().zip(cells).zip(&names) {
                let wrong = |what| format!("column `{}`: {what}", name.escape_debug());
                let Some(text) = present(row, cell, &wanted.missing).map_err(wrong)? else {
                    continue;
                };
                if !values.contains(text) {
                    values.insert(text.to_owned());
                }
                if values.len() > limits::CSV_VALUES {
                    let most = limits::CSV_VALUES;
                    return Err(wrong(format!("more than {most} values; is it a number?")));
                }
            }
            Ok(true)
        })?;
    }
    Ok(found)
}

/// Shows `visit` the rows of a file of the card's format.
fn scan(card: &Data, wanted: &Csv, path: &Path, names: &[String], visit: Visit) -> Result<()> {
    if card.format == Format::Parquet {
        return super::scan_parquet(path, names, visit);
    }
    let source = Source::open(path)?;
    source.refuse_gzip()?;
    let mut rows = Rows::of(&source, Dialect::of(wanted));
    let cells = cells(names, &mut rows, wanted.header)?;
    while let Some((at, row)) = rows.next_row()? {
        if !visit(row, &cells).map_err(|what| wrong_at(&source, at, what))? {
            break;
        }
    }
    Ok(())
}

//! What the columns of a table are: declared in the wishes, or found out in a first pass over the rows.

use super::cells::{is_missing, moment, number};
use super::source::Sources;
use crate::config::{Clip, Encoding, Holds, Missing, Prepare, PrepareColumn, PrepareTable};
use crate::error::{Error, Result};
use csv::ByteRecord;
use serde::{Deserialize, Serialize};

/// How a cell becomes a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is one.
    Number,
    /// Seconds since 1970.
    Moment,
    /// It is one of several values.
    Category,
}

/// A column that is looked at.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its cell in a row.
    pub cell: usize,
    /// Its name.
    pub name: String,
    /// What its cells are.
    pub kind: Kind,
    /// Whether that was declared: another value is an error, not a reason to remove the row.
    pub declared: bool,
    /// What becomes of a missing value.
    pub missing: Missing,
    /// What a missing value counts as instead.
    pub fill: Option<String>,
    /// Bounds of its numbers.
    pub clip: Option<Clip>,
}

/// The columns of a table.
#[derive(Debug)]
pub struct Layout {
    /// Cells of a row.
    pub width: usize,
    /// The column of labels.
    pub label: (usize, String),
    /// The column of groups.
    pub group: Option<(usize, String)>,
    /// The column of times.
    pub time: Option<Field>,
    /// Columns of numbers and moments.
    pub numbers: Vec<Field>,
    /// Columns of categories.
    pub categories: Vec<Field>,
    /// Whether text is read as Windows-1252 where it is not UTF-8.
    pub repair: bool,
}

/// What the cells of a column were found to be, those without a value aside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    numbers: u64,
    moments: u64,
    others: u64,
}

impl Found {
    fn see(&mut self, cell: &[u8]) {
        match std::str::from_utf8(cell).map(str::trim) {
            Ok(text) if is_missing(text) => {}
            Ok(text) if number(text).is_some() => self.numbers += 1,
            Ok(text) if moment(text).is_some() => self.moments += 1,
            _ => self.others += 1,
        }
    }

    /// Adds what was seen elsewhere.
    pub fn add(&mut self, other: &Found) {
        self.numbers += other.numbers;
        self.moments += other.moments;
        self.others += other.others;
    }

    /// Nine of ten values are numbers.
    fn is_numeric(&self) -> bool {
        self.numbers > 0 && (self.moments + self.others) * 9 <= self.numbers
    }
}

/// Columns of which the wishes do not say what they hold.
#[must_use]
pub fn unknown(header: &[String], wishes: &PrepareTable) -> Vec<usize> {
    let known = |name: &String| {
        *name == wishes.label
            || wishes.ignore.contains(name)
            || wishes.group.as_ref() == Some(name)
            || wishes.columns.iter().any(|column| column.name == *name && column.kind.is_some())
    };
    (0..header.len()).filter(|&cell| !known(&header[cell])).collect()
}

/// Looks at the `unknown` cells of a row.
pub fn survey(row: &ByteRecord, unknown: &[usize], found: &mut [Found]) {
    for (&cell, found) in unknown.iter().zip(found) {
        if let Some(cell) = row.get(cell) {
            found.see(cell);
        }
    }
}

impl Layout {
    /// Refuses columns that are not there.
    ///
    /// # Errors
    /// [`Error::Data`], beginning with the field of the card.
    pub fn check(sources: &Sources, wishes: &PrepareTable) -> Result<()> {
        let header = &sources.header;
        let must = |name: &String, field: String| match header.contains(name) {
            true => Ok(()),
            false => {
                let (name, names) = (name.escape_debug(), header.join("`, `"));
                let what = format!("has no column `{name}`; its columns are `{names}`");
                Err(sources.wrong(what).context(format!("prepare.table.{field}")))
            }
        };
        must(&wishes.label, "label".to_owned())?;
        wishes.ignore.iter().try_for_each(|name| must(name, "ignore".to_owned()))?;
        wishes.group.iter().try_for_each(|name| must(name, "group".to_owned()))?;
        wishes.time.iter().try_for_each(|name| must(name, "time".to_owned()))?;
        let columns = wishes.columns.iter().enumerate();
        columns
            .map(|(i, column)| (column, format!("columns.{i}.name")))
            .try_for_each(|(column, field)| must(&column.name, field))
    }

    /// The columns, from the wishes and from what the `unknown` cells were found to be.
    ///
    /// # Errors
    /// [`Error::Data`] if nothing is there to learn from; [`Error::Config`] if a fill is not of its column's kind.
    pub fn of(sources: &Sources, wishes: &Prepare, found: &[Found]) -> Result<Layout> {
        let table = wishes.table.clone().unwrap_or_default();
        let header = &sources.header;
        let unknown = unknown(header, &table);
        let place = |name: &String| header.iter().position(|n| n == name).unwrap_or_default();
        let named = |name: &String| (place(name), name.clone());
        let mut layout = Layout {
            width: header.len(),
            label: named(&table.label),
            group: table.group.as_ref().map(named),
            time: None,
            numbers: Vec::new(),
            categories: Vec::new(),
            repair: table.encoding == Encoding::Repair,
        };
        for (cell, name) in header.iter().enumerate() {
            let other = cell == layout.label.0 || table.group.as_ref() == Some(name);
            if other || table.ignore.contains(name) {
                continue;
            }
            let said = table.columns.iter().find(|column| column.name == *name);
            let found = unknown.iter().position(|&c| c == cell).map(|i| found[i]);
            let is_time = table.time.as_ref() == Some(name);
            let Some(kind) = kind(said, found.unwrap_or_default(), is_time) else { continue };
            let field = Field {
                cell,
                name: name.clone(),
                kind,
                declared: said.is_some_and(|column| column.kind.is_some()),
                missing: said.and_then(|column| column.missing).unwrap_or(table.missing),
                fill: said.and_then(|column| column.fill.clone()),
                clip: said.and_then(|column| column.clip).or(table.clip),
            };
            match kind {
                _ if is_time => layout.time = Some(field),
                Kind::Category => layout.categories.push(field),
                Kind::Number | Kind::Moment => layout.numbers.push(field),
            }
        }
        if layout.numbers.is_empty() && layout.categories.is_empty() {
            let what = "has no columns beside the label; there is nothing to learn from";
            return Err(sources.wrong(what));
        }
        layout.check_fills(&table)?;
        Ok(layout)
    }

    fn check_fills(&self, table: &PrepareTable) -> Result<()> {
        for field in &self.numbers {
            let Some(fill) = &field.fill else { continue };
            if field.parse(fill).is_none() {
                let place = table.columns.iter().position(|c| c.name == field.name);
                return Err(Error::Config(format!(
                    "prepare.table.columns.{}.fill: `{}` is not of the kind that the column is said to be",
                    place.unwrap_or_default(),
                    fill.escape_debug()
                )));
            }
        }
        Ok(())
    }

    /// Bytes of a row's numbers and categories, as they are kept.
    #[must_use]
    pub fn stride(&self) -> usize {
        8 * self.numbers.len() + 4 * self.categories.len()
    }
}

impl Field {
    /// The number of a cell that has one.
    #[must_use]
    pub fn parse(&self, text: &str) -> Option<f64> {
        if self.kind == Kind::Moment { moment(text) } else { number(text) }
    }

    /// What a cell of the column is.
    #[must_use]
    pub fn wanted(&self) -> &'static str {
        match self.kind {
            Kind::Number => "number",
            Kind::Moment => "time",
            Kind::Category => "category",
        }
    }

    /// Whether a row without a value is removed.
    #[must_use]
    pub fn drops(&self) -> bool {
        self.fill.is_none() && self.missing == Missing::Drop
    }
}

/// What a column is; nothing for one that is left out.
fn kind(said: Option<&PrepareColumn>, found: Found, is_time: bool) -> Option<Kind> {
    match said.and_then(|column| column.kind) {
        Some(Holds::Numeric) => Some(Kind::Number),
        Some(Holds::Category) => Some(Kind::Category),
        Some(Holds::Time) => Some(Kind::Moment),
        Some(Holds::Text) => None,
        None if is_time && found.numbers >= found.moments => Some(Kind::Number),
        None if is_time => Some(Kind::Moment),
        None if found.is_numeric() => Some(Kind::Number),
        None => Some(Kind::Category),
    }
}

//! How tables become samples: [`Csv`], [`Column`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the rows of tables become samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Csv {
    /// (csv) Whether the first row of each file names the columns; else a column's name is its number, from 1.
    #[serde(default = "default_header")]
    pub header: bool,
    /// (csv) The character between cells.
    #[serde(default = "default_delimiter")]
    pub delimiter: String,
    /// (csv) The character around cells that hold delimiters, quotes (doubled) or line breaks; empty for none.
    #[serde(default = "default_quote")]
    pub quote: String,
    /// Texts that stand for a missing value; an empty cell always does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// The columns that are used. Features come in this order.
    pub columns: Vec<Column>,
}

fn default_header() -> bool {
    true
}

fn default_delimiter() -> String {
    ",".to_owned()
}

fn default_quote() -> String {
    "\"".to_owned()
}

/// One column of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its name in the first row, or its number.
    pub name: String,
    /// What it holds.
    pub kind: ColumnKind,
    /// The values, in the order in which they are counted (category, label). Left out, they are those of the
    /// training files in sorted order; labels that are all whole numbers are the classes themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// What a missing value counts as, as it would stand in the file (numeric, category); without it, a
    /// missing value is an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fill: Option<String>,
    /// Subtracted (numeric, target); 0 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// Divides what is left (numeric, target); 1 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub std: Option<f64>,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ColumnKind {
    /// Numbers: one feature.
    Numeric,
    /// One of several values: as many features, one of them 1 and the others 0.
    Category,
    /// The label.
    Label,
    /// The number to predict (`train.loss` `mse`, `mae` or `huber`), in the label's place.
    Target,
}

impl Csv {
    /// What is wrong with the fields taken together: the field, and what is wrong with it.
    pub(super) fn problems(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut refuse_if = |wrong: bool, field: &str, what: &str| {
            if wrong {
                found.push((field.to_owned(), what.to_owned()));
            }
        };
        let one = |text: &str| text.len() == 1 && !["\n", "\r", "\0"].contains(&text);
        refuse_if(!one(&self.delimiter), "delimiter", "is not one ASCII character");
        refuse_if(
            !self.quote.is_empty() && !one(&self.quote),
            "quote",
            "is neither empty nor one ASCII character",
        );
        refuse_if(self.quote == self.delimiter, "quote", "is the same as the delimiter");
        let of = |kind| self.columns.iter().filter(move |column| column.kind == kind).count();
        let labels = of(ColumnKind::Label) + of(ColumnKind::Target);
        refuse_if(
            labels != 1,
            "columns",
            &format!("have {labels} of kind `label` or `target`; one column is the label"),
        );
        refuse_if(
            self.columns.len() == labels,
            "columns",
            "have no feature; name numeric or category columns",
        );
        for (i, column) in self.columns.iter().enumerate() {
            let twice = self.columns[..i].iter().any(|other| other.name == column.name);
            refuse_if(twice, &format!("columns.{i}.name"), "is the name of an earlier column, too");
            for (field, what) in column.problems(self.header) {
                refuse_if(true, &format!("columns.{i}.{field}"), what);
            }
        }
        found
    }
}

impl Csv {
    /// What a table that is no text may not have: the field, and what is wrong with it.
    pub(super) fn problems_of_parquet(&self) -> Vec<(String, String)> {
        let given = [
            ("header", self.header != default_header()),
            ("delimiter", self.delimiter != default_delimiter()),
            ("quote", self.quote != default_quote()),
        ];
        let what = "is not used by data.format `parquet`; remove it";
        let given = given.into_iter().filter(|(_, given)| *given);
        given.map(|(field, _)| (format!("data.csv.{field}"), what.to_owned())).collect()
    }
}

impl Column {
    fn problems(&self, header: bool) -> Vec<(&'static str, &'static str)> {
        use ColumnKind::{Category, Label, Numeric, Target};
        let is_number = matches!(self.kind, Numeric | Target);
        let fill = self.fill.as_deref().map(|fill| fill.trim().parse::<f64>());
        let repeated = |(i, value)| self.values[..i].contains(value);
        let number = self.name.parse::<usize>().is_ok_and(|n| n > 0);
        let problems = [
            (
                !header && !number,
                "name",
                "is no number from 1 on; without a header, columns have no other names",
            ),
            (is_number && !self.values.is_empty(), "values", "is used by category and label only"),
            (self.values.iter().enumerate().any(repeated), "values", "names a value twice"),
            (
                matches!(self.kind, Label | Target) && self.fill.is_some(),
                "fill",
                "is not for labels",
            ),
            (
                self.kind == Numeric && fill.is_some_and(|fill| !fill.is_ok_and(f64::is_finite)),
                "fill",
                "is no number, which the column is to have",
            ),
            (
                self.kind == Category
                    && !self.values.is_empty()
                    && self.fill.as_ref().is_some_and(|fill| !self.values.contains(fill)),
                "fill",
                "is not one of the values",
            ),
            (!is_number && self.mean.is_some(), "mean", "is used by numeric and target only"),
            (!is_number && self.std.is_some(), "std", "is used by numeric and target only"),
        ];
        problems
            .into_iter()
            .filter_map(|(wrong, field, what)| wrong.then_some((field, what)))
            .collect()
    }
}

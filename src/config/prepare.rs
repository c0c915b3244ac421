//! How raw material becomes parts to train on: [`Prepare`], the section that `annulus prepare` takes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What `annulus prepare` makes of which sources.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prepare {
    /// Folders of pictures (each class a folder), or CSV files with a header.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<PathBuf>,
    /// Folder for the prepared files: new, or of the same preparation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out: Option<PathBuf>,
    /// Of the split: another seed is another split.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// Shares of training, validation and test; they add up to 1.
    #[serde(default = "default_split")]
    #[schemars(inner(range(min = 0, max = 1)))]
    pub split: [f64; 3],
    /// Samples of a file.
    #[serde(default = "default_shard")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub shard: usize,
    /// How pictures are prepared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pictures: Option<PreparePictures>,
    /// How tables are prepared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<PrepareTable>,
}

fn default_seed() -> u64 {
    1
}

fn default_split() -> [f64; 3] {
    [0.8, 0.1, 0.1]
}

fn default_shard() -> usize {
    8192
}

impl Default for Prepare {
    fn default() -> Self {
        Prepare {
            sources: Vec::new(),
            out: None,
            seed: default_seed(),
            split: default_split(),
            shard: default_shard(),
            pictures: None,
            table: None,
        }
    }
}

/// How pictures are prepared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PreparePictures {
    /// Rows and columns that pictures are scaled to; else those of another size than most are removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(inner(range(min = 1, max = 8192)))]
    pub resize: Option<[u32; 2]>,
    /// One channel instead of three.
    pub grey: bool,
    /// Bits of 64 in which the perceptual hashes of pictures that look alike may differ.
    #[schemars(range(min = 0, max = 32))]
    pub near: u32,
    /// Only the first of pictures that look alike is kept; else all stay, in the same part.
    pub drop_near: bool,
}

impl Default for PreparePictures {
    fn default() -> Self {
        PreparePictures { resize: None, grey: false, near: 3, drop_near: false }
    }
}

/// How tables are prepared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PrepareTable {
    /// The column of labels.
    pub label: String,
    /// What becomes of a missing value, unless its column says otherwise.
    pub missing: Missing,
    /// What becomes of text that is not UTF-8.
    pub encoding: Encoding,
    /// Numbers beyond these bounds become the bounds, unless their column says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<Clip>,
    /// Columns that are left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
    /// The column of which rows with the same value stay in one part; it is no feature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Split by this column: the latest rows are for test, those before them for validation; it is no feature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Columns of which more is said; what the others hold is found out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<PrepareColumn>,
}

impl Default for PrepareTable {
    fn default() -> Self {
        PrepareTable {
            label: "label".to_owned(),
            missing: Missing::default(),
            encoding: Encoding::default(),
            clip: None,
            ignore: Vec::new(),
            group: None,
            time: None,
            columns: Vec::new(),
        }
    }
}

/// A column of features of which more is said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrepareColumn {
    /// Its name in the header.
    pub name: String,
    /// What it holds; a value that does not fit is then an error. Left out, it is found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Holds>,
    /// What becomes of a missing value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<Missing>,
    /// What a missing value counts as, as it would stand in the file; in place of `missing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fill: Option<String>,
    /// Numbers beyond these bounds become the bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<Clip>,
}

/// What a column of features holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Holds {
    /// Numbers: one feature.
    Numeric,
    /// One of several values: as many features, one of them 1 and the others 0.
    Category,
    /// Days (2026-11-28) or moments (2026-11-28T09:30:00): one feature, seconds since 1970.
    Time,
    /// Nothing to learn from, such as names or notes: left out.
    Text,
}

/// What becomes of a missing value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// Its row is removed.
    #[default]
    Drop,
    /// A number becomes the mean of the training part; a missing category is a category.
    Fill,
    /// A number becomes the median of the training part; a missing category is a category.
    Median,
    /// It becomes the most frequent value of the training part, the least of several.
    MostFrequent,
}

/// What becomes of text that is not UTF-8.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Its row is removed.
    #[default]
    Refuse,
    /// It is read as Windows-1252, and counted.
    Repair,
}

/// Bounds that numbers are clipped to. One of the three is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Clip {
    /// Quantiles of the training part, such as 0.01 and 0.99.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(inner(range(min = 0, max = 1)))]
    pub quantiles: Option<[f64; 2]>,
    /// So many standard deviations of the training part from its mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub deviations: Option<f64>,
    /// Numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bounds: Option<[f64; 2]>,
}

impl Clip {
    fn problem(&self) -> Option<&'static str> {
        let given = [self.quantiles.is_some(), self.deviations.is_some(), self.bounds.is_some()];
        let rises = |pair: Option<[f64; 2]>| pair.is_none_or(|[low, high]| low < high);
        match given.iter().filter(|given| **given).count() {
            0 => Some("is empty; give `quantiles`, `deviations` or `bounds`"),
            1 if rises(self.quantiles) && rises(self.bounds) => None,
            1 => Some("has a lower bound that is not below the upper one"),
            _ => Some("has more than one of `quantiles`, `deviations` and `bounds`; keep one"),
        }
    }
}

impl Prepare {
    /// What is wrong with the fields taken together: the field, and what is wrong with it.
    #[must_use]
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let sum: f64 = self.split.iter().sum();
        if self.split[0] <= 0.0 || (sum - 1.0).abs() > 1e-9 {
            let what =
                "is not three shares that add up to 1, the first above 0; example: 0.8,0.1,0.1";
            found.push(("split".to_owned(), what.to_owned()));
        }
        if let (Some(_), Some(_)) = (&self.pictures, &self.table) {
            let what = "is for pictures and `table` is for tables; remove one of the two";
            found.push(("pictures".to_owned(), what.to_owned()));
        }
        let table = self.table.as_ref().map(PrepareTable::problems).unwrap_or_default();
        found.extend(table.into_iter().map(|(field, what)| (format!("table.{field}"), what)));
        found
    }
}

impl PrepareTable {
    fn problems(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut refuse_if = |wrong: bool, field: &str, what: &str| {
            if wrong {
                found.push((field.to_owned(), what.to_owned()));
            }
        };
        refuse_if(
            self.group.is_some() && self.time.is_some(),
            "time",
            "cannot be given together with `group`; keep one of the two",
        );
        for (field, name) in [("group", &self.group), ("time", &self.time)] {
            let label = name.as_ref() == Some(&self.label);
            refuse_if(label, field, "is the column of labels; it cannot be both");
        }
        if let Some(what) = self.clip.and_then(|clip| clip.problem()) {
            refuse_if(true, "clip", what);
        }
        for (i, column) in self.columns.iter().enumerate() {
            for (field, what) in column.problems() {
                refuse_if(true, &format!("columns.{i}.{field}"), what);
            }
            let name = Some(&column.name);
            let other = [Some(&self.label), self.group.as_ref()].contains(&name)
                || self.ignore.contains(&column.name)
                || self.columns[..i].iter().any(|other| other.name == column.name);
            let field = format!("columns.{i}.name");
            refuse_if(other, &field, "is said to be something else, too; name a column once");
            refuse_if(
                name == self.time.as_ref() && column.kind != Some(Holds::Time),
                &field,
                "is the column of times; its kind, if it is given, is `time`",
            );
        }
        found
    }
}

impl PrepareColumn {
    fn problems(&self) -> Vec<(&'static str, &'static str)> {
        use Holds::{Category, Numeric, Text};
        let number = self.fill.as_deref().map(|fill| fill.trim().parse::<f64>());
        let clip = self.clip.and_then(|clip| clip.problem());
        let problems = [
            (
                self.fill.is_some() && self.missing.is_some(),
                "missing",
                "cannot be given together with `fill`; keep one of the two",
            ),
            (
                self.fill.is_some() && self.kind.is_none(),
                "kind",
                "is missing; say what the column holds, so that `fill` can be read",
            ),
            (
                self.kind == Some(Numeric) && number.is_some_and(|n| !n.is_ok_and(f64::is_finite)),
                "fill",
                "is no number, which the column is to have",
            ),
            (
                self.clip.is_some() && matches!(self.kind, Some(Category | Text)),
                "clip",
                "is for numbers only",
            ),
            (
                self.kind == Some(Text) && (self.missing.is_some() || self.fill.is_some()),
                "kind",
                "`text` is left out; remove `missing` and `fill`",
            ),
            (clip.is_some(), "clip", clip.unwrap_or_default()),
        ];
        let wrong = |(wrong, field, what)| if wrong { Some((field, what)) } else { None };
        problems.into_iter().filter_map(wrong).collect()
    }
}

//! Data file formats: [`Format`], [`Split`], and what each format needs to be told.

use super::{Data, Normalize};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Data file formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The IDX format of MNIST, plain or gzip: `images` and `labels`.
    Idx,
    /// The binary version of CIFAR-10: `files`.
    Cifar10,
    /// The binary version of CIFAR-100 with its 100 fine labels: `files`.
    Cifar100,
    /// The same with its 20 coarse labels: `files`.
    #[serde(rename = "cifar100-coarse")]
    Cifar100Coarse,
    /// Tables as text: `files`, with the columns in `data.csv`.
    Csv,
    /// Tables in Apache Parquet files: `files`, with the columns in `data.csv`.
    Parquet,
    /// PNG and JPEG pictures: `folder`, with a folder in it for each class, or with a CSV, `labels`.
    Folder,
    /// NumPy arrays: `images` and `labels`.
    Npy,
    /// Tensors of samples and of labels in one file: `files`, with their names in `data.tensors`.
    Safetensors,
    /// Tar archives of pictures and labels, in the layout of WebDataset: `files`.
    Tar,
    /// Text, each file by itself: `files`, with the size of the windows in `data.text`.
    Text,
    /// Text that has been made tokens, each file by itself: `files`, with their type in `data.text.ids`.
    Tokens,
}

impl Format {
    /// The format as the card spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Format::Idx => "idx",
            Format::Cifar10 => "cifar10",
            Format::Cifar100 => "cifar100",
            Format::Cifar100Coarse => "cifar100-coarse",
            Format::Csv => "csv",
            Format::Parquet => "parquet",
            Format::Folder => "folder",
            Format::Npy => "npy",
            Format::Safetensors => "safetensors",
            Format::Tar => "tar",
            Format::Text => "text",
            Format::Tokens => "tokens",
        }
    }

    /// The fields of [`Split`] that it needs and those that it may have as well.
    fn fields(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Format::Idx | Format::Npy => (&["images", "labels"], &[]),
            Format::Cifar10
            | Format::Cifar100
            | Format::Cifar100Coarse
            | Format::Csv
            | Format::Parquet
            | Format::Safetensors
            | Format::Tar
            | Format::Text
            | Format::Tokens => (&["files"], &[]),
            Format::Folder => (&["folder"], &["labels"]),
        }
    }
}

/// The files of one part of a data set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// File of the samples (idx: unsigned bytes; npy), of shape (samples, rows, columns) or (samples,
    /// channels, rows, columns); with npy also (samples, features).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<PathBuf>,
    /// File of the labels: whole numbers of shape (samples) (idx, npy), or a CSV with columns `file`, a path
    /// inside the folder, and `label` (folder).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<PathBuf>,
    /// Folder of pictures (folder).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// Files that follow one another (cifar10, cifar100, csv, parquet, safetensors, tar, text, tokens).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<PathBuf>,
}

impl Split {
    /// What is wrong with the fields for data of this `format`: the field, and what is wrong with it.
    fn problems(&self, format: Format) -> Vec<(&'static str, String)> {
        let name = format.name();
        let (needed, allowed) = format.fields();
        let empty = |path: &PathBuf| path.as_os_str().is_empty();
        let mut found = Vec::new();
        for (field, given, is_empty) in [
            ("images", self.images.is_some(), self.images.iter().any(empty)),
            ("labels", self.labels.is_some(), self.labels.iter().any(empty)),
            ("folder", self.folder.is_some(), self.folder.iter().any(empty)),
            ("files", !self.files.is_empty(), self.files.iter().any(empty)),
        ] {
            if is_empty {
                found.push((field, "is empty; give a path".to_owned()));
            } else if given && !needed.contains(&field) && !allowed.contains(&field) {
                let wanted = needed.join(" and ");
                let what = format!("is not used by data.format `{name}`, which takes {wanted}");
                found.push((field, what));
            } else if !given && needed.contains(&field) {
                found.push((field, format!("is missing; data.format `{name}` needs it")));
            }
        }
        let twice = |(i, path)| self.files[..i].contains(path).then_some(path);
        if let Some(path) = self.files.iter().enumerate().find_map(twice) {
            found.push(("files", format!("names {} twice", path.display())));
        }
        if self.images.is_some() && self.images == self.labels && found.is_empty() {
            found.push(("labels", "is the same file as images".to_owned()));
        }
        found
    }
}

impl Data {
    /// What is wrong with the fields taken together, each with its path.
    pub(super) fn problems(&self) -> Vec<(String, String)> {
        let mut found = self.problems_of_files();
        let table = matches!(self.format, Format::Csv | Format::Parquet);
        let mut refuse_if = |wrong: bool, field: &str, what: &str| {
            if wrong {
                found.push((field.to_owned(), what.to_owned()));
            }
        };
        let pictures = self.pictures.unwrap_or_default();
        refuse_if(
            self.pictures.is_some() && !matches!(self.format, Format::Folder | Format::Tar),
            "data.pictures",
            "is used by data.format `folder` and `tar` only; remove it",
        );
        refuse_if(
            self.tar.is_some() && self.format != Format::Tar,
            "data.tar",
            "is used by data.format `tar` only; remove it",
        );
        refuse_if(
            self.tensors.is_some() && self.format != Format::Safetensors,
            "data.tensors",
            "is used by data.format `safetensors` only; remove it",
        );
        let tensors = self.tensors.as_ref();
        refuse_if(
            tensors.is_some_and(|names| names.images.is_some() && names.images == names.labels),
            "data.tensors.labels",
            "is the same tensor as images",
        );
        refuse_if(
            self.csv.is_some() && !table,
            "data.csv",
            "is used by data.format `csv` and `parquet` only; remove it",
        );
        refuse_if(
            self.csv.is_none() && table,
            "data.csv",
            "is missing; say which columns are used",
        );
        refuse_if(
            table && self.normalize != Normalize::default(),
            "data.normalize",
            "is not used by tables (csv, parquet); give columns `mean` and `std`",
        );
        refuse_if(
            pictures.filter.is_some() && pictures.resize.is_none(),
            "data.pictures.filter",
            "is used with data.pictures.resize only; remove it or give that",
        );
        if let Some(csv) = &self.csv {
            let problems = csv.problems().into_iter();
            found.extend(problems.map(|(field, what)| (format!("data.csv.{field}"), what)));
            if self.format == Format::Parquet {
                found.extend(csv.problems_of_parquet());
            }
        }
        found
    }

    fn problems_of_files(&self) -> Vec<(String, String)> {
        let splits = [
            ("data.train", Some(&self.train)),
            ("data.val", self.val.as_ref()),
            ("data.test", self.test.as_ref()),
        ];
        let each = splits.into_iter().filter_map(|(path, split)| Some((path, split?)));
        each.flat_map(|(path, split)| {
            let problems = split.problems(self.format).into_iter();
            problems.map(move |(field, what)| (format!("{path}.{field}"), what))
        })
        .collect()
    }
}

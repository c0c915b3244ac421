//! Raw material becomes parts to train on: cleaned, without duplicates, split, counted.
//!
//! | file | holds |
//! |---|---|
//! | [`pictures`] | folders of pictures, class = folder |
//! | [`table`] | CSV files with a column of labels |
//! | [`text`] | documents |
//! | [`plan`] | what is kept, what is removed and why, which sample is in which part |
//! | [`near`] | groups of pictures that look alike |
//! | [`shard`] | a file of samples, with hash and statistics |
//!
//! Every step is a function of the sources and the options alone: which rank looks at which item, and
//! how often the work was interrupted, is in no result.

pub mod near;
pub mod pictures;
pub mod plan;
pub mod shard;
pub mod table;
pub mod text;

use crate::error::{Error, Result};
use pictures::Pictures;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use table::Table;

/// Items looked at between two notes of how far the work is.
pub const CHUNK: usize = 512;

/// What becomes of a cell with nothing in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Missing {
    /// The row is removed.
    Drop,
    /// The mean of the column's training part stands there; a category has one of its own.
    Fill,
}

/// What is wished for.
#[derive(Debug, Clone, Serialize)]
pub struct Options {
    /// Of the split.
    pub seed: u64,
    /// Shares of training, validation and test.
    pub split: [f64; 3],
    /// Rows and columns that pictures are scaled to; else those of another size than most are removed.
    pub resize: Option<[u32; 2]>,
    /// One channel instead of three.
    pub grey: bool,
    /// Bits in which the perceptual hashes of pictures that look alike may differ.
    pub near: u32,
    /// Only the first of pictures that look alike is kept; else they stay in one part.
    pub drop_near: bool,
    /// For tables.
    pub missing: Missing,
    /// The column of labels.
    pub label: String,
    /// Columns that are left out.
    pub ignore: Vec<String>,
    /// The column of which rows with the same value stay in one part; it is no feature.
    pub group: Option<String>,
    /// The column by which the split goes: the latest rows are for test, those before them for validation.
    pub time: Option<String>,
    /// Samples of a file.
    pub shard: usize,
}

impl Options {
    /// Refuses what is for pictures or tables.
    ///
    /// # Errors
    /// [`Error::Usage`] with the first that was given.
    pub fn refuse_for_text(&self) -> Result<()> {
        self.suit(true).and_then(|()| self.suit(false)).map_err(|_| {
            Error::Usage(
                "--resize, --grey and --drop-near are for pictures, --ignore, --group and --time for \
                 tables, and the sources are text; leave them out"
                    .to_owned(),
            )
        })
    }

    /// Refuses what is for the other kind of sources.
    fn suit(&self, pictures: bool) -> Result<()> {
        let others: &[(bool, &str)] = if pictures {
            &[
                (!self.ignore.is_empty(), "--ignore"),
                (self.group.is_some(), "--group"),
                (self.time.is_some(), "--time"),
            ]
        } else {
            &[
                (self.resize.is_some(), "--resize"),
                (self.grey, "--grey"),
                (self.drop_near, "--drop-near"),
            ]
        };
        let Some((_, name)) = others.iter().find(|(given, _)| *given) else { return Ok(()) };
        let (is, are) = if pictures { ("tables", "pictures") } else { ("pictures", "tables") };
        Err(Error::Usage(format!("{name} is for {is}, and the sources are {are}; leave it out")))
    }
}

/// What was found when an item was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Hash of what the sample is made of, labels aside; empty when it could not be read.
    pub hash: String,
    /// Perceptual hash of a picture.
    pub look: Option<u64>,
    /// The name of its class.
    pub class: String,
    /// Rows and columns of a picture.
    pub size: [usize; 2],
    /// What it must not be parted from: the value that others have, too.
    pub group: Option<String>,
    /// When it was, where the split goes by time.
    pub time: Option<String>,
    /// Why it cannot be used.
    pub refused: Option<String>,
}

impl Record {
    /// Of an item that cannot be used.
    fn refused(class: &str, why: impl Into<String>) -> Record {
        Record { refused: Some(why.into()), ..Record::of(String::new(), class) }
    }

    /// Of an item with this content.
    fn of(hash: String, class: &str) -> Record {
        let class = class.to_owned();
        Record { hash, look: None, class, size: [0, 0], group: None, time: None, refused: None }
    }
}

/// The sources, opened.
#[derive(Debug)]
pub enum Material {
    /// Folders.
    Pictures(Pictures),
    /// CSV files.
    Table(Table),
}

impl Material {
    /// Opens folders of pictures, or CSV files.
    ///
    /// # Errors
    /// [`Error::NoInput`] if a source is missing; [`Error::Usage`] if folders and files are mixed;
    /// [`Error::Data`] if one holds nothing that can be prepared.
    pub fn open(sources: &[PathBuf], options: &Options) -> Result<Material> {
        let mut folders = 0;
        for path in sources {
            let about = std::fs::metadata(path).map_err(|e| Error::reading(path, &e))?;
            folders += usize::from(about.is_dir());
        }
        options.suit(folders > 0)?;
        match folders {
            0 => Ok(Material::Table(Table::open(sources, options)?)),
            n if n == sources.len() => Ok(Material::Pictures(Pictures::open(sources, options)?)),
            _ => Err(Error::Usage(
                "sources are folders of pictures or CSV files, not both; prepare them one by one"
                    .to_owned(),
            )),
        }
    }

    /// Number of items.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Material::Pictures(pictures) => pictures.count(),
            Material::Table(table) => table.count(),
        }
    }

    /// Whether there is no item.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where item `i` is: a file, or a line of one.
    #[must_use]
    pub fn name(&self, i: usize) -> String {
        match self {
            Material::Pictures(pictures) => pictures.name(i),
            Material::Table(table) => table.name(i),
        }
    }

    /// Looks at item `i`.
    #[must_use]
    pub fn examine(&self, i: usize) -> Record {
        match self {
            Material::Pictures(pictures) => pictures.examine(i),
            Material::Table(table) => table.examine(i),
        }
    }

    /// A hash of what the sources are, as far as can be told without reading all of them, and of the
    /// options: work of another key is not gone on with.
    ///
    /// # Errors
    /// When a file has gone.
    pub fn key(&self, options: &Options) -> Result<String> {
        let mut hash = blake3::Hasher::new();
        let options = serde_json::to_vec(options)
            .map_err(|e| Error::Internal(format!("options as JSON: {e}")))?;
        hash.update(&options);
        match self {
            Material::Pictures(pictures) => pictures.sign(&mut hash)?,
            Material::Table(table) => table.sign(&mut hash),
        }
        Ok(hash.finalize().to_hex().to_string())
    }
}

/// The last part of a source's path, by which reports name it.
fn short(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

//! Raw material becomes parts to train on: cleaned, without duplicates, split, counted.
//!
//! | file | holds |
//! |---|---|
//! | [`pictures`] | folders of pictures, class = folder |
//! | [`table`] | CSV files with a column of labels: a way of their own, for many small items |
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

use crate::config::Prepare;
use crate::error::{Error, Result};
use pictures::Pictures;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Items looked at between two notes of how far the work is.
pub const CHUNK: usize = 512;

/// Whether the sources are folders of pictures; else they are CSV files.
///
/// # Errors
/// [`Error::NoInput`] if one is missing; [`Error::Usage`] if folders and files are mixed.
pub fn are_pictures(sources: &[PathBuf]) -> Result<bool> {
    let mut folders = 0;
    for path in sources {
        let about = std::fs::metadata(path).map_err(|e| Error::reading(path, &e))?;
        folders += usize::from(about.is_dir());
    }
    match folders {
        0 => Ok(false),
        n if n == sources.len() => Ok(true),
        _ => Err(Error::Usage(
            "sources are folders of pictures or CSV files, not both; prepare them one by one"
                .to_owned(),
        )),
    }
}

/// Refuses what is for the other kind of sources.
///
/// # Errors
/// [`Error::Config`] with the section that is.
pub fn suit(wishes: &Prepare, pictures: bool) -> Result<()> {
    let (other, field, are) = match pictures {
        true => (wishes.table.is_some(), "table", "pictures"),
        false => (wishes.pictures.is_some(), "pictures", "tables"),
    };
    match other {
        false => Ok(()),
        true => Err(Error::Config(format!(
            "prepare.{field}: the sources are {are}; remove the section, or name other sources"
        ))),
    }
}

/// Refuses what is for pictures or tables, where the sources are text.
///
/// # Errors
/// [`Error::Config`] with the section that is.
pub fn suit_text(wishes: &Prepare) -> Result<()> {
    let given = [("pictures", wishes.pictures.is_some()), ("table", wishes.table.is_some())];
    match given.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((field, _)) => Err(Error::Config(format!(
            "prepare.{field}: the sources are text; remove the section, or name other sources"
        ))),
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
        Record { hash, look: None, class, size: [0, 0], refused: None }
    }
}

/// The sources, opened.
#[derive(Debug)]
pub enum Material {
    /// Folders.
    Pictures(Pictures),
}

impl Material {
    /// Opens folders of pictures.
    ///
    /// # Errors
    /// When a folder cannot be read; [`Error::Data`] if there are no files.
    pub fn open(wishes: &Prepare) -> Result<Material> {
        Ok(Material::Pictures(Pictures::open(wishes)?))
    }

    /// Number of items.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Material::Pictures(pictures) => pictures.count(),
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
        }
    }

    /// Looks at item `i`.
    #[must_use]
    pub fn examine(&self, i: usize) -> Record {
        match self {
            Material::Pictures(pictures) => pictures.examine(i),
        }
    }

    /// A hash of what the sources are, as far as can be told without reading all of them, and of the
    /// wishes: work of another key is not gone on with.
    ///
    /// # Errors
    /// When a file has gone.
    pub fn key(&self, wishes: &Prepare) -> Result<String> {
        let mut hash = blake3::Hasher::new();
        hash.update(&serde_json::to_vec(&options(wishes)).unwrap_or_default());
        match self {
            Material::Pictures(pictures) => pictures.sign(&mut hash)?,
        }
        Ok(hash.finalize().to_hex().to_string())
    }
}

/// The wishes without places: moved sources and another folder make the same files.
#[must_use]
pub fn options(wishes: &Prepare) -> Prepare {
    Prepare { sources: Vec::new(), out: None, ..wishes.clone() }
}

/// The last part of a source's path, by which reports name it.
fn short(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

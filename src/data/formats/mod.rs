//! Readers of common data formats, each a file of the same shape: the format in its head, a type that
//! implements [`Dataset`](super::Dataset), `open`.
//!
//! | file | holds |
//! |---|---|
//! | [`cifar`] | CIFAR-10 and CIFAR-100, the binary versions |
//! | [`npy`] | the header of NumPy's array files |
//! | [`tensors`] | safetensors files |
//! | [`arrays`] | samples in one array and labels in another, read row by row |
//! | [`folder`], [`picture`] | folders of PNG and JPEG pictures; one picture |
//! | [`shards`], [`archive`] | pictures and labels in tar archives; the members of one |
//! | [`table`], [`columns`], [`rows`] | CSV files; what the cells of a row become; one row after another |
//! | [`text`] | text and files of tokens, window by window |
//! | `parquet` | Apache Parquet files (cargo feature `parquet`) |
//! | [`store`] | rows in memory or in a temporary file |
//! | [`names`] | labels and categories that are names |
//! | [`source`] | an open file whose samples are read from their places |

pub mod archive;
pub mod arrays;
pub mod cifar;
pub mod columns;
pub mod folder;
pub mod names;
pub mod npy;
#[cfg(feature = "parquet")]
pub mod parquet;
pub mod picture;
pub mod rows;
pub mod shards;
pub mod source;
pub mod store;
pub mod table;
pub mod tensors;
pub mod text;

use super::{ImageSet, SharedDataset, limits};
use crate::config::{Data, Format, Split};
use crate::error::{Error, Result};
use std::path::Path;
use std::sync::Arc;
use text::{Share, TextSet};

/// Opens one part of the data set of a card.
///
/// # Errors
/// As the reader of the format.
pub(super) fn open(card: &Data, split: &Split, limit: Option<usize>) -> Result<SharedDataset> {
    let cifar = |labels| -> Result<SharedDataset> {
        let set = cifar::Cifar::open(&split.files, labels, card.classes, card.normalize, limit)?;
        Ok(Arc::new(set))
    };
    Ok(match card.format {
        Format::Idx => Arc::new(ImageSet::open(pair(split)?, card.classes, card.normalize, limit)?),
        Format::Cifar10 => cifar(cifar::Labels::Only)?,
        Format::Cifar100 => cifar(cifar::Labels::Fine)?,
        Format::Cifar100Coarse => cifar(cifar::Labels::Coarse)?,
        Format::Csv => Arc::new(table::Table::open(card, split, limit, limits::TABLE_MEMORY)?),
        Format::Parquet => open_parquet(card, split, limit)?,
        Format::Folder => Arc::new(folder::Folder::open(card, split, limit)?),
        Format::Tar => Arc::new(shards::Shards::open(card, split, limit)?),
        Format::Text | Format::Tokens => {
            // Windows to train on may overlap.
            let share = if std::ptr::eq(split, &card.train) { Share::Train } else { Share::Test };
            Arc::new(TextSet::open(card, &split.files, share, limit)?)
        }
        Format::Safetensors => Arc::new(tensors::TensorSet::open(card, split, limit)?),
        Format::Npy => {
            let [x, y] = pair(split)?.map(npy::open);
            Arc::new(arrays::ArraySet::open(x?, &y?, card.classes, card.normalize, limit)?)
        }
    })
}

#[cfg(feature = "parquet")]
fn open_parquet(card: &Data, split: &Split, limit: Option<usize>) -> Result<SharedDataset> {
    Ok(Arc::new(parquet::ParquetSet::open(card, split, limit, limits::TABLE_MEMORY)?))
}

#[cfg(feature = "parquet")]
use parquet::scan as scan_parquet;

#[cfg(not(feature = "parquet"))]
fn open_parquet(_: &Data, _: &Split, _: Option<usize>) -> Result<SharedDataset> {
    Err(without_parquet())
}

#[cfg(not(feature = "parquet"))]
fn scan_parquet(_: &Path, _: &[String], _: columns::Visit) -> Result<()> {
    Err(without_parquet())
}

#[cfg(not(feature = "parquet"))]
fn without_parquet() -> Error {
    Error::Config(
        "data.format: this program was built without `parquet`; build it with --features parquet"
            .to_owned(),
    )
}

/// Opens the share of the training text that is held out for evaluation.
///
/// # Errors
/// As the reader of the format.
pub(super) fn open_held_out(card: &Data) -> Result<SharedDataset> {
    Ok(Arc::new(TextSet::open(card, &card.train.files, Share::HeldOut, card.test_limit)?))
}

/// The files of samples and labels. A checked card has them.
fn pair(split: &Split) -> Result<[&Path; 2]> {
    Ok([given(split.images.as_ref(), "images")?, given(split.labels.as_ref(), "labels")?])
}

fn given<'a, T>(value: Option<&'a T>, field: &str) -> Result<&'a T> {
    value.ok_or_else(|| Error::Config(format!("{field}: is missing")))
}

/// The label of sample `index`, if there is one and its memory has the right size.
fn label_of<T: Copy + Into<u32>>(labels: &[T], index: usize, fits: bool) -> Result<u32> {
    match labels.get(index) {
        Some(&label) if fits => Ok(label.into()),
        _ => Err(no_sample(index, labels.len())),
    }
}

fn no_sample(index: usize, samples: usize) -> Error {
    Error::Internal(format!("sample {index} of {samples} asked for, or in memory of another size"))
}

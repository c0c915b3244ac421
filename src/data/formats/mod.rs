//! Readers of common data formats, each a file of the same shape: the format in its head, a type that
//! implements [`Dataset`](super::Dataset), `open`.
//!
//! | file | holds |
//! |---|---|
//! | [`cifar`] | CIFAR-10 and CIFAR-100, the binary versions |
//! | [`npy`] | the header of NumPy's array files |
//! | [`arrays`] | samples in one array and labels in another, read row by row |
//! | [`source`] | an open file whose samples are read from their places |

pub mod arrays;
pub mod cifar;
pub mod npy;
pub mod source;

use super::{ImageSet, SharedDataset};
use crate::config::{Data, Format, Split};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
        Format::Npy => {
            let [x, y] = pair(split)?.map(npy::open);
            Arc::new(arrays::ArraySet::open(x?, &y?, card.classes, card.normalize, limit)?)
        }
    })
}

/// The files of samples and labels. A checked card has them.
fn pair(split: &Split) -> Result<[&Path; 2]> {
    Ok([given(split.images.as_ref(), "images")?, given(split.labels.as_ref(), "labels")?])
}

fn given<'a>(path: Option<&'a PathBuf>, field: &str) -> Result<&'a Path> {
    path.map(PathBuf::as_path).ok_or_else(|| Error::Config(format!("{field}: is missing")))
}

/// The label of sample `index`, if there is one and its memory has the right size.
fn label_of<T: Copy + Into<u32>>(labels: &[T], index: usize, fits: bool) -> Result<u32> {
    match labels.get(index) {
        Some(&label) if fits => Ok(label.into()),
        _ => Err(Error::Internal(format!(
            "sample {index} of {} asked for, or in memory of another size",
            labels.len()
        ))),
    }
}

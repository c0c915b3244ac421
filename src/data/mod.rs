//! Samples: where they come from, in which order they are used, how they reach the training loop.
//!
//! | file | holds |
//! |---|---|
//! | [`idx`] | the IDX file format, plain and gzip |
//! | [`images`] | labelled images in memory, normalised when read |
//! | [`formats`] | readers of the other formats |
//! | [`sampler`] | which samples make up which step, and whose they are |
//! | [`sampling`] | which sample is at which position of an epoch: each once, or weighted |
//! | [`cut`] | the micro-batches of each rank |
//! | [`batch`] | a batch in flat memory |
//! | [`augment`] | random changes of training images |
//! | [`prefetch`] | a thread that prepares batches ahead |
//! | `handing` | how batches get from that thread to the training loop |
//! | [`prepare`] | raw material becomes parts to train on |
//! | [`facts`] | what is in a data set, for people |
//! | [`limits`] | caps on what a file may ask for |
//!
//! To add a format: a file in [`formats`] with a type that implements [`Dataset`], a variant of
//! [`Format`](crate::config::Format), a line in `formats::open`.

pub mod augment;
pub mod batch;
pub mod cut;
pub mod facts;
pub mod formats;
mod handing;
pub mod idx;
pub mod images;
pub mod limits;
pub mod prefetch;
pub mod prepare;
pub mod sampler;
pub mod sampling;

pub use crate::util::label::IGNORED;
pub use augment::Augment;
pub use batch::Batch;
pub use cut::Cut;
pub use images::ImageSet;
pub use prefetch::{Loader, Plan as Feed};
pub use sampler::Sampler;
pub use sampling::{Draw, Sampling};

use crate::config::Data;
use crate::error::{Error, Result};
use std::sync::Arc;

/// Samples with one label each, or with several (a text has one for each of its tokens), read by index from
/// any thread.
pub trait Dataset: Send + Sync {
    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there is no sample.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shape of one sample; (channels, rows, columns) for images.
    fn sample_shape(&self) -> &[usize];

    /// Numbers in one sample: the product of its shape.
    fn sample_len(&self) -> usize {
        self.sample_shape().iter().product()
    }

    /// Number of classes; labels are below it.
    fn classes(&self) -> usize;

    /// Writes sample `index` into `out`, which has [`Dataset::sample_len`] places, and returns its
    /// label.
    ///
    /// # Errors
    /// If the sample cannot be read, or index or length are wrong.
    fn read(&self, index: usize, out: &mut [f32]) -> Result<u32>;

    /// Labels of one sample.
    fn labels_per_sample(&self) -> usize {
        1
    }

    /// Whether a label is no class but a number to predict ([`crate::util::label::number`]).
    fn predicts_numbers(&self) -> bool {
        false
    }

    /// Whether the samples of an epoch come in the order of the set, because each goes on from one before.
    fn in_order(&self) -> bool {
        false
    }

    /// How many labels of sample `index` count, the others being [`IGNORED`]: its weight in a mean.
    fn weight(&self, _index: usize) -> u64 {
        1
    }

    /// As [`Dataset::read`], with all of the sample's labels, for which `labels` has the places.
    ///
    /// # Errors
    /// As [`Dataset::read`].
    fn read_all(&self, index: usize, out: &mut [f32], labels: &mut [u32]) -> Result<()> {
        let label = self.read(index, out)?;
        labels.fill(label);
        Ok(())
    }

    /// Sample `index` as people read it, where it is text.
    ///
    /// # Errors
    /// As [`Dataset::read`].
    fn as_text(&self, _index: usize) -> Result<Option<String>> {
        Ok(None)
    }

    /// The label of sample `index` alone.
    ///
    /// # Errors
    /// As [`Dataset::read`].
    fn label(&self, index: usize) -> Result<u32> {
        self.read(index, &mut vec![0.0; self.sample_len()])
    }

    /// A hash, in hex, of all that [`Dataset::read`] can give, constants of the card aside: equal
    /// on two ranks only if they hold the same samples in the same order. Costs a pass over the
    /// data (about 1 GB/s).
    fn fingerprint(&self) -> String;
}

/// A data set that threads can share.
pub type SharedDataset = Arc<dyn Dataset>;

/// Opens the training samples of a card and, if it names any, those to evaluate on while training: the
/// validation samples, else the test samples.
///
/// # Errors
/// As the reader of the format, beginning with the field of the card; also [`Error::Data`] if training
/// and test samples differ in shape.
pub fn open(card: &Data) -> Result<(SharedDataset, Option<SharedDataset>)> {
    let open = |field, split, limit| {
        formats::open(card, split, limit).map_err(|e| e.context(format!("data.{field}")))
    };
    let train = open("train", &card.train, card.train_limit)?;
    let holdout = card.text.as_ref().and_then(|text| text.holdout);
    let (name, test) = match (&card.val, &card.test, holdout) {
        (Some(split), ..) => ("val", open("val", split, card.test_limit)?),
        (None, Some(split), _) => ("test", open("test", split, card.test_limit)?),
        (None, None, Some(_)) => {
            ("train", formats::open_held_out(card).map_err(|e| e.context("data.train"))?)
        }
        (None, None, None) => return Ok((train, None)),
    };
    if train.sample_shape() != test.sample_shape() {
        return Err(Error::Data(format!(
            "data.{name}: has samples of shape {:?}, data.train of shape {:?}; they must agree",
            test.sample_shape(),
            train.sample_shape()
        )));
    }
    Ok((train, Some(test)))
}

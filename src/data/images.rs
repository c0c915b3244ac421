//! Images with one label each, from a pair of IDX files.
//!
//! Pixels stay bytes in memory (47 MB for MNIST where floats would take 188 MB); a table of 256
//! entries turns a pixel into its normalised value while a batch is filled.

use super::{Dataset, idx};
use crate::config::Normalize;
use crate::error::{Error, Result};
use std::path::Path;

/// Labelled images of one size.
#[derive(Debug)]
pub struct ImageSet {
    /// (samples, channels, rows, columns), row by row.
    pixels: Vec<u8>,
    labels: Vec<u8>,
    /// Channels, rows, columns.
    shape: [usize; 3],
    classes: usize,
    /// The normalised value of each pixel value.
    table: [f32; 256],
}

impl ImageSet {
    /// Reads the files of images and labels and checks that they belong together. With a `limit`,
    /// only the first `limit` samples are used; a limit above what is there means all of them.
    ///
    /// # Errors
    /// As [`idx::read`]; also [`Error::Data`] if there are no samples, the counts differ, a label
    /// is not below `classes`, or the files have the wrong number of dimensions.
    pub fn open(
        [images, labels]: [&Path; 2],
        classes: usize,
        normalize: Normalize,
        limit: Option<usize>,
    ) -> Result<ImageSet> {
        let paths = [images, labels];
        let images = idx::read(images)?;
        let shape = image_shape(&images.dims, paths[0])?;
        let labels = idx::read(labels)?;
        let samples = images.dims[0];
        check_labels(&labels, samples, classes, paths)?;
        let used = limit.unwrap_or(samples).min(samples);
        let (mut pixels, mut labels) = (images.bytes, labels.bytes);
        pixels.truncate(used * shape.iter().product::<usize>());
        pixels.shrink_to_fit();
        labels.truncate(used);
        Ok(ImageSet { pixels, labels, shape, classes, table: table(normalize) })
    }

    /// The label of each sample.
    #[must_use]
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }
}

impl Dataset for ImageSet {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn sample_shape(&self) -> &[usize] {
        &self.shape
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn read(&self, index: usize, out: &mut [f32]) -> Result<u32> {
        let size = self.sample_len();
        let (Some(&label), true) = (self.labels.get(index), out.len() == size) else {
            return Err(Error::Internal(format!(
                "sample {index} of {} asked for in {} numbers; it has {size}",
                self.len(),
                out.len()
            )));
        };
        let pixels = &self.pixels[index * size..][..size];
        for (value, &pixel) in out.iter_mut().zip(pixels) {
            *value = self.table[usize::from(pixel)];
        }
        Ok(u32::from(label))
    }

    fn label(&self, index: usize) -> Result<u32> {
        self.labels.get(index).map(|&label| label.into()).ok_or_else(|| {
            Error::Internal(format!("the label of sample {index} of {} asked for", self.len()))
        })
    }

    fn fingerprint(&self) -> String {
        let mut hash = blake3::Hasher::new();
        for n in [self.len()].iter().chain(&self.shape) {
            hash.update(&(*n as u64).to_le_bytes());
        }
        hash.update(&self.pixels).update(&self.labels);
        hash.finalize().to_hex().to_string()
    }
}

/// The normalised value of each pixel value.
pub(super) fn table(normalize: Normalize) -> [f32; 256] {
    std::array::from_fn(|p| (p as f32 / 255.0 - normalize.mean) / normalize.std)
}

/// Channels, rows and columns of one image.
fn image_shape(dims: &[usize], path: &Path) -> Result<[usize; 3]> {
    let shown = path.display();
    let (samples, shape) = match *dims {
        [n, rows, columns] => (n, [1, rows, columns]),
        [n, channels, rows, columns] => (n, [channels, rows, columns]),
        _ => {
            let hint = if dims.len() == 1 { "; is it the file of labels?" } else { "" };
            return Err(Error::Data(format!(
                "{shown}: has {} dimension(s); images have 3 (samples, rows, columns) or 4 \
                 (samples, channels, rows, columns){hint}",
                dims.len()
            )));
        }
    };
    if samples == 0 {
        return Err(Error::Data(format!("{shown}: holds zero images (bytes 4..8)")));
    }
    if shape.contains(&0) {
        return Err(Error::Data(format!("{shown}: its images have no pixels: {shape:?}")));
    }
    Ok(shape)
}

/// One label for each of `samples` images, each below `classes`.
fn check_labels(
    labels: &idx::Idx,
    samples: usize,
    classes: usize,
    [images, path]: [&Path; 2],
) -> Result<()> {
    let shown = path.display();
    let [count] = *labels.dims else {
        return Err(Error::Data(format!(
            "{shown}: has {} dimensions; labels have 1 (samples); is it the file of images?",
            labels.dims.len()
        )));
    };
    if count != samples {
        return Err(Error::Data(format!(
            "{shown}: has {count} labels, but {} has {samples} images; they do not belong together",
            images.display()
        )));
    }
    match labels.bytes.iter().position(|&label| usize::from(label) >= classes) {
        None => Ok(()),
        Some(i) => Err(Error::Data(format!(
            "{shown}: label {} of sample {i} (byte {}) is not below data.classes, {classes}",
            labels.bytes[i],
            8 + i
        ))),
    }
}

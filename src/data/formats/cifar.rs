//! The binary versions of CIFAR-10 and CIFAR-100 (A. Krizhevsky, "Learning Multiple Layers of Features
//! from Tiny Images", 2009).
//!
//! ```text
//!   CIFAR-10     label         1024 red  1024 green  1024 blue      3073 bytes a sample, row by row
//!   CIFAR-100    coarse  fine  1024 red  1024 green  1024 blue      3074
//! ```
//!
//! There is no header: a file is one sample after another. One pass when the files are opened checks the
//! labels and hashes everything; pixels stay in the files until a sample is used.

use super::source::Source;
use crate::config::Normalize;
use crate::data::{Dataset, images};
use crate::error::{Error, Result};
use std::path::PathBuf;

/// Channels, rows, columns.
const SHAPE: [usize; 3] = [3, 32, 32];
const PIXELS: usize = 3 * 32 * 32;

/// Where a sample has its label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Labels {
    /// CIFAR-10: the only one.
    Only,
    /// CIFAR-100: the first of two, 20 classes.
    Coarse,
    /// CIFAR-100: the second of two, 100 classes.
    Fine,
}

impl Labels {
    /// Labels in each sample, the place of the one that is used, and the classes that there are.
    fn layout(self) -> (usize, usize, usize) {
        match self {
            Labels::Only => (1, 0, 10),
            Labels::Coarse => (2, 0, 20),
            Labels::Fine => (2, 1, 100),
        }
    }
}

/// Samples of CIFAR files.
#[derive(Debug)]
pub struct Cifar {
    /// Each with the number of samples in the files before it.
    files: Vec<(usize, Source)>,
    labels: Vec<u8>,
    /// Labels before the pixels of each sample.
    before: usize,
    classes: usize,
    table: [f32; 256],
    fingerprint: String,
}

impl Cifar {
    /// Opens `paths`, one after another, and checks sizes and labels. With a `limit`, only the first
    /// `limit` samples are used.
    ///
    /// # Errors
    /// [`Error::NoInput`] if a file is missing; [`Error::Data`] if its size is not a whole number of
    /// samples, or a label is too large; [`Error::Config`] if `classes` is another number than the format's.
    pub fn open(
        paths: &[PathBuf],
        kind: Labels,
        classes: usize,
        normalize: Normalize,
        limit: Option<usize>,
    ) -> Result<Cifar> {
        let (before, place, known) = kind.layout();
        if classes != known {
            return Err(Error::Config(format!(
                "data.classes: is {classes}; this format has {known} classes"
            )));
        }
        let (table, fingerprint) = (images::table(normalize), String::new());
        let (files, labels) = (Vec::new(), Vec::new());
        let mut set = Cifar { files, labels, before, classes, table, fingerprint };
        let mut hash = blake3::Hasher::new();
        hash.update(&[before as u8, place as u8]);
        for path in paths {
            let source = Source::open(path)?;
            let there = source.count(set.record())?;
            let used = limit.map_or(there, |limit| there.min(limit - set.len().min(limit)));
            set.take(source, used, place, &mut hash)?;
        }
        set.fingerprint = hash.finalize().to_hex().to_string();
        Ok(set)
    }

    /// Appends the first `samples` of a file, with their labels.
    fn take(
        &mut self,
        source: Source,
        samples: usize,
        place: usize,
        hash: &mut blake3::Hasher,
    ) -> Result<()> {
        let (record, first) = (self.record(), self.len());
        let bytes = source.size().min((samples as u64).saturating_mul(record as u64));
        source.pass(0..bytes, record, |bytes| {
            hash.update(bytes);
            self.labels.extend(bytes.iter().skip(place).step_by(record));
            Ok(())
        })?;
        let wrong = |&label: &u8| usize::from(label) >= self.classes;
        if let Some(i) = self.labels[first..].iter().position(wrong) {
            return Err(source.wrong(format!(
                "label {} of sample {i} (byte {}) is not below {}; is it a file of this kind?",
                self.labels[first + i],
                i * record + place,
                self.classes
            )));
        }
        self.files.push((first, source));
        Ok(())
    }

    /// Bytes of a sample.
    fn record(&self) -> usize {
        self.before + PIXELS
    }
}

impl Source {
    /// The number of CIFAR samples of `record` bytes.
    fn count(&self, record: usize) -> Result<usize> {
        self.refuse_gzip()?;
        let (samples, rest) = (self.size() / record as u64, self.size() % record as u64);
        if rest != 0 {
            let other = if record == PIXELS + 1 { PIXELS + 2 } else { PIXELS + 1 };
            let hint = match self.size() % other as u64 {
                0 if other == PIXELS + 1 => "; it would fit CIFAR-10",
                0 => "; it would fit CIFAR-100",
                _ => "; was it cut, or is it no binary version?",
            };
            return Err(self.wrong(format!(
                "has {} bytes: {samples} samples of {record} bytes and {rest} bytes over{hint}",
                self.size()
            )));
        }
        usize::try_from(samples).map_err(|_| self.wrong("has more samples than memory has places"))
    }
}

impl Dataset for Cifar {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn sample_shape(&self) -> &[usize] {
        &SHAPE
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn read(&self, index: usize, out: &mut [f32]) -> Result<u32> {
        let label = super::label_of(&self.labels, index, out.len() == PIXELS)?;
        let file = self.files.partition_point(|(first, _)| *first <= index);
        let (first, source) = &self.files[file - 1];
        let at = (index - first) * self.record() + self.before;
        source.with(at as u64, PIXELS, |pixels| {
            let values = pixels.iter().map(|&pixel| self.table[usize::from(pixel)]);
            out.iter_mut().zip(values).for_each(|(out, value)| *out = value);
            Ok(label)
        })
    }

    fn label(&self, index: usize) -> Result<u32> {
        super::label_of(&self.labels, index, true)
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

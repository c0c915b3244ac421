//! Samples in one array, labels in another: what npy and safetensors files hold.
//!
//! An array is a place in a file: rows of numbers, little-endian, one sample after another. Labels are
//! read when it is opened; a sample stays in the file until it is used, so the array may be larger than
//! memory. Unsigned bytes are taken for pixels and scaled to 0..1, other numbers are taken as they are.

use super::source::Source;
use crate::config::Normalize;
use crate::data::{Dataset, images};
use crate::error::{Error, Result};
use crate::util::allocator;

/// Types of numbers that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Unsigned bytes.
    U8,
    /// 32-bit integers.
    I32,
    /// 64-bit integers.
    I64,
    /// 32-bit floats.
    F32,
    /// 64-bit floats.
    F64,
}

impl Kind {
    /// Bytes of a number.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Kind::U8 => 1,
            Kind::I32 | Kind::F32 => 4,
            Kind::I64 | Kind::F64 => 8,
        }
    }
}

/// An array in a file.
#[derive(Debug)]
pub struct Array {
    /// What stands before a message: nothing, or "tensor \`x\`: ".
    pub name: String,
    /// The file.
    pub source: Source,
    /// The type of its numbers.
    pub kind: Kind,
    /// Its sizes, the last varying fastest.
    pub shape: Vec<u64>,
    /// Where its first number is.
    pub start: u64,
}

impl Array {
    /// Bytes that an array of `shape` takes, if they can be counted.
    #[must_use]
    pub fn bytes(kind: Kind, shape: &[u64]) -> Option<u64> {
        shape.iter().try_fold(kind.size() as u64, |product, &size| product.checked_mul(size))
    }

    /// The sizes as people read them: `60000 x 28 x 28`.
    #[must_use]
    pub fn shape_text(shape: &[u64]) -> String {
        shape.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ")
    }

    fn wrong(&self, what: impl std::fmt::Display) -> Error {
        self.source.wrong(format!("{}{what}", self.name))
    }

    /// The number of samples and the shape of one: images get a channel where they have none.
    fn samples(&self) -> Result<(usize, Vec<usize>)> {
        let text = Array::shape_text(&self.shape);
        let too_large = || self.wrong(format!("its shape {text} does not fit into memory"));
        let size = |&size: &u64| usize::try_from(size).map_err(|_| too_large());
        let (samples, shape) = match *self.shape.as_slice() {
            [n, features] => (n, vec![features]),
            [n, rows, columns] => (n, vec![1, rows, columns]),
            [n, channels, rows, columns] => (n, vec![channels, rows, columns]),
            _ => {
                let hint = if self.shape.len() == 1 { "; are these the labels?" } else { "" };
                return Err(self.wrong(format!(
                    "has shape ({text}); samples have shape (samples, features), (samples, rows, \
                     columns) or (samples, channels, rows, columns){hint}"
                )));
            }
        };
        if samples == 0 || shape.contains(&0) {
            return Err(self.wrong(format!("has shape ({text}): no numbers at all")));
        }
        Ok((size(&samples)?, shape.iter().map(size).collect::<Result<_>>()?))
    }

    /// All of a one-dimensional array of labels, each below `classes`.
    fn labels(&self, classes: usize) -> Result<Vec<u32>> {
        let [count] = *self.shape.as_slice() else {
            let text = Array::shape_text(&self.shape);
            return Err(self.wrong(format!(
                "has shape ({text}); labels have shape (samples); are these the samples?"
            )));
        };
        if matches!(self.kind, Kind::F32 | Kind::F64) {
            return Err(self.wrong("holds floats; labels are whole numbers; save them as int64"));
        }
        let mut labels = Vec::new();
        // As many as the file has been found to hold.
        allocator::may_fail(|| labels.try_reserve_exact(count as usize))
            .map_err(|_| Error::Internal(format!("{}no memory for {count} labels", self.name)))?;
        let size = self.kind.size();
        self.source.pass(self.start..self.start + count * size as u64, size, |bytes| {
            for number in bytes.chunks_exact(size) {
                let label = self.kind.whole(number);
                let fits = u32::try_from(label).ok().filter(|&l| (l as usize) < classes);
                let Some(label) = fits else {
                    return Err(self.wrong(format!(
                        "label {label} of sample {} is not one of 0 to {}; data.classes is \
                         {classes}",
                        labels.len(),
                        classes - 1
                    )));
                };
                labels.push(label);
            }
            Ok(())
        })?;
        Ok(labels)
    }
}

impl Kind {
    /// One number of a whole kind.
    fn whole(self, bytes: &[u8]) -> i64 {
        match (self, bytes) {
            (Kind::I32, &[a, b, c, d]) => i32::from_le_bytes([a, b, c, d]).into(),
            (Kind::I64, bytes) => bytes.try_into().map_or(-1, i64::from_le_bytes),
            (_, bytes) => bytes.first().copied().unwrap_or_default().into(),
        }
    }

    /// Writes the numbers of `bytes` as `f32`.
    fn floats(self, bytes: &[u8], out: &mut [f32]) {
        fn each<const N: usize>(bytes: &[u8], out: &mut [f32], f: impl Fn([u8; N]) -> f32) {
            let (numbers, _) = bytes.as_chunks::<N>();
            out.iter_mut().zip(numbers).for_each(|(out, number)| *out = f(*number));
        }
        match self {
            Kind::U8 => each(bytes, out, |[b]| f32::from(b)),
            Kind::I32 => each(bytes, out, |b| i32::from_le_bytes(b) as f32),
            Kind::I64 => each(bytes, out, |b| i64::from_le_bytes(b) as f32),
            Kind::F32 => each(bytes, out, f32::from_le_bytes),
            Kind::F64 => each(bytes, out, |b| f64::from_le_bytes(b) as f32),
        }
    }
}

/// Labelled samples of arrays.
#[derive(Debug)]
pub struct ArraySet {
    x: Array,
    labels: Vec<u32>,
    shape: Vec<usize>,
    classes: usize,
    normalize: Normalize,
    /// The normalised value of each byte.
    table: [f32; 256],
    fingerprint: String,
}

impl ArraySet {
    /// Checks that samples `x` and labels `y` belong together, and hashes both. With a `limit`, only
    /// the first `limit` samples are used.
    ///
    /// # Errors
    /// [`Error::Data`] if shapes or types are wrong, the counts differ, or a label is not below
    /// `classes`.
    pub fn open(
        x: Array,
        y: &Array,
        classes: usize,
        normalize: Normalize,
        limit: Option<usize>,
    ) -> Result<ArraySet> {
        let (samples, shape) = x.samples()?;
        let mut labels = y.labels(classes)?;
        if labels.len() != samples {
            return Err(y.wrong(format!(
                "has {} labels, but {}{} has {samples} samples; they do not belong together",
                labels.len(),
                x.source.path().display(),
                if x.name.is_empty() {
                    String::new()
                } else {
                    format!(": {}", x.name.trim_end_matches(": "))
                },
            )));
        }
        labels.truncate(limit.unwrap_or(samples));
        let table = images::table(normalize);
        let fingerprint = String::new();
        let mut set = ArraySet { x, labels, shape, classes, normalize, table, fingerprint };
        set.fingerprint = set.hash()?;
        Ok(set)
    }

    fn hash(&self) -> Result<String> {
        let mut hash = blake3::Hasher::new();
        hash.update(format!("{:?} {:?} {}", self.x.kind, self.shape, self.labels.len()).as_bytes());
        hash.update(bytemuck::cast_slice(&self.labels));
        let end = self.x.start + (self.labels.len() * self.row()) as u64;
        self.x.source.pass(self.x.start..end, self.x.kind.size(), |bytes| {
            hash.update(bytes);
            Ok(())
        })?;
        Ok(hash.finalize().to_hex().to_string())
    }

    /// The type of the numbers.
    pub fn kind(&self) -> Kind {
        self.x.kind
    }

    /// A data error about the samples.
    pub fn wrong(&self, what: impl std::fmt::Display) -> Error {
        self.x.wrong(what)
    }

    /// Bytes of a sample.
    fn row(&self) -> usize {
        self.sample_len() * self.x.kind.size()
    }
}

impl Dataset for ArraySet {
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
        let label = super::label_of(&self.labels, index, out.len() == self.sample_len())?;
        let at = self.x.start + (index * self.row()) as u64;
        self.x.source.with(at, self.row(), |bytes| {
            let Normalize { mean, std } = self.normalize;
            if self.x.kind == Kind::U8 {
                let values = bytes.iter().map(|&b| self.table[usize::from(b)]);
                out.iter_mut().zip(values).for_each(|(out, value)| *out = value);
                return Ok(label);
            }
            self.x.kind.floats(bytes, out);
            out.iter_mut().for_each(|v| *v = (*v - mean) / std);
            match out.iter().position(|v| !v.is_finite()) {
                None => Ok(label),
                Some(i) => Err(self.x.wrong(format!(
                    "number {i} of sample {index} (byte {}) is {} once normalised; numbers must be \
                     finite and fit 32 bits",
                    at + (i * self.x.kind.size()) as u64,
                    out[i]
                ))),
            }
        })
    }

    fn label(&self, index: usize) -> Result<u32> {
        super::label_of(&self.labels, index, true)
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

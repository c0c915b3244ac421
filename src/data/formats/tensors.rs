//! Safetensors files (github.com/huggingface/safetensors) with samples in one tensor and labels in another.
//!
//! ```text
//!   train.safetensors:   images  U8   60000 x 28 x 28        or x, y, or the names that the card gives
//!                        labels  I64  60000
//! ```
//!
//! What the header declares is compared with the size of the file; numbers are read row by row when a sample is
//! used. Several files follow one another.

use super::arrays::{Array, ArraySet, Kind};
use super::source::Source;
use crate::config::{Data, Split, Tensors};
use crate::data::Dataset;
use crate::error::Result;
use crate::util::tensor_header::{self, Entry};
use std::path::Path;

/// Samples of safetensors files.
#[derive(Debug)]
pub struct TensorSet {
    /// Each with the number of samples in the files before it.
    parts: Vec<(usize, ArraySet)>,
    samples: usize,
    fingerprint: String,
}

impl TensorSet {
    /// Opens one part of a card's data set. With a `limit`, only the first `limit` samples are used.
    ///
    /// # Errors
    /// [`NoInput`](crate::error::Error::NoInput) if a file is missing;
    /// [`Data`](crate::error::Error::Data) if one is no safetensors file, has not the tensors that the card names, or has samples of another shape or type than the first; else as
    /// [`ArraySet::open`].
    pub fn open(card: &Data, split: &Split, limit: Option<usize>) -> Result<TensorSet> {
        let wanted = card.tensors.clone().unwrap_or_default();
        let (parts, fingerprint) = (Vec::new(), String::new());
        let mut set = TensorSet { parts, samples: 0, fingerprint };
        let mut hash = blake3::Hasher::new();
        let limit = limit.unwrap_or(usize::MAX);
        for path in &split.files {
            if set.samples == limit {
                break;
            }
            let [x, y] = pair(path, &wanted)?;
            let left = Some(limit - set.samples);
            let part = ArraySet::open(x, &y, card.classes, card.normalize, left)?;
            set.fits(&part)?;
            hash.update(part.fingerprint().as_bytes());
            let first = set.samples;
            set.samples += part.len();
            set.parts.push((first, part));
        }
        set.fingerprint = hash.finalize().to_hex().to_string();
        Ok(set)
    }

    /// Whether a file has samples like those of the first.
    fn fits(&self, part: &ArraySet) -> Result<()> {
        let Some((_, first)) = self.parts.first() else { return Ok(()) };
        if part.sample_shape() == first.sample_shape() && part.kind() == first.kind() {
            return Ok(());
        }
        Err(part.wrong(format!(
            "has samples of shape {:?} and type {:?}; in the first file they are {:?} and {:?}",
            part.sample_shape(),
            part.kind(),
            first.sample_shape(),
            first.kind()
        )))
    }

    /// The file that has a sample, and the sample's place in it.
    fn place(&self, index: usize) -> Result<(&ArraySet, usize)> {
        let part = self.parts.partition_point(|(first, _)| *first <= index);
        match self.parts.get(part.wrapping_sub(1)) {
            Some((first, set)) if index < self.samples => Ok((set, index - first)),
            _ => Err(super::no_sample(index, self.samples)),
        }
    }
}

impl Dataset for TensorSet {
    fn len(&self) -> usize {
        self.samples
    }

    fn sample_shape(&self) -> &[usize] {
        self.parts.first().map_or(&[], |(_, first)| first.sample_shape())
    }

    fn classes(&self) -> usize {
        self.parts.first().map_or(0, |(_, first)| first.classes())
    }

    fn read(&self, index: usize, out: &mut [f32]) -> Result<u32> {
        let (set, index) = self.place(index)?;
        set.read(index, out)
    }

    fn label(&self, index: usize) -> Result<u32> {
        let (set, index) = self.place(index)?;
        set.label(index)
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

/// The tensors of samples and labels in a file.
fn pair(path: &Path, wanted: &Tensors) -> Result<[Array; 2]> {
    let source = Source::open(path)?;
    let (entries, start) = header(&source)?;
    let images = find(&entries, wanted.images.as_deref(), ["images", "x"], "images");
    let labels = find(&entries, wanted.labels.as_deref(), ["labels", "y"], "labels");
    let [images, labels] = [images, labels].map(|found| found.map_err(|what| source.wrong(what)));
    Ok([array(Source::open(path)?, images?, start)?, array(source, labels?, start)?])
}

/// The tensors of a file, and where the values begin.
fn header(source: &Source) -> Result<(Vec<Entry>, u64)> {
    let mut length = [0; 8];
    if source.size() < 8 {
        let size = source.size();
        return Err(source.wrong(format!("not a safetensors file: {size} bytes long")));
    }
    source.read_at(0, &mut length)?;
    let wrong = |what| source.wrong(what);
    let length = tensor_header::length(length, source.size()).map_err(wrong)?;
    let mut header = vec![0; length as usize];
    source.read_at(8, &mut header)?;
    let start = 8 + length;
    let types = tensor_header::ALL_TYPES;
    let entries = tensor_header::entries(&header, source.size() - start, types).map_err(wrong)?;
    Ok((entries, start))
}

/// The tensor of the `wanted` name, or of one of two usual names.
fn find<'a>(
    entries: &'a [Entry],
    wanted: Option<&str>,
    usual: [&str; 2],
    field: &str,
) -> std::result::Result<&'a Entry, String> {
    let of_name = |name: &str| entries.iter().find(|entry| entry.name == name);
    let there = || {
        let names: Vec<_> = entries.iter().map(|entry| entry.name.clone()).collect();
        let names = super::names::list(&names);
        if names.is_empty() { "it has none".to_owned() } else { format!("it has: {names}") }
    };
    let [one, other] = usual;
    match (wanted, of_name(one), of_name(other)) {
        (Some(name), ..) => of_name(name).ok_or_else(|| {
            format!("has no tensor `{name}`, which data.tensors.{field} names; {}", there())
        }),
        (None, Some(found), None) | (None, None, Some(found)) => Ok(found),
        (None, Some(_), Some(_)) => Err(format!(
            "has tensors `{one}` and `{other}`; name the one to use in data.tensors.{field}"
        )),
        (None, None, None) => Err(format!(
            "has no tensor `{one}` or `{other}`; name the one to use in data.tensors.{field}; {}",
            there()
        )),
    }
}

/// A tensor as an array in its file.
fn array(source: Source, entry: &Entry, start: u64) -> Result<Array> {
    let name = format!("tensor `{}`: ", entry.name.escape_debug());
    let kind = match entry.dtype.as_str() {
        "U8" => Kind::U8,
        "I32" => Kind::I32,
        "I64" => Kind::I64,
        "F32" => Kind::F32,
        "F64" => Kind::F64,
        other => {
            return Err(source.wrong(format!(
                "{name}holds numbers of type {other}; read are U8, I32, I64, F32 and F64; convert it"
            )));
        }
    };
    // The header was seen to fit the file, so the sum is below its size.
    Ok(Array { name, source, kind, shape: entry.shape.clone(), start: start + entry.begin })
}

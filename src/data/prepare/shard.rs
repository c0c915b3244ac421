//! A file of samples, as the reader of safetensors takes it: tensors `images` and `labels`.

use super::Material;
use super::pictures::Pictures;
use super::plan::{PARTS, Plan};
use crate::config::Prepare;
use crate::data::limits;
use crate::error::{Error, Result};
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// What is known of a written file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Written {
    /// Its name.
    pub file: String,
    /// Hash of its bytes.
    pub blake3: String,
    /// Its samples.
    pub samples: usize,
    /// Of each channel of pictures: sum of the bytes, and of their squares; exact.
    pub sums: Vec<[u64; 2]>,
}

/// The files to write, each with its part and its samples in the part.
#[must_use]
pub fn list(plan: &Plan, options: &Prepare) -> Vec<(usize, Range<usize>)> {
    let mut shards = Vec::new();
    for (part, samples) in plan.parts.iter().enumerate() {
        for start in (0..samples.len()).step_by(options.shard) {
            shards.push((part, start..samples.len().min(start + options.shard)));
        }
    }
    shards
}

/// The name of the file that begins with sample `start` of a part.
#[must_use]
pub fn name(part: usize, start: usize, options: &Prepare) -> String {
    format!("{}-{:05}.safetensors", PARTS[part], start / options.shard)
}

/// The bytes of a file of pictures, and what is known of it.
///
/// # Errors
/// [`Error::Data`] if a picture has changed since it was looked at, or the file would be too large.
pub fn make(
    material: &Material,
    plan: &Plan,
    file: String,
    samples: &[(usize, u32)],
) -> Result<(Vec<u8>, Written)> {
    let Material::Pictures(pictures) = material;
    let (bytes, sums) = planes(pictures, plan.size, samples)?;
    let [rows, columns] = plan.size;
    let shape = vec![samples.len(), pictures.channels(), rows, columns];
    let labels: Vec<u32> = samples.iter().map(|&(_, label)| label).collect();
    let (whole, written) = pack(file, Dtype::U8, shape, &bytes, &labels)?;
    Ok((whole, Written { sums, ..written }))
}

/// The bytes of a file of rows of numbers, and what is known of it.
///
/// # Errors
/// [`Error::Internal`] if the shape is not that of the values.
pub fn pack_numbers(
    file: String,
    shape: Vec<usize>,
    values: &[f32],
    labels: &[u32],
) -> Result<(Vec<u8>, Written)> {
    pack(file, Dtype::F32, shape, bytemuck::cast_slice(values), labels)
}

fn pack(
    file: String,
    kind: Dtype,
    shape: Vec<usize>,
    bytes: &[u8],
    labels: &[u32],
) -> Result<(Vec<u8>, Written)> {
    let n = labels.len();
    let labels: Vec<u8> = labels.iter().flat_map(|&l| i64::from(l).to_le_bytes()).collect();
    let broken = |e: safetensors::SafeTensorError| Error::Internal(format!("{file}: {e}"));
    let images = TensorView::new(kind, shape, bytes).map_err(broken)?;
    let labels = TensorView::new(Dtype::I64, vec![n], &labels).map_err(broken)?;
    let whole = serialize([("images", images), ("labels", labels)], None).map_err(broken)?;
    let blake3 = blake3::hash(&whole).to_hex().to_string();
    Ok((whole, Written { blake3, samples: n, sums: Vec::new(), file }))
}

/// The pixels of pictures, channel by channel, and of each channel the sums of bytes and squares.
fn planes(
    pictures: &Pictures,
    size: [usize; 2],
    samples: &[(usize, u32)],
) -> Result<(Vec<u8>, Vec<[u64; 2]>)> {
    let ([rows, columns], channels, n) = (size, pictures.channels(), samples.len());
    let place = rows * columns;
    if place.saturating_mul(channels).saturating_mul(n) > limits::PREPARE_SHARD {
        return Err(Error::Data(format!(
            "{n} pictures of {channels} x {rows} x {columns} are too many for one file (1 GiB); give a \
             smaller --shard, or --resize"
        )));
    }
    let mut bytes = vec![0; place * channels * n];
    let mut sums = vec![[0; 2]; channels];
    for (&(item, _), out) in samples.iter().zip(bytes.chunks_exact_mut(place * channels)) {
        let found = pictures.pixels(item).ok();
        let same = found.filter(|(now, pixels)| *now == size && pixels.len() == out.len());
        let (_, pixels) = same.ok_or_else(|| {
            let name = pictures.name(item);
            Error::Data(format!("{name}: has changed while it was prepared; start again"))
        })?;
        for (at, pixel) in pixels.chunks_exact(channels).enumerate() {
            for (channel, &value) in pixel.iter().enumerate() {
                out[channel * place + at] = value;
                let value = u64::from(value);
                sums[channel][0] += value;
                sums[channel][1] += value * value;
            }
        }
    }
    Ok((bytes, sums))
}

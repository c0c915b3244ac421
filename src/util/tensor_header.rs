//! The header of a safetensors file, read with every number checked.
//!
//! A file is the header's length (8 bytes, little-endian), the header (JSON: each tensor's type, shape and
//! place, padded with spaces to a multiple of 8), then the values. What is read is believed only as far as
//! the file's own size can carry: tensors must tile the data without gap or overlap. The safetensors crate's
//! own reader is not used because it keeps the last of two tensors of one name and takes shapes of any length.

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Larger headers are refused; [`MAX_TENSORS`] of usual names need about this much.
pub const MAX_HEADER: u64 = 16 << 20;
/// More tensors than any model here has.
pub const MAX_TENSORS: usize = 100_000;
/// Bytes in a tensor's name.
const MAX_NAME: usize = 512;
/// Dimensions of a tensor.
const MAX_DIMS: usize = 8;

/// A value, or what is wrong with the file.
pub type Checked<T> = std::result::Result<T, String>;

/// Types of numbers with the bytes that one takes.
pub type Types = &'static [(&'static str, u64)];

/// All types of whole bytes.
pub const ALL_TYPES: Types = &[
    ("BOOL", 1),
    ("U8", 1),
    ("I8", 1),
    ("F8_E5M2", 1),
    ("F8_E4M3", 1),
    ("F8_E8M0", 1),
    ("U16", 2),
    ("I16", 2),
    ("F16", 2),
    ("BF16", 2),
    ("U32", 4),
    ("I32", 4),
    ("F32", 4),
    ("U64", 8),
    ("I64", 8),
    ("F64", 8),
    ("C64", 8),
];

/// What the header says of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// The type of its numbers, one of those that were asked for.
    pub dtype: String,
    /// Its sizes, the last varying fastest.
    pub shape: Vec<u64>,
    /// Where its first byte is among the values.
    pub begin: u64,
    /// Where its last byte ends.
    pub end: u64,
}

/// The header's length, from the first 8 bytes of a file of `size` bytes.
///
/// # Errors
/// If the file cannot hold so much.
pub fn length(start: [u8; 8], size: u64) -> Checked<u64> {
    let length = u64::from_le_bytes(start);
    if length > MAX_HEADER || length > size.saturating_sub(8) {
        return Err(format!(
            "not a safetensors file, or cut off: it announces a header of {length} bytes and is \
             {size} bytes long"
        ));
    }
    Ok(length)
}

/// The tensors in the order of their places. They are of `known` types and fill `data` bytes exactly, each as
/// its shape says.
///
/// # Errors
/// What is wrong with the header.
pub fn entries(header: &[u8], data: u64, known: Types) -> Checked<Vec<Entry>> {
    let mut entries = serde_json::from_slice::<Header>(header)
        .map_err(|e| format!("its header is damaged: {e}"))?
        .0;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(pair) = entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(format!("two tensors are called {:?}", pair[0].name));
    }
    entries.sort_by_key(|entry| (entry.begin, entry.end));
    let mut last = 0;
    for Entry { name, dtype, shape, begin, end } in &entries {
        check_name(name)?;
        let Some((_, size)) = known.iter().find(|(known, _)| known == dtype) else {
            let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
            return Err(format!(
                "{name:?} is of type {dtype:?}; only {} can be read",
                names.join(", ")
            ));
        };
        let bytes = size_of(name, *size, shape.iter().copied())?;
        if *begin != last || end.checked_sub(*begin) != Some(bytes) {
            return Err(format!(
                "{name:?} of {bytes} bytes lies at {begin} to {end}; expected from {last} on"
            ));
        }
        last = *end;
    }
    if last != data {
        return Err(format!("its tensors take {last} bytes, the file has {data} for them"));
    }
    Ok(entries)
}

/// Whether a tensor may be called so.
///
/// # Errors
/// If its length is 0, or more than the limit.
pub fn check_name(name: &str) -> Checked<()> {
    match name.len() {
        1..=MAX_NAME => Ok(()),
        n => Err(format!("a tensor's name of {n} bytes; 1 to {MAX_NAME} are allowed")),
    }
}

/// Bytes of a tensor of this shape whose numbers take `each`.
///
/// # Errors
/// If it has too many dimensions, or the bytes cannot be counted.
pub fn size_of(name: &str, each: u64, shape: impl ExactSizeIterator<Item = u64>) -> Checked<u64> {
    if shape.len() > MAX_DIMS {
        return Err(format!("{name:?} has {} dimensions; {MAX_DIMS} is the limit", shape.len()));
    }
    let mut bytes = Some(each);
    for n in shape {
        bytes = bytes.and_then(|b| b.checked_mul(n));
    }
    bytes.ok_or_else(|| format!("the shape of {name:?} is larger than any memory"))
}

/// The value of one key of the header.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    dtype: String,
    shape: Dims,
    data_offsets: [u64; 2],
}

/// A shape that stops being read after [`MAX_DIMS`] numbers: a header of 16 MiB could otherwise ask
/// for eight times its size in memory.
struct Dims(Vec<u64>);

impl<'de> Deserialize<'de> for Dims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Dims;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                write!(f, "a shape of at most {MAX_DIMS} numbers")
            }
            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> std::result::Result<Dims, A::Error> {
                let mut dims = Vec::new();
                while let Some(n) = seq.next_element()? {
                    if dims.len() == MAX_DIMS {
                        return Err(de::Error::invalid_length(MAX_DIMS + 1, &self));
                    }
                    dims.push(n);
                }
                Ok(Dims(dims))
            }
        }
        deserializer.deserialize_seq(Shape)
    }
}

/// All entries in file order, two of one name included.
struct Header(Vec<Entry>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object with an entry for each tensor")
            }
            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Header, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    if entries.len() == MAX_TENSORS {
                        return Err(de::Error::custom(format!("more than {MAX_TENSORS} tensors")));
                    }
                    let About { dtype, shape, data_offsets: [begin, end] } = map.next_value()?;
                    entries.push(Entry { name, dtype, shape: shape.0, begin, end });
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

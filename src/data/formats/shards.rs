//! Pictures and labels in tar archives, in the layout of WebDataset (github.com/webdataset/webdataset).
//!
//! ```text
//!   train-000.tar                 a sample is the files of one key: the path up to the first dot of the
//!     sheep/0001.png              file's name; they lie side by side
//!     sheep/0001.cls    "3"
//!     sheep/0002.jpg
//!     sheep/0002.json   {"label": 3}       in place of .cls, where the card names the field
//! ```
//!
//! Samples have the order of the archives. One pass when they are opened reads every header, checks that each
//! sample is whole, hashes its files and looks at its picture's header; what stays in memory is the place of
//! each picture (16 bytes). A picture is read and decoded when its sample is used.

use super::archive::{Member, Members};
use super::names::Classes;
use super::picture::{Decoded, Samples, is_picture};
use super::source::Source;
use crate::config::{Data, Split};
use crate::data::{Dataset, limits};
use crate::error::{Error, Result};
use crate::util::allocator;
use serde_json::Value;
use std::collections::HashSet;

/// Labelled pictures of tar archives.
#[derive(Debug)]
pub struct Shards {
    /// Each with the number of samples in the archives before it.
    files: Vec<(usize, Source)>,
    pictures: Vec<Place>,
    samples: Samples,
    classes: usize,
    fingerprint: String,
}

/// Where a picture is in its archive, and its label.
#[derive(Debug)]
struct Place {
    at: u64,
    size: u32,
    label: u32,
}

impl Shards {
    /// Opens one part of a card's data set. With a `limit`, only the first `limit` samples are looked at.
    ///
    /// # Errors
    /// [`Error::NoInput`] if a file is missing; [`Error::Data`], with the member and its byte, if an archive is
    /// cut or damaged, a sample is not whole, or a picture or label cannot be read.
    pub fn open(card: &Data, split: &Split, limit: Option<usize>) -> Result<Shards> {
        let samples = Samples::new(card.pictures, card.normalize);
        let (classes, fingerprint) = (card.classes, String::new());
        let (files, pictures) = (Vec::new(), Vec::new());
        let mut shards = Shards { files, pictures, samples, classes, fingerprint };
        let field = card.tar.as_ref().and_then(|tar| tar.label_field.as_deref());
        let limit = limit.unwrap_or(usize::MAX);
        let mut hash = blake3::Hasher::new();
        for path in &split.files {
            if shards.pictures.len() < limit {
                let source = Source::open(path)?;
                source.refuse_gzip()?;
                shards.take(source, field, limit, &mut hash)?;
            }
        }
        shards.fingerprint = hash.finalize().to_hex().to_string();
        Ok(shards)
    }

    /// Appends the samples of an archive, up to `limit` in all.
    fn take(
        &mut self,
        source: Source,
        field: Option<&str>,
        limit: usize,
        hash: &mut blake3::Hasher,
    ) -> Result<()> {
        let first = self.pictures.len();
        let mut members = Members::of(&source);
        let mut keys = HashSet::new();
        let mut group = Group::default();
        while self.pictures.len() < limit {
            let member = members.next_member()?;
            let parts = member.as_ref().map(|member| key_and_suffix(&member.name));
            // Neither hidden files nor those without a suffix belong to a sample.
            let Some((key, suffix)) = parts.unwrap_or(Some(("", ""))) else { continue };
            if key != group.key {
                self.append(&source, &std::mem::take(&mut group), field, hash)?;
                key.clone_into(&mut group.key);
                if !keys.insert(key.to_owned()) {
                    let what = "other samples lie between the files of its sample, or it is there \
                                twice; pack them in order (tar --sort=name)";
                    return Err(told(&source, member.as_ref(), what));
                }
            }
            let Some(member) = &member else { break };
            let taken = group.take(member, suffix, field.is_some());
            taken.map_err(|what| member.wrong(&source, what))?;
        }
        if self.pictures.len() == first {
            let label = if field.is_some() { ".json" } else { ".cls" };
            return Err(source.wrong(format!(
                "holds no samples: none of its files is a .png, .jpg, .jpeg or {label}"
            )));
        }
        self.files.push((first, source));
        Ok(())
    }

    /// Appends a sample, if the files are one.
    fn append(
        &mut self,
        source: &Source,
        group: &Group,
        field: Option<&str>,
        hash: &mut blake3::Hasher,
    ) -> Result<()> {
        let (picture, text) = match (&group.picture, &group.label) {
            (None, None) => return Ok(()),
            (Some(picture), Some(text)) => (picture, text),
            (Some(picture), None) => {
                let suffix = if field.is_some() { "json" } else { "cls" };
                let what = format!("has no label: `{}.{suffix}` is missing", group.key);
                return Err(picture.wrong(source, what));
            }
            (None, Some(text)) => {
                return Err(text.wrong(source, "has no picture (.png, .jpg, .jpeg) beside it"));
            }
        };
        let label = self.label_in(source, text, field)?;
        let most = limits::PICTURE_BYTES;
        if picture.size > most {
            let what = format!("has {} bytes; pictures of at most {most} are read", picture.size);
            return Err(picture.wrong(source, what));
        }
        source.with(picture.at, picture.size as usize, |bytes| {
            self.samples.look(bytes).map_err(|what| picture.wrong(source, what))?;
            hash.update(&label.to_le_bytes()).update(&picture.size.to_le_bytes()).update(bytes);
            Ok(())
        })?;
        allocator::may_fail(|| self.pictures.try_reserve(1)).map_err(|_| {
            Error::Internal(format!("no memory for more than {} samples", self.pictures.len()))
        })?;
        // As checked above, the size fits.
        self.pictures.push(Place { at: picture.at, size: picture.size as u32, label });
        Ok(())
    }

    /// The label that a member holds.
    fn label_in(&self, source: &Source, text: &Member, field: Option<&str>) -> Result<u32> {
        let most = limits::TAR_LABEL_BYTES;
        if text.size > most {
            let what = format!("has {} bytes; labels of at most {most} are read", text.size);
            return Err(text.wrong(source, what));
        }
        let classes = Classes::Numbers(self.classes);
        source.with(text.at, text.size as usize, |bytes| {
            let number = match field {
                None => number_in(bytes),
                Some(field) => number_in_field(bytes, field),
            };
            let label = number.and_then(|number| classes.number(&number));
            label.map_err(|what| text.wrong(source, what))
        })
    }
}

/// The files of one key.
#[derive(Default)]
struct Group {
    key: String,
    suffixes: Vec<String>,
    picture: Option<Member>,
    label: Option<Member>,
}

impl Group {
    fn take(&mut self, member: &Member, suffix: &str, json: bool) -> Decoded<()> {
        let suffix = suffix.to_ascii_lowercase();
        if self.suffixes.contains(&suffix) {
            return Err("its name is there twice".to_owned());
        }
        if self.suffixes.len() == limits::TAR_SAMPLE_FILES {
            return Err(format!("its sample has more than {} files", limits::TAR_SAMPLE_FILES));
        }
        let label = if json { "json" } else { "cls" };
        if suffix == label {
            self.label = Some(member.clone());
        } else if is_picture(&suffix)
            && let Some(first) = self.picture.replace(member.clone())
        {
            let first = first.name.escape_debug();
            return Err(format!("its sample has another picture, `{first}`"));
        }
        self.suffixes.push(suffix);
        Ok(())
    }
}

/// `a/b` and `c.d` of `a/b.c.d`, if the file has both.
fn key_and_suffix(name: &str) -> Option<(&str, &str)> {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = file + name[file..].find('.')?;
    (dot > file && dot + 1 < name.len()).then(|| (&name[..dot], &name[dot + 1..]))
}

/// A number as text, with spaces or a line's end around it.
fn number_in(bytes: &[u8]) -> Decoded<String> {
    let text = str::from_utf8(bytes).map_err(|_| "is not text in UTF-8".to_owned())?;
    short(text.trim())
}

/// The number in a field of JSON.
fn number_in_field(bytes: &[u8], field: &str) -> Decoded<String> {
    let value: Value =
        serde_json::from_slice(bytes).map_err(|e| format!("is no JSON that can be read: {e}"))?;
    match value.get(field) {
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(Value::String(text)) => short(text),
        Some(_) => Err(format!("its field `{field}` (data.tar.label_field) is no number")),
        None => Err(format!("has no field `{field}` (data.tar.label_field)")),
    }
}

/// A text that may be a number, as far as its length tells.
fn short(text: &str) -> Decoded<String> {
    match text.len() {
        0..=40 => Ok(text.to_owned()),
        n => Err(format!("has {n} bytes of text where a whole number should be")),
    }
}

fn told(source: &Source, member: Option<&Member>, what: &str) -> Error {
    member.map_or_else(|| source.wrong(what), |member| member.wrong(source, what))
}

impl Dataset for Shards {
    fn len(&self) -> usize {
        self.pictures.len()
    }

    fn sample_shape(&self) -> &[usize] {
        self.samples.shape()
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn read(&self, index: usize, out: &mut [f32]) -> Result<u32> {
        let (Some(place), true) = (self.pictures.get(index), out.len() == self.sample_len()) else {
            return Err(super::no_sample(index, self.len()));
        };
        let file = self.files.partition_point(|(first, _)| *first <= index);
        let source = &self.files[file - 1].1;
        source.with(place.at, place.size as usize, |bytes| {
            let read = self.samples.read(bytes, out);
            read.map_err(|what| source.wrong(format!("the picture at byte {}: {what}", place.at)))
        })?;
        Ok(place.label)
    }

    fn label(&self, index: usize) -> Result<u32> {
        let place = self.pictures.get(index);
        place.map(|place| place.label).ok_or_else(|| super::no_sample(index, self.len()))
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

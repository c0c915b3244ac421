//! `manifest.json`: what a checkpoint consists of, with the size and the BLAKE3 hash of each file.
//!
//! It is written last and ends with its own seal, the hash of all bytes before the seal's line. So a
//! checkpoint with a sound manifest was written to its end, and every byte of it is accounted for.

use super::snapshot::Bits;
use crate::config::json;
use crate::util::clock;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Name of the file.
pub(super) const NAME: &str = "manifest.json";
pub(super) const STATE: &str = "state.json";
pub(super) const CARD: &str = "card.json";
const TENSORS: &str = ".safetensors";

const FORMAT: &str = "annulus checkpoint";
/// The format that this program writes, and the only one so far.
const VERSION: u64 = 1;
/// Larger manifests are refused; one of [`MAX_FILES`] files has about 12 kB.
pub(super) const MAX_BYTES: u64 = 64 << 10;
/// Files in a checkpoint.
const MAX_FILES: usize = 64;
/// More ranks than any machine has.
const MAX_WORLD: u64 = 1 << 24;

type Result<T> = std::result::Result<T, String>;

/// The content.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    format: String,
    version: u64,
    /// `annulus 0.1.0`.
    pub(super) program: String,
    /// When, in UTC.
    pub(super) written: String,
    pub(super) step: u64,
    pub(super) world_size: u64,
    /// Larger is better.
    pub(super) score: Option<Bits>,
    pub(super) files: Vec<FileEntry>,
    #[serde(default, skip_serializing)]
    #[allow(dead_code, reason = "checked on the bytes, not on the parsed text")]
    seal: String,
}

/// One file of the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileEntry {
    pub(super) name: String,
    pub(super) bytes: u64,
    /// 64 hexadecimal digits.
    pub(super) blake3: String,
}

impl Manifest {
    /// A manifest of files still to be added.
    pub(super) fn new(step: u64, world_size: u64, score: Option<f64>) -> Manifest {
        Manifest {
            format: FORMAT.to_owned(),
            version: VERSION,
            program: concat!("annulus ", env!("CARGO_PKG_VERSION")).to_owned(),
            written: clock::now(),
            step,
            world_size,
            score: score.filter(|s| !s.is_nan()).map(Bits),
            files: Vec::new(),
            seal: String::new(),
        }
    }

    /// The text of the file, sealed.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        self.check()?;
        let text = serde_json::to_string_pretty(self).map_err(|e| e.to_string())?;
        let body = text.strip_suffix("\n}").ok_or("the manifest is not an object")?;
        let mut bytes = format!("{body},\n").into_bytes();
        bytes.extend(seal(&bytes).into_bytes());
        Ok(bytes)
    }

    /// Reads and checks a manifest.
    pub(super) fn parse(bytes: &[u8]) -> Result<Manifest> {
        let text = std::str::from_utf8(bytes).map_err(|e| format!("not UTF-8 text: {e}"))?;
        let value = json::parse(text)?;
        // Before all else: a later format may be right in its own way.
        if value.get("format").and_then(|v| v.as_str()) != Some(FORMAT) {
            return Err(format!("it does not say `\"format\": \"{FORMAT}\"`"));
        }
        if value.get("version").and_then(|v| v.as_u64()) != Some(VERSION) {
            let found = value.get("version").unwrap_or(&serde_json::Value::Null);
            return Err(format!(
                "it is of format version {found}, this program reads {VERSION}: resume with the \
                 version of annulus that wrote it"
            ));
        }
        let at = bytes.len().checked_sub(seal(&[]).len()).ok_or("it is cut off")?;
        let (body, found) = bytes.split_at(at);
        if seal(body).as_bytes() != found {
            return Err("its seal does not fit its text: it was changed or damaged".to_owned());
        }
        let manifest: Manifest = serde_json::from_value(value).map_err(|e| e.to_string())?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Whether a manifest of these files would be accepted.
    pub(super) fn check_as_if_of(mut self, names: impl Iterator<Item = String>) -> Result<()> {
        let blake3 = "0".repeat(64);
        self.files =
            names.map(|name| FileEntry { name, bytes: 0, blake3: blake3.clone() }).collect();
        self.check()
    }

    fn check(&self) -> Result<()> {
        if self.files.len() > MAX_FILES {
            return Err(format!("{} files; {MAX_FILES} is the limit", self.files.len()));
        }
        if !(1..=MAX_WORLD).contains(&self.world_size) {
            return Err(format!(
                "world_size is {}; 1 to {MAX_WORLD} are possible",
                self.world_size
            ));
        }
        if self.score.is_some_and(|s| s.0.is_nan()) {
            return Err("score is not a number".to_owned());
        }
        for (i, file) in self.files.iter().enumerate() {
            // Nothing but plain names, so no path can leave the folder.
            if file.name != STATE && file.name != CARD && group_of(&file.name).is_none() {
                return Err(format!("{:?} is no name of a checkpoint's file", file.name));
            }
            if self.files[..i].iter().any(|other| other.name == file.name) {
                return Err(format!("it lists {} twice", file.name));
            }
            let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            if file.blake3.len() != 64 || !file.blake3.bytes().all(hex) {
                return Err(format!("the hash of {} is not 64 hexadecimal digits", file.name));
            }
        }
        match [STATE, CARD].iter().find(|name| self.entry(name).is_none()) {
            None => Ok(()),
            Some(missing) => Err(format!("it does not list {missing}")),
        }
    }

    /// What it says of a file.
    pub(super) fn entry(&self, name: &str) -> Option<&FileEntry> {
        self.files.iter().find(|file| file.name == name)
    }

    /// Whether both describe the same tensors and the same card.
    pub(super) fn same_content(&self, other: &Manifest) -> bool {
        let content = |m: &Manifest| {
            let mut files: Vec<FileEntry> = m.files.clone();
            files.retain(|f| f.name != STATE);
            files.sort_by(|a, b| a.name.cmp(&b.name));
            files
        };
        self.step == other.step && content(self) == content(other)
    }
}

/// The last lines of a manifest that begins with `body`; always of one length.
fn seal(body: &[u8]) -> String {
    format!("  \"seal\": \"{}\"\n}}\n", blake3::hash(body).to_hex())
}

/// The file of a group of tensors.
pub(super) fn tensor_file(group: &str) -> String {
    format!("{group}{TENSORS}")
}

/// The group whose file has this name.
pub(super) fn group_of(file: &str) -> Option<&str> {
    let group = file.strip_suffix(TENSORS)?;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    ((1..=64).contains(&group.len()) && group.bytes().all(plain)).then_some(group)
}

/// `model.safetensors: why`, for a file of a checkpoint.
pub(super) fn about(path: &Path, why: impl std::fmt::Display) -> String {
    format!("{}: {why}", path.file_name().unwrap_or(path.as_os_str()).to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Manifest {
        let mut manifest = Manifest::new(7, 2, Some(0.5));
        for name in [STATE, CARD, "model.safetensors"] {
            let blake3 = blake3::hash(name.as_bytes()).to_hex().to_string();
            manifest.files.push(FileEntry { name: name.to_owned(), bytes: 9, blake3 });
        }
        manifest
    }

    /// The text with another seal, as somebody who means harm would make it.
    fn resealed(text: &str) -> Vec<u8> {
        let body = &text[..text.len() - seal(&[]).len()];
        [body.as_bytes(), seal(body.as_bytes()).as_bytes()].concat()
    }

    #[test]
    fn a_changed_byte_anywhere_breaks_the_seal() {
        let bytes = some().to_bytes().unwrap();
        assert_eq!(Manifest::parse(&bytes).unwrap().files, some().files);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert!(Manifest::parse(&changed).is_err(), "bit {bit} of byte {at}");
            }
            assert!(Manifest::parse(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_sealed_lie_is_refused_by_name() {
        let text = String::from_utf8(some().to_bytes().unwrap()).unwrap();
        let model = "\"name\": \"model.safetensors\"";
        for (from, to, expected) in [
            ("\"version\": 1", "\"version\": 2", "format version 2, this program reads 1"),
            ("annulus checkpoint", "other", "does not say `\"format\""),
            ("\"world_size\": 2", "\"world_size\": 0", "world_size is 0"),
            ("\"world_size\": 2", "\"world_size\": -2", "integer `-2`"),
            ("\"step\": 7", "\"step\": 1e3", "floating point"),
            ("\"step\": 7", "\"step\": 7, \"step\": 8", "a second time"),
            ("\"step\": 7", "\"step\": 18446744073709551616", "expected u64"),
            ("\"step\": 7", "\"step\": NaN", "expected"),
            ("\"step\": 7", "\"stop\": 7", "unknown field `stop`"),
            ("3fe0000000000000", "7ff8000000000000", "score is not a number"),
            (model, "\"name\": \"../model.safetensors\"", "no name of a checkpoint's file"),
            (model, "\"name\": \"/etc/passwd\"", "no name of a checkpoint's file"),
            (model, "\"name\": \"card.json\"", "lists card.json twice"),
            ("\"name\": \"card.json\"", "\"name\": \"x.safetensors\"", "not list card.json"),
            ("\"bytes\": 9", "\"bytes\": -9", "integer `-9`"),
            ("\"blake3\": \"", "\"blake3\": \"x", "64 hexadecimal digits"),
        ] {
            assert!(text.contains(from), "{from}");
            let message = Manifest::parse(&resealed(&text.replacen(from, to, 1))).unwrap_err();
            assert!(message.contains(expected), "{to}: {message}");
        }
    }

    #[test]
    fn a_score_that_is_no_number_is_no_score() {
        let mut manifest = Manifest::new(1, 1, Some(f64::NAN));
        manifest.files = some().files;
        assert!(Manifest::parse(&manifest.to_bytes().unwrap()).unwrap().score.is_none());
    }
}

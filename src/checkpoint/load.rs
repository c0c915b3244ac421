//! Reading one checkpoint, or the reason why it is refused.
//!
//! Sizes are compared (manifest, file system, cap) before memory is taken; each file is hashed while
//! it is read, so the bytes that are used are the bytes that were checked.

use super::manifest::{self, FileEntry, Manifest, about};
use super::snapshot::{Group, Snapshot};
use super::state_file::{self, State};
use super::{names, tensors};
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// No card needs more.
pub(super) const MAX_CARD: u64 = 1 << 20;

type Result<T> = std::result::Result<T, String>;

/// Reads the manifest of the checkpoint in `folder` and checks that it is this folder's.
pub(super) fn read_manifest(folder: &Path) -> Result<Manifest> {
    let path = folder.join(manifest::NAME);
    let manifest = read_small(&path, None, manifest::MAX_BYTES)
        .and_then(|bytes| Manifest::parse(&bytes))
        .map_err(|why| about(&path, why))?;
    // A folder with another kind of name was copied by somebody, who may call it as they like.
    let named = folder.file_name().and_then(|n| n.to_str()).and_then(names::step_of);
    match named {
        Some(step) if step != manifest.step => {
            Err(about(&path, format!("it is of step {}, the folder of step {step}", manifest.step)))
        }
        _ => Ok(manifest),
    }
}

/// Whether a checkpoint's files all have the sizes that its manifest says: a check that reads little.
pub(super) fn has_its_files(folder: &Path, manifest: &Manifest) -> bool {
    let fits = |file: &FileEntry| {
        std::fs::symlink_metadata(folder.join(&file.name))
            .is_ok_and(|found| found.is_file() && found.len() == file.bytes)
    };
    manifest.files.iter().all(fits)
}

/// Reads a checkpoint whole, every byte checked.
pub(super) fn load(folder: &Path) -> Result<(Snapshot, Manifest)> {
    let manifest = read_manifest(folder)?;
    let mut snapshot = Snapshot {
        step: manifest.step,
        world_size: manifest.world_size,
        score: manifest.score.map(|s| s.0),
        ..Snapshot::default()
    };
    for file in &manifest.files {
        let path = folder.join(&file.name);
        read_file(&path, file, &mut snapshot).map_err(|why| about(&path, why))?;
    }
    Ok((snapshot, manifest))
}

/// Reads one file of a checkpoint into the snapshot.
fn read_file(path: &Path, file: &FileEntry, snapshot: &mut Snapshot) -> Result<()> {
    if file.name == manifest::STATE {
        let bytes = read_small(path, Some(file), state_file::MAX_BYTES)?;
        let State { step, epoch, position, metrics_bytes, state } = State::parse(&bytes)?;
        if step != snapshot.step {
            return Err(format!("it is of step {step}, the manifest of step {}", snapshot.step));
        }
        (snapshot.epoch, snapshot.position) = (epoch, position);
        (snapshot.metrics_bytes, snapshot.state) = (metrics_bytes, state);
    } else if file.name == manifest::CARD {
        let bytes = read_small(path, Some(file), MAX_CARD)?;
        snapshot.card =
            String::from_utf8(bytes).map_err(|e| format!("not UTF-8 text: {}", e.utf8_error()))?;
    } else if let Some(name) = manifest::group_of(&file.name) {
        let (source, size) = open(path, Some(file.bytes))?;
        let mut source = Hashing { source: source.take(size), hash: blake3::Hasher::new() };
        let tensors = tensors::read(&mut source, size);
        // A wrong hash tells more than what a damaged header happens to say.
        source.check(file)?;
        snapshot.groups.push(Group { name: name.to_owned(), tensors: tensors? });
    }
    Ok(())
}

/// The bytes of a file of at most `cap` bytes, with size and hash as in `file`.
fn read_small(path: &Path, file: Option<&FileEntry>, cap: u64) -> Result<Vec<u8>> {
    let (source, size) = open(path, file.map(|f| f.bytes))?;
    if size > cap {
        return Err(format!("{size} bytes; {cap} is the limit"));
    }
    let mut bytes = Vec::with_capacity(size as usize);
    source.take(size).read_to_end(&mut bytes).map_err(|e| format!("cannot be read: {e}"))?;
    if let Some(file) = file {
        compare(&blake3::hash(&bytes), file)?;
    }
    Ok(bytes)
}

/// Opens a plain file and gives its size, which must be `expected`.
fn open(path: &Path, expected: Option<u64>) -> Result<(File, u64)> {
    // A link may lead anywhere; a pipe would block when it is opened.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path).map_err(
        |e| match e.kind() {
            io::ErrorKind::NotFound => "it is missing".to_owned(),
            _ if path.is_symlink() => "it is a symbolic link, not a plain file".to_owned(),
            _ => format!("cannot be opened: {e}"),
        },
    )?;
    let found = file.metadata().map_err(|e| format!("cannot be read: {e}"))?;
    if !found.is_file() {
        return Err("it is not a plain file".to_owned());
    }
    match expected {
        Some(expected) if expected != found.len() => {
            Err(format!("it has {} bytes, the manifest says {expected}", found.len()))
        }
        _ => Ok((file, found.len())),
    }
}

fn compare(found: &blake3::Hash, file: &FileEntry) -> Result<()> {
    let found = found.to_hex();
    if *found == *file.blake3 {
        return Ok(());
    }
    // 16 of 64 digits tell two files apart for a person; the hash is 64 digits by the manifest.
    Err(format!(
        "damaged: its BLAKE3 is {}…, the manifest says {}…",
        &found[..16],
        file.blake3.get(..16).unwrap_or(&file.blake3)
    ))
}

/// A file that is hashed as it is read.
struct Hashing<R> {
    source: R,
    hash: blake3::Hasher,
}

impl<R: Read> Hashing<R> {
    /// Reads what is left and compares the hash.
    fn check(mut self, file: &FileEntry) -> Result<()> {
        io::copy(&mut self, &mut io::sink()).map_err(|e| format!("cannot be read: {e}"))?;
        compare(&self.hash.finalize(), file)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        // Pieces that stay in the cache until they are hashed.
        let most = bytes.len().min(256 << 10);
        let n = self.source.read(&mut bytes[..most])?;
        self.hash.update(&bytes[..n]);
        Ok(n)
    }
}

//! Writing a checkpoint so that a crash at any moment leaves it whole or not there, and never harms
//! the ones before.
//!
//! 1. A folder `.tmp-step-…`; each file written and synced; the manifest last; the folder synced.
//! 2. The folder gets its name; the folder above is synced. Now it counts.
//! 3. `latest` is replaced in the same way, then older checkpoints go ([`super::prune`]).

use super::disk::{Disk, Real, Sink, remove_tree};
use super::load;
use super::manifest::{self, FileEntry, Manifest};
use super::names;
use super::prune::Keep;
use super::snapshot::Snapshot;
use super::state_file::State;
use super::tensors;
use crate::error::{Error, Result};
use crate::util::human;
use std::borrow::Cow;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Room that must be left beside the checkpoint itself, for folders, `latest` and the metrics.
const SPARE: u64 = 1 << 20;
/// Small tensors are gathered into writes of this size.
const BUFFER: usize = 1 << 20;

/// The `checkpoints` folder of a run, for writing. One process at a time: see [`super::RunLock`].
pub struct Store {
    pub(super) dir: PathBuf,
    pub(super) keep: Keep,
    pub(super) disk: Box<dyn Disk>,
}

/// A checkpoint that was written.
#[derive(Debug, Clone)]
pub struct Saved {
    /// Its step.
    pub step: u64,
    /// Its folder.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// Wall time of the writing, syncs included.
    pub took: Duration,
    /// Steps of the older checkpoints that were removed.
    pub removed: Vec<u64>,
    /// What went wrong without harm: an old checkpoint that could not be removed.
    pub warnings: Vec<String>,
}

/// An operation that failed, and on what.
pub(super) struct Failure(pub(super) PathBuf, pub(super) io::Error);

pub(super) type Attempt<T> = std::result::Result<T, Failure>;

pub(super) fn at<T>(path: &Path, result: io::Result<T>) -> Attempt<T> {
    result.map_err(|e| Failure(path.to_owned(), e))
}

/// A file to be written: its name and its bytes in pieces.
struct Part<'a> {
    name: String,
    pieces: Vec<Cow<'a, [u8]>>,
}

impl Store {
    /// Opens the folder, which is made if it is not there; the run folder above it must be.
    ///
    /// # Errors
    /// [`Error::CannotCreate`] or [`Error::Io`] when it cannot be made.
    pub fn open(dir: &Path, keep: Keep) -> Result<Store> {
        Store::on(dir, keep, Box::new(Real))
    }

    /// [`Store::open`] on a given disk.
    ///
    /// # Errors
    /// As there.
    pub fn on(dir: &Path, keep: Keep, disk: Box<dyn Disk>) -> Result<Store> {
        if !dir.is_dir() {
            disk.create_dir(dir).map_err(|e| Error::writing(dir, &e))?;
            let above = dir.parent().filter(|p| !p.as_os_str().is_empty());
            let above = above.unwrap_or(Path::new("."));
            disk.sync_dir(above).map_err(|e| Error::writing(above, &e))?;
        }
        Ok(Store { dir: dir.to_owned(), keep, disk })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Writes a checkpoint, then removes those that [`Keep`] does not keep. When the same step with
    /// the same tensors and card is already there, sound, nothing is written.
    ///
    /// # Errors
    /// [`Error::Io`] when there is no room or the disk fails, [`Error::CannotCreate`] when the folder
    /// cannot be written to; the older checkpoints are then as they were. [`Error::Internal`] for a
    /// snapshot that could not be read back.
    pub fn save(&self, snapshot: &Snapshot) -> Result<Saved> {
        let began = Instant::now();
        for companion in &snapshot.companions {
            companion.sync()?;
        }
        let parts = lay_out(snapshot).map_err(|why| {
            Error::Internal(format!(
                "the snapshot of step {} cannot be saved: {why}",
                snapshot.step
            ))
        })?;
        let bytes = parts.iter().flat_map(|p| &p.pieces).map(|p| p.len() as u64).sum();
        self.check_room(snapshot.step, bytes)?;
        let path = self.dir.join(names::folder(snapshot.step));
        let temporary = self.dir.join(names::temporary(&names::folder(snapshot.step)));
        let published = self
            .write(&temporary, snapshot, &parts)
            .and_then(|manifest| self.publish(&temporary, &path, &manifest))
            .and_then(|()| self.write_latest(snapshot.step));
        if let Err(failure) = published {
            // The first error is the one to tell; what is left over is swept at the next start.
            let _ = remove_tree(&*self.disk, &temporary);
            return Err(explain(snapshot.step, &failure));
        }
        let (removed, warnings) = self.prune(snapshot.step, snapshot.proven);
        Ok(Saved { step: snapshot.step, path, bytes, took: began.elapsed(), removed, warnings })
    }

    /// Refuses early, with both numbers, rather than late with half a checkpoint on a full disk.
    fn check_room(&self, step: u64, bytes: u64) -> Result<()> {
        let need = bytes + SPARE;
        // A file system that cannot be asked is found out by writing to it.
        match self.disk.free(&self.dir) {
            Ok(Some(free)) if free < need => Err(Error::Io(format!(
                "the checkpoint of step {step} was not written: it needs {}, and {} has {} free. \
                 The checkpoints before it are untouched. {}",
                human::bytes(need),
                self.dir.display(),
                human::bytes(free),
                advice(ErrorKind::StorageFull)
            ))),
            _ => Ok(()),
        }
    }

    /// Makes the folder under its temporary name, complete and synced.
    fn write(&self, folder: &Path, snapshot: &Snapshot, parts: &[Part]) -> Attempt<Manifest> {
        if folder.exists() {
            // Of an attempt at the same step that failed and could not clean up.
            at(folder, remove_tree(&*self.disk, folder))?;
        }
        at(folder, self.disk.create_dir(folder))?;
        let mut manifest = Manifest::new(snapshot.step, snapshot.world_size, snapshot.score);
        for part in parts {
            let path = folder.join(&part.name);
            manifest.files.push(at(&path, self.write_file(&path, &part.name, &part.pieces))?);
        }
        let path = folder.join(manifest::NAME);
        let text = at(&path, manifest.to_bytes().map_err(io::Error::other))?;
        at(&path, self.write_file(&path, manifest::NAME, &[text.into()]))?;
        at(folder, self.disk.sync_dir(folder))?;
        Ok(manifest)
    }

    fn write_file(
        &self,
        path: &Path,
        name: &str,
        pieces: &[Cow<'_, [u8]>],
    ) -> io::Result<FileEntry> {
        let sink = Hashing { sink: self.disk.create(path)?, hash: blake3::Hasher::new(), bytes: 0 };
        let mut out = BufWriter::with_capacity(BUFFER, sink);
        for piece in pieces {
            out.write_all(piece)?;
        }
        let mut done = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        done.sink.sync()?;
        let blake3 = done.hash.finalize().to_hex().to_string();
        Ok(FileEntry { name: name.to_owned(), bytes: done.bytes, blake3 })
    }

    /// Gives the finished folder its name.
    fn publish(&self, temporary: &Path, path: &Path, manifest: &Manifest) -> Attempt<()> {
        let mut aside = None;
        if path.exists() {
            let there = load::read_manifest(path);
            if there.is_ok_and(|there| there.same_content(manifest) && load::load(path).is_ok()) {
                return at(temporary, remove_tree(&*self.disk, temporary));
            }
            // A damaged one, or one of another run whose folder was taken over.
            let name = names::temporary(&format!("old-{}", names::folder(manifest.step)));
            let old = self.dir.join(name);
            at(&old, self.disk.rename(path, &old))?;
            aside = Some(old);
        }
        at(path, self.disk.rename(temporary, path))?;
        at(&self.dir, self.disk.sync_dir(&self.dir))?;
        // It no longer counts; what cannot be removed now is swept at the next start.
        let _ = aside.map(|old| remove_tree(&*self.disk, &old));
        Ok(())
    }

    fn write_latest(&self, step: u64) -> Attempt<()> {
        let path = self.dir.join(names::LATEST);
        let temporary = self.dir.join(names::temporary(names::LATEST));
        if temporary.exists() {
            at(&temporary, self.disk.remove_file(&temporary))?;
        }
        let text = format!("{}\n", names::folder(step)).into_bytes();
        let written = self
            .write_file(&temporary, names::LATEST, &[text.into()])
            .and_then(|_| self.disk.rename(&temporary, &path))
            .and_then(|()| self.disk.sync_dir(&self.dir));
        if written.is_err() {
            let _ = self.disk.remove_file(&temporary);
        }
        at(&path, written)
    }
}

/// The files of a checkpoint but for the manifest. Everything that reading would refuse is refused
/// here, so no checkpoint is written that cannot be read.
fn lay_out(snapshot: &Snapshot) -> std::result::Result<Vec<Part<'_>>, String> {
    let mut parts = Vec::with_capacity(snapshot.groups.len() + 2);
    for group in &snapshot.groups {
        let name = manifest::tensor_file(&group.name);
        if manifest::group_of(&name).is_none() {
            return Err(format!("{:?} is no name for a group of tensors", group.name));
        }
        let pieces = tensors::lay_out(&group.tensors).map_err(|e| format!("{name}: {e}"))?;
        parts.push(Part { name, pieces });
    }
    let state = State::of(snapshot).to_bytes()?;
    parts.push(Part { name: manifest::STATE.to_owned(), pieces: vec![state.into()] });
    if snapshot.card.len() as u64 > load::MAX_CARD {
        return Err(format!("the card has {} bytes", snapshot.card.len()));
    }
    let card = Cow::Borrowed(snapshot.card.as_bytes());
    parts.push(Part { name: manifest::CARD.to_owned(), pieces: vec![card] });
    let names = parts.iter().map(|part| part.name.clone());
    Manifest::new(snapshot.step, snapshot.world_size, snapshot.score).check_as_if_of(names)?;
    Ok(parts)
}

/// A file, with the hash of what goes into it.
struct Hashing {
    sink: Box<dyn Sink>,
    hash: blake3::Hasher,
    bytes: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.sink.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

fn explain(step: u64, Failure(path, error): &Failure) -> Error {
    let cause = Error::writing(path, error);
    let advice = advice(error.kind());
    Error::from_exit_code(
        cause.exit_code(),
        format!(
            "the checkpoint of step {step} was not written: {cause}. The checkpoints before it are \
             untouched. {advice}"
        ),
    )
}

fn advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "Make room there, keep fewer checkpoints, or give a run folder on another disk"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "Make the folder writable for this user, or give another run folder"
        }
        ErrorKind::NotFound => "Was the run folder removed or moved while the run was going on?",
        _ => "Look at the state of the disk (dmesg, quota), or give a run folder on another one",
    }
}

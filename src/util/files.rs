//! Writing a file so that it is whole or not there.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Writes `bytes` beside `path`, syncs them, renames them to `path` and syncs the folder.
///
/// # Errors
/// [`Error::CannotCreate`] or [`Error::Io`]; what `path` held before is then untouched.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    write_streamed(path, |file| file.write_all(bytes))
}

/// The same of what `write` writes, piece by piece.
///
/// # Errors
/// As [`write_whole`].
pub fn write_streamed(
    path: &Path,
    write: impl FnOnce(&mut File) -> std::io::Result<()>,
) -> Result<()> {
    replace(path, |file| {
        write(file)?;
        file.sync_all()
    })?;
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).map_or(Ok(()), sync)
}

/// The same as [`write_whole`] without waiting for the disk: after a power cut the file may be there and not be
/// whole. For files that are checked before they are used, or synced later.
///
/// # Errors
/// As [`write_whole`].
pub fn write_unsynced(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |file| file.write_all(bytes))
}

/// Waits until a file or folder is on the disk.
///
/// # Errors
/// When it is not there or the disk fails.
pub fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|e| Error::writing(path, &e))
}

fn replace(path: &Path, write: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let write = || {
        let mut file = File::create(&temporary)?;
        write(&mut file)?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|e| {
        // The first error is the one to tell; a left-over file is removed if it can be.
        let _ = std::fs::remove_file(&temporary);
        Error::writing(path, &e)
    })
}

/// A file that grows as a run goes on. Clones are handles of the same file, for other threads.
#[derive(Debug, Clone)]
pub struct Growing {
    path: PathBuf,
    file: Arc<File>,
}

impl Growing {
    /// `file`, which was opened at `path` for writing.
    #[must_use]
    pub fn new(path: &Path, file: File) -> Growing {
        Growing { path: path.to_owned(), file: Arc::new(file) }
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends `bytes` with one write.
    ///
    /// # Errors
    /// When the disk is full or gone.
    pub fn append(&self, bytes: &[u8]) -> Result<()> {
        (&*self.file).write_all(bytes).map_err(|e| Error::writing(&self.path, &e))
    }

    /// Waits until all that was appended is on the disk.
    ///
    /// # Errors
    /// When the disk is full or gone.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::writing(&self.path, &e))
    }
}

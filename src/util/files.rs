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
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
            _ => Ok(()),
        }
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

//! Writing a file so that it is whole or not there.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::Write;
use std::path::Path;

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

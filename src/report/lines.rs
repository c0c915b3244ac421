//! A file of JSON objects, one a line, appended as things happen: `metrics.jsonl`, `ledger.jsonl`.

use crate::error::{Error, Result};
use crate::util::files::Growing;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// The open file.
pub struct Lines {
    on_disk: Growing,
    bytes: u64,
}

impl Lines {
    /// Starts the file anew.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create(path: &Path) -> Result<Lines> {
        let file = File::create(path).map_err(|e| Error::writing(path, &e))?;
        Ok(Lines { on_disk: Growing::new(path, file), bytes: 0 })
    }

    /// Goes on with a file that an earlier part of the run wrote: cut back to its first `bytes`, which
    /// end a line. What a crashed run wrote after its last checkpoint goes.
    ///
    /// # Errors
    /// [`Error::Data`] when the file is shorter or does not end a line there; else as
    /// [`Lines::create`].
    pub fn go_on(path: &Path, bytes: u64) -> Result<Lines> {
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = open.map_err(|e| Error::writing(path, &e))?;
        let failed = |e: std::io::Error| Error::writing(path, &e);
        let found = file.metadata().map_err(failed)?.len();
        let mut last = [b'\n'];
        if bytes > 0 && bytes <= found {
            file.seek(SeekFrom::Start(bytes - 1)).map_err(failed)?;
            file.read_exact(&mut last).map_err(failed)?;
        }
        if bytes > found || last != *b"\n" {
            return Err(Error::Data(format!(
                "{} is not the one that the checkpoint goes on from: {found} bytes, and no line ends \
                 at byte {bytes}. Put the file back, or give another run folder with --out",
                path.display()
            )));
        }
        file.set_len(bytes).map_err(failed)?;
        file.seek(SeekFrom::Start(bytes)).map_err(failed)?;
        Ok(Lines { on_disk: Growing::new(path, file), bytes })
    }

    /// Bytes so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The file, for whoever must know it on the disk.
    #[must_use]
    pub fn on_disk(&self) -> Growing {
        self.on_disk.clone()
    }

    /// Appends one line with one write.
    ///
    /// # Errors
    /// When the disk is full or gone.
    pub fn write(&mut self, record: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(record).map_err(|e| {
            Error::Internal(format!(
                "cannot write a line of {}: {e}",
                self.on_disk.path().display()
            ))
        })?;
        line.push(b'\n');
        self.on_disk.append(&line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_file_loses_what_came_after_the_checkpoint_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        std::fs::write(&path, "{\"a\":1}\n{\"b\":2}\n{\"c\"").unwrap();
        for wrong in [4, 300] {
            assert_eq!(Lines::go_on(&path, wrong).err().unwrap().exit_code(), 65, "{wrong}");
        }
        assert_eq!(Lines::go_on(&path, 16).unwrap().bytes(), 16);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":1}\n{\"b\":2}\n");
    }
}

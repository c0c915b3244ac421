//! Rows of numbers that were costly to make: in memory as far as a limit goes, else in a file without a name.

use crate::error::{Error, Result};
use crate::util::allocator;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Rows of `width` numbers each, appended, then read from any thread.
#[derive(Debug)]
pub struct Store {
    width: usize,
    /// Bytes that may stay in memory.
    memory: usize,
    kept: Vec<f32>,
    spilled: Option<Spilled>,
}

/// A file that nobody else sees and that is gone with the process, however it ends.
#[derive(Debug)]
struct Spilled {
    folder: PathBuf,
    file: BufWriter<File>,
}

impl Store {
    /// An empty store.
    pub fn new(width: usize, memory: usize) -> Store {
        Store { width, memory, kept: Vec::new(), spilled: None }
    }

    /// Appends a row.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::CannotCreate`] when the folder for temporary files has no room.
    pub fn push(&mut self, row: &[f32]) -> Result<()> {
        if self.spilled.is_none() {
            let fits = 4 * (self.kept.len() + row.len()) <= self.memory;
            if fits && allocator::may_fail(|| self.kept.try_reserve(row.len())).is_ok() {
                self.kept.extend_from_slice(row);
                return Ok(());
            }
            let mut spilled = Spilled::create()?;
            spilled.write(&std::mem::take(&mut self.kept))?;
            self.spilled = Some(spilled);
        }
        self.spilled.as_mut().map_or(Ok(()), |spilled| spilled.write(row))
    }

    /// No row is appended any more.
    ///
    /// # Errors
    /// As [`Store::push`].
    pub fn finish(&mut self) -> Result<()> {
        let Some(spilled) = &mut self.spilled else { return Ok(()) };
        let flushed = spilled.file.flush();
        flushed.map_err(|e| spilled.failed(&e))
    }

    /// Fills `out` with row `index`, which has been appended.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read.
    pub fn read(&self, index: usize, out: &mut [f32]) -> Result<()> {
        let start = index * self.width;
        match &self.spilled {
            None => out.copy_from_slice(&self.kept[start..][..self.width]),
            Some(spilled) => {
                let file = spilled.file.get_ref();
                let read = file.read_exact_at(bytemuck::cast_slice_mut(out), 4 * start as u64);
                read.map_err(|e| spilled.failed(&e))?;
            }
        }
        Ok(())
    }
}

impl Spilled {
    fn create() -> Result<Spilled> {
        let folder = std::env::temp_dir();
        let named = |n: u32| folder.join(format!("annulus-{}-{n}.tmp", std::process::id()));
        for n in 0.. {
            let path = named(n);
            let opened = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
            match opened {
                // Another data set of this process, or one that a killed process left.
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && n < 1000 => {}
                Err(e) => return Err(Error::writing(&path, &e)),
                Ok(file) => {
                    std::fs::remove_file(&path).map_err(|e| Error::writing(&path, &e))?;
                    return Ok(Spilled { folder, file: BufWriter::with_capacity(1 << 20, file) });
                }
            }
        }
        Err(Error::Internal("no name is free for a temporary file".to_owned()))
    }

    fn write(&mut self, values: &[f32]) -> Result<()> {
        let written = self.file.write_all(bytemuck::cast_slice(values));
        written.map_err(|e| self.failed(&e))
    }

    fn failed(&self, error: &std::io::Error) -> Error {
        Error::Io(format!(
            "cannot keep decoded rows in a temporary file in {}: {error}; let TMPDIR name a folder with room",
            self.folder.display()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_same_in_memory_in_a_file_and_partly_in_each() {
        for memory in [0, 36, 1 << 20] {
            let mut store = Store::new(3, memory);
            for i in 0..10 {
                store.push(&[i as f32, 0.5, -1.0]).unwrap();
            }
            store.finish().unwrap();
            assert_eq!(store.spilled.is_some(), memory < 120);
            let mut row = [0.0; 3];
            for i in [9, 0, 3, 5] {
                store.read(i, &mut row).unwrap();
                assert_eq!(row, [i as f32, 0.5, -1.0]);
            }
        }
    }
}

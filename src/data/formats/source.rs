//! An open data file whose samples are read from their places when they are needed, by any thread.
//!
//! Reading by `pread` rather than through a map: a file that is cut while in use is then an error with
//! its name, not a SIGBUS. What was read once stays in the page cache, which all ranks of a host share.

use crate::error::{Error, Result};
use std::cell::RefCell;
use std::fmt::Display;
use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes that a pass over a file reads at once.
const CHUNK: usize = 1 << 20;

/// Opens an ordinary file; gives its size as well.
///
/// # Errors
/// [`Error::NoInput`] if it is missing or something else, such as a folder or a pipe.
pub fn regular(path: &Path) -> Result<(File, u64)> {
    let about = std::fs::metadata(path).map_err(|e| Error::reading(path, &e))?;
    if !about.is_file() {
        // A pipe would block, a device may never end.
        let what = if about.is_dir() { "a folder" } else { "a pipe or device" };
        let path = path.display();
        return Err(Error::NoInput(format!("cannot read {path}: it is {what}, not a file")));
    }
    Ok((File::open(path).map_err(|e| Error::reading(path, &e))?, about.len()))
}

/// A file that is not empty, with the size that it had when it was opened.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    file: File,
    len: u64,
}

impl Source {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// [`Error::NoInput`] as [`regular`]; [`Error::Data`] if it is empty or packed.
    pub fn open(path: &Path) -> Result<Source> {
        let (file, len) = regular(path)?;
        let source = Source { path: path.to_owned(), file, len };
        if len == 0 {
            return Err(source.wrong("the file is empty"));
        }
        Ok(source)
    }

    /// Refuses a file that begins as gzip files do. Not for formats that may begin so themselves.
    ///
    /// # Errors
    /// [`Error::Data`], with the remedy.
    pub fn refuse_gzip(&self) -> Result<()> {
        let mut start = [0; 3];
        if self.len >= 18 {
            self.read_at(0, &mut start)?;
        }
        if start == [0x1f, 0x8b, 8] {
            return Err(self.wrong("is packed with gzip; unpack it first (gunzip, or tar -xzf)"));
        }
        Ok(())
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.len
    }

    /// Fills `out` with the bytes from `at` on.
    ///
    /// # Errors
    /// [`Error::Io`] when they cannot be read, and when the file has been cut since it was opened.
    pub fn read_at(&self, at: u64, out: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(out, at).map_err(|e| match e.kind() {
            ErrorKind::UnexpectedEof => Error::Io(format!(
                "{}: ends before byte {}; it had {} bytes when it was opened: was it cut since?",
                self.path.display(),
                at.saturating_add(out.len() as u64),
                self.len
            )),
            _ => Error::reading(&self.path, &e),
        })
    }

    /// Gives `len` bytes from `at` on to `f`, in memory that the thread uses again.
    ///
    /// # Errors
    /// As [`Source::read_at`], and those of `f`.
    pub fn with<R>(&self, at: u64, len: usize, f: impl FnOnce(&[u8]) -> Result<R>) -> Result<R> {
        thread_local! {
            static BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        // Taken out while `f` runs, so that `f` may read, too.
        let mut bytes = BYTES.take();
        bytes.resize(len, 0);
        let result = self.read_at(at, &mut bytes).and_then(|()| f(&bytes));
        BYTES.replace(bytes);
        result
    }

    /// Gives the bytes of `range` to `f`, in order and in pieces of whole `records` bytes.
    ///
    /// # Errors
    /// As [`Source::read_at`], and those of `f`.
    pub fn pass(
        &self,
        range: Range<u64>,
        record: usize,
        mut f: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let piece = (CHUNK / record).max(1) * record;
        let mut bytes = vec![0; piece.min((range.end - range.start) as usize)];
        for at in range.clone().step_by(piece) {
            let part = piece.min((range.end - at) as usize);
            self.read_at(at, &mut bytes[..part])?;
            f(&bytes[..part])?;
        }
        Ok(())
    }

    /// A data error about this file.
    pub fn wrong(&self, what: impl Display) -> Error {
        Error::Data(format!("{}: {what}", self.path.display()))
    }
}

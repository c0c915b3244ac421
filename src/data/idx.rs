//! The IDX format of MNIST, plain or gzip, holding unsigned bytes.
//!
//! ```text
//!   byte  0  1   2     3     4..8       8..12    …   4 + 4·dims
//!         00 00  type  dims  1st size   2nd size …   first value; the last size varies fastest
//! ```
//!
//! Sizes are big-endian 32-bit numbers. Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST
//! database". The sizes are compared with what the file can hold *before* memory is asked for.

use super::limits;
use crate::error::{Error, Result};
use crate::util::allocator;
use flate2::read::MultiGzDecoder;
use std::fmt::Display;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek};
use std::path::Path;

/// The content of an IDX file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idx {
    /// Sizes, slowest first: (samples), (samples, rows, columns), …
    pub dims: Vec<usize>,
    /// The values, as many as the product of `dims`.
    pub bytes: Vec<u8>,
}

/// Reads the IDX file at `path`; gzip is recognised by its first bytes, not by its name.
///
/// # Errors
/// [`Error::NoInput`] if there is no such file, [`Error::Data`] if its content is not IDX of
/// unsigned bytes or its size is not what its header says, [`Error::Io`] if reading fails.
pub fn read(path: &Path) -> Result<Idx> {
    let about = std::fs::metadata(path).map_err(|e| Error::reading(path, &e))?;
    if !about.is_file() {
        // A pipe would block, a device may never end.
        let what = if about.is_dir() { "a folder" } else { "a pipe or device" };
        let path = path.display();
        return Err(Error::NoInput(format!("cannot read {path}: it is {what}, not a file")));
    }
    let mut file = File::open(path).map_err(|e| Error::reading(path, &e))?;
    let mut start = [0; 2];
    let found = fill(&mut file, &mut start).map_err(|e| Error::reading(path, &e))?;
    file.rewind().map_err(|e| Error::reading(path, &e))?;
    let gzip = found == 2 && start == [0x1f, 0x8b];
    let file = BufReader::with_capacity(64 << 10, file);
    let source: Box<dyn Read> =
        if gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    Reader { path, size: about.len(), gzip, source, at: 0 }.read()
}

/// An open file on its way to becoming an [`Idx`].
struct Reader<'a> {
    path: &'a Path,
    /// Bytes on disk.
    size: u64,
    gzip: bool,
    source: Box<dyn Read>,
    /// (Unpacked) bytes read so far.
    at: u64,
}

impl Reader<'_> {
    fn read(mut self) -> Result<Idx> {
        if self.size == 0 {
            return Err(self.wrong("the file is empty; expected IDX data"));
        }
        let dims = self.header()?;
        let shape = shape_text(&dims);
        let product = dims.iter().try_fold(1u64, |p, &d| p.checked_mul(u64::from(d)));
        let Some(values) = product.filter(|&values| usize::try_from(values).is_ok()) else {
            return Err(self.wrong(format!("the header declares {shape} values, more than 2^64")));
        };
        self.compare_sizes(values, &shape)?;
        let bytes = self.body(values, &shape)?;
        Ok(Idx { dims: dims.iter().map(|&d| d as usize).collect(), bytes })
    }

    /// The sizes, after a look at type and number of dimensions.
    fn header(&mut self) -> Result<Vec<u32>> {
        let magic: [u8; 4] = self.word("the magic number")?;
        let [zero0, zero1, kind, dims] = magic;
        if (zero0, zero1) != (0, 0) {
            let hint = if magic[2..] == [0, 0] || magic[3] == 0 {
                "; the byte order may be reversed"
            } else {
                ""
            };
            return Err(self.wrong(format!(
                "bytes 0..2 are {zero0:02x} {zero1:02x} where an IDX file has 00 00{hint}"
            )));
        }
        if kind != 0x08 {
            let name = match kind {
                0x09 => "signed bytes",
                0x0b => "16-bit integers",
                0x0c => "32-bit integers",
                0x0d => "32-bit floats",
                0x0e => "64-bit floats",
                _ => "no IDX type",
            };
            return Err(self.wrong(format!(
                "byte 2, the type, is {kind:02x} ({name}); only unsigned bytes (08) are read"
            )));
        }
        if !(1..=limits::IDX_MAX_DIMS).contains(&usize::from(dims)) {
            let most = limits::IDX_MAX_DIMS;
            return Err(self.wrong(format!(
                "byte 3, the number of dimensions, is {dims}; expected 1 to {most}"
            )));
        }
        (0..dims)
            .map(|i| self.word(&format!("the size of dimension {i}")).map(u32::from_be_bytes))
            .collect()
    }

    /// Refuses a header that the file cannot keep, before a byte is allocated for it.
    fn compare_sizes(&self, values: u64, shape: &str) -> Result<()> {
        let needed = self.at.saturating_add(values);
        if self.gzip {
            let cap = limits::gzip_cap(self.size);
            if needed > cap {
                return Err(self.wrong(format!(
                    "the header declares {shape} values, but {} packed bytes may unpack to {cap} \
                     at most; unpack the file with gunzip if it is genuine",
                    self.size
                )));
            }
            return Ok(());
        }
        let size = self.size;
        let what = match size.cmp(&needed) {
            std::cmp::Ordering::Equal => return Ok(()),
            std::cmp::Ordering::Less => format!("truncated, {} bytes are missing", needed - size),
            std::cmp::Ordering::Greater => format!("{} bytes too long", size - needed),
        };
        Err(self.wrong(format!(
            "{what}: the header declares {shape} values, in all {needed} bytes; the file has {size}"
        )))
    }

    /// The values, and proof that nothing follows them.
    fn body(&mut self, values: u64, shape: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        allocator::may_fail(|| bytes.try_reserve_exact(values as usize)).map_err(|_| {
            Error::Internal(format!("{}: no memory for {values} bytes", self.path.display()))
        })?;
        let outcome = self.source.by_ref().take(values).read_to_end(&mut bytes);
        self.at += bytes.len() as u64;
        outcome.map_err(|e| self.failed(&e))?;
        if (bytes.len() as u64) < values {
            return Err(self.wrong(format!(
                "truncated: the header declares {shape} values, the data ends after {} of them",
                bytes.len()
            )));
        }
        // In a gzip file this also reads and compares the checksum.
        let more = fill(&mut self.source, &mut [0]).map_err(|e| self.failed(&e))?;
        if more > 0 {
            return Err(self.wrong(format!(
                "data goes on after byte {}, where the {shape} values of the header end",
                self.at
            )));
        }
        Ok(bytes)
    }

    /// Four bytes of the header.
    fn word(&mut self, name: &str) -> Result<[u8; 4]> {
        let mut word = [0; 4];
        let found = fill(&mut self.source, &mut word).map_err(|e| self.failed(&e))?;
        if found < 4 {
            let (from, end) = (self.at, self.at + found as u64);
            return Err(self.wrong(format!(
                "truncated: the data ends at byte {end}, inside {name} (bytes {from}..{})",
                from + 4
            )));
        }
        self.at += 4;
        Ok(word)
    }

    fn wrong(&self, what: impl Display) -> Error {
        let unpacked = if self.gzip { " (unpacked)" } else { "" };
        Error::Data(format!("{}{unpacked}: {what}", self.path.display()))
    }

    /// A failed read: for gzip, most kinds mean that the content is broken, not the disk.
    fn failed(&self, error: &std::io::Error) -> Error {
        let (path, at) = (self.path.display(), self.at);
        match error.kind() {
            ErrorKind::UnexpectedEof if self.gzip => Error::Data(format!(
                "{path}: the gzip file is truncated: it ends within its packed data, {at} bytes \
                 unpacked; copy or download it again"
            )),
            ErrorKind::InvalidInput | ErrorKind::InvalidData if self.gzip => Error::Data(format!(
                "{path}: the gzip data is damaged near unpacked byte {at}: {error}"
            )),
            _ => Error::reading(self.path, error),
        }
    }
}

/// Reads until `buffer` is full or the source ends; says how many bytes came.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// `60000 x 28 x 28`.
fn shape_text<T: Display>(dims: &[T]) -> String {
    dims.iter().map(T::to_string).collect::<Vec<_>>().join(" x ")
}

/// An IDX file of unsigned bytes as bytes: how tests and tools write one.
///
/// # Errors
/// If `values` are not as many as `dims` say, or a size has more than 32 bits.
pub fn encode(dims: &[usize], values: &[u8]) -> Result<Vec<u8>> {
    let product = dims.iter().try_fold(1usize, |p, &d| p.checked_mul(d));
    let wrong = || {
        let shape = shape_text(dims);
        Error::Data(format!("{} values do not make an IDX file of {shape}", values.len()))
    };
    if product != Some(values.len()) || !(1..=limits::IDX_MAX_DIMS).contains(&dims.len()) {
        return Err(wrong());
    }
    let mut out = vec![0, 0, 0x08, dims.len() as u8];
    for &dim in dims {
        out.extend(u32::try_from(dim).map_err(|_| wrong())?.to_be_bytes());
    }
    out.extend(values);
    Ok(out)
}

//! The documents that begin in a range of a file.

use super::sources::{LONGEST, SourceFile};
use crate::data::formats::source::regular;
use crate::error::{Error, Result};
use memchr::memchr;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;

/// Takes the start, the length and the first bytes of a document.
pub(super) type Show<'a> = &'a mut dyn FnMut(u64, u64, &[u8]);

/// A file that is read line by line from some place on.
struct Reader<'a> {
    file: &'a SourceFile,
    from: BufReader<std::io::Take<std::fs::File>>,
    /// The next byte.
    at: u64,
}

impl<'a> Reader<'a> {
    fn open(file: &'a SourceFile, at: u64) -> Result<Reader<'a>> {
        let (mut from, _) = regular(&file.path)?;
        from.seek(SeekFrom::Start(at)).map_err(|e| Error::reading(&file.path, &e))?;
        let from = BufReader::with_capacity(1 << 20, from.take(file.size.saturating_sub(at)));
        Ok(Reader { file, from, at })
    }

    /// Opens at the start of the first line that begins at `at` or later, or somewhere behind `end`.
    fn at_line(file: &'a SourceFile, at: u64, end: u64) -> Result<Reader<'a>> {
        let mut reader = Reader::open(file, at.saturating_sub(1))?;
        let mut inside = at > 0;
        while inside && reader.at < end {
            inside = reader.some_of_line(&mut Vec::new(), 0)?;
        }
        Ok(reader)
    }

    /// Appends the next line with its end to `out`, which grows to `most` bytes; gives the line's bytes, 0 at
    /// the end of the file.
    fn line(&mut self, out: &mut Vec<u8>, most: usize) -> Result<u64> {
        let start = self.at;
        while self.some_of_line(out, most)? {}
        Ok(self.at - start)
    }

    /// Reads on in a line; whether there is more of it.
    fn some_of_line(&mut self, out: &mut Vec<u8>, most: usize) -> Result<bool> {
        let there = self.from.fill_buf().map_err(|e| Error::reading(&self.file.path, &e))?;
        let end = memchr(b'\n', there).map(|end| end + 1);
        let used = end.unwrap_or(there.len());
        out.extend_from_slice(&there[..used.min(most.saturating_sub(out.len()))]);
        self.from.consume(used);
        self.at += used as u64;
        Ok(end.is_none() && used > 0)
    }
}

/// Each line is a document; an empty file is one, too.
pub(super) fn lines(file: &SourceFile, starts: Range<u64>, show: Show) -> Result<()> {
    let mut reader = Reader::at_line(file, starts.start, starts.end)?;
    let mut line = Vec::new();
    while reader.at < starts.end && (reader.at == 0 || reader.at < file.size) {
        let start = reader.at;
        line.clear();
        let len = reader.line(&mut line, LONGEST as usize)?;
        show(start, len, &line);
        if len == 0 {
            break;
        }
    }
    Ok(())
}

/// Lines that are `separator` stand between documents. Nothing behind the last one is no document.
pub(super) fn separated(
    file: &SourceFile,
    starts: Range<u64>,
    separator: &[u8],
    show: Show,
) -> Result<()> {
    // A separator that ends where the piece begins or later begins here or later.
    let from = starts.start.saturating_sub(separator.len() as u64 + 2);
    let mut reader = Reader::at_line(file, from, starts.end)?;
    let mut open = (starts.start == 0).then_some(0);
    let mut bytes = Vec::new();
    while open.is_some() || reader.at < starts.end {
        let (at, held) = (reader.at, bytes.len());
        // Of a long document enough is held that a line behind it is seen as a whole.
        let len =
            reader.line(&mut bytes, LONGEST.max((held + separator.len() + 2) as u64) as usize)?;
        let line = &bytes[held..];
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let ends = line.strip_suffix(b"\r").unwrap_or(line) == separator;
        if (ends || len == 0)
            && let Some(start) = open.take()
        {
            show(start, at - start, &bytes[..held]);
        }
        if len == 0 {
            break;
        }
        if ends {
            let inside = starts.contains(&reader.at) && reader.at < file.size;
            open = inside.then_some(reader.at);
        }
        if ends || open.is_none() {
            bytes.clear();
        } else {
            bytes.truncate(LONGEST as usize);
        }
    }
    Ok(())
}

/// The file is the document.
pub(super) fn whole(file: &SourceFile, show: Show) -> Result<()> {
    let mut bytes = Vec::new();
    let reader = Reader::open(file, 0)?;
    let mut from = reader.from.into_inner().take(LONGEST);
    from.read_to_end(&mut bytes).map_err(|e| Error::reading(&file.path, &e))?;
    show(0, file.size, &bytes);
    Ok(())
}

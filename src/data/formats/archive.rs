//! The members of a tar archive (POSIX.1-1988 ustar, PAX of POSIX.1-2001, GNU).
//!
//! ```text
//!   header   512 bytes: name, size, type, checksum, …
//!   data     size bytes, then zeros up to a multiple of 512
//!   header, data, …                      a name too long for its header comes in a member before it
//!   end      1024 zeros at least
//! ```
//!
//! Nothing is unpacked: a member is a name, a place and a size. Only ordinary files count; a member that
//! would lead out of the archive, or whose size or name is told in two ways, is refused.

use super::source::Source;
use crate::data::limits;
use crate::error::{Error, Result};
use std::fmt::Display;
use tar::{EntryType, Header};

const BLOCK: u64 = 512;

/// An ordinary file in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its path, without `./`.
    pub name: String,
    /// Where its header is.
    pub header: u64,
    /// Where its data is.
    pub at: u64,
    /// Bytes of data, all of them in the archive.
    pub size: u64,
}

impl Member {
    /// A data error about it.
    pub fn wrong(&self, source: &Source, what: impl Display) -> Error {
        source.wrong(format!("`{}` (byte {}): {what}", self.name.escape_debug(), self.header))
    }
}

/// A pass over the members of an archive, in order.
pub struct Members<'a> {
    source: &'a Source,
    next: u64,
    /// What a member before the next one says of it.
    attributes: Attributes,
}

/// What is told of a member before its header.
#[derive(Default)]
struct Attributes {
    name: Option<Vec<u8>>,
    size: Option<u64>,
    given: bool,
}

type Checked<T> = std::result::Result<T, String>;

impl<'a> Members<'a> {
    /// From the first member on.
    pub fn of(source: &'a Source) -> Members<'a> {
        Members { source, next: 0, attributes: Attributes::default() }
    }

    /// The next ordinary file; folders are passed over.
    ///
    /// # Errors
    /// [`Error::Data`], with the byte, if the archive is cut or damaged, or has a member that is neither
    /// file nor folder; [`Error::Io`] if it cannot be read.
    pub fn next_member(&mut self) -> Result<Option<Member>> {
        loop {
            let place = self.next;
            let mut block = [0; BLOCK as usize];
            if self.source.size() - place < BLOCK {
                return Err(self.wrong(place, self.cut()));
            }
            self.source.read_at(place, &mut block)?;
            if block == [0; BLOCK as usize] {
                self.end(place)?;
                return Ok(None);
            }
            let header = Header::from_byte_slice(&block);
            let size = self.size(header, place).map_err(|what| self.wrong(place, what))?;
            let at = place + BLOCK;
            self.next = (at + size.next_multiple_of(BLOCK)).min(self.source.size());
            match header.entry_type() {
                EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNULongName => {
                    let bytes = self.attribute_bytes(place, size)?;
                    self.take(header.entry_type(), &bytes)
                        .map_err(|what| self.wrong(place, what))?;
                }
                kind => {
                    let told = std::mem::take(&mut self.attributes);
                    let name =
                        file_name(header, told, size).map_err(|what| self.wrong(place, what))?;
                    let member = Member { name, header: place, at, size };
                    if is_file(kind, &member).map_err(|what| member.wrong(self.source, what))? {
                        return Ok(Some(member));
                    }
                }
            }
        }
    }

    /// The size that a header claims, which the archive is seen to have.
    fn size(&self, header: &Header, place: u64) -> Checked<u64> {
        let bytes = header.as_bytes();
        // The checksum counts as eight spaces in its own sum.
        let sum =
            bytes[..148].iter().chain(&bytes[156..]).map(|&byte| u32::from(byte)).sum::<u32>();
        if header.cksum().ok() != Some(sum + 8 * u32::from(b' ')) {
            let none = "is no header of a tar archive";
            let why = if place == 0 { "is it one?" } else { "the archive is damaged" };
            return Err(format!("{none} (its checksum is wrong); {why}"));
        }
        let size = header.entry_size().map_err(|_| "the header's size is no number".to_owned())?;
        let left = self.source.size() - place - BLOCK;
        if size > left {
            return Err(format!(
                "truncated: the header claims {size} bytes of data, the file has {left} more"
            ));
        }
        Ok(size)
    }

    fn attribute_bytes(&self, place: u64, size: u64) -> Result<Vec<u8>> {
        if size > limits::TAR_ATTRIBUTES {
            let most = limits::TAR_ATTRIBUTES;
            return Err(self.wrong(place, format!("{size} bytes of attributes; at most {most}")));
        }
        let mut bytes = vec![0; size as usize];
        self.source.read_at(place + BLOCK, &mut bytes)?;
        Ok(bytes)
    }

    /// Takes what a member of a kind says of the next one.
    fn take(&mut self, kind: EntryType, bytes: &[u8]) -> Checked<()> {
        if kind == EntryType::GNULongName {
            let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
            return self.attributes.name(&bytes[..end]);
        }
        let global = kind == EntryType::XGlobalHeader;
        each_record(bytes, |key, value| {
            let decides = matches!(key, b"path" | b"size") || key.starts_with(b"GNU.sparse.");
            match key {
                _ if global && decides => {
                    let key = String::from_utf8_lossy(key);
                    Err(format!("gives all members one `{key}`, which is not read"))
                }
                _ if key.starts_with(b"GNU.sparse.") => {
                    Err("is a sparse file; pack it without --sparse".to_owned())
                }
                b"path" => self.attributes.name(value),
                b"size" => self.attributes.size(value),
                _ => Ok(()),
            }
        })?;
        self.attributes.given |= !global;
        Ok(())
    }

    /// Only zeros may follow, two blocks at least.
    fn end(&self, place: u64) -> Result<()> {
        let left = self.source.size() - place;
        if left < 2 * BLOCK {
            return Err(self.wrong(place, self.cut()));
        }
        if self.attributes.given || self.attributes.name.is_some() {
            return Err(self.wrong(place, "the member that the last attributes are of is missing"));
        }
        let mut at = place;
        self.source.pass(place..self.source.size(), 1, |bytes| {
            if let Some(i) = bytes.iter().position(|&byte| byte != 0) {
                let what = "something follows the end of the archive; joined archives are not read";
                return Err(self.wrong(at + i as u64, what));
            }
            at += bytes.len() as u64;
            Ok(())
        })
    }

    fn cut(&self) -> String {
        let size = self.source.size();
        format!(
            "the archive ends (it has {size} bytes) without its end mark, 1024 zeros; was it cut?"
        )
    }

    fn wrong(&self, place: u64, what: impl Display) -> Error {
        self.source.wrong(format!("byte {place}: {what}"))
    }
}

impl Attributes {
    fn name(&mut self, name: &[u8]) -> Checked<()> {
        match self.name.replace(name.to_owned()) {
            None => Ok(()),
            Some(_) => Err("gives the next member a second name".to_owned()),
        }
    }

    fn size(&mut self, text: &[u8]) -> Checked<()> {
        let size = str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        self.size = Some(size.ok_or("its `size` is no number")?);
        Ok(())
    }
}

/// Gives the keys and values of PAX records, `LENGTH KEY=VALUE\n`, to `f`.
fn each_record(mut bytes: &[u8], mut f: impl FnMut(&[u8], &[u8]) -> Checked<()>) -> Checked<()> {
    while !bytes.is_empty() {
        let record = || {
            let space = bytes.iter().take(8).position(|&byte| byte == b' ')?;
            let length: usize = str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
            let (&end, record) = bytes.get(space + 1..length)?.split_last()?;
            let equals = record.iter().position(|&byte| byte == b'=')?;
            (end == b'\n').then_some((length, &record[..equals], &record[equals + 1..]))
        };
        let (length, key, value) = record().ok_or("its PAX records are damaged")?;
        f(key, value)?;
        bytes = &bytes[length..];
    }
    Ok(())
}

/// The path of a member as it may be: inside the archive, in UTF-8.
fn file_name(header: &Header, told: Attributes, size: u64) -> Checked<String> {
    if told.size.is_some_and(|told| told != size) {
        return Err("its PAX size is another than its header's".to_owned());
    }
    let name = told.name.unwrap_or_else(|| header.path_bytes().into_owned());
    let name = String::from_utf8(name).map_err(|e| {
        let name = e.as_bytes().escape_ascii();
        format!("the name `{name}` is not UTF-8")
    })?;
    let strange = name.starts_with('/') || name.split('/').any(|part| part == "..");
    if strange || name.is_empty() || name.contains('\0') {
        return Err(format!("the name `{}` is not a path inside the archive", name.escape_debug()));
    }
    let end = if name.ends_with('/') { "/" } else { "" };
    let parts: Vec<_> = name.split('/').filter(|part| !["", "."].contains(part)).collect();
    Ok(parts.join("/") + end)
}

/// Whether a member is a file, not a folder; what else it may be is refused.
fn is_file(kind: EntryType, member: &Member) -> Checked<bool> {
    match kind {
        EntryType::Directory if member.size == 0 => Ok(false),
        EntryType::Regular | EntryType::Continuous => Ok(!member.name.ends_with('/')),
        EntryType::Link | EntryType::Symlink | EntryType::GNULongLink => {
            Err("is a link; pack the file itself (tar --dereference --hard-dereference)".to_owned())
        }
        EntryType::GNUSparse => Err("is a sparse file; pack it without --sparse".to_owned()),
        kind => {
            Err(format!("is neither file nor folder (type `{}`)", kind.as_byte().escape_ascii()))
        }
    }
}

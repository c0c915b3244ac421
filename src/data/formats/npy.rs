//! NumPy's file of one array, versions 1 to 3 (NEP 1 and `numpy.lib.format`).
//!
//! ```text
//!   byte  0 … 5        6      7      8 … 9 (version 1) or 11    then
//!         93 N U M P Y major  minor  length of the header       header, then the numbers
//! ```
//!
//! The header is a Python dictionary as text, `{'descr': '<f4', 'fortran_order': False, 'shape':
//! (60000, 28, 28), }`. Only plain numbers in C order are read; Python objects, which numpy would
//! unpickle, never. What the header declares is compared with the size of the file.

use super::arrays::{Array, Kind};
use super::source::Source;
use crate::data::limits;
use crate::error::Result;
use std::path::Path;

/// Opens the array in the file at `path`.
///
/// # Errors
/// As [`Source::open`]; [`Error::Data`](crate::error::Error::Data) if it is no npy file of numbers, in C order and
/// of the size that its header declares.
pub fn open(path: &Path) -> Result<Array> {
    let source = Source::open(path)?;
    source.refuse_gzip()?;
    let (text, start) = header(&source)?;
    let fields = Literal { text: &text, at: 0 }.header().map_err(|(at, what)| {
        source.wrong(format!("its header (byte {} of {start}): {what}", start - text.len() + at))
    })?;
    if fields.fortran {
        return Err(source.wrong(
            "is in Fortran order (fortran_order: True); save numpy.ascontiguousarray of it",
        ));
    }
    let kind = kind(&fields.descr).map_err(|what| source.wrong(what))?;
    let (shape, start) = (fields.shape, start as u64);
    let declared = Array::shape_text(&shape);
    let Some(needed) = Array::bytes(kind, &shape).and_then(|bytes| bytes.checked_add(start)) else {
        return Err(
            source.wrong(format!("its header declares {declared} numbers, over 2^64 bytes"))
        );
    };
    let (len, type_name) = (source.size(), &fields.descr);
    let off = match len.cmp(&needed) {
        std::cmp::Ordering::Equal => {
            return Ok(Array { name: String::new(), source, kind, shape, start });
        }
        std::cmp::Ordering::Less => format!("truncated, {} bytes are missing", needed - len),
        std::cmp::Ordering::Greater => format!("{} bytes too long", len - needed),
    };
    Err(source.wrong(format!(
        "{off}: the header declares ({declared}) numbers of type {type_name}, in all {needed} bytes; \
         the file has {len}"
    )))
}

/// The header's text, and where it ends.
fn header(source: &Source) -> Result<(String, usize)> {
    let mut start = [0; 12];
    let there = source.size().min(12) as usize;
    source.read_at(0, &mut start[..there])?;
    let magic = b"\x93NUMPY";
    let cut = |within: &str| {
        source.wrong(format!("truncated: the file ends at byte {}, inside {within}", source.size()))
    };
    if start[..there.min(6)] != magic[..there.min(6)] {
        let zip = if start.starts_with(b"PK") { "; is it npz? unpack it with unzip" } else { "" };
        return Err(source.wrong(format!("does not begin as npy files do (93 NUMPY){zip}")));
    }
    let begin = if start[6] == 1 { 10 } else { 12 };
    if there < 8 {
        return Err(cut("the magic number and version (bytes 0..8)"));
    }
    if !(1..=3).contains(&start[6]) {
        return Err(source.wrong(format!(
            "is of npy version {}.{}; versions 1 to 3 are read",
            start[6], start[7]
        )));
    }
    if there < begin {
        return Err(cut(&format!("the length of its header (bytes 8..{begin})")));
    }
    let [a, b, c, d] = [start[8], start[9], start[10], start[11]];
    let length = if begin == 10 { [a, b, 0, 0] } else { [a, b, c, d] };
    let length = u32::from_le_bytes(length);
    if length > limits::NPY_HEADER_BYTES {
        let most = limits::NPY_HEADER_BYTES;
        return Err(source.wrong(format!("its header has {length} bytes; at most {most} are read")));
    }
    let end = begin + length as usize;
    if source.size() < end as u64 {
        return Err(cut(&format!("its header (bytes {begin}..{end})")));
    }
    let mut text = vec![0; length as usize];
    source.read_at(begin as u64, &mut text)?;
    let text = String::from_utf8(text).map_err(|e| {
        let at = begin + e.utf8_error().valid_up_to();
        source.wrong(format!("its header (byte {at}) is not text"))
    })?;
    Ok((text, end))
}

/// The type of numbers that numpy writes as `descr`.
fn kind(descr: &str) -> std::result::Result<Kind, String> {
    Ok(match descr {
        "|u1" | "<u1" => Kind::U8,
        "<i4" => Kind::I32,
        "<i8" => Kind::I64,
        "<f4" => Kind::F32,
        "<f8" => Kind::F64,
        _ => {
            let why = match descr.as_bytes() {
                [b'|', b'O', ..] => "Python objects, which are never loaded",
                [b'>', ..] => "big-endian",
                _ => "another type",
            };
            return Err(format!(
                "holds numbers of type `{}` ({why}); read are u1, i4, i8, f4 and f8, little-endian: \
                 save it with .astype(\"<f4\")",
                descr.escape_debug()
            ));
        }
    })
}

/// What a header says.
#[derive(Default)]
struct Header {
    descr: String,
    fortran: bool,
    shape: Vec<u64>,
}

/// A reader of the few Python literals that a header is made of. Errors hold the place in the text.
struct Literal<'a> {
    text: &'a str,
    at: usize,
}

type Parsed<T> = std::result::Result<T, (usize, String)>;

impl<'a> Literal<'a> {
    /// The whole dictionary.
    fn header(mut self) -> Parsed<Header> {
        let (mut header, mut seen) = (Header::default(), [false; 3]);
        self.expect('{')?;
        while !self.eat('}') {
            let at = self.at;
            let key = self.string()?;
            self.expect(':')?;
            let place = match key {
                "descr" => {
                    self.string()?.clone_into(&mut header.descr);
                    0
                }
                "fortran_order" => {
                    header.fortran = self.flag()?;
                    1
                }
                "shape" => {
                    header.shape = self.tuple()?;
                    2
                }
                _ => return Err((at, format!("unknown key `{}`", key.escape_debug()))),
            };
            if std::mem::replace(&mut seen[place], true) {
                return Err((at, format!("`{key}` stands there twice")));
            }
            if !self.eat(',') {
                self.expect('}')?;
                break;
            }
        }
        match ["descr", "fortran_order", "shape"].iter().zip(seen).find(|(_, seen)| !seen) {
            Some((key, _)) => Err((self.at, format!("`{key}` is missing"))),
            None if self.rest().trim().is_empty() => Ok(header),
            None => Err((self.at, "text follows its end".to_owned())),
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Skips spaces, then `c` if it stands there.
    fn eat(&mut self, c: char) -> bool {
        let rest = self.rest();
        let spaces = rest.len() - rest.trim_start().len();
        self.at += spaces;
        let there = self.rest().starts_with(c);
        self.at += if there { c.len_utf8() } else { 0 };
        there
    }

    fn expect(&mut self, c: char) -> Parsed<()> {
        if self.eat(c) { Ok(()) } else { Err((self.at, format!("expected `{c}`"))) }
    }

    fn string(&mut self) -> Parsed<&'a str> {
        let quote = if self.eat('"') { '"' } else { '\'' };
        if quote == '\'' && !self.eat('\'') {
            let what =
                if self.eat('[') { "structured types are not read" } else { "expected text" };
            return Err((self.at, what.to_owned()));
        }
        let start = self.at;
        let Some(length) = self.rest().find(quote) else {
            return Err((start, format!("text without its closing {quote}")));
        };
        self.at += length + 1;
        Ok(&self.text[start..start + length])
    }

    fn flag(&mut self) -> Parsed<bool> {
        self.eat(' ');
        let word = if self.rest().starts_with("True") { "True" } else { "False" };
        if !self.rest().starts_with(word) {
            return Err((self.at, "expected True or False".to_owned()));
        }
        self.at += word.len();
        Ok(word == "True")
    }

    fn tuple(&mut self) -> Parsed<Vec<u64>> {
        let mut sizes = Vec::new();
        self.expect('(')?;
        while !self.eat(')') {
            let digits = self.rest().bytes().take_while(u8::is_ascii_digit).count();
            let size = self.rest()[..digits].parse();
            sizes.push(size.map_err(|_| (self.at, "expected a size below 2^64".to_owned()))?);
            if sizes.len() > limits::NPY_MAX_DIMS {
                return Err((self.at, format!("more than {} sizes", limits::NPY_MAX_DIMS)));
            }
            self.at += digits;
            if !self.eat(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(sizes)
    }
}

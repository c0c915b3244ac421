//! The list of all rows of a table: which part each is in, or why it was removed.

use super::parts::{Fate, Parts};
use super::rows::Rows;
use super::source::Sources;
use crate::data::prepare::plan::PARTS;
use std::io::Write;

/// The heading of the list.
pub const HEADING: &str = "item,blake3,class,part,removed\n";

/// Why a row was removed; nothing if it was not.
#[must_use]
pub fn why(sources: &Sources, rows: &Rows, parts: &Parts, row: usize) -> Option<String> {
    let name = |row: u32| rows.name(sources, row as usize);
    let class = |row: u32| {
        rows.names
            .get(rows.classes[row as usize] as usize)
            .map(|name| name.escape_debug().to_string())
    };
    match parts.fate(rows, row) {
        Fate::Part(_) => None,
        Fate::Refused => rows.refused.get(&(row as u32)).cloned(),
        Fate::Copy(first) => Some(format!("duplicate of {}", name(first))),
        Fate::Contradiction(first, odd) => Some(format!(
            "contradiction: the same content has class `{}` in {} and `{}` in {}",
            class(first).unwrap_or_default(),
            name(first),
            class(odd).unwrap_or_default(),
            name(odd)
        )),
    }
}

/// Writes a line for each row, in the order of the sources; gives how many are in a part and how many were removed
/// for a reason: proof that none was lost or used twice.
///
/// # Errors
/// Those of `out`.
pub fn write(
    sources: &Sources,
    rows: &Rows,
    parts: &Parts,
    out: &mut dyn Write,
) -> std::io::Result<[usize; 2]> {
    let classes: Vec<String> = rows.names.iter().map(|name| quoted(name)).collect();
    let mut text = String::from(HEADING);
    let mut counts = [0; 2];
    for row in 0..rows.len() {
        text += &quoted(&rows.name(sources, row));
        text.push(',');
        if !matches!(parts.fate(rows, row), Fate::Refused) {
            hex(&mut text, rows.hashes[row]);
        }
        text.push(',');
        text += classes.get(rows.classes[row] as usize).map_or("", |class| class);
        text.push(',');
        if let Some(part) = parts.part(row) {
            counts[0] += 1;
            text += PARTS[part];
        }
        text.push(',');
        if let Some(why) = why(sources, rows, parts, row) {
            counts[1] += 1;
            text += &quoted(&why);
        }
        text.push('\n');
        if text.len() > 1 << 20 {
            out.write_all(text.as_bytes())?;
            text.clear();
        }
    }
    out.write_all(text.as_bytes())?;
    Ok(counts)
}

/// The bytes of a hash, as they are hashed, in hex.
fn hex(text: &mut String, hash: u128) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in hash.to_le_bytes() {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

/// A cell of a CSV file.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text.to_owned()
}

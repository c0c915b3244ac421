//! JSON as text: read with a cap, every fault with its line and column, and no key twice.
//!
//! `serde_json::Value` alone keeps the last of two equal keys without a word; a card in which `lr`
//! stands twice has an author who believes something else than what would run.

use crate::error::{Error, Result};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;
use std::io::Read;
use std::path::Path;

/// No card needs more; the shipped ones have about 1 kB.
const MAX_BYTES: u64 = 1 << 20;

/// The text of the card at `path`.
pub(super) fn read(path: &Path) -> Result<String> {
    let shown = path.display();
    let about = std::fs::metadata(path).map_err(|e| Error::reading(path, &e))?;
    if about.is_dir() {
        return Err(Error::NoInput(format!(
            "cannot read {shown}: it is a folder; give the card's JSON file"
        )));
    }
    // A pipe would block, a device may never end.
    if !about.is_file() {
        return Err(Error::NoInput(format!("cannot read {shown}: it is not a regular file")));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|e| Error::reading(path, &e))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::Config(format!(
            "{shown}: larger than 1 MiB, which no card is; is it a data file?"
        )));
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Error::Config(format!("{shown}: not UTF-8 text: byte {at} begins no character"))
    })
}

/// The value that `text` writes down; else what is wrong, with line and column.
pub(crate) fn parse(text: &str) -> std::result::Result<Value, String> {
    if text.starts_with('\u{feff}') {
        return Err("line 1, column 1: the file begins with a byte-order mark; save it as UTF-8 \
                    without BOM"
            .into());
    }
    if text.trim().is_empty() {
        return Err("the file is empty; expected a JSON object".into());
    }
    match serde_json::from_str::<Strict>(text) {
        Ok(Strict(value)) => Ok(value),
        Err(e) => Err(explain(&e)),
    }
}

/// `line 3, column 9: what serde_json found`, with the remedy where it is known.
fn explain(error: &serde_json::Error) -> String {
    let full = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let what = full.strip_suffix(&place).unwrap_or(&full);
    let what = match what {
        "trailing comma" => "a comma before the closing bracket; remove it",
        "recursion limit exceeded" => "nested deeper than 127 levels",
        "number out of range" => "a number too large for 64 bits",
        "trailing characters" => "text after the end of the JSON value",
        other => other,
    };
    format!("line {}, column {}: {what}", error.line(), error.column())
}

/// A JSON value in which no object has a key twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Strict;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> std::result::Result<Strict, E> {
        Ok(Strict(Value::Null))
    }

    fn visit_bool<E>(self, v: bool) -> std::result::Result<Strict, E> {
        Ok(Strict(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> std::result::Result<Strict, E> {
        Ok(Strict(v.into()))
    }

    fn visit_i64<E>(self, v: i64) -> std::result::Result<Strict, E> {
        Ok(Strict(v.into()))
    }

    fn visit_f64<E>(self, v: f64) -> std::result::Result<Strict, E> {
        Ok(Strict(v.into()))
    }

    fn visit_str<E>(self, v: &str) -> std::result::Result<Strict, E> {
        Ok(Strict(v.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Strict, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(value)) = seq.next_element()? {
            list.push(value);
        }
        Ok(Strict(Value::Array(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Strict, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if object.contains_key(&key) {
                let key = key.escape_debug();
                return Err(A::Error::custom(format!("the key `{key}` stands here a second time")));
            }
            let Strict(value) = map.next_value()?;
            object.insert(key, value);
        }
        Ok(Strict(Value::Object(object)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_json_is_refused_with_line_and_column() {
        for (text, expected) in [
            ("", "the file is empty"),
            (" \n", "the file is empty"),
            ("\u{feff}{}", "line 1, column 1: the file begins with a byte-order mark"),
            ("{\n  \"a\": 1,\n}", "line 3, column 1: a comma before the closing bracket"),
            ("{\"a\": 1,\n \"a\": 2}", "line 2, column 4: the key `a` stands here a second time"),
            ("{\"b\": {\"a\": 1, \"a\": 2}}", "the key `a` stands here a second time"),
            ("{\"a\": 1e400}", "line 1, column 11: a number too large"),
            ("{\"a\": NaN}", "line 1, column 7: expected"),
            ("{\"a\": 1} x", "line 1, column 10: text after the end"),
            ("{\"a\": ", "line 1, column 6: EOF"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(expected), "{text:?}: {message}");
        }
        let deep = "[".repeat(10_000);
        assert!(parse(&deep).unwrap_err().contains("nested deeper"));
    }

    #[test]
    fn sound_json_comes_out_as_serde_json_reads_it() {
        let text = r#"{"a": [1, -2, 3.5, true, null, "x\n"], "b": {"c": {}}}"#;
        assert_eq!(parse(text).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }
}

//! Bytes become text: encodings repaired, line ends made one, control characters dropped.

use super::sources::{Kind, LONGEST, Place};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::borrow::Cow;

/// What is repaired; a document's are the bits of a number, the first the lowest.
pub const REPAIRS: [&str; 4] =
    ["byte order mark", "Windows-1252", "control characters", "line ends"];

const MARK: u8 = 1;
const ENCODING: u8 = 2;
const CONTROL: u8 = 4;
const ENDS: u8 = 8;

/// The cleaned text of a document and what was repaired.
///
/// # Errors
/// Why it cannot be used.
pub fn document<'a>(
    kind: Kind,
    place: Place,
    bytes: &'a [u8],
    field: &str,
) -> Result<(Cow<'a, str>, u8), String> {
    if let Kind::Refused(why) = kind {
        return Err(why.to_owned());
    }
    if place.len > LONGEST {
        return Err(format!(
            "too long: {} bytes where {LONGEST} are the most of a document; cut it into several{}",
            place.len,
            if kind == Kind::Text { " (--separator)" } else { "" }
        ));
    }
    let mut repaired = 0;
    let bytes = match bytes.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) if place.start == 0 => {
            repaired |= MARK;
            rest
        }
        _ => bytes,
    };
    let mut text = utf8(bytes)?;
    repaired |= if matches!(text, Cow::Owned(_)) { ENCODING } else { 0 };
    if kind == Kind::Json {
        if text.trim_ascii().is_empty() {
            return Ok((Cow::Borrowed(""), repaired));
        }
        text = match text {
            Cow::Borrowed(line) => of_json(line, field)?,
            Cow::Owned(line) => Cow::Owned(of_json(&line, field)?.into_owned()),
        };
    }
    let (text, more) = tidy(text);
    Ok((text, repaired | more))
}

/// Bytes as text: UTF-8, and whatever is not UTF-8 read as Windows-1252 byte by byte.
///
/// # Errors
/// When a byte is in neither.
fn utf8(bytes: &[u8]) -> Result<Cow<'_, str>, String> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Ok(Cow::Borrowed(text));
    }
    let mut text = String::with_capacity(bytes.len() + bytes.len() / 8);
    let mut at = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        at += chunk.valid().len();
        for &byte in chunk.invalid() {
            text.push(windows_1252(byte).ok_or_else(|| {
                format!("encoding: byte {at}, {byte:#04x}, is neither UTF-8 nor Windows-1252")
            })?);
            at += 1;
        }
    }
    Ok(Cow::Owned(text))
}

/// The character of a byte from 0x80 on; above 0x9f as in Latin-1.
fn windows_1252(byte: u8) -> Option<char> {
    const UPPER: &str = "€\0‚ƒ„…†‡ˆ‰Š‹Œ\0Ž\0\0‘’“”•–—˜™š›œ\0žŸ";
    match byte {
        0x80..0xa0 => UPPER.chars().nth(usize::from(byte) - 0x80).filter(|&c| c != '\0'),
        _ => Some(char::from(byte)),
    }
}

/// The text of `field` in a line of JSON.
fn of_json<'a>(line: &'a str, field: &str) -> Result<Cow<'a, str>, String> {
    let mut reader = serde_json::Deserializer::from_str(line);
    let broken = |e: serde_json::Error| format!("broken line: {e}");
    let found = Field(field).deserialize(&mut reader).map_err(broken)?;
    reader.end().map_err(broken)?;
    match found {
        Some(Value::Text(text)) => Ok(text),
        Some(Value::Other) => Err(format!("no text: the field `{field}` is no text")),
        None => Err(format!("no text: the line has no field `{field}` (--field)")),
    }
}

/// A field of an object; what else is in the object is passed over. The last of two of the same name counts,
/// as in Python.
struct Field<'n>(&'n str);

enum Value<'a> {
    Text(Cow<'a, str>),
    Other,
}

impl<'a> DeserializeSeed<'a> for Field<'_> {
    type Value = Option<Value<'a>>;

    fn deserialize<D: Deserializer<'a>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for Field<'_> {
    type Value = Option<Value<'a>>;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key_seed(Text)? {
            if matches!(&key, Value::Text(name) if name == self.0) {
                found = Some(map.next_value_seed(Text)?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// A text, borrowed if it has no escapes; any other value is passed over.
struct Text;

impl<'a> DeserializeSeed<'a> for Text {
    type Value = Value<'a>;

    fn deserialize<D: Deserializer<'a>>(self, from: D) -> Result<Value<'a>, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Text {
    type Value = Value<'a>;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a text")
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Value<'a>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'a>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value<'a>, E> {
        Ok(Value::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value<'a>, E> {
        Ok(Value::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value<'a>, E> {
        Ok(Value::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value<'a>, E> {
        Ok(Value::Other)
    }

    fn visit_unit<E>(self) -> Result<Value<'a>, E> {
        Ok(Value::Other)
    }

    fn visit_seq<A: serde::de::SeqAccess<'a>>(self, mut seq: A) -> Result<Value<'a>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Value<'a>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }
}

/// Line ends as `\n`, without control characters other than these and tabs, without blank lines at the start
/// and white space at the end.
fn tidy(text: Cow<'_, str>) -> (Cow<'_, str>, u8) {
    let mut repaired = 0;
    let mut text = text;
    // Piece by piece without a branch for each byte, which lets the compiler use vectors.
    let odd = |piece: &[u8]| piece.iter().fold(false, |odd, &byte| odd | may_be_odd(byte));
    if text.as_bytes().chunks(256).any(odd) {
        if text.contains('\r') {
            repaired |= ENDS;
            text = Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n"));
        }
        if text.contains(is_odd) {
            repaired |= CONTROL;
            text = Cow::Owned(text.replace(is_odd, ""));
        }
    }
    let trimmed = |text: &str| {
        let end = text.trim_end().len();
        let start = end - text[..end].trim_start_matches('\n').len();
        start..end
    };
    let text = match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[trimmed(text)]),
        Cow::Owned(mut text) => {
            let range = trimmed(&text);
            text.truncate(range.end);
            text.drain(..range.start);
            Cow::Owned(text)
        }
    };
    (text, repaired)
}

/// A character that is dropped.
fn is_odd(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t') || c == '\u{feff}'
}

/// Whether a byte of UTF-8 can be of a character that is dropped, or is a carriage return.
fn may_be_odd(byte: u8) -> bool {
    (byte < b' ' && byte != b'\n' && byte != b'\t') || matches!(byte, 0x7f | 0xc2 | 0xef)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(kind: Kind, bytes: &[u8]) -> Result<(String, u8), String> {
        let place = Place { file: 0, start: 0, len: bytes.len() as u64 };
        document(kind, place, bytes, "text").map(|(text, repaired)| (text.into_owned(), repaired))
    }

    #[test]
    fn encodings_are_repaired_or_refused() {
        let text = |bytes| cleaned(Kind::Text, bytes);
        assert_eq!(text("Grüße €".as_bytes()), Ok(("Grüße €".to_owned(), 0)));
        assert_eq!(text("\u{feff}Grüße".as_bytes()), Ok(("Grüße".to_owned(), MARK)));
        assert_eq!(text(b"Gr\xfc\xdfe \x80\x94"), Ok(("Grüße €”".to_owned(), ENCODING)));
        // Only one of the two is not UTF-8.
        assert_eq!(text(b"gr\xc3\xbcn, gr\xfcn"), Ok(("grün, grün".to_owned(), ENCODING)));
        let refused = text(b"ab\x81").unwrap_err();
        assert_eq!(refused, "encoding: byte 2, 0x81, is neither UTF-8 nor Windows-1252");
        let upper: Vec<char> = (0x80..=0xff).filter_map(windows_1252).collect();
        assert_eq!(upper.len(), 128 - 5);
        assert_eq!((windows_1252(0x9f), windows_1252(0xe9)), (Some('Ÿ'), Some('é')));
    }

    #[test]
    fn control_characters_go_and_line_ends_are_one() {
        let text = |bytes| cleaned(Kind::Text, bytes).unwrap();
        assert_eq!(text(b"a\0b\x1b\x7fc\td\n"), ("abc\td".to_owned(), CONTROL));
        assert_eq!(text(b"\r\n\r\n  a\r\nb\rc \r\n"), ("  a\nb\nc".to_owned(), ENDS));
        assert_eq!(text("a\u{85}b\u{feff}é".as_bytes()), ("abé".to_owned(), CONTROL));
        assert_eq!(text(b" \n\t\n"), (String::new(), 0));
    }

    #[test]
    fn the_field_of_a_line_is_taken_and_broken_lines_are_told() {
        let json = |text: &str| cleaned(Kind::Json, text.as_bytes());
        let ok = |text: &str| Ok((text.to_owned(), 0));
        assert_eq!(json(r#"{"id":1,"text":"a b","more":[{"text":"no"}]}"#), ok("a b"));
        assert_eq!(json(r#"{"te\u0078t":"a\n\"b\" \ud83d\ude00"}"#), ok("a\n\"b\" 😀"));
        assert_eq!(json(r#"{"text":"one","text":"two"}"#), ok("two"));
        assert_eq!(json("  \n"), ok(""));
        assert_eq!(json(r#"{"text":"a\u0000b"}"#), Ok(("ab".to_owned(), CONTROL)));
        for (line, why) in [
            (r#"{"text":"a"#, "broken line: EOF"),
            (r#"{"text":"a"} {"#, "broken line: trailing"),
            (r#""text""#, "broken line: invalid type"),
            (r#"{"text":"\ud800"}"#, "broken line:"),
            (r#"{"text":null}"#, "no text: the field `text` is no text"),
            (r#"{"text":[1,{"a":2}]}"#, "no text: the field"),
            (r#"{"content":"a"}"#, "no text: the line has no field `text` (--field)"),
        ] {
            let told = json(line).unwrap_err();
            assert!(told.starts_with(why), "{line}: {told}");
        }
        let deep = format!("{{\"more\":{}1{},\"text\":\"a\"}}", "[".repeat(9000), "]".repeat(9000));
        assert_eq!(json(&deep), ok("a"));
    }
}

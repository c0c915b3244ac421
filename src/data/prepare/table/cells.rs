//! What the cells of a table say: numbers, moments, text in one of two encodings, nothing.

use std::borrow::Cow;

/// How a cell without a value is written.
#[must_use]
pub fn is_missing(text: &str) -> bool {
    text.len() < 5
        && matches!(text, "" | "NA" | "N/A" | "NaN" | "nan" | "null" | "NULL" | "None" | "?")
}

/// A finite number; both zeros are one.
#[must_use]
pub fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|value: &f64| value.is_finite()).map(|value| value + 0.0)
}

/// Seconds since 1970-01-01T00:00:00 of a day (2026-11-28) or a moment (2026-11-28T09:30:00.5, also with a space
/// for the T, without seconds, with Z or an offset such as +01:00 at its end).
#[must_use]
pub fn moment(text: &str) -> Option<f64> {
    let (day, rest) = text.split_at_checked(10)?;
    let days = days(day)?;
    if rest.is_empty() {
        return Some(days * 86_400.0);
    }
    let rest = rest.strip_prefix(['T', ' '])?;
    let (clock, offset) = match rest.strip_suffix('Z') {
        Some(clock) => (clock, 0.0),
        None => match rest.rfind(['+', '-']) {
            None => (rest, 0.0),
            Some(at) => {
                let sign = if rest[at..].starts_with('-') { -1.0 } else { 1.0 };
                (&rest[..at], sign * seconds(&rest[at + 1..])?)
            }
        },
    };
    Some(days * 86_400.0 + seconds(clock)? - offset)
}

/// Digits and nothing else.
fn whole(text: &str, most: u32) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|&n: &u32| digits && n <= most)
}

/// Days since 1970-01-01 of the Gregorian calendar, by counting years that begin in March.
fn days(text: &str) -> Option<f64> {
    let mut parts = text.split('-');
    let [year, month, day] = [parts.next()?, parts.next()?, parts.next()?];
    if [year.len(), month.len(), day.len()] != [4, 2, 2] || parts.next().is_some() {
        return None;
    }
    let (year, month, day) = (whole(year, 9999)?, whole(month, 12)?, whole(day, 31)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        0 => return None,
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if day == 0 || day > length {
        return None;
    }
    let years = i64::from(year) - i64::from(month < 3);
    let months = i64::from((month + 9) % 12);
    let before = 365 * years + years.div_euclid(4) - years.div_euclid(100) + years.div_euclid(400);
    Some((before + (153 * months + 2) / 5 + i64::from(day) - 1 - 719_468) as f64)
}

/// Seconds of `09:30`, `09:30:00` or `09:30:00.5`.
fn seconds(text: &str) -> Option<f64> {
    let mut parts = text.splitn(3, ':');
    let [hours, minutes] = [parts.next()?, parts.next()?];
    if [hours.len(), minutes.len()] != [2, 2] {
        return None;
    }
    let seconds = match parts.next() {
        None => 0.0,
        Some(text) => {
            let (whole_part, rest) = text.split_at_checked(2)?;
            let digits = rest.strip_prefix('.').unwrap_or(rest);
            let plain = digits.bytes().all(|b| b.is_ascii_digit());
            if !plain || (!rest.is_empty() && digits.len() + 1 != rest.len()) {
                return None;
            }
            f64::from(whole(whole_part, 60)?) + format!("0{rest}").parse::<f64>().ok()?
        }
    };
    Some(f64::from(whole(hours, 24)? * 3600 + whole(minutes, 59)? * 60) + seconds)
}

/// What bytes 0x80 to 0x9f are in Windows-1252; a space where nothing is.
const WINDOWS_1252: &str = "€ ‚ƒ„…†‡ˆ‰Š‹Œ Ž  ‘’“”•–—˜™š›œ žŸ";

/// Text as UTF-8 or, with `repair`, as Windows-1252, and whether it was repaired; nothing where it is neither.
#[must_use]
pub fn text(cell: &[u8], repair: bool) -> Option<(Cow<'_, str>, bool)> {
    match std::str::from_utf8(cell) {
        Ok(text) => Some((Cow::Borrowed(text.trim()), false)),
        Err(_) if repair => {
            let decoded: Option<String> = cell.iter().map(|&byte| windows_1252(byte)).collect();
            Some((Cow::Owned(decoded?.trim().to_owned()), true))
        }
        Err(_) => None,
    }
}

fn windows_1252(byte: u8) -> Option<char> {
    match byte {
        0x80..=0x9f => WINDOWS_1252.chars().nth(usize::from(byte - 0x80)).filter(|&c| c != ' '),
        _ => Some(char::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_moments_are_seconds_since_1970() {
        for (text, expected) in [
            ("1970-01-01", Some(0.0)),
            ("1969-12-31", Some(-86_400.0)),
            ("2000-02-29", Some(951_782_400.0)),
            ("2026-11-28", Some(1_795_824_000.0)),
            ("2026-11-28T09:30:00", Some(1_795_858_200.0)),
            ("2026-11-28 09:30", Some(1_795_858_200.0)),
            ("2026-11-28T09:30:00.25Z", Some(1_795_858_200.25)),
            ("2026-11-28T09:30:00+01:30", Some(1_795_852_800.0)),
            ("2026-11-28T09:30:00-01:00", Some(1_795_861_800.0)),
            ("1900-02-29", None),
            ("2026-13-01", None),
            ("2026-00-01", None),
            ("2026-11-31", None),
            ("2026-1-31", None),
            ("2026-11-28T", None),
            ("2026-11-28T9:30", None),
            ("2026-11-28T09:30:00.5.5", None),
            ("2026-11-28x09:30", None),
            ("+026-11-28", None),
            ("", None),
            ("2026-11-2ü", None),
        ] {
            assert_eq!(moment(text), expected, "{text}");
        }
    }

    #[test]
    fn bytes_that_are_no_utf_8_are_read_as_windows_1252() {
        assert_eq!(WINDOWS_1252.chars().count(), 32);
        let read = |bytes: &[u8], repair| text(bytes, repair).map(|(t, r)| (t.into_owned(), r));
        assert_eq!(read(" M\u{fc}ller ".as_bytes(), true), Some(("Müller".to_owned(), false)));
        assert_eq!(read(b"M\xfcller \x80\x9f", true), Some(("Müller €Ÿ".to_owned(), true)));
        assert_eq!(read(b"M\xfcller", false), None);
        assert_eq!(read(b"\x81", true), None);
    }

    #[test]
    fn numbers_are_finite_and_both_zeros_are_one() {
        assert_eq!(number("-0").map(f64::to_bits), Some(0));
        assert_eq!((number("1e400"), number("inf"), number("x")), (None, None, None));
        assert!(is_missing("N/A") && is_missing("") && !is_missing("0") && !is_missing("none"));
    }
}

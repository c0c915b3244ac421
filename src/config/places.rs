//! Where the fields of a card stand, for errors that name the place to change.

use crate::error::{Error, Result};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The line of each field of a card, or the `--set` that gave it.
#[derive(Debug, Clone, Default)]
pub struct Places {
    file: PathBuf,
    /// Where a section of the card comes from, if one is in a file of its own.
    other: PathBuf,
    /// By path: `train.epochs`; an item of a list has its number for a name.
    of: BTreeMap<String, Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// From 1.
    Line(usize),
    /// The same in the other file.
    Other(usize),
    Set,
}

impl Places {
    /// Of a card that has been parsed from `text`, which is the content of `file`.
    pub(super) fn of_text(file: &Path, text: &str) -> Places {
        let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
        let mut places = Places { file: file.to_owned(), ..Places::default() };
        // It was parsed before, so it is JSON; if not, there are fewer places to name.
        if let Ok(whole) = serde_json::from_str::<&RawValue>(text) {
            places.add(whole, String::new(), &|part| {
                let at = part.as_ptr() as usize - text.as_ptr() as usize;
                1 + ends.partition_point(|&end| end < at)
            });
        }
        places
    }

    /// From now on the section at `path` is the one of `text`, which is the content of `file`.
    pub(super) fn take_from(&mut self, path: &str, file: &Path, text: &str) {
        self.set(path);
        file.clone_into(&mut self.other);
        for (field, place) in Places::of_text(file, text).of {
            if let Place::Line(line) = place {
                let inside = if field.is_empty() { String::new() } else { format!(".{field}") };
                self.of.insert(format!("{path}{inside}"), Place::Other(line));
            }
        }
    }

    fn add(&mut self, value: &RawValue, path: String, line: &dyn Fn(&str) -> usize) {
        let text = value.get();
        let inside =
            |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        match text.as_bytes().first() {
            Some(b'{') => {
                let fields: BTreeMap<String, &RawValue> =
                    serde_json::from_str(text).unwrap_or_default();
                for (name, field) in fields {
                    self.add(field, inside(&name), line);
                }
            }
            Some(b'[') => {
                let items: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
                for (i, item) in items.into_iter().enumerate() {
                    self.add(item, inside(&i.to_string()), line);
                }
            }
            _ => {}
        }
        self.of.insert(path, Place::Line(line(text)));
    }

    /// From now on the field at `path` is the one that a `--set` gave.
    pub(super) fn set(&mut self, path: &str) {
        let below = format!("{path}.");
        self.of.retain(|field, _| !field.starts_with(&below));
        self.of.insert(path.to_owned(), Place::Set);
    }

    /// The field at `path`, or the one in which it would be, and its place.
    fn find(&self, path: &str) -> Option<(&str, Place)> {
        let mut path = path;
        loop {
            if let Some((field, &place)) =
                self.of.get_key_value(path).filter(|(f, _)| !f.is_empty())
            {
                return Some((field, place));
            }
            path = path.rsplit_once('.')?.0;
        }
    }

    /// ` (line 8)` or ` (--set train.epochs)`, if the field or the one in which it would be is anywhere.
    #[must_use]
    pub fn suffix(&self, path: &str) -> String {
        self.find(path).map_or(String::new(), |(field, place)| {
            let file = match place {
                Place::Other(_) => format!("{}, ", self.other.display()),
                _ => String::new(),
            };
            format!(" ({file}{})", Shown(field, place))
        })
    }

    /// An error that begins with a field, with its place: `job.json, line 8: data.train: no such file`.
    #[must_use]
    pub fn point_at(&self, error: Error) -> Error {
        let text = error.to_string();
        // The rank that has it may come first.
        let place = text.split(": ").take(2).find_map(|part| self.find(part));
        let Some((field, place)) = place else { return error };
        let below = format!("{field}.");
        let set =
            |(name, place): &(&String, &Place)| name.starts_with(&below) && **place == Place::Set;
        let sets = self.of.iter().filter(set).map(|(name, _)| format!(" and --set {name}"));
        let file = match place {
            Place::Set => String::new(),
            Place::Line(_) => format!("{}, ", self.file.display()),
            Place::Other(_) => format!("{}, ", self.other.display()),
        };
        error.context(format!("{file}{}{}", Shown(field, place), sets.collect::<String>()))
    }

    /// The same of a result.
    ///
    /// # Errors
    /// That of `result`, with the place.
    pub fn point<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| self.point_at(error))
    }
}

struct Shown<'a>(&'a str, Place);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.1 {
            Place::Line(line) | Place::Other(line) => write!(f, "line {line}"),
            Place::Set => write!(f, "--set {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARD: &str = "{\n\"data\": {\n  \"train\": {\"files\":\n    [\"a\",\n \"b\"]},\n\n \"classes\": 3}, \"seed\": 1\n}";

    #[test]
    fn each_field_has_the_line_on_which_its_value_begins() {
        let places = Places::of_text(Path::new("c.json"), CARD);
        for (path, suffix) in [
            ("data", " (line 2)"),
            ("data.train.files.1", " (line 5)"),
            ("data.classes", " (line 7)"),
            ("seed", " (line 7)"),
            ("data.train.images", " (line 3)"),
            ("data.test", " (line 2)"),
            ("model", ""),
            ("", ""),
        ] {
            assert_eq!(places.suffix(path), suffix, "{path}");
        }
    }

    #[test]
    fn a_section_of_another_file_has_the_lines_of_that_file() {
        let mut places = Places::of_text(Path::new("c.json"), CARD);
        places.take_from("data", Path::new("d.json"), "{\n\"a.b\": [1,\n2]}");
        assert_eq!(places.suffix("data.a.b.1"), " (d.json, line 3)");
        assert_eq!(places.suffix("data.train"), " (d.json, line 1)");
        assert_eq!(places.suffix("seed"), " (line 7)");
        let error = places.point_at(Error::Data("data.a.b: x".into())).to_string();
        assert_eq!(error, "d.json, line 2: data.a.b: x");
    }

    #[test]
    fn what_was_set_replaces_the_lines_below_it() {
        let mut places = Places::of_text(Path::new("c.json"), CARD);
        places.set("data.train.folder");
        let error = places.point_at(Error::Data("data.train: x".into())).to_string();
        assert_eq!(error, "c.json, line 3 and --set data.train.folder: data.train: x");
        places.set("data.train");
        assert_eq!(places.suffix("data.train.files.0"), " (--set data.train)");
        assert_eq!(places.suffix("data.classes"), " (line 7)");
        let error = places.point_at(Error::Data("data.train: x: cut".into()));
        assert_eq!(error.to_string(), "--set data.train: data.train: x: cut");
    }

    #[test]
    fn an_error_that_begins_with_a_field_is_told_its_place_and_others_stay() {
        let places = Places::of_text(Path::new("c.json"), CARD);
        for (text, expected) in [
            ("data.classes: is 3", "c.json, line 7: data.classes: is 3"),
            ("rank 1 (b): data.train: x", "c.json, line 3: rank 1 (b): data.train: x"),
            ("rank 1: lost: data.train", "rank 1: lost: data.train"),
            ("model.kind: x", "model.kind: x"),
        ] {
            let error = places.point_at(Error::Config(text.into()));
            assert_eq!((error.to_string().as_str(), error.exit_code()), (expected, 78));
        }
    }
}

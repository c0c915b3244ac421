//! From a file and `--set` arguments to a checked [`Card`].

use super::{Card, Places, Prepare, json, rules, schema, set::Set};
use crate::error::{Error, Result};
use serde_json::Value;
use std::fmt;
use std::path::{Component, Path, PathBuf};

/// The fields that hold a path or a list of paths.
const PATHS: [&str; 15] = [
    "/data/train/images",
    "/data/train/labels",
    "/data/train/folder",
    "/data/train/files",
    "/data/val/images",
    "/data/val/labels",
    "/data/val/folder",
    "/data/val/files",
    "/data/test/images",
    "/data/test/labels",
    "/data/test/folder",
    "/data/test/files",
    "/report/out",
    "/prepare/sources",
    "/prepare/out",
];

/// One thing that is wrong with a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The field: `train.global_batch`; empty for the card as a whole.
    pub path: String,
    /// What is wrong with it, and what is expected.
    pub what: String,
}

impl Problem {
    pub(super) fn new(path: &str, what: impl Into<String>) -> Problem {
        Problem { path: path.to_owned(), what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let path = if self.path.is_empty() { "the card" } else { &self.path };
        write!(f, "{path}: {}", self.what)
    }
}

impl Card {
    /// Reads the card at `path`, applies `sets` (`a.b=value`, later ones win) and checks all of it.
    ///
    /// Relative paths in the file start at the file's folder, those in `sets` at the current one.
    /// The returned card holds absolute paths, so that a saved copy works from anywhere.
    ///
    /// # Errors
    /// [`Error::NoInput`] if the file cannot be read; [`Error::Usage`] for a `--set` that makes no
    /// sense; [`Error::Config`], with all problems, one a line, if the card is wrong.
    pub fn load(path: &Path, sets: &[String]) -> Result<Card> {
        Card::load_with_places(path, sets).map(|(card, _)| card)
    }

    /// The same, and where its fields stand.
    ///
    /// # Errors
    /// As [`Card::load`].
    pub fn load_with_places(path: &Path, sets: &[String]) -> Result<(Card, Places)> {
        Card::of_text(path, json::read(path)?, None, sets)
    }

    /// The same with the `tune` section of another file, if there is one.
    ///
    /// # Errors
    /// As [`Card::load`].
    pub fn load_with_space(
        path: &Path,
        space: Option<&Path>,
        sets: &[String],
    ) -> Result<(Card, Places)> {
        let tune = space.map(|file| Ok::<_, Error>((file, json::read(file)?))).transpose()?;
        Card::of_text(path, json::read(path)?, tune, sets)
    }

    /// This card with other values in some of its fields, by path.
    ///
    /// # Errors
    /// All that is wrong with it then.
    pub fn with<'a>(
        &self,
        values: impl IntoIterator<Item = (&'a String, &'a Value)>,
    ) -> std::result::Result<Card, Vec<Problem>> {
        let failed = |what: String| vec![Problem::new("", what)];
        let mut card = serde_json::to_value(self).map_err(|e| failed(e.to_string()))?;
        for (path, value) in values {
            let set =
                Set { path: path.split('.').map(str::to_owned).collect(), text: String::new() };
            set.apply(&mut card, value.clone())
                .map_err(|e| vec![Problem::new(path, e.to_string())])?;
        }
        check(&card)
    }

    /// The same of a file that may have the `data` section of a card alone; the rest of the card then has no
    /// meaning.
    ///
    /// # Errors
    /// As [`Card::load`].
    pub fn load_data(path: &Path, sets: &[String]) -> Result<(Card, Places)> {
        let text = json::read(path)?;
        let alone = json::parse(&text)
            .is_ok_and(|value| value.get("format").is_some() && value.get("data").is_none());
        if !alone {
            return Card::of_text(path, text, None, sets);
        }
        let model = match json::parse(&text).is_ok_and(|value| value.get("text").is_some()) {
            true => r#"{"kind": "gpt", "width": 1, "layers": 1, "heads": 1}"#,
            false => r#"{"kind": "mlp"}"#,
        };
        // Around it on its own lines, so that every line keeps its number.
        let train = r#"{"global_batch": 1, "epochs": 1}"#;
        let whole = format!(r#"{{"model": {model}, "train": {train}, "data": {text}}}"#);
        Card::of_text(path, whole, None, sets)
    }

    /// The `prepare` section of a card that may have nothing else.
    ///
    /// # Errors
    /// As [`Card::load`]; [`Error::Config`] if the card has no such section.
    pub fn load_prepare(path: &Path, sets: &[String]) -> Result<(Prepare, Places)> {
        let text = json::read(path)?;
        let value = json::parse(&text).unwrap_or_default();
        let lacks = |name: &str| value.is_object() && value.get(name).is_none();
        let missing = || {
            let path = path.display();
            let what = "has no section `prepare`, which says what is made from which sources";
            Error::Config(format!("{path}: {what}"))
        };
        if lacks("prepare") {
            return Err(missing());
        }
        // What a whole card needs, on the line of its first brace, so that every line keeps its number.
        let data = r#"{"format": "idx", "train": {"images": "x", "labels": "y"}, "classes": 2}"#;
        let rest = r#""model": {"kind": "mlp"}, "train": {"global_batch": 1, "epochs": 1}"#;
        let whole = match ["data", "model", "train"].into_iter().all(lacks) {
            true => text.replacen('{', &format!("{{\"data\": {data}, {rest},"), 1),
            false => text,
        };
        let (card, places) = Card::of_text(path, whole, None, sets)?;
        card.prepare.map(|prepare| (prepare, places)).ok_or_else(missing)
    }

    fn of_text(
        path: &Path,
        text: String,
        tune: Option<(&Path, String)>,
        sets: &[String],
    ) -> Result<(Card, Places)> {
        let parse = |path: &Path, text: &str| {
            json::parse(text).map_err(|what| Error::Config(format!("{}: {what}", path.display())))
        };
        let mut card = parse(path, &text)?;
        let mut places = Places::of_text(path, &text);
        if let Some((file, text)) = tune {
            let value = parse(file, &text)?;
            if let Some(fields) = card.as_object_mut() {
                fields.insert("tune".to_owned(), value);
            }
            places.take_from("tune", file, &text);
        }
        let folder = path.canonicalize().map_err(|e| Error::reading(path, &e))?;
        make_absolute(&mut card, folder.parent().unwrap_or(&folder))?;
        for argument in sets {
            let set = Set::parse(argument)?;
            let value = set.value(schema::is_text(&set.path));
            set.apply(&mut card, value)?;
            places.set(&set.dotted());
            let here = std::env::current_dir()
                .map_err(|e| Error::Io(format!("cannot tell the current folder: {e}")))?;
            // Paths of the file are absolute by now, so this reaches only what was just set.
            make_absolute(&mut card, &here)?;
        }
        let shown = path.display().to_string();
        let card = check(&card).map_err(|problems| report(&shown, &problems, &places))?;
        Ok((card, places))
    }

    /// All that is wrong with this card, as `load` would find it. For cards made in code.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        match serde_json::to_value(self) {
            Ok(value) => check(&value).err().unwrap_or_default(),
            Err(e) => vec![Problem::new("", format!("cannot be written as JSON: {e}"))],
        }
    }

    /// Refuses a card with problems.
    ///
    /// # Errors
    /// [`Error::Config`] with all problems, one a line.
    pub fn validate(&self) -> Result<()> {
        let problems = self.problems();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(report("the card", &problems, &Places::default()))
        }
    }

    /// The card as indented JSON, with every default written out: what a run folder keeps.
    ///
    /// # Errors
    /// When a path is not UTF-8.
    pub fn to_json_pretty(&self) -> Result<String> {
        serde_json::to_string_pretty(self)
            .map(|text| text + "\n")
            .map_err(|e| Error::Config(format!("the card cannot be written as JSON: {e}")))
    }

    /// BLAKE3, in hex, of the card as JSON with sorted keys and no spaces, without `$schema`,
    /// `about`, `tune`, `prepare` and `faults`, which do not change what a job computes.
    ///
    /// # Errors
    /// When a path is not UTF-8.
    pub fn hash(&self) -> Result<String> {
        let plain = || {
            // By way of text, so that a 32-bit 0.1307 stays `0.1307`.
            let mut card: Value = serde_json::from_str(&serde_json::to_string(self)?)?;
            if let Some(fields) = card.as_object_mut() {
                fields.retain(|key, _| {
                    !["$schema", "about", "faults", "tune", "prepare"].contains(&key.as_str())
                });
            }
            card.sort_all_objects();
            serde_json::to_string(&card)
        };
        let text = plain()
            .map_err(|e| Error::Config(format!("the card cannot be written as JSON: {e}")))?;
        Ok(blake3::hash(text.as_bytes()).to_hex().to_string())
    }
}

fn report(card: &str, problems: &[Problem], places: &Places) -> Error {
    let line = |problem: &Problem| format!("\n  {problem}{}", places.suffix(&problem.path));
    let lines: Vec<_> = problems.iter().map(line).collect();
    let count = match problems.len() {
        1 => "1 problem".to_owned(),
        n => format!("{n} problems"),
    };
    Error::Config(format!(
        "{card}: {count} (the options are in configs/README.md){}",
        lines.concat()
    ))
}

/// The card that `value` describes, or everything that is wrong with it.
fn check(value: &Value) -> std::result::Result<Card, Vec<Problem>> {
    let mut problems = Vec::new();
    let clean = schema::check(value, &mut problems);
    // `clean` fits the schema; should serde still object, schema and structs have come apart.
    let card: Card = match serde_path_to_error::deserialize(&clean) {
        Ok(card) => card,
        Err(e) => {
            problems.push(Problem::new(&e.path().to_string(), e.inner().to_string()));
            return Err(problems);
        }
    };
    let broken: Vec<String> = problems.iter().map(|problem| problem.path.clone()).collect();
    problems.extend(rules::check(&card, &broken));
    if problems.is_empty() { Ok(card) } else { Err(problems) }
}

/// Makes the relative paths in `card` absolute, starting at `base`.
fn make_absolute(card: &mut Value, base: &Path) -> Result<()> {
    for path in PATHS {
        let fields = match card.pointer_mut(path) {
            Some(Value::Array(list)) => &mut list[..],
            Some(field) => std::slice::from_mut(field),
            None => continue,
        };
        for field in fields {
            let Some(text) = field.as_str().filter(|text| !text.is_empty()) else { continue };
            let whole = below(base, Path::new(text));
            let whole = whole.to_str().ok_or_else(|| {
                let folder = base.display();
                Error::Config(format!("the folder {folder} has a name that is not UTF-8"))
            })?;
            *field = Value::String(whole.to_owned());
        }
    }
    Ok(())
}

/// `base` joined with `path`, with `.` and leading `..` resolved. `base` holds no symbolic link,
/// so to drop its last part is to go to the parent; later `..` may cross a link and stay.
fn below(base: &Path, path: &Path) -> PathBuf {
    let mut whole = base.to_path_buf();
    let mut leading = path.is_relative();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if leading => _ = whole.pop(),
            part => {
                leading = false;
                whole.push(part);
            }
        }
    }
    whole
}

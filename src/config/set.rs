//! `--set path=value`: one field of the card, given on the command line.

use super::json;
use crate::error::{Error, Result};
use serde_json::{Map, Value};

/// One parsed `--set`.
#[derive(Debug, PartialEq)]
pub(super) struct Set {
    /// The keys on the way to the field.
    pub path: Vec<String>,
    /// The text after `=`.
    pub text: String,
}

impl Set {
    /// Takes `a.b=value` apart at the first `=`.
    pub(super) fn parse(argument: &str) -> Result<Set> {
        let usage = |what: &str| {
            let shown = argument.escape_debug();
            Error::Usage(format!("--set {shown}: {what}; write it as --set train.epochs=3"))
        };
        let (path, text) = argument.split_once('=').ok_or_else(|| usage("there is no `=`"))?;
        let path: Vec<String> = path.trim().split('.').map(str::to_owned).collect();
        if path.iter().any(String::is_empty) {
            return Err(usage("the path before `=` is empty or has an empty part"));
        }
        Ok(Set { path, text: text.to_owned() })
    }

    /// The field as the card spells it: `train.epochs`.
    pub(super) fn dotted(&self) -> String {
        self.path.join(".")
    }

    /// The value: JSON if the text is JSON and the field is not plain text, else the text itself.
    pub(super) fn value(&self, field_is_text: bool) -> Value {
        match json::parse(&self.text) {
            Ok(value) if !field_is_text || value.is_string() => value,
            _ => Value::String(self.text.clone()),
        }
    }

    /// Puts `value` into `card`, creating the sections on the way that the card leaves out.
    pub(super) fn apply(&self, card: &mut Value, value: Value) -> Result<()> {
        let mut place = card;
        for (depth, key) in self.path.iter().enumerate() {
            if place.is_null() {
                *place = Value::Object(Map::new());
            }
            place = match place {
                Value::Object(fields) => fields.entry(key.clone()).or_insert(Value::Null),
                Value::Array(items) => {
                    let len = items.len();
                    key.parse::<usize>().ok().and_then(|i| items.get_mut(i)).ok_or_else(|| {
                        self.blocked(depth, &format!("is a list of {len} without an item `{key}`"))
                    })?
                }
                leaf => {
                    return Err(self.blocked(depth, &format!("is {leaf}, which has no fields")));
                }
            };
        }
        *place = value;
        Ok(())
    }

    fn blocked(&self, depth: usize, what: &str) -> Error {
        let parent = self.path[..depth].join(".");
        let parent = if parent.is_empty() { "the card".to_owned() } else { format!("`{parent}`") };
        Error::Usage(format!("--set {}={}: {parent} {what}", self.dotted(), self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn apply(card: Value, argument: &str) -> Result<Value> {
        let set = Set::parse(argument)?;
        let mut card = card;
        set.apply(&mut card, set.value(false))?;
        Ok(card)
    }

    #[test]
    fn a_value_is_json_when_it_can_be_and_text_otherwise() {
        let card = json!({"a": {"b": 1}, "l": [1, 2]});
        assert_eq!(apply(card.clone(), "a.b=2").unwrap()["a"]["b"], 2);
        assert_eq!(apply(card.clone(), "a.b=x=y").unwrap()["a"]["b"], "x=y");
        assert_eq!(apply(card.clone(), "a.b=").unwrap()["a"]["b"], "");
        assert_eq!(apply(card.clone(), "l=[3]").unwrap()["l"], json!([3]));
        assert_eq!(apply(card.clone(), "l.1=9").unwrap()["l"], json!([1, 9]));
        assert_eq!(apply(card, "new.deep=true").unwrap()["new"]["deep"], true);
        assert_eq!(Set::parse("report.out=2024").unwrap().value(true), "2024");
        assert_eq!(Set::parse("report.out=\"a b\"").unwrap().value(true), "a b");
    }

    #[test]
    fn what_cannot_be_set_is_a_usage_error() {
        let card = json!({"a": 1, "l": [1]});
        for (argument, expected) in [
            ("train.epochs", "no `=`"),
            ("=3", "empty"),
            ("a..b=3", "empty part"),
            ("a.b=3", "`a` is 1, which has no fields"),
            ("l.7=3", "`l` is a list of 1 without an item `7`"),
        ] {
            let error = apply(card.clone(), argument).unwrap_err();
            assert_eq!(error.exit_code(), 64);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}

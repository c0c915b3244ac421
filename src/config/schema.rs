//! The JSON schema of a card, and the check of a value against it.
//!
//! The schema is derived from the structs, so it is also the list of names, types and bounds. The
//! check walks card and schema side by side and finds every problem in one pass, where a
//! deserialiser would stop at the first. It knows the part of JSON Schema that `schemars` emits
//! for these structs, no more.

use super::{Card, Problem};
use serde_json::{Map, Value};
use std::sync::LazyLock;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| schemars::schema_for!(Card).to_value());

/// The JSON schema (draft 2020-12) of a card: `configs/schema.json`.
#[must_use]
pub fn schema() -> Value {
    SCHEMA.clone()
}

/// Compares `card` with the schema, appends what is wrong to `problems`, and returns a copy of the
/// card in which each wrong field is gone, or holds a harmless value where it is required.
pub(super) fn check(card: &Value, problems: &mut Vec<Problem>) -> Value {
    walk(&SCHEMA, card, "", problems).unwrap_or_else(|| sample(&SCHEMA))
}

/// Whether the field at `path` takes nothing but text.
pub(super) fn is_text(path: &[String]) -> bool {
    let mut node = &*SCHEMA;
    for key in path {
        match resolve(node).0["properties"].get(key) {
            Some(next) => node = next,
            None => return false,
        }
    }
    kind(resolve(node).0) == "string"
}

/// Follows `$ref` and "this or null"; also says whether null is allowed.
fn resolve(node: &'static Value) -> (&'static Value, bool) {
    if let Some(name) = node["$ref"].as_str() {
        return resolve(&SCHEMA["$defs"][name.trim_start_matches("#/$defs/")]);
    }
    if let Some(options) = node["anyOf"].as_array()
        && let Some(other) = options.iter().find(|o| o["type"] != "null")
    {
        return (resolve(other).0, true);
    }
    let nullable = node["type"].as_array().is_some_and(|types| types.contains(&"null".into()));
    (node, nullable)
}

/// The one type of a node, null aside; `enum` for a choice of words.
fn kind(node: &'static Value) -> &'static str {
    if node.get("oneOf").is_some() || node.get("enum").is_some() {
        return "enum";
    }
    let other = |types: &'static Vec<Value>| types.iter().find_map(|t| t.as_str());
    node["type"].as_str().or_else(|| node["type"].as_array().and_then(other)).unwrap_or("any")
}

/// The words that an enum node allows.
fn words(node: &'static Value) -> Vec<&'static str> {
    let one_of = node["oneOf"].as_array().into_iter().flatten();
    let (listed, plain): (Vec<_>, Vec<_>) = one_of.partition(|o| o.get("enum").is_some());
    let listed = listed.into_iter().chain([node]).filter_map(|o| o["enum"].as_array()).flatten();
    plain
        .into_iter()
        .filter_map(|o| o["const"].as_str())
        .chain(listed.filter_map(Value::as_str))
        .collect()
}

fn join(path: &str, key: &str) -> String {
    let key = key.escape_debug();
    if path.is_empty() { key.to_string() } else { format!("{path}.{key}") }
}

/// The value without its faults, or `None` if it is itself the fault.
fn walk(
    node: &'static Value,
    value: &Value,
    path: &str,
    problems: &mut Vec<Problem>,
) -> Option<Value> {
    let (node, nullable) = resolve(node);
    if nullable && value.is_null() {
        return Some(Value::Null);
    }
    match (kind(node), value) {
        ("object", Value::Object(fields)) => Some(walk_fields(node, fields, path, problems)),
        ("array", Value::Array(items)) if right_length(node, items.len()) => {
            let before = problems.len();
            for (i, item) in items.iter().enumerate() {
                walk(&node["items"], item, &join(path, &i.to_string()), problems);
            }
            (problems.len() == before).then(|| value.clone())
        }
        _ if fits(node, value) => Some(value.clone()),
        _ => {
            problems.push(Problem::new(path, complaint(node, value)));
            None
        }
    }
}

fn walk_fields(
    node: &'static Value,
    fields: &Map<String, Value>,
    path: &str,
    problems: &mut Vec<Problem>,
) -> Value {
    static NONE: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
    let known = node["properties"].as_object().unwrap_or(&NONE);
    let required = |key: &str| {
        node["required"].as_array().is_some_and(|names| names.iter().any(|name| name == key))
    };
    let mut clean = Map::new();
    for (key, value) in fields {
        let Some(field) = known.get(key) else {
            problems.push(Problem::new(&join(path, key), unknown(key, known)));
            continue;
        };
        match walk(field, value, &join(path, key), problems) {
            Some(value) => _ = clean.insert(key.clone(), value),
            None if required(key) => _ = clean.insert(key.clone(), sample(field)),
            None => {}
        }
    }
    for (key, field) in known {
        if required(key) && !fields.contains_key(key) {
            let wanted = expected(resolve(field).0);
            problems.push(Problem::new(&join(path, key), format!("is missing; expected {wanted}")));
            clean.insert(key.clone(), sample(field));
        }
    }
    Value::Object(clean)
}

fn unknown(key: &str, known: &Map<String, Value>) -> String {
    match nearest(key, known.keys().map(String::as_str)) {
        Some(name) => format!("unknown key; did you mean `{name}`?"),
        None => {
            let names: Vec<_> = known.keys().map(|k| format!("`{k}`")).collect();
            format!("unknown key; known here: {}", names.join(", "))
        }
    }
}

/// The name most like `word`, if any is like it.
fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    names
        .map(|name| (strsim::jaro_winkler(&word, name), name))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

fn right_length(node: &Value, len: usize) -> bool {
    let bound = |key: &str| node[key].as_u64();
    bound("minItems").is_none_or(|min| len as u64 >= min)
        && bound("maxItems").is_none_or(|max| len as u64 <= max)
}

/// Whether a value without parts is of the node's type and within its bounds.
fn fits(node: &'static Value, value: &Value) -> bool {
    match kind(node) {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "enum" => value.as_str().is_some_and(|word| words(node).contains(&word)),
        "integer" => value.as_u64().is_some_and(|n| within(node, n as f64)),
        "number" => value.as_f64().is_some_and(|x| {
            // What a 32-bit field would really hold: 1e39 is infinite there, 1e-60 is zero.
            let x = if node["format"] == "float" { f64::from(x as f32) } else { x };
            x.is_finite() && within(node, x)
        }),
        _ => false,
    }
}

fn within(node: &Value, x: f64) -> bool {
    let bound = |key: &str| node[key].as_f64();
    bound("minimum").is_none_or(|b| x >= b)
        && bound("maximum").is_none_or(|b| x <= b)
        && bound("exclusiveMinimum").is_none_or(|b| x > b)
        && bound("exclusiveMaximum").is_none_or(|b| x < b)
}

/// `"x" is not one of ...`, with a hint where one is likely to help.
fn complaint(node: &'static Value, value: &Value) -> String {
    let mut found = value.to_string();
    if found.chars().count() > 60 {
        found = found.chars().take(57).chain("...".chars()).collect();
    }
    let text = format!("{found} is not {}", expected(node));
    let hint = match (kind(node), value) {
        ("enum", Value::String(word)) => {
            nearest(word, words(node).into_iter()).map(|name| format!("; did you mean `{name}`?"))
        }
        ("integer", Value::Number(n)) if n.is_f64() => match n.as_f64() {
            Some(x) if x >= 18_446_744_073_709_551_616.0 => {
                Some("; the largest is 18446744073709551615".into())
            }
            Some(x) if x.fract() == 0.0 && x >= 0.0 => Some(format!("; write it as {}", x as u64)),
            _ => None,
        },
        ("integer" | "number" | "boolean", Value::String(_)) => Some("; remove the quotes".into()),
        _ => None,
    };
    text + &hint.unwrap_or_default()
}

/// What a node takes, in words: `a positive whole number`.
fn expected(node: &'static Value) -> String {
    let bound = |key: &str| node.get(key).filter(|b| !b.is_null());
    let exactly = bound("minItems").filter(|min| bound("maxItems") == Some(min));
    match kind(node) {
        "object" => "a section { ... }".into(),
        "array" => {
            let count = exactly.map(|n| format!("{n} x ")).unwrap_or_default();
            format!("a list of {count}{}", expected(resolve(&node["items"]).0))
        }
        "string" => "text".into(),
        "boolean" => "true or false".into(),
        "enum" => {
            let words: Vec<_> = words(node).iter().map(|word| format!("`{word}`")).collect();
            if words.len() == 1 { words.concat() } else { format!("one of {}", words.join(", ")) }
        }
        "integer" => match (node["minimum"].as_f64(), bound("maximum")) {
            (Some(1.0), None) => "a positive whole number".into(),
            (min, None) => format!("a whole number, {} or more", min.unwrap_or(0.0)),
            (Some(1.0), Some(max)) => format!("a positive whole number, at most {max}"),
            (min, Some(max)) => format!("a whole number from {} to {max}", min.unwrap_or(0.0)),
        },
        _ => {
            let parts = [
                ("minimum", "at least"),
                ("exclusiveMinimum", "above"),
                ("maximum", "at most"),
                ("exclusiveMaximum", "below"),
            ];
            let parts = parts.map(|(key, word)| bound(key).map(|b| format!("{word} {b}")));
            let bounds: Vec<_> = parts.into_iter().flatten().collect();
            format!("a number {}", bounds.join(" and ")).trim_end().to_owned()
        }
    }
}

/// A value that the node takes, so that the rest of a card with a wrong field can be checked.
fn sample(node: &'static Value) -> Value {
    let (node, _) = resolve(node);
    match kind(node) {
        "object" => {
            let names = node["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let fields = names.map(|name| (name.into(), sample(&node["properties"][name])));
            Value::Object(fields.collect())
        }
        "array" => Value::Array(vec![]),
        "string" => "".into(),
        "boolean" => false.into(),
        "enum" => words(node).first().copied().unwrap_or_default().into(),
        _ => node.get("minimum").cloned().unwrap_or(1.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn p() {
        println!("{:#}", schema());
    }
}

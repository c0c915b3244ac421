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

/// The words that an enum node allows: documented ones stand in `oneOf`, bare ones in `enum`.
fn words(node: &'static Value) -> Vec<&'static str> {
    let choices = node["oneOf"].as_array().into_iter().flatten().chain([node]);
    let bare = |node: &'static Value| node["enum"].as_array().into_iter().flatten();
    choices
        .flat_map(|c| c.get("const").into_iter().chain(bare(c)))
        .filter_map(Value::as_str)
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
        let any_key = node.get("additionalProperties").filter(|other| other.is_object());
        let Some(field) = known.get(key).or(any_key) else {
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

/// The name most like `word` as a whole or in a part (`batch_size` is like `global_batch`), the
/// first of equals; `None` if nothing is alike.
fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let likeness = |name: &str| {
        let parts = name.split('_').flat_map(|n| word.split('_').map(move |w| (n, w)));
        let long = parts.filter(|(n, w)| n.len() > 3 && w.len() > 3);
        let part = long.map(|(n, w)| 0.9 * strsim::normalized_damerau_levenshtein(n, w));
        part.fold(strsim::normalized_damerau_levenshtein(name, &word), f64::max)
    };
    let mut best = (0.6, None);
    for name in names {
        if likeness(name) > best.0 {
            best = (likeness(name), Some(name));
        }
    }
    best.1
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
        // `true` is the schema of whatever there is.
        _ => *node == Value::Bool(true),
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
        "any" => "any value".into(),
        "array" => {
            let count = exactly.map(|n| format!(" of {n}")).unwrap_or_default();
            format!("a list{count}, each {}", expected(resolve(&node["items"]).0))
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

/// All options as a Markdown table, for `configs/README.md`.
#[cfg(test)]
pub(super) fn options_table() -> String {
    fn rows(node: &'static Value, path: &str, needed: &str, out: &mut String) {
        let Some(fields) = node["properties"].as_object() else { return };
        for (key, field) in fields {
            let ((inner, optional), path) = (resolve(field), join(path, key));
            let text = |node: &Value| node["description"].as_str().unwrap_or("").replace('\n', " ");
            let any_key = &inner["additionalProperties"];
            if any_key.is_object() {
                let wanted = expected(inner);
                *out += &format!("| `{path}` | {wanted} | {needed} | {} |\n", text(field));
                rows(resolve(any_key).0, &format!("{path}.OPTION"), "required in each", out);
                continue;
            }
            if kind(inner) == "object" {
                let within = format!("required in `{path}`");
                rows(inner, &path, if optional { &within } else { needed }, out);
                continue;
            }
            let required = node["required"].as_array().is_some_and(|r| r.contains(&key[..].into()));
            let default = match field.get("default") {
                Some(Value::Null) | None if required => needed.to_owned(),
                Some(Value::Null) | None => "–".into(),
                Some(value) => format!("`{value}`"),
            };
            let wanted = expected(inner);
            *out += &format!("| `{path}` | {wanted} | {default} | {} |\n", text(field));
            let item = resolve(&inner["items"]).0;
            if kind(inner) == "array" && kind(item) == "object" {
                rows(item, &format!("{path}[]"), "required in each", out);
            }
        }
    }
    let mut out = "| option | takes | default | meaning |\n|---|---|---|---|\n".to_owned();
    rows(&SCHEMA, "", "**required**", &mut out);
    out
}

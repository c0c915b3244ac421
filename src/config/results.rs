//! Which fields of a card decide the results of a run: those that a resumed run may not change.

use super::{Card, Monitor, SpikeAction};
use crate::error::{Error, Result};
use serde_json::Value;

/// Sections and fields that change how a run goes, not what it comes to. Files may move: what is in
/// them is compared by fingerprint instead.
const FREE: [&str; 15] = [
    "$schema",
    "about",
    "comm",
    "report",
    "checkpoint",
    "guards.replicas_every",
    "ledger",
    "faults",
    "prepare",
    "data.prefetch",
    "data.train",
    "data.val",
    "data.test",
    "train.max_time_s",
    "tune",
];
/// Fields of `train` that are free for the same reason.
const FREE_IN_TRAIN: [&str; 4] =
    ["train.probe", "train.eval_batch", "train.pause_at_step", "train.pause_at_epoch"];
/// Where a run goes back to after a spike: free where the card does not rewind.
const REWIND: [&str; 2] = ["checkpoint.every_steps", "checkpoint.every_epochs"];
/// The length of the run: free unless the learning rate of each step follows from it.
const LENGTH: [&str; 2] = ["train.epochs", "train.max_steps"];

/// Whether the field at `path` of `card` decides the results.
#[must_use]
pub fn decides(card: &Card, path: &str) -> bool {
    let inside = |free: &&str| {
        path.strip_prefix(*free).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    if LENGTH.contains(&path) {
        return card.schedule.kind.follows_the_length();
    }
    if REWIND.contains(&path) {
        return card.guards.spike.as_ref().is_some_and(|s| s.action == SpikeAction::Rewind);
    }
    if inside(&"metrics") {
        return path == "metrics.top_k" && card.watches(Monitor::TopK);
    }
    !FREE.iter().chain(&FREE_IN_TRAIN).any(inside)
}

/// The fields that decide results and differ between two cards, each as
/// ``optimizer.lr was 0.1 and is `0.2` ``, in the cards' order.
///
/// # Errors
/// When a card cannot be written as JSON.
pub fn differences(was: &Card, is: &Card) -> Result<Vec<String>> {
    let value = |card: &Card| {
        serde_json::to_value(card).map_err(|e| Error::Internal(format!("the card as JSON: {e}")))
    };
    let mut found = Vec::new();
    compare("", &value(was)?, &value(is)?, &mut found);
    let decides = |path: &str| decides(was, path) || decides(is, path);
    found.retain(|(path, _)| decides(path));
    Ok(found.into_iter().map(|(_, text)| text).collect())
}

/// The same of two cards whose runs are to be compared with each other: the length of the run counts, too.
///
/// # Errors
/// As [`differences`].
pub fn differences_of_outcome(was: &Card, is: &Card) -> Result<Vec<String>> {
    let mut found = differences(was, is)?;
    let (a, b) = (&was.train, &is.train);
    for (path, was, is) in [(LENGTH[0], a.epochs, b.epochs), (LENGTH[1], a.max_steps, b.max_steps)]
    {
        let told = found.iter().any(|text| text.starts_with(path));
        if was != is && !told {
            let show = |n: Option<u64>| n.map_or("left out".to_owned(), |n| n.to_string());
            found.push(format!("{path} was {} and is {}", show(was), show(is)));
        }
    }
    Ok(found)
}

/// Lists the leaves in which two values differ, with their paths.
fn compare(path: &str, was: &Value, is: &Value, found: &mut Vec<(String, String)>) {
    if was == is {
        return;
    }
    let (Value::Object(a), Value::Object(b)) = (was, is) else {
        found.push((path.to_owned(), format!("{path} was {} and is {}", show(was), show(is))));
        return;
    };
    let only_new = b.keys().filter(|key| !a.contains_key(*key));
    for key in a.keys().chain(only_new) {
        let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
        compare(&below, &of(a), &of(b), found);
    }
}

/// A value as people read it: `null` stands for a field that was left out.
fn show(value: &Value) -> String {
    match value {
        Value::Null => "left out".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(sets: &[(&str, Value)]) -> Card {
        let text = include_str!("../../configs/lenet-mnist.json");
        let mut value: Value = serde_json::from_str(text).unwrap();
        for (path, to) in sets {
            let mut place = &mut value;
            for key in path.split('.') {
                place = &mut place[key];
            }
            *place = to.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_decides_results_is_told_with_both_values_and_the_rest_is_free() {
        let was = card(&[]);
        let is = card(&[
            ("optimizer.lr", 0.5.into()),
            ("model.dropout", 0.25.into()),
            ("comm.overlap", "off".into()),
            ("about", "another".into()),
            ("data.prefetch", 9.into()),
            ("data.train.images", "elsewhere".into()),
            ("checkpoint.every_steps", 7.into()),
        ]);
        let found = differences(&was, &is).unwrap();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.iter().any(|f| f.starts_with("model.dropout was 0") && f.contains("0.25")));
        assert!(found.iter().any(|f| f.starts_with("optimizer.lr was") && f.ends_with("is 0.5")));
        assert!(differences(&was, &was).unwrap().is_empty());
    }

    #[test]
    fn a_run_may_become_longer_unless_its_learning_rate_follows_its_length() {
        let of = |kind: &str, epochs: u64| {
            card(&[("schedule.kind", kind.into()), ("train.epochs", epochs.into())])
        };
        assert!(differences(&of("constant", 2), &of("constant", 3)).unwrap().is_empty());
        let found = differences(&of("cosine", 2), &of("cosine", 3)).unwrap();
        assert_eq!(found, ["train.epochs was 2 and is 3"]);
        for kind in ["constant", "cosine"] {
            let found = differences_of_outcome(&of(kind, 2), &of(kind, 3)).unwrap();
            assert_eq!(found, ["train.epochs was 2 and is 3"]);
        }
    }

    #[test]
    fn what_is_counted_is_free_unless_it_is_watched() {
        let of = |k: usize, monitor: &str| {
            let metrics = serde_json::json!({"top_k": k, "confusion": k == 2});
            let stop = serde_json::json!({"monitor": monitor, "patience": 3});
            card(&[("metrics", metrics), ("train.early_stopping", stop)])
        };
        let differ = |monitor| differences(&of(2, monitor), &of(3, monitor)).unwrap();
        assert!(differ("val_loss").is_empty());
        assert_eq!(differ("val_top_k_accuracy"), ["metrics.top_k was 2 and is 3"]);
    }
}

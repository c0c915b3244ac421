//! `state.json`: where the run stands, in numbers and in whatever else the caller keeps.

use super::snapshot::Snapshot;
use crate::config::json;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Larger ones are refused. A parsed value can take 85 times the memory of its text (an empty object
/// as an element of a list), so this stands for at most 22 MB.
pub(super) const MAX_BYTES: u64 = 256 << 10;

type Result<T> = std::result::Result<T, String>;

/// The content; [`Snapshot`] says what each is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    pub(super) step: u64,
    pub(super) epoch: u64,
    pub(super) position: u64,
    pub(super) metrics_bytes: u64,
    pub(super) state: Value,
}

impl State {
    pub(super) fn of(snapshot: &Snapshot) -> State {
        State {
            step: snapshot.step,
            epoch: snapshot.epoch,
            position: snapshot.position,
            metrics_bytes: snapshot.metrics_bytes,
            state: snapshot.state.clone(),
        }
    }

    /// The text, if it can be read back.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut text = serde_json::to_string_pretty(self).map_err(|e| e.to_string())?;
        text.push('\n');
        if text.len() as u64 > MAX_BYTES {
            return Err(format!("its state has {} bytes; {MAX_BYTES} is the limit", text.len()));
        }
        // Nesting has a limit for the reader only.
        let back = State::parse(text.as_bytes()).map_err(|e| format!("its state: {e}"))?;
        if back.state != self.state {
            return Err("its state does not survive being written as JSON".to_owned());
        }
        Ok(text.into_bytes())
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<State> {
        let text = std::str::from_utf8(bytes).map_err(|e| format!("not UTF-8 text: {e}"))?;
        serde_json::from_value(json::parse(text)?).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(state: Value) -> State {
        State::of(&Snapshot { step: 3, position: 64, state, ..Snapshot::default() })
    }

    #[test]
    fn what_can_be_written_can_be_read_and_the_rest_is_refused_when_written() {
        let state =
            json!({"loss": 0.1, "seed": u64::MAX, "delta": i64::MIN, "note": "a\n\u{1F600}"});
        let bytes = of(state.clone()).to_bytes().unwrap();
        let back = State::parse(&bytes).unwrap();
        assert_eq!((back.step, back.position, back.state), (3, 64, state));
        let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
        assert!(of(deep).to_bytes().unwrap_err().contains("nested deeper"));
        let large = json!("x".repeat(300_000));
        assert!(of(large).to_bytes().unwrap_err().contains("262144 is the limit"));
    }

    #[test]
    fn numbers_out_of_range_and_keys_given_twice_are_refused() {
        let text = String::from_utf8(of(json!({})).to_bytes().unwrap()).unwrap();
        for (from, to) in [
            ("\"step\": 3", "\"step\": -3"),
            ("\"step\": 3", "\"step\": 3.5"),
            ("\"step\": 3", "\"step\": 3, \"step\": 4"),
            ("\"step\": 3,", ""),
            ("\"position\": 64", "\"position\": 1e99"),
            ("\"position\": 64", "\"position\": NaN"),
            ("\"state\": {}", "\"state\": {\"a\": 1, \"a\": 2}"),
            ("\"state\": {}", "\"state\": {}, \"more\": 1"),
        ] {
            assert!(text.contains(from), "{text}");
            assert!(State::parse(text.replace(from, to).as_bytes()).is_err(), "{to}");
        }
    }
}

//! An optimizer's memory as named tensors: `conv1.weight.exp_avg`, as PyTorch calls its parts.

use super::model_file::{Named, check_fits};
use crate::error::{Error, Result};
use crate::optim::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// What is not a tensor.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    kind: String,
    step: u64,
    moments: Vec<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    averaged: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Splits an optimizer's memory into a small value for [`super::Snapshot::state`] and tensors for a
/// group. `params` are the names and shapes of the parameters, in parameter order. No value is copied.
///
/// # Errors
/// [`Error::Internal`] when the state is not of these parameters.
pub fn pack(state: State, params: &[(String, Vec<usize>)]) -> Result<(Value, Vec<Named>)> {
    let moments = state.moments.iter().map(|(name, _)| name.clone()).collect();
    let about = About { kind: state.kind, step: state.step, moments, averaged: state.averaged };
    let mut tensors = Vec::with_capacity(about.moments.len() * params.len());
    for (moment, all) in state.moments {
        if all.len() != params.len() {
            return Err(Error::Internal(format!(
                "{moment} is of {} parameters, the model has {}",
                all.len(),
                params.len()
            )));
        }
        for ((name, shape), values) in params.iter().zip(all) {
            tensors.push(Named { name: format!("{name}.{moment}"), shape: shape.clone(), values });
        }
    }
    let about = serde_json::to_value(about)
        .map_err(|e| Error::Internal(format!("cannot describe the optimizer: {e}")))?;
    Ok((about, tensors))
}

/// Puts together what [`pack`] split. `path` is the checkpoint, for messages.
///
/// # Errors
/// [`Error::Data`] when the tensors are not those that `about` and `params` speak of; all
/// differences are listed.
pub fn unpack(
    path: &Path,
    about: &Value,
    tensors: Vec<Named>,
    params: &[(String, Vec<usize>)],
) -> Result<State> {
    let bad = |why: String| Error::Data(format!("{}: optimizer state: {why}", path.display()));
    let about = About::deserialize(about).map_err(|e| bad(e.to_string()))?;
    let named = |param: &str, moment: &str| format!("{param}.{moment}");
    let needed: Vec<(String, Vec<usize>)> = about
        .moments
        .iter()
        .flat_map(|m| params.iter().map(move |(name, shape)| (named(name, m), shape.clone())))
        .collect();
    check_fits(&path.join("optimizer.safetensors"), &tensors, &needed)?;
    let mut by_name: BTreeMap<String, Vec<f32>> =
        tensors.into_iter().map(|t| (t.name, t.values)).collect();
    let mut take =
        |name: String| by_name.remove(&name).ok_or_else(|| bad(format!("{name} is needed twice")));
    let moments = about
        .moments
        .into_iter()
        .map(|m| {
            let values = params.iter().map(|(name, _)| take(named(name, &m)));
            values.collect::<Result<Vec<_>>>().map(|values| (m, values))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(State { kind: about.kind, step: about.step, moments, averaged: about.averaged })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params() -> Vec<(String, Vec<usize>)> {
        vec![("a.bias".to_owned(), vec![2]), ("a.weight".to_owned(), vec![1, 3])]
    }

    fn adam() -> State {
        let values = || vec![vec![0.5, -0.0], vec![1e-40, 2.0, 3.0]];
        let moments = vec![("exp_avg".to_owned(), values()), ("exp_avg_sq".to_owned(), values())];
        State { kind: "adam".to_owned(), step: 12, moments, averaged: 7 }
    }

    #[test]
    fn an_optimizer_comes_back_as_it_was() {
        for state in [adam(), State { kind: "sgd".to_owned(), step: 3, ..State::default() }] {
            let (about, mut tensors) = pack(state.clone(), &params()).unwrap();
            tensors.sort_by(|a, b| a.name.cmp(&b.name));
            assert_eq!(unpack(Path::new("c"), &about, tensors, &params()).unwrap(), state);
        }
    }

    #[test]
    fn tensors_of_another_model_or_a_list_that_lies_are_refused() {
        let (about, tensors) = pack(adam(), &params()).unwrap();
        let mut other = params();
        other[0].1 = vec![4];
        let unpack = |about: &Value, params: &[_]| {
            unpack(Path::new("c"), about, tensors.clone(), params).unwrap_err()
        };
        let error = unpack(&about, &other);
        assert_eq!(error.exit_code(), 65);
        assert!(error.to_string().contains("a.bias.exp_avg has shape [2]"), "{error}");
        for (from, to, expected) in [
            ("12", "-12", "integer `-12`"),
            ("\"exp_avg_sq\"", "\"exp_avg_sq\",\"exp_avg\"", "needed twice"),
            ("\"exp_avg_sq\"", "\"momentum\"", "momentum is missing"),
            ("\"kind\"", "\"sort\"", "unknown field `sort`"),
        ] {
            let text = about.to_string();
            assert!(text.contains(from), "{text}");
            let lie = serde_json::from_str(&text.replace(from, to)).unwrap();
            let error = unpack(&lie, &params());
            assert!(error.to_string().contains(expected), "{error}");
        }
        assert!(pack(adam(), &params()[1..]).is_err());
    }
}

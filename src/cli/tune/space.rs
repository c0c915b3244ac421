//! From a space to trials: every combination of a grid, or draws. Pure.
//!
//! A draw is a function of the seed, the option's path and the number of the draw alone: more trials begin with
//! the same ones, and another option beside it changes none of its values.

use crate::config::{Dimension, Method, Tune};
use crate::error::{Error, Result};
use crate::util::rng::{Purpose, Rng};
use serde_json::Value;
use std::collections::BTreeSet;

/// The values of one trial: options by their paths, in the order of their names.
pub type Values = Vec<(String, Value)>;

/// More are not tried.
const MOST: usize = 10_000;
/// More corners are not checked; then each option is at its ends while the others are at their first.
const CORNERS: usize = 4096;

/// All trials, by number.
///
/// # Errors
/// [`Error::Config`] when a grid is too large, or has fewer combinations than trials are asked for.
pub fn trials(tune: &Tune) -> Result<Vec<Values>> {
    match tune.method {
        Method::Grid => {
            let values: Vec<Vec<Value>> = tune.space.values().map(grid).collect();
            let count = combinations(&values);
            let count = count.filter(|count| *count <= MOST).ok_or_else(|| {
                Error::Config(format!(
                    "tune.space: a grid of more than {MOST} combinations; take fewer values, or `random`"
                ))
            })?;
            Ok((0..count).map(|i| combination(tune, &values, i)).collect())
        }
        Method::Random | Method::Halving => drawn(tune, tune.trials.unwrap_or(1)),
    }
}

/// Trials at the ends of all options' ranges, and at all values of a choice: if the card takes those, it takes what
/// lies between.
#[must_use]
pub fn corners(tune: &Tune) -> Vec<Values> {
    let ends: Vec<Vec<Value>> = tune.space.values().map(ends).collect();
    match combinations(&ends).filter(|count| *count <= CORNERS) {
        Some(count) => (0..count).map(|i| combination(tune, &ends, i)).collect(),
        None => {
            let first: Values = combination(tune, &ends, 0);
            let of = |(at, values): (usize, &Vec<Value>)| {
                let with = |value: &Value| {
                    let mut trial = first.clone();
                    trial[at].1 = value.clone();
                    trial
                };
                values.iter().map(with).collect::<Vec<_>>()
            };
            ends.iter().enumerate().flat_map(of).collect()
        }
    }
}

/// How many combinations there are; `None` if more than can be counted.
fn combinations(values: &[Vec<Value>]) -> Option<usize> {
    values.iter().try_fold(1usize, |product, values| product.checked_mul(values.len()))
}

/// Combination `i`; the last option's value changes fastest.
fn combination(tune: &Tune, values: &[Vec<Value>], i: usize) -> Values {
    let mut rest = i;
    let mut picked: Values = tune
        .space
        .keys()
        .zip(values)
        .rev()
        .map(|(path, values)| {
            let value = values[rest % values.len()].clone();
            rest /= values.len();
            (path.clone(), value)
        })
        .collect();
    picked.reverse();
    picked
}

/// The first `count` draws that are not the same as an earlier one.
fn drawn(tune: &Tune, count: usize) -> Result<Vec<Values>> {
    let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
    for draw in 0..(1000 + 50 * count as u64) {
        if found.len() == count {
            break;
        }
        let of = |(path, dimension): (&String, &Dimension)| {
            let mut rng = Rng::new(tune.seed, Purpose::Search, 0, name_hash(path), draw);
            (path.clone(), dimension_draw(dimension, &mut rng))
        };
        let values: Values = tune.space.iter().map(of).collect();
        if seen.insert(format!("{values:?}")) {
            found.push(values);
        }
    }
    if found.len() < count {
        return Err(Error::Config(format!(
            "tune.trials: {count} different trials are asked for and only {} were found; ask for so many, or \
             take `grid`",
            found.len()
        )));
    }
    Ok(found)
}

fn name_hash(path: &str) -> u64 {
    let hash = blake3::hash(path.as_bytes());
    hash.as_bytes()[..8].iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

fn dimension_draw(dimension: &Dimension, rng: &mut Rng) -> Value {
    if let Some(values) = &dimension.choice {
        return values.get(rng.below(values.len() as u64) as usize).cloned().unwrap_or_default();
    }
    if let Some([low, high]) = dimension.int {
        let count = (high - low).saturating_add(1);
        return (low + rng.below(count)).into();
    }
    number(dimension, rng.uniform_f64()).into()
}

/// The number at `share` of a range, 0 its beginning and 1 its end, in four significant digits.
fn number(dimension: &Dimension, share: f64) -> f64 {
    let between = |low: f64, high: f64| low + share * (high - low);
    let (exact, [low, high]) = match (dimension.uniform, dimension.log_uniform) {
        (Some([low, high]), _) => (between(low, high), [low, high]),
        (None, Some([low, high])) => (between(low.ln(), high.ln()).exp(), [low, high]),
        // A dimension has one of its kinds: the card was checked.
        (None, None) => (0.0, [0.0, 0.0]),
    };
    format!("{exact:.3e}").parse().unwrap_or(exact).clamp(low, high)
}

/// The values of a grid.
fn grid(dimension: &Dimension) -> Vec<Value> {
    if let Some(values) = &dimension.choice {
        return values.clone();
    }
    let points = dimension.points.unwrap_or(2);
    let share = |i: usize| i as f64 / (points - 1).max(1) as f64;
    let mut values: Vec<Value> = (0..points)
        .map(|i| match dimension.int {
            Some([low, high]) => (low + (share(i) * (high - low) as f64).round() as u64).into(),
            None if i == 0 => ends(dimension)[0].clone(),
            None if i + 1 == points => ends(dimension)[1].clone(),
            None => number(dimension, share(i)).into(),
        })
        .collect();
    values.dedup();
    values
}

/// All values of a choice, or both ends of a range.
fn ends(dimension: &Dimension) -> Vec<Value> {
    let Dimension { choice, uniform, log_uniform, int, .. } = dimension;
    let numbers = uniform.or(*log_uniform).map(|ends| ends.map(Value::from).to_vec());
    let whole = int.map(|ends| ends.map(Value::from).to_vec());
    choice.clone().or(numbers).or(whole).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn tune(value: Value) -> Tune {
        serde_json::from_value(value).unwrap()
    }

    fn space() -> Value {
        json!({
            "optimizer.lr": {"log_uniform": [1e-4, 1e-1]},
            "train.global_batch": {"choice": [32, 64, 96]},
            "model.dropout": {"uniform": [0.0, 0.5]},
            "schedule.warmup_steps": {"int": [0, 7]},
        })
    }

    fn random(trials: usize, seed: u64, space: Value) -> Vec<Values> {
        super::trials(&tune(json!({"trials": trials, "seed": seed, "space": space}))).unwrap()
    }

    proptest! {
            #[test]
            fn draws_lie_within_their_bounds(seed in any::<u64>(), trials in 1usize..60) {
                for values in random(trials, seed, space()) {
                    let of = |path: &str| values.iter().find(|(p, _)| p == path).unwrap().1.clone();
                    let lr = of("optimizer.lr").as_f64().unwrap();
                    prop_assert!((1e-4..=1e-1).contains(&lr));
                    prop_assert!((0.0..=0.5).contains(&of("model.dropout").as_f64().unwrap()));
                    prop_assert!(of("schedule.warmup_steps").as_u64().unwrap() <= 7);
                    prop_assert!([32, 64, 96].contains(&of("train.global_batch").as_u64().unwrap()));
                    // As text on a command line it is the same number.
                    prop_assert_eq!(lr.to_string().parse::<f64>().unwrap(), lr);
                }
            }

            #[test]
            fn the_same_seed_gives_the_same_trials_and_more_trials_begin_with_the_fewer(
                seed in any::<u64>(), few in 1usize..40, more in 0usize..40,
            ) {
                let (a, b) = (random(few, seed, space()), random(few + more, seed, space()));
                prop_assert_eq!(&a[..], &b[..few]);
                let mut different = b.clone();
                different.sort_by_key(|values| format!("{values:?}"));
                different.dedup();
                prop_assert_eq!(different.len(), b.len());
            }

            #[test]
            fn an_option_beside_it_changes_no_value_of_another(seed in any::<u64>()) {
                let alone = json!({"optimizer.lr": {"log_uniform": [1e-4, 1e-1]}});
                let lr = |trials: Vec<Values>| -> Vec<Value> {
                    let of = |values: Values| values.into_iter().find(|(p, _)| p == "optimizer.lr");
                    trials.into_iter().map(|values| of(values).unwrap().1).collect()
                };
    let beside = lr(random(9, seed, space()));
                // A draw that comes twice is left out, which only the option alone would do.
                let twice = (1..9).any(|i| beside[..i].contains(&beside[i]));
                prop_assume!(!twice);
                prop_assert_eq!(lr(random(9, seed, alone)), beside);
            }

            #[test]
            fn a_grid_has_every_combination_once_with_both_ends(points in 2usize..9, low in 0u64..50) {
                let space = json!({
                    "a": {"choice": ["x", 2]},
                    "b": {"log_uniform": [0.001, 0.1], "points": points},
                    "c": {"int": [low, low + 3], "points": 2},
                });
                let trials = super::trials(&tune(json!({"method": "grid", "space": space}))).unwrap();
                prop_assert_eq!(trials.len(), 4 * points);
                let unique: BTreeSet<String> = trials.iter().map(|t| format!("{t:?}")).collect();
                prop_assert_eq!(unique.len(), trials.len());
                prop_assert_eq!(&trials[0], &vec![
                    ("a".to_owned(), json!("x")), ("b".to_owned(), json!(0.001)), ("c".to_owned(), json!(low)),
                ]);
                prop_assert_eq!(&trials[4 * points - 1][1].1, &json!(0.1));
                prop_assert_eq!(&trials[1][2].1, &json!(low + 3));
            }
        }

    #[test]
    fn another_seed_draws_other_trials() {
        assert_ne!(random(5, 1, space()), random(5, 2, space()));
    }

    #[test]
    fn the_logarithm_of_log_uniform_is_uniform() {
        let trials = random(4000, 3, json!({"a": {"log_uniform": [1e-4, 1e-1]}}));
        let below = |limit: f64| {
            let count = trials.iter().filter(|t| t[0].1.as_f64().unwrap() < limit).count();
            count as f64 / 4000.0
        };
        for (limit, share) in [(1e-3, 1.0 / 3.0), (1e-2, 2.0 / 3.0)] {
            assert!((below(limit) - share).abs() < 0.03, "{}", below(limit));
        }
    }

    #[test]
    fn more_trials_than_there_are_combinations_and_grids_without_end_are_refused() {
        let few =
            tune(json!({"trials": 5, "space": {"a": {"choice": [1, 2]}, "b": {"int": [0, 1]}}}));
        let error = super::trials(&few).unwrap_err().to_string();
        assert!(error.contains("tune.trials: 5") && error.contains("only 4"), "{error}");
        let dimension = json!({"uniform": [0, 1], "points": 10_000});
        let space: serde_json::Map<String, Value> =
            (0..6).map(|i| (format!("o{i}"), dimension.clone())).collect();
        let huge = tune(json!({"method": "grid", "space": space}));
        assert_eq!(super::trials(&huge).unwrap_err().exit_code(), 78);
        assert_eq!(corners(&huge).len(), 64);
    }

    #[test]
    fn corners_are_all_ends_and_all_choices_or_each_alone_where_those_are_too_many() {
        assert_eq!(corners(&tune(json!({"trials": 1, "space": space()}))).len(), 2 * 3 * 2 * 2);
        let many: serde_json::Map<String, Value> =
            (0..20).map(|i| (format!("o{i:02}"), json!({"int": [0, 9]}))).collect();
        let found = corners(&tune(json!({"trials": 1, "space": many})));
        assert_eq!(found.len(), 40);
        assert!(found.iter().any(|trial| trial[7].1 == 9 && trial[8].1 == 0));
    }
}

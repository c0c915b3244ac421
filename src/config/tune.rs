//! What `annulus tune` searches: [`Tune`], the options and where their best values may lie.

use super::Card;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A search for the best values of some options of the card (`annulus tune`, docs/TUNE.md). Training alone does not
/// look at it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tune {
    /// How trials are chosen.
    #[serde(default)]
    pub method: Method,
    /// How many trials there are (random, halving); a grid has one for each combination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub trials: Option<usize>,
    /// Another seed draws other trials (random, halving).
    #[serde(default = "one")]
    pub seed: u64,
    /// What makes a trial the best.
    #[serde(default)]
    pub objective: Objective,
    /// When trials are compared and the worse ones given up (halving).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halving: Option<Halving>,
    /// The options, by their path in the card (`optimizer.lr`), and the values of each.
    pub space: BTreeMap<String, Dimension>,
}

fn one() -> u64 {
    1
}

/// How trials are chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Every combination of all values.
    Grid,
    /// Each option drawn by itself (Bergstra and Bengio, 2012).
    #[default]
    Random,
    /// Drawn as `random`; all are trained a little, the better ones more (Jamieson and Talwalkar, 2016).
    Halving,
}

/// The number to be made large or small.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Objective {
    /// A field of the lines `eval` in `metrics.jsonl`: `accuracy`, `loss`, `perplexity`, …; `val_loss` is
    /// `loss`, too.
    pub metric: String,
    /// Which is better; when left out the smaller where the name has `loss`, `perplexity`, `error`, `mae` or
    /// `mse` in it, else the larger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<Goal>,
    /// Which evaluation of a trial counts.
    pub of: Which,
}

impl Default for Objective {
    fn default() -> Self {
        Objective { metric: "accuracy".to_owned(), goal: None, of: Which::Last }
    }
}

impl Objective {
    /// The field's name in `metrics.jsonl`.
    #[must_use]
    pub fn field(&self) -> &str {
        self.metric.strip_prefix("val_").unwrap_or(&self.metric)
    }

    /// The goal, or the one that the name suggests.
    #[must_use]
    pub fn goal(&self) -> Goal {
        let small = ["loss", "perplexity", "error", "mae", "mse"];
        let suggested = match small.iter().any(|word| self.field().contains(word)) {
            true => Goal::Min,
            false => Goal::Max,
        };
        self.goal.unwrap_or(suggested)
    }
}

/// Which of two values of the objective is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// The larger one.
    Max,
    /// The smaller one.
    Min,
}

/// Which evaluation of a trial counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// The last one.
    #[default]
    Last,
    /// The best one.
    Best,
}

/// Successive halving: after `first`, then `first` × `factor`, … epochs or steps one of `factor` trials goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Halving {
    /// What is counted.
    #[serde(default)]
    pub by: Unit,
    /// How many of them each trial gets at first; the last ones are trained to the end of the card.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub first: u64,
    /// One of so many trials goes on, with so many times the training.
    #[serde(default = "three")]
    #[schemars(range(min = 2, max = 1000))]
    pub factor: u64,
}

fn three() -> u64 {
    3
}

/// What the length of training is counted in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Of `train.epochs`, which the card must have.
    #[default]
    Epochs,
    /// Of `train.max_steps`, which the card must have.
    Steps,
}

/// The values of one option: one of `choice`, `uniform`, `log_uniform` and `int`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Dimension {
    /// These values, whatever the option takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub choice: Option<Vec<Value>>,
    /// Numbers from the first to the second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uniform: Option<[f64; 2]>,
    /// Numbers from the first to the second whose logarithm is uniform: for what is large or small by factors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_uniform: Option<[f64; 2]>,
    /// Whole numbers from the first to the second, both included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub int: Option<[u64; 2]>,
    /// How many of the numbers a grid tries, the first and the last among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 10_000))]
    pub points: Option<usize>,
}

/// Fields that a search cannot change, and why.
const FIXED: [(&str, &str); 5] = [
    ("tune", "it is the search itself"),
    ("report.out", "each trial has a run folder of its own"),
    ("train.pause_at_step", "`halving` uses it"),
    ("train.pause_at_epoch", "`halving` uses it"),
    ("faults", "they are for rehearsals"),
];

/// What is wrong with the card's search: the field and what.
pub(super) fn problems(card: &Card) -> Vec<(String, String)> {
    let Some(tune) = &card.tune else { return Vec::new() };
    let mut found = of_method(card, tune);
    if tune.space.is_empty() {
        found.push((
            "space".to_owned(),
            "is empty; give options of the card and their values".into(),
        ));
    }
    for (path, dimension) in &tune.space {
        let field = format!("space.{path}");
        for (fixed, why) in FIXED {
            if path.split('.').next() == Some(fixed) || path == fixed {
                found.push((field.clone(), format!("cannot be searched over: {why}")));
            }
        }
        let problems = dimension.problems(tune.method);
        found.extend(problems.into_iter().map(|(name, what)| match name {
            "" => (field.clone(), what),
            name => (format!("{field}.{name}"), what),
        }));
    }
    found.into_iter().map(|(field, what)| (format!("tune.{field}"), what)).collect()
}

fn of_method(card: &Card, tune: &Tune) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut refuse = |wrong: bool, field: &str, what: &str| {
        if wrong {
            found.push((field.to_owned(), what.to_owned()));
        }
    };
    let grid = tune.method == Method::Grid;
    refuse(
        grid && tune.trials.is_some(),
        "trials",
        "is used by `random` and `halving` only; remove it",
    );
    refuse(
        !grid && tune.trials.is_none(),
        "trials",
        "is missing; `random` and `halving` need the number of trials",
    );
    refuse(
        tune.objective.field().is_empty(),
        "objective.metric",
        "is empty; example: \"accuracy\"",
    );
    let Some(halving) = &tune.halving else {
        let what = "is missing; `halving` needs {\"first\": …}, the epochs of each trial at first";
        refuse(tune.method == Method::Halving, "halving", what);
        return found;
    };
    refuse(
        tune.method != Method::Halving,
        "halving",
        "is used by `halving` only; remove it or change tune.method",
    );
    let (name, total) = match halving.by {
        Unit::Epochs => ("train.epochs", card.train.epochs),
        Unit::Steps => ("train.max_steps", card.train.max_steps),
    };
    refuse(total.is_none(), "halving.by", &format!("needs {name}, the whole length of a trial"));
    refuse(
        total.is_some_and(|total| halving.first >= total),
        "halving.first",
        &format!("{} is not less than {name}: nothing would be given up", halving.first),
    );
    refuse(
        tune.space.contains_key(name),
        &format!("space.{name}"),
        "is the length of all trials, which `halving` compares; it cannot be searched over",
    );
    found
}

impl Dimension {
    /// What is wrong with it: the field, empty for all of it, and what.
    fn problems(&self, method: Method) -> Vec<(&'static str, String)> {
        let kinds = [
            self.choice.is_some(),
            self.uniform.is_some(),
            self.log_uniform.is_some(),
            self.int.is_some(),
        ];
        if kinds.iter().filter(|given| **given).count() != 1 {
            return vec![(
                "",
                "needs one of `choice`, `uniform`, `log_uniform` and `int`".to_owned(),
            )];
        }
        let mut found = Vec::new();
        if let Some(values) = &self.choice {
            if values.is_empty() {
                found.push(("choice", "is empty; give the values to choose from".to_owned()));
            }
            let twice = (1..values.len()).find(|&i| values[..i].contains(&values[i]));
            found.extend(twice.map(|i| ("choice", format!("has {} twice", values[i]))));
        }
        let ordered = |name, low: f64, high: f64| {
            let what = format!("[{low}, {high}]: the first number must be smaller than the second");
            (low >= high).then_some((name, what))
        };
        if let Some([low, high]) = self.uniform {
            found.extend(ordered("uniform", low, high));
        }
        if let Some([low, high]) = self.log_uniform {
            found.extend(ordered("log_uniform", low, high));
            if low <= 0.0 {
                found.push((
                    "log_uniform",
                    format!("begins at {low}; a logarithm needs numbers above 0"),
                ));
            }
        }
        if let Some([low, high]) = self.int
            && low >= high
        {
            let what = format!("[{low}, {high}]: the first number must be smaller than the second");
            found.push(("int", what));
        }
        found.extend(self.points_problem(method).map(|what| ("points", what.to_owned())));
        found
    }

    fn points_problem(&self, method: Method) -> Option<&'static str> {
        let grid = method == Method::Grid;
        match self.points {
            Some(_) if !grid => Some("is used by `grid` only; remove it or change tune.method"),
            Some(_) if self.choice.is_some() => {
                Some("is for ranges; `choice` has its values already")
            }
            None if grid && self.choice.is_none() => {
                Some("is missing; `grid` needs the number of values of a range")
            }
            _ => None,
        }
    }
}

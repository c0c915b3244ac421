//! What people see of a search, and what it leaves: table, page, best card.

use super::search::Search;
use super::standing::{Standing, result};
use super::trial::{Ended, Trial};
use crate::config::{Dimension, Goal, Method};
use crate::error::{Error, Result};
use crate::report::axis::Scale;
use crate::report::console::say;
use crate::report::search::{Row, State, Table, brief, names};
use crate::util::files::write_whole;
use crate::util::human;
use serde_json::{Map, Value};
use std::time::Duration;

/// The card of the best trial, in the search's folder.
const BEST: &str = "best.json";

fn fact(label: &str, text: &str) {
    say(&format!("  {label:<10} {text}"));
}

/// What is about to be searched.
pub fn heading(search: &Search, launch: &str) {
    let about = if search.card.about.is_empty() { "a search" } else { &search.card.about };
    say(&format!("annulus {}: {about}", env!("CARGO_PKG_VERSION")));
    let (count, objective) = (search.trials.len(), &search.tune.objective);
    fact(
        "search",
        &format!("{}, {count} trial{}", method(search), if count == 1 { "" } else { "s" }),
    );
    fact("objective", &format!("{} of {}", goal(search), objective.field()));
    let halving =
        search.rungs.iter().filter_map(|r| Some(format!("{} after {}", r.trials, r.budget?)));
    let halving: Vec<String> = halving.collect();
    if let (Some(rule), Some(last)) = (search.tune.halving, search.rungs.last()) {
        let unit = format!("{:?}", rule.by).to_lowercase();
        fact("compared", &format!("{} {unit}; {} to the end", halving.join(", "), last.trials));
    }
    fact("launch", &format!("{launch}, for each trial"));
    fact("folder", &search.folder.display().to_string());
    let done = search.trials.iter().filter(|trial| !trial.ended.is_empty()).count();
    if done > 0 {
        fact("", &format!("goes on: {done} of the trials have been run before"));
    }
}

fn method(search: &Search) -> &'static str {
    match search.tune.method {
        Method::Grid => "grid",
        Method::Random => "random",
        Method::Halving => "halving",
    }
}

fn goal(search: &Search) -> &'static str {
    match search.tune.objective.goal() {
        Goal::Max => "max",
        Goal::Min => "min",
    }
}

fn values(values: &Map<String, Value>) -> String {
    let of = |(path, value): (&String, &Value)| format!("{path} {}", brief(Some(value)));
    values.iter().map(of).collect::<Vec<_>>().join("  ")
}

/// The trials, and nothing else: `--dry-run`.
pub fn list(search: &Search) {
    heading(search, "nothing is started");
    for trial in &search.trials {
        say(&format!("  trial {}  {}", trial.trial, values(&trial.values)));
    }
    say("dry run: nothing was trained");
}

/// A trial begins, or goes on.
pub fn begins(search: &Search, trial: usize, rung: usize) {
    let folder = Trial::folder(&search.folder, trial);
    let again = if folder.join("metrics.jsonl").exists() { ", goes on" } else { "" };
    let of = if search.rungs.len() > 1 {
        format!(", comparison {} of {}", rung + 1, search.rungs.len())
    } else {
        String::new()
    };
    let shown = values(&search.trials[trial].values);
    say(&format!("trial {trial}/{}{of}{again}  {shown}", search.trials.len()));
}

/// A trial has come to the end of its rung.
pub fn ends(search: &Search, trial: usize, ended: &Ended) {
    let time = human::duration(Duration::try_from_secs_f64(ended.seconds).unwrap_or_default());
    let steps = human::count(ended.step);
    match (ended.metric, &ended.reason) {
        (Some(metric), _) => {
            let name = search.tune.objective.field();
            say(&format!("  {name} {metric:.6} after {steps} steps  {time}"));
        }
        (None, reason) => say(&format!(
            "  failed with {}: {}; see {}",
            ended.exit_code,
            reason.as_deref().unwrap_or_default(),
            Trial::folder(&search.folder, trial).join(super::job::LOG).display()
        )),
    }
}

/// Why there is nothing to do for a trial.
pub fn tell_where(search: &Search, standing: &Standing, trial: usize) {
    let last = search.trials[trial].ended.last();
    let given_up = standing.reached[trial] < standing.rung;
    let text = match (last, standing.open.len()) {
        (Some(Ended { metric: None, .. }), _) => "has failed".to_owned(),
        (Some(Ended { completed: true, .. }), _) => "is done".to_owned(),
        _ if given_up => "is given up: others are better".to_owned(),
        (_, 0) => "is done".to_owned(),
        (_, open) => format!("waits for {open} others of its comparison; run it again after them"),
    };
    say(&format!("trial {trial} {text}"));
}

/// Writes what was found so far, and says it.
///
/// # Errors
/// When the folder cannot be written; when the search is over and not one trial has a result, as its first trial.
pub fn conclude(search: &Search) -> Result<()> {
    let standing = search.standing();
    let table = table(search, &standing);
    table.write(&search.folder)?;
    say("");
    table.lines().iter().for_each(|line| say(line));
    say("");
    let Some(best) = table.best else {
        return match search.trials[0].ended.last().filter(|_| standing.open.is_empty()) {
            None => Ok(()),
            Some(first) => Err(Error::from_exit_code(
                first.exit_code,
                format!(
                    "no trial has a result; the first: {}",
                    first.reason.as_deref().unwrap_or("it failed")
                ),
            )),
        };
    };
    let values = search.values[best].iter().map(|(path, value)| (path, value));
    let card = search.card.with(values).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Error::Internal(format!("the card of trial {best}: {}", problems.join("; ")))
    })?;
    let path = search.folder.join(BEST);
    write_whole(&path, card.to_json_pretty()?.as_bytes())?;
    let open = if standing.open.is_empty() { "" } else { " so far" };
    say(&format!("best{open}: trial {best}"));
    fact("run", &Trial::folder(&search.folder, best).display().to_string());
    fact("card", &path.display().to_string());
    fact("table", &search.folder.join("table.html").display().to_string());
    Ok(())
}

fn table(search: &Search, standing: &Standing) -> Table {
    let mut rows: Vec<Row> = standing
        .ranking
        .iter()
        .enumerate()
        .map(|(i, &trial)| row(search, standing, trial, Some(i + 1)))
        .collect();
    let open = (0..search.trials.len()).filter(|trial| !standing.ranking.contains(trial));
    rows.extend(open.map(|trial| row(search, standing, trial, None)));
    let first = rows.first().filter(|row| row.rank.is_some() && row.metric.is_some());
    Table {
        about: search.card.about.clone(),
        method: method(search).to_owned(),
        objective: search.tune.objective.field().to_owned(),
        goal: goal(search),
        best: first.map(|row| row.trial),
        rows,
        options: search.tune.space.iter().map(|(path, d)| (path.clone(), scale(d))).collect(),
    }
}

fn row(search: &Search, standing: &Standing, trial: usize, rank: Option<usize>) -> Row {
    let record = &search.trials[trial];
    let ended = result(&record.ended, standing.reached[trial]);
    let state = match ended {
        None => State::Open,
        Some(Ended { metric: None, .. }) => State::Failed,
        Some(Ended { completed: true, .. }) => State::Completed,
        Some(_) if standing.reached[trial] < standing.rung => State::GivenUp,
        Some(_) => State::Open,
    };
    Row {
        rank,
        trial,
        values: record.values.clone(),
        metric: ended.and_then(|ended| ended.metric),
        step: ended.map_or(0, |ended| ended.step),
        state,
        exit_code: ended.map(|ended| ended.exit_code),
        reason: ended.and_then(|ended| ended.reason.clone()),
        seconds: record.ended.iter().map(|ended| ended.seconds).sum(),
    }
}

/// How an option's values are spread.
fn scale(dimension: &Dimension) -> Scale {
    match &dimension.choice {
        Some(values) => names(values),
        None if dimension.log_uniform.is_some() => Scale::Log,
        None => Scale::Linear,
    }
}

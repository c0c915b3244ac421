//! One trial: its file in the search's folder, and what can be read from the run that it was.

use super::space::Values;
use crate::config::{Goal, Objective, Which};
use crate::error::{Error, Result};
use crate::report::run_folder::METRICS;
use crate::util::files::write_whole;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// Name of a trial's file in its run folder.
const NAME: &str = "trial.json";

/// How a trial came out of a rung.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ended {
    /// Steps done.
    pub step: u64,
    /// The objective; none: the trial failed.
    pub metric: Option<f64>,
    /// Whether the trial is over: it came to the end of its card, or failed.
    pub completed: bool,
    /// That of a run alone: 0, 75 where it paused, or what it failed with.
    pub exit_code: u8,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long it ran, for people.
    pub seconds: f64,
}

/// What is kept of a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// Its number, from 0.
    pub trial: usize,
    /// The values that it has in place of the card's.
    pub values: Map<String, Value>,
    /// The same as arguments of `--set`.
    pub set: Vec<String>,
    /// The rungs behind it.
    pub ended: Vec<Ended>,
}

impl Trial {
    /// A trial that has not begun.
    #[must_use]
    pub fn new(trial: usize, values: &Values) -> Trial {
        let set = values.iter().map(|(path, value)| format!("{path}={value}")).collect();
        Trial { trial, values: values.iter().cloned().collect(), set, ended: Vec::new() }
    }

    /// Where the trials of a search are, and this one.
    #[must_use]
    pub fn folder(search: &Path, trial: usize) -> PathBuf {
        search.join("trials").join(format!("{trial:04}"))
    }

    /// Reads the file of trial number `trial`, which is to have these values; a trial that has none has not begun.
    ///
    /// # Errors
    /// [`Error::Data`] when it is damaged or of another trial; as [`Error::reading`].
    pub fn read(search: &Path, trial: usize, values: &Values) -> Result<Trial> {
        let (path, new) = (Trial::folder(search, trial).join(NAME), Trial::new(trial, values));
        let bytes = match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(new),
            other => other.map_err(|e| Error::reading(&path, &e))?,
        };
        let shown = path.display();
        let remedy = "Remove the folder of this trial to run it again";
        let found: Trial = serde_json::from_slice(&bytes)
            .map_err(|e| Error::Data(format!("{shown}, line {}: {e}. {remedy}", e.line())))?;
        if (found.trial, &found.set) != (trial, &new.set) {
            return Err(Error::Data(format!(
                "{shown} is of another trial: {}. {remedy}",
                found.set.join(" ")
            )));
        }
        Ok(found)
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&self, search: &Path) -> Result<()> {
        let folder = Trial::folder(search, self.trial);
        std::fs::create_dir_all(&folder).map_err(|e| Error::writing(&folder, &e))?;
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::Internal(format!("a trial as JSON: {e}")))?;
        bytes.push(b'\n');
        write_whole(&folder.join(NAME), &bytes)
    }
}

/// The objective of the run in `folder`, from its lines `eval`; else why there is none.
///
/// # Errors
/// In words, for the table.
pub fn metric(folder: &Path, objective: &Objective) -> std::result::Result<f64, String> {
    let path = folder.join(METRICS);
    let file = File::open(&path).map_err(|e| Error::reading(&path, &e).to_string())?;
    let (mut found, mut names): (Option<f64>, String) = (None, String::new());
    for line in BufReader::new(file).lines() {
        let line = line.map_err(|e| Error::reading(&path, &e).to_string())?;
        // Steps are many and evaluations few; what a crash cut off is no line.
        if !line.contains("\"eval\"") {
            continue;
        }
        let Ok(Value::Object(fields)) = serde_json::from_str(&line) else { continue };
        if fields.get("kind").and_then(Value::as_str) != Some("eval") {
            continue;
        }
        let now = fields.get(objective.field()).and_then(Value::as_f64);
        if now.is_none() {
            found = None;
            names =
                fields.keys().filter(|key| *key != "kind").cloned().collect::<Vec<_>>().join(", ");
            continue;
        }
        found = match (objective.of, found, now) {
            (Which::Best, Some(a), Some(b)) if objective.goal() == Goal::Max => Some(a.max(b)),
            (Which::Best, Some(a), Some(b)) => Some(a.min(b)),
            _ => now,
        };
    }
    found.ok_or_else(|| match names.as_str() {
        "" => "it was never evaluated".to_owned(),
        names => format!(
            "its last evaluation has no number `{}` (tune.objective.metric); there are: {names}",
            objective.field()
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_trial_is_read_as_it_was_written_and_a_foreign_or_damaged_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let values: Values = vec![("a.b".into(), json!(0.01)), ("c".into(), json!("x y"))];
        let mut trial = Trial::read(folder.path(), 3, &values).unwrap();
        assert_eq!(trial.set, ["a.b=0.01", "c=\"x y\""]);
        trial.ended.push(Ended { metric: Some(1.0 / 3.0), seconds: 0.1, ..Ended::default() });
        trial.write(folder.path()).unwrap();
        assert_eq!(Trial::read(folder.path(), 3, &values).unwrap(), trial);
        let other = Trial::read(folder.path(), 3, &values[..1].to_vec()).unwrap_err();
        assert!(other.exit_code() == 65 && other.to_string().contains("another trial"), "{other}");
        std::fs::write(Trial::folder(folder.path(), 3).join(NAME), "{\"trial\": 3").unwrap();
        let cut = Trial::read(folder.path(), 3, &values).unwrap_err();
        assert!(cut.exit_code() == 65 && cut.to_string().contains("line 1"), "{cut}");
    }

    #[test]
    fn the_objective_is_that_of_the_last_or_the_best_evaluation() {
        let folder = tempfile::tempdir().unwrap();
        let of = |metric: &str, which| {
            let objective = Objective { metric: metric.into(), of: which, ..Objective::default() };
            super::metric(folder.path(), &objective)
        };
        assert!(of("loss", Which::Last).unwrap_err().contains("no such file"));
        let line = |kind: &str, loss: &str| {
            format!("{{\"kind\":\"{kind}\",\"loss\":{loss},\"n\":\"x\"}}\n")
        };
        let text = line("step", "9") + &line("eval", "2") + &line("eval", "1") + &line("eval", "3");
        std::fs::write(folder.path().join(METRICS), &text).unwrap();
        assert_eq!(of("val_loss", Which::Last), Ok(3.0));
        assert_eq!(of("loss", Which::Best), Ok(1.0));
        assert!(of("los", Which::Last).unwrap_err().contains("no number `los`"));
        assert!(of("n", Which::Last).unwrap_err().contains("there are: loss, n"));
        std::fs::write(folder.path().join(METRICS), text + &line("eval", "null")).unwrap();
        assert!(of("loss", Which::Last).is_err(), "a loss that is no number is none");
        std::fs::write(folder.path().join(METRICS), line("step", "9")).unwrap();
        assert_eq!(of("loss", Which::Last), Err("it was never evaluated".to_owned()));
    }
}

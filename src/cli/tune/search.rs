//! The search's folder: whose it is, what is searched, and the trials in it.
//!
//! ```text
//! runs/tune-x/lock           one search at a time
//! runs/tune-x/search.json    the card and what is searched in it
//! runs/tune-x/card.json      the card that all trials start from
//! runs/tune-x/trials/0003/   the run folder of a trial, with trial.json and log.txt
//! runs/tune-x/table.json …   the results (`report/search.rs`)
//! ```

use super::space::{self, Values};
use super::standing::{self, Rung, Standing};
use super::trial::{Ended, Trial};
use crate::checkpoint::RunLock;
use crate::config::{Card, Places, Tune, results};
use crate::error::{Error, Result};
use crate::util::files::write_whole;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const NAME: &str = "search.json";
/// So many refused values are told.
const SHOWN: usize = 20;
/// The card that all trials start from.
pub const CARD: &str = "card.json";

/// A search and where it stands.
pub struct Search {
    /// Its folder.
    pub folder: PathBuf,
    /// The card without the search.
    pub card: Card,
    /// The search.
    pub tune: Tune,
    /// The values of each trial.
    pub values: Vec<Values>,
    /// The comparisons.
    pub rungs: Vec<Rung>,
    /// What is known of each trial.
    pub trials: Vec<Trial>,
}

/// What `search.json` holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    annulus: String,
    version: u32,
    tune: Tune,
    card: Card,
}

impl Search {
    /// The search that the card describes, checked to its corners; nothing is written.
    ///
    /// # Errors
    /// [`Error::Usage`] when there is none; [`Error::Config`] with everything that is wrong and where.
    pub fn plan(mut card: Card, places: &Places, folder: &Path) -> Result<Search> {
        let tune = card.tune.take().ok_or_else(|| {
            Error::Usage(
                "there is nothing to search: give the card a section `tune`, or --space FILE (docs/TUNE.md \
                 has examples)"
                    .to_owned(),
            )
        })?;
        if !card.data.is_evaluated() {
            return Err(Error::Config(
                "data.test: is missing; trials are compared by their evaluations, which need test samples"
                    .to_owned(),
            ));
        }
        let values = space::trials(&tune)?;
        check(&card, &tune, &values, places)?;
        let rungs = standing::rungs(&tune, &card, values.len());
        let trials = values.iter().enumerate().map(|(i, values)| Trial::new(i, values)).collect();
        Ok(Search { folder: folder.to_owned(), card, tune, values, rungs, trials })
    }

    /// Makes the folder this search's, or goes on in it.
    ///
    /// # Errors
    /// [`Error::CannotCreate`] when it holds other files; [`Error::Config`] when another search is in it.
    pub fn claim(&self) -> Result<()> {
        let path = self.folder.join(NAME);
        match std::fs::read(&path) {
            Ok(bytes) => {
                let shown = path.display();
                let was: About = serde_json::from_slice(&bytes)
                    .map_err(|e| Error::Data(format!("{shown}, line {}: {e}", e.line())))?;
                self.refuse_another(&was)?;
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => self.refuse_other_files()?,
            Err(e) => return Err(Error::reading(&path, &e)),
        }
        let about = About {
            annulus: "tune".to_owned(),
            version: 1,
            tune: self.tune.clone(),
            card: self.card.clone(),
        };
        let mut bytes = serde_json::to_vec_pretty(&about)
            .map_err(|e| Error::Internal(format!("the search as JSON: {e}")))?;
        bytes.push(b'\n');
        write_if_new(&path, &bytes)?;
        write_if_new(&self.folder.join(CARD), self.card.to_json_pretty()?.as_bytes())
    }

    /// A search may get more trials, and its runs may report and save in another way; all else stays.
    fn refuse_another(&self, was: &About) -> Result<()> {
        let mut found = results::differences_of_outcome(&was.card, &self.card)?;
        let same = |tune: &Tune| Tune { trials: None, ..tune.clone() };
        if same(&was.tune) != same(&self.tune) {
            found.push("the section `tune` is another".to_owned());
        }
        if was.tune.trials > self.tune.trials {
            found.push("tune.trials was larger".to_owned());
        }
        if found.is_empty() {
            return Ok(());
        }
        Err(Error::Config(format!(
            "{} is of another search: {}. Give another folder with --out, or remove this one",
            self.folder.display(),
            found.join("; ")
        )))
    }

    fn refuse_other_files(&self) -> Result<()> {
        let entries =
            std::fs::read_dir(&self.folder).map_err(|e| Error::reading(&self.folder, &e))?;
        let known = |name: &str| name == "lock" || name.ends_with(".tmp");
        let other = entries.flatten().any(|e| !known(&e.file_name().to_string_lossy()));
        if other {
            return Err(Error::CannotCreate(format!(
                "{} holds other files; name an empty or new folder with --out",
                self.folder.display()
            )));
        }
        Ok(())
    }

    /// Reads what is known of the trials.
    ///
    /// # Errors
    /// As [`Trial::read`].
    pub fn read(&mut self) -> Result<()> {
        for (i, values) in self.values.iter().enumerate() {
            self.trials[i] = Trial::read(&self.folder, i, values)?;
        }
        Ok(())
    }

    /// Where it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let ended: Vec<&[Ended]> = self.trials.iter().map(|t| t.ended.as_slice()).collect();
        standing::stand(&self.rungs, &ended, self.tune.objective.goal())
    }
}

/// Many parts of a search may begin at once: only the first writes.
fn write_if_new(path: &Path, bytes: &[u8]) -> Result<()> {
    match std::fs::read(path) {
        Ok(found) if found == bytes => Ok(()),
        _ => write_whole(path, bytes),
    }
}

/// Takes the folder of a search, all of it or a share.
///
/// # Errors
/// [`Error::CannotCreate`] when another search has it.
pub fn lock(folder: &Path, whole: bool) -> Result<RunLock> {
    std::fs::create_dir_all(folder).map_err(|e| Error::writing(folder, &e))?;
    if whole { RunLock::acquire(folder) } else { RunLock::share(folder) }
}

/// Every corner of the space and every trial must be a card; all that is wrong, with its line.
fn check(card: &Card, tune: &Tune, trials: &[Values], places: &Places) -> Result<()> {
    let mut found = refusals(card, &space::corners(tune), places);
    if found.is_empty() {
        found = refusals(card, trials, places);
    }
    if found.is_empty() {
        return Ok(());
    }
    let shown: String = found.iter().take(SHOWN).cloned().collect();
    let more = found.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
    Err(Error::Config(format!("the space has values that the card does not take:{shown}{more}")))
}

/// What the card says to each of these values, without repetitions; an option that a problem is about is blamed for
/// it, else all of them.
fn refusals(card: &Card, trials: &[Values], places: &Places) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for values in trials {
        let problems = card.with(values.iter().map(|(path, value)| (path, value))).err();
        for problem in problems.into_iter().flatten() {
            let touches = |(path, _): &&(String, Value)| is_one_inside(path, &problem.path);
            let mut guilty: Vec<_> = values.iter().filter(touches).collect();
            if guilty.is_empty() {
                guilty = values.iter().collect();
            }
            let field = format!("tune.space.{}", guilty[0].0);
            let with: Vec<String> = guilty.iter().map(|(p, v)| format!("{p}={v}")).collect();
            found.insert(format!(
                "\n  {field}: with {} the card is refused: {problem}{}",
                with.join(" "),
                places.suffix(&field)
            ));
        }
    }
    found
}

/// Whether one of two paths is the other or lies inside it.
fn is_one_inside(a: &str, b: &str) -> bool {
    let inside = |a: &str, b: &str| {
        a.strip_prefix(b).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    inside(a, b) || inside(b, a)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plan(tune: &Value, folder: &Path) -> Result<Search> {
        let card = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/lenet-mnist-quick.json");
        let space = folder.join("space.json");
        std::fs::write(&space, serde_json::to_string_pretty(tune).unwrap()).unwrap();
        let (card, places) = Card::load_with_space(&card, Some(&space), &[])?;
        Search::plan(card, &places, &folder.join("search"))
    }

    fn refusal(space: &Value) -> String {
        let folder = tempfile::tempdir().unwrap();
        let tune = json!({"trials": 2, "space": space});
        let error = plan(&tune, folder.path()).err().unwrap();
        assert_eq!(error.exit_code(), 78, "{error}");
        error.to_string()
    }

    #[test]
    fn values_that_the_card_refuses_are_told_with_their_line() {
        for (space, expected, line) in [
            (
                json!({"optimizer.lr": {"uniform": [-1, 0.5]}}),
                "with optimizer.lr=-1.0 the card is refused: optimizer.lr: -1.0 is not a number above 0",
                4,
            ),
            (
                json!({"optimzer.lr": {"uniform": [0.1, 0.5]}}),
                "optimzer: unknown key; did you mean `optimizer`?",
                4,
            ),
            (json!({"train.batch_size": {"choice": [8, 16]}}), "did you mean `global_batch`?", 4),
            (
                json!({"train.global_batch": {"uniform": [8, 16]}}),
                "is not a positive whole number",
                4,
            ),
            (
                json!({"optimizer.kind": {"choice": ["sgd", "adamw"]}, "optimizer.momentum": {"uniform": [0.1, 0.9]}}),
                "is used by `sgd`, `rmsprop` and `lars` only",
                10,
            ),
            (json!({"seed.x": {"int": [1, 9]}}), "`seed` is 42, which has no fields", 4),
        ] {
            let message = refusal(&space);
            assert!(message.contains(expected), "{message}");
            assert!(message.contains(&format!("space.json, line {line})")), "{message}");
        }
    }

    #[test]
    fn a_space_that_is_none_is_told_with_its_line() {
        for (space, expected) in [
            (json!({}), "tune.space: is empty"),
            (json!({"optimizer.lr": {"choice": []}}), "tune.space.optimizer.lr.choice: is empty"),
            (json!({"optimizer.lr": {"choice": [1, 1]}}), "choice: has 1 twice"),
            (json!({"optimizer.lr": {}}), "needs one of `choice`, `uniform`"),
            (json!({"optimizer.lr": {"uniform": [0, 1], "choice": [1]}}), "needs one of"),
            (
                json!({"optimizer.lr": {"uniform": [0.5, 0.1]}}),
                "[0.5, 0.1]: the first number must be",
            ),
            (json!({"optimizer.lr": {"log_uniform": [0, 1]}}), "begins at 0"),
            (
                json!({"optimizer.lr": {"log_uniform": [1]}}),
                "[1] is not a list of 2, each a number",
            ),
            (json!({"optimizer.lr": {"unifrom": [0, 1]}}), "did you mean `uniform`"),
            (json!({"seed": {"int": [3, 3]}}), "int: [3, 3]: the first number must be"),
            (json!({"seed": {"int": [0, 3], "points": 2}}), "points: is used by `grid` only"),
            (json!({"tune.trials": {"int": [1, 3]}}), "cannot be searched over"),
            (json!({"report.out": {"choice": ["a"]}}), "cannot be searched over"),
        ] {
            let message = refusal(&space);
            assert!(
                message.contains(expected) && message.contains("space.json, line "),
                "{message}"
            );
        }
    }

    #[test]
    fn a_method_without_what_it_needs_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let space = json!({"optimizer.lr": {"uniform": [0.1, 0.5]}});
        for (tune, expected) in [
            (json!({"space": space}), "tune.trials: is missing"),
            (json!({"method": "grid", "space": space}), "optimizer.lr.points: is missing"),
            (json!({"method": "grid", "trials": 3, "space": {}}), "tune.trials: is used by"),
            (json!({"method": "halving", "trials": 3, "space": space}), "tune.halving: is missing"),
            (
                json!({"method": "halving", "trials": 3, "halving": {"first": 1}, "space": space}),
                "tune.halving.by: needs train.epochs",
            ),
            (
                json!({"method": "halving", "trials": 3, "space": space, "halving":
                    {"first": 60, "by": "steps"}}),
                "tune.halving.first: 60 is not less than train.max_steps",
            ),
            (
                json!({"trials": 3, "halving": {"first": 1}, "space": space}),
                "is used by `halving` only",
            ),
            (
                json!({"method": "bayes", "trials": 3, "space": space}),
                "is not one of `grid`, `random`",
            ),
        ] {
            let error = plan(&tune, folder.path()).err().unwrap();
            assert!(error.to_string().contains(expected), "{error}");
        }
        let card = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/lenet-mnist-quick.json");
        let (card, places) = Card::load_with_places(&card, &[]).unwrap();
        assert_eq!(Search::plan(card, &places, folder.path()).err().unwrap().exit_code(), 64);
    }

    #[test]
    fn a_folder_is_of_one_search_that_may_get_more_trials() {
        let folder = tempfile::tempdir().unwrap();
        let of = |trials: usize, seed: u64| {
            let space = json!({"optimizer.lr": {"uniform": [0.1, 0.5]}});
            plan(&json!({"trials": trials, "seed": seed, "space": space}), folder.path()).unwrap()
        };
        let _lock = lock(&of(2, 1).folder, true).unwrap();
        of(2, 1).claim().unwrap();
        of(2, 1).claim().unwrap();
        of(3, 1).claim().unwrap();
        for other in [of(3, 2), of(2, 1)] {
            let error = other.claim().unwrap_err();
            assert!(
                error.exit_code() == 78 && error.to_string().contains("another search"),
                "{error}"
            );
        }
        let mut longer = of(3, 1);
        longer.card.train.max_steps = Some(70);
        assert!(
            longer.claim().unwrap_err().to_string().contains("train.max_steps was 60 and is 70")
        );
        let mut strange = of(2, 1);
        strange.folder = folder.path().to_owned();
        assert_eq!(strange.claim().unwrap_err().exit_code(), 73);
    }
}

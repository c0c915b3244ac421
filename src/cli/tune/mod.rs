//! `annulus tune`: a search for the best values of some options of a card.
//!
//! Each trial is an `annulus train` of its own, so that one that fails, or takes its machine down, is a row of the
//! table and no more. All that the search knows stands in the files of its trials; where it stands follows from them
//! ([`standing`]), so it can be killed at any moment, and parts of it can run on many machines at once.
//!
//! | file | holds |
//! |---|---|
//! | `space` | the trials: grid and draws |
//! | `standing` | which trials go on, which is the best |
//! | `search` | the folder, and what is refused before anything starts |
//! | `trial` | a trial's file, and the objective of its run |
//! | `job` | a trial as a process |
//! | `launch` | what starts it: nothing, `mpirun`, `srun` |
//! | `signals` | SIGINT, SIGTERM, SIGUSR1 |
//! | `outcome` | table, page and best card |

mod job;
mod launch;
mod outcome;
mod search;
mod signals;
mod space;
mod standing;
mod trial;

use super::args::TuneArgs;
use super::ending;
use crate::config::Card;
use crate::error::{Error, Result};
use crate::report::console::say;
use job::{Jobs, Outcome};
use launch::Launch;
use search::Search;
use signals::Signals;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use trial::{Ended, Trial};

/// Searches; gives the exit code.
#[must_use]
pub fn run(args: &TuneArgs) -> ExitCode {
    if launch::is_superfluous() {
        // The first of the processes conducts; the ranks of the trials are started by it.
        return ExitCode::SUCCESS;
    }
    match conduct(args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            ending::tell(&format!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

fn conduct(args: &TuneArgs) -> Result<u8> {
    let (card, places) = Card::load_with_space(&args.card, args.space.as_deref(), &args.sets)?;
    let planned = Search::plan(card, &places, &out_folder(args));
    let mut search = places.point(planned)?;
    if args.trial.is_some_and(|trial| trial >= search.trials.len()) {
        let last = search.trials.len() - 1;
        return Err(Error::Usage(format!("--trial: the trials are 0 to {last}")));
    }
    if args.dry_run {
        outcome::list(&search);
        return Ok(0);
    }
    if args.table {
        search.read()?;
        return outcome::conclude(&search).map(|()| 0);
    }
    let launch = Launch::find(args.launch.as_deref())?;
    let signals = Signals::listen()?;
    let lock = search::lock(&search.folder, args.trial.is_none())?;
    if let Some(text) = lock.warning() {
        say(&format!("warning: {text}"));
    }
    search.claim()?;
    search.read()?;
    let (folder, tune) = (search.folder.clone(), search.tune.clone());
    let card = folder.join(search::CARD);
    let options = options(args);
    let jobs = Jobs { search: &folder, card, tune: &tune, launch, options, signals };
    outcome::heading(&search, &jobs.launch.describe());
    match args.trial {
        Some(trial) => one(&mut search, &jobs, trial),
        None => all(&mut search, &jobs),
    }
}

/// Every trial that is left, then the table.
fn all(search: &mut Search, jobs: &Jobs) -> Result<u8> {
    loop {
        let standing = search.standing();
        let Some(&trial) = standing.open.first() else { break };
        if let Some(code) = go_on(search, jobs, trial, standing.rung)? {
            return Ok(code);
        }
    }
    outcome::conclude(search)?;
    Ok(0)
}

/// What there is to do for one trial while others may be run elsewhere.
fn one(search: &mut Search, jobs: &Jobs, trial: usize) -> Result<u8> {
    loop {
        let standing = search.standing();
        if !standing.open.contains(&trial) {
            outcome::tell_where(search, &standing, trial);
            return Ok(0);
        }
        if let Some(code) = go_on(search, jobs, trial, standing.rung)? {
            return Ok(code);
        }
        search.read()?;
    }
}

/// Runs a trial to the end of its rung and writes down how it came out; gives the exit code to leave with, if the
/// search was told to.
fn go_on(search: &mut Search, jobs: &Jobs, trial: usize, rung: usize) -> Result<Option<u8>> {
    outcome::begins(search, trial, rung);
    let record = &search.trials[trial];
    record.write(&search.folder)?;
    match jobs.run(record, search.rungs[rung].budget)? {
        Outcome::Ended(ended) => {
            outcome::ends(search, trial, &ended);
            add(&mut search.trials[trial], rung, ended);
            search.trials[trial].write(&search.folder)?;
            Ok(None)
        }
        Outcome::Left(code, why) => {
            ending::tell(&format!(
                "trial {trial} left before its end ({why}); the same command goes on with the search"
            ));
            Ok(Some(code))
        }
    }
}

/// A trial's results stand in the order of the rungs.
fn add(trial: &mut Trial, rung: usize, ended: Ended) {
    trial.ended.truncate(rung);
    trial.ended.push(ended);
}

/// What each trial is started with beside its values.
fn options(args: &TuneArgs) -> Vec<String> {
    let mut options = vec!["--device".to_owned(), args.device.to_string()];
    if let Some(threads) = args.threads {
        options.extend(["--threads".to_owned(), threads.to_string()]);
    }
    options
}

fn out_folder(args: &TuneArgs) -> PathBuf {
    let named = || {
        let name = args.card.file_stem().unwrap_or("card".as_ref()).to_string_lossy();
        Path::new("runs").join(format!("tune-{name}"))
    };
    args.out.clone().unwrap_or_else(named)
}

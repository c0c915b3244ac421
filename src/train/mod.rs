//! Training: the place where ranks, data, model and reports meet.
//!
//! [`run`] is the loop; [`step`] is one step of it; [`setup`] is everything before. The rules that
//! decide (learning rate, length, early stopping) are pure and stand in files of their own.
//! [`strategy`] is the same machinery for a model that a user has written with `candle-nn`.

pub mod device;
mod early_stopping;
mod evaluate;
mod faults;
mod heading;
mod overlap;
mod plan;
pub mod reduce;
mod replica;
mod reporter;
mod schedule;
mod setup;
mod step;
pub mod strategy;
mod tally;
mod threads;

pub use device::Choice as Device;
pub use plan::Plan;
pub use reporter::percent;
pub use setup::Job;
pub use step::StepReport;
pub use strategy::Strategy;
pub use tally::Tally;
pub use threads::use_threads;

use crate::checkpoint::model_file::{self, Named};
use crate::collective::Group;
use crate::config::Card;
use crate::data::Loader;
use crate::error::{Error, Result};
use crate::report::run_folder::MODEL;
use crate::util::whereabouts::{Phase, enter};
use early_stopping::Watcher;
use overlap::Overlap;
use reporter::Reporter;
use schedule::LearningRate;
use std::path::Path;
use step::Settings;

/// Trains the card's model and leaves model, metrics and status in the folder `out`.
///
/// # Errors
/// Whatever ends the run before its time; [`Group::failed_together`] tells whether all ranks have the
/// same error.
pub fn run(card: Card, device: Device, out: &Path, group: &mut Group) -> Result<()> {
    let mut job = Job::prepare(card, device, group)?;
    let mut reporter = Reporter::open(&job, out, group)?;
    let outcome = job
        .probe(group)
        .and_then(|()| train(&mut job, &mut reporter, group))
        .and_then(|()| conclude(&mut job, &mut reporter, group));
    outcome.inspect_err(|error| reporter.fail(error))
}

/// Shows what the card would train, after every check that a real run makes, and trains nothing.
///
/// # Errors
/// As [`run`], up to the first step.
pub fn dry_run(card: Card, device: Device, group: &mut Group) -> Result<()> {
    let mut job = Job::prepare(card, device, group)?;
    job.probe(group)?;
    heading::describe(&job, group);
    Ok(())
}

/// Takes `steps` steps of the card's job and tells how each went; nothing is evaluated or written.
/// With `overlap` gradients are reduced while the backward pass goes on.
///
/// # Errors
/// As [`run`].
pub fn time_steps(
    card: Card,
    device: Device,
    steps: u64,
    overlap: bool,
    group: &mut Group,
) -> Result<Vec<StepReport>> {
    let mut job = Job::prepare(card, device, group)?;
    job.probe(group)?;
    let rates = LearningRate::new(&job.card.optimizer, &job.card.schedule, steps);
    let plan = Plan { total_steps: steps, ..job.plan };
    let mut loader =
        Loader::start(job.train.clone(), plan.feed(&job.card, group.rank(), group.size()))?;
    let settings = Settings { card: &job.card, overlap };
    (0..steps)
        .map(|step| {
            let lr = rates.at(step);
            step::take(&mut job.replica, &mut loader, group, &settings, step, lr)
        })
        .collect()
}

/// The loop.
fn train(job: &mut Job, reporter: &mut Reporter, group: &mut Group) -> Result<()> {
    let rates = LearningRate::new(&job.card.optimizer, &job.card.schedule, job.plan.total_steps);
    let feed = job.plan.feed(&job.card, group.rank(), group.size());
    let mut loader = Loader::start(job.train.clone(), feed)?;
    let mut watcher = job.card.train.early_stopping.clone().map(Watcher::new);
    let mut best: Option<Vec<Named>> = None;
    let mut overlap = Overlap::new(job.card.comm.overlap, job.replica.params.grads(), group);
    reporter.start();
    for step in 0..job.plan.total_steps {
        let settings = Settings { card: &job.card, overlap: overlap.next() };
        let lr = rates.at(step);
        let taken = step::take(&mut job.replica, &mut loader, group, &settings, step, lr)?;
        reporter.step(step, &taken)?;
        if let Some(verdict) = overlap.see(&taken, group)? {
            reporter.overlap(verdict);
        }
        if !job.plan.ends_epoch(step) {
            continue;
        }
        let Some(eval) = evaluate_if_due(job, step, group)? else {
            reporter.epoch(step, None)?;
            continue;
        };
        reporter.epoch(step, Some(eval))?;
        let Some(watcher) = &mut watcher else { continue };
        let verdict = watcher.see(eval.mean_loss(), eval.accuracy());
        if verdict.improved && watcher.restores_best() {
            best = Some(job.replica.snapshot()?);
            reporter.best = Some(eval);
        }
        if verdict.stop {
            reporter.stopped_early(step);
            break;
        }
    }
    best.map_or(Ok(()), |best| job.replica.restore(&best))
}

/// Evaluates when an epoch ends whose turn it is, and always at the end of the run.
fn evaluate_if_due(job: &Job, step: u64, group: &mut Group) -> Result<Option<Tally>> {
    let Some(test) = &job.test else { return Ok(None) };
    let epochs_done = job.plan.epoch_of(step) + 1;
    let last = step + 1 == job.plan.total_steps;
    if !last && !epochs_done.is_multiple_of(job.card.train.eval_every_epochs) {
        return Ok(None);
    }
    evaluate::run(&job.replica, test.as_ref(), job.card.train.eval_batch, group).map(Some)
}

/// The end of a run that went well: replicas compared, model saved, status last.
fn conclude(job: &mut Job, reporter: &mut Reporter, group: &mut Group) -> Result<()> {
    enter(Phase::Saving);
    reporter.finish();
    let hashes = same_replicas(&job.replica.params.hash()?, group)?;
    let saved = match reporter.folder_path() {
        Some(folder) => model_file::save(&folder.join(MODEL), &job.replica.snapshot()?),
        None => Ok(()),
    };
    group.together(saved)?;
    group.barrier()?;
    reporter.conclude(hashes, group)
}

/// All ranks must end with the same bits; gives the hash that each rank found.
fn same_replicas(hash: &str, group: &mut Group) -> Result<Vec<String>> {
    group.require_equal("the final parameters", hash).map_err(|e| match e {
        Error::Config(text) => Error::ReplicasDiffer(text),
        other => other,
    })?;
    let hashes = group.all_gather(hash.as_bytes())?;
    Ok(hashes.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect())
}

/// Loss and accuracy of a model file on the card's test set.
///
/// # Errors
/// When card, data or model file are not what they should be.
pub fn evaluate(card: Card, model: &Path, device: Device, group: &mut Group) -> Result<Tally> {
    let mut job = Job::prepare(card, device, group)?;
    let Some(test) = job.test.clone() else {
        let error = Error::Config("the card has no data.test to evaluate on".to_owned());
        return Err(group.common_failure(error));
    };
    job.load_model(model, group)?;
    evaluate::run(&job.replica, test.as_ref(), job.card.train.eval_batch, group)
}

//! Training: the place where ranks, data, model and reports meet.
//!
//! [`run::Run`] is the loop; [`step`] is one step of it; [`setup`] and [`resume`] are everything before.
//! The rules that decide (learning rate, length, early stopping) are pure and stand in files of their
//! own.
//! [`strategy`] is the same machinery for a model that a user has written with `candle-nn`.

mod average;
mod conditions;
pub mod device;
mod early_stopping;
mod evaluate;
mod faults;
pub mod gpus;
mod guards;
mod heading;
mod leaves;
mod ledger;
mod lr_find;
pub mod metrics;
mod overlap;
mod pace;
mod plan;
mod plateau;
pub mod postmortem;
pub mod reduce;
mod replica;
mod reporter;
mod resume;
mod run;
mod saving;
mod schedule;
mod setup;
mod step;
mod story;
pub mod strategy;
mod tally;
mod threads;
mod totals;
mod vitals;
mod wishes;

pub use device::Choice as Device;
pub use lr_find::lr_find;
pub use plan::Plan;
pub use reporter::percent;
pub use setup::Job;
pub use step::StepReport;
pub use strategy::Strategy;
pub use tally::Tally;
pub use threads::use_threads;
pub use wishes::{Leave, SEARCH, STOP, Votes, hear_signals};

use crate::checkpoint::{Resume, model_file};
use crate::collective::Group;
use crate::config::Card;
use crate::data::Loader;
use crate::error::{Error, Result};
use crate::report::run_folder::{AVERAGE, LAST, MODEL};
use crate::util::whereabouts::{Phase, enter};
use leaves::Leaves;
use metrics::{Evaluation, Wanted};
use pace::Pace;
use reporter::Reporter;
use run::Run;
use schedule::LearningRate;
use std::path::Path;
use step::Settings;

/// Trains the card's model and leaves model, metrics, checkpoints and status in the folder `out`, from
/// the start or from the checkpoint that `resume` asks for.
///
/// # Errors
/// [`Error::Preempted`] when the run was told to leave and is saved; else whatever ends it before its
/// time. [`Group::failed_together`] tells whether all ranks have the same error.
pub fn run(
    card: Card,
    device: Device,
    out: &Path,
    resume: &Resume,
    group: &mut Group,
) -> Result<()> {
    let mut job = Job::prepare(card, device, group)?;
    let mut start = resume::open(&mut job, out, resume, group)?;
    let mut reporter = Reporter::open(&job, out, &start, group)?;
    // The run folder is ours until the status is written.
    let _lock = start.lock.take();
    let vitals = vitals::Vitals::start(out, &reporter, group)?;
    let from = start.from.take();
    let pace = Pace::new(&job.card, vitals.of_all(out), group);
    let outcome = job
        .probe_as(from.is_some(), group)
        .and_then(|()| Run::new(&mut job, &mut reporter, from, pace, group)?.train(group))
        .and_then(|()| conclude(&mut job, &mut reporter, group));
    vitals.end(&outcome);
    outcome.inspect_err(|error| reporter.fail(error))
}

/// Shows what the card would train, after every check that a real run makes, and trains nothing.
///
/// # Errors
/// As [`run()`], up to the first step.
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
/// As [`run()`].
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
    let feed = job.feed(&plan, 0, group.rank(), group.size());
    let mut loader = Loader::start(job.train.clone(), feed)?;
    let mut leaves = Leaves::of(&job.card, job.replica.params.grads(), group)?;
    (0..steps)
        .map(|step| {
            let leaves = leaves.as_mut();
            let (card, votes, limit) = (&job.card, Votes::default(), f64::INFINITY);
            let settings = Settings { card, overlap, leaves, votes, loss_scale: None, limit };
            let lr = rates.at(step, None);
            let taken = step::take(&mut job.replica, &mut loader, group, settings, step, lr)?;
            if !taken.updated {
                let text = format!("step {}: the loss or gradient is not finite", step + 1);
                return Err(group.common_failure(Error::NonFinite(text)));
            }
            Ok(taken)
        })
        .collect()
}

/// The end of a run that went well: replicas compared, model saved, status last.
fn conclude(job: &mut Job, reporter: &mut Reporter, group: &mut Group) -> Result<()> {
    complete_evaluation(job, reporter, group)?;
    enter(Phase::Saving);
    reporter.finish();
    let hashes = same_replicas(&job.replica.params.hash()?, group)?;
    let saved = match reporter.folder_path() {
        Some(folder) => save_models(job, folder),
        None => Ok(()),
    };
    group.together(saved)?;
    group.barrier()?;
    reporter.conclude(hashes, group)
}

/// The final model and, where an average was kept, the other of the two.
fn save_models(job: &Job, folder: &Path) -> Result<()> {
    model_file::save(&folder.join(MODEL), &job.replica.snapshot()?)?;
    let other = if job.card.train.judges_average() { LAST } else { AVERAGE };
    match job.replica.beside() {
        Some(tensors) => model_file::save(&folder.join(other), &tensors),
        None => Ok(()),
    }
}

/// A run that went on from a checkpoint knows the numbers of its final model, but not the table of classes
/// behind them, unless it has evaluated that model itself: it is counted again.
fn complete_evaluation(job: &Job, reporter: &mut Reporter, group: &mut Group) -> Result<()> {
    let (wanted, card) = (Wanted::by(&job.card), &job.card);
    let known = reporter.judged().is_none_or(|eval| eval.details.is_some());
    match &job.test {
        Some(test) if wanted.has_details() && !known => {
            let eval_batch = card.train.eval_batch;
            let eval = evaluate::run(&job.replica, test.as_ref(), eval_batch, wanted, group)?;
            reporter.details = eval.details;
            Ok(())
        }
        _ => Ok(()),
    }
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

/// What the card's evaluations count, of a model file on the card's test set.
///
/// # Errors
/// When card, data or model file are not what they should be.
pub fn evaluate(
    mut card: Card,
    model: &Path,
    device: Device,
    group: &mut Group,
) -> Result<Evaluation> {
    if card.data.test.is_some() {
        // The validation samples have chosen the model: they cannot judge it.
        card.data.val = None;
    }
    let mut job = Job::prepare(card, device, group)?;
    let Some(test) = job.test.clone() else {
        let error =
            Error::Config("the card has no data.test or data.val to evaluate on".to_owned());
        return Err(group.common_failure(error));
    };
    job.load_model(model, group)?;
    let wanted = Wanted::by(&job.card);
    evaluate::run(&job.replica, test.as_ref(), job.card.train.eval_batch, wanted, group)
}

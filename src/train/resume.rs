//! The start of a run in its folder: from the beginning, or where a checkpoint stands.
//!
//! Rank 0 takes the folder's lock, clears left-overs away, finds the checkpoint and reads it; the
//! other ranks get everything from rank 0, so the folder need not be on a disk that they see.

use super::guards::rewind::Rewind;
use super::replica::CARRIED;
use super::saving::CHECKPOINTS;
use super::setup::{Job, broadcast};
use super::story::Story;
use crate::checkpoint::model_file::Named;
use crate::checkpoint::{self, Found, Resume, RunLock, Snapshot, optimizer};
use crate::collective::Group;
use crate::config::{Card, results};
use crate::error::{Error, Result};
use crate::optim::State;
use crate::report::status;
use crate::util::processor;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Where a run begins.
pub struct Start {
    /// The run folder is this process's while this lives (rank 0).
    pub lock: Option<RunLock>,
    /// What the user should know, one line each.
    pub news: Vec<String>,
    /// The checkpoint, if the run goes on from one.
    pub from: Option<From>,
}

/// A run that goes on; parameters and optimizer are restored already.
pub struct From {
    /// Steps done.
    pub step: u64,
    /// Length of `metrics.jsonl` at that step.
    pub metrics_bytes: u64,
    /// Everything that is no tensor.
    pub story: Story,
    /// Parameters of the best evaluation, where early stopping restores them.
    pub best: Option<Vec<Named>>,
    /// The state to go back to after a loss spike, where it is not the checkpoint's own.
    pub rewind: Option<Rewind>,
}

/// What rank 0 tells the others.
#[derive(Serialize, Deserialize)]
struct Told {
    news: Vec<String>,
    from: Option<ToldFrom>,
}

#[derive(Serialize, Deserialize)]
struct ToldFrom {
    step: u64,
    metrics_bytes: u64,
    story: Story,
    optimizer_step: u64,
    averaged: u64,
    best: bool,
}

/// Opens the run folder `out` for `job`, which has its first parameters, and restores what `resume`
/// asks for.
///
/// # Errors
/// [`Error::CannotCreate`] when another job has the folder or it cannot be written;
/// [`Error::Data`] when no checkpoint is sound or it is of other data or another model;
/// [`Error::Config`] when the card is another in fields that decide the results.
pub fn open(job: &mut Job, out: &Path, resume: &Resume, group: &mut Group) -> Result<Start> {
    let mut lock = None;
    let mut optimizer_state = None;
    let (mut best, mut rewind) = (None, None);
    let told = group.from_rank_0(|| {
        let (held, news, found) = look(job, out, resume)?;
        let mut told = Told { news, from: None };
        if let Some(found) = found {
            let restored = restore(job, found)?;
            told.from = Some(restored.told);
            optimizer_state = Some(restored.optimizer);
            (best, rewind) = (restored.best, restored.rewind);
        }
        lock = Some(held);
        serde_json::to_vec(&told).map_err(|e| Error::Internal(format!("the start as JSON: {e}")))
    })?;
    let told: Told = serde_json::from_slice(&told)
        .map_err(|e| Error::Internal(format!("the start from JSON: {e}")))?;
    let Some(from) = told.from else { return Ok(Start { lock, news: told.news, from: None }) };
    broadcast(&mut job.replica, group)?;
    share_carried(job, group)?;
    share_optimizer(job, optimizer_state, &from, group)?;
    let best = if from.best { Some(share_best(job, best, group)?) } else { None };
    let ToldFrom { step, metrics_bytes, story, .. } = from;
    let share = |saved| Rewind::share(saved, rewind, &job.replica, group);
    let rewind = story.rewind.as_ref().map(share).transpose()?;
    let from = From { step, metrics_bytes, story, best, rewind };
    Ok(Start { lock, news: told.news, from: Some(from) })
}

/// Rank 0: the lock, the left-overs, the checkpoint.
fn look(job: &Job, out: &Path, resume: &Resume) -> Result<(RunLock, Vec<String>, Option<Found>)> {
    std::fs::create_dir_all(out).map_err(|e| {
        Error::CannotCreate(format!("cannot create the run folder {}: {e}", out.display()))
    })?;
    let lock = RunLock::acquire(out)?;
    let mut news: Vec<String> = lock.warning().map(str::to_owned).into_iter().collect();
    news.extend(status::close_dead(out, lock.is_exclusive()));
    let dir = out.join(CHECKPOINTS);
    news.extend(checkpoint::sweep(&dir, lock.is_exclusive()).warnings);
    if *resume == Resume::Never
        && let Some(to) = checkpoint::set_aside(&dir)?
    {
        news.push(format!("the checkpoints of an earlier run are now in {}", to.display()));
    }
    let Some(found) = checkpoint::find(&dir, resume)? else { return Ok((lock, news, None)) };
    news.extend(found.refused.iter().map(|r| format!("not used, the one before is taken: {r}")));
    check_same_job(job, &found)?;
    news.extend(other_processor(story_of(&found)?.processor.as_deref(), &processor::kind()));
    let retired = checkpoint::retire_newer(&dir, found.snapshot.step)?;
    news.extend(
        retired.iter().map(|p| format!("set aside, it is no longer of this run: {}", p.display())),
    );
    let ranks = found.snapshot.world_size;
    news.push(format!(
        "resumed from {} (step {}, {ranks} rank{}, written {})",
        found.path.display(),
        found.snapshot.step,
        if ranks == 1 { "" } else { "s" },
        found.written
    ));
    Ok((lock, news, Some(found)))
}

/// A checkpoint of another job is refused, with everything that differs.
fn check_same_job(job: &Job, found: &Found) -> Result<()> {
    let (path, snapshot) = (found.path.display(), &found.snapshot);
    let was: Card = serde_json::from_str(&snapshot.card).map_err(|e| {
        Error::Data(format!("{path}: its card cannot be read by this version of annulus: {e}"))
    })?;
    let differences = results::differences(&was, &job.card)?;
    let remedy =
        "Give another run folder with --out, or start anew in this one with --resume never";
    if !differences.is_empty() {
        return Err(Error::Config(format!(
            "{path} is of another job: {}. {remedy}",
            differences.join("; ")
        )));
    }
    let story = story_of(found)?;
    if story.data != job.fingerprint {
        return Err(Error::Data(format!(
            "{path} was trained on other data: {}, and now {}. {remedy}",
            story.data, job.fingerprint
        )));
    }
    if snapshot.step > job.plan.total_steps {
        return Err(Error::Config(format!(
            "{path} has {} steps, the card ends after {}: give a larger train.epochs or \
             train.max_steps. {remedy}",
            snapshot.step, job.plan.total_steps
        )));
    }
    Ok(())
}

/// What there is to tell when another kind of processor goes on: its sums may have another order.
fn other_processor(there: Option<&str>, here: &str) -> Option<String> {
    let there = there.filter(|there| *there != here)?;
    Some(format!(
        "the checkpoint is of another kind of processor ({there}; here {here}): the run goes on within \
         rounding, not bit for bit"
    ))
}

fn story_of(found: &Found) -> Result<Story> {
    Story::parse(&found.snapshot.state)
        .map_err(|why| Error::Data(format!("{}: state.json: {why}", found.path.display())))
}

/// What rank 0 has read, but for what is in the replica by now.
struct Restored {
    told: ToldFrom,
    optimizer: State,
    best: Option<Vec<Named>>,
    rewind: Option<Rewind>,
}

/// Rank 0: puts the checkpoint's tensors into the replica.
fn restore(job: &mut Job, found: Found) -> Result<Restored> {
    let story = story_of(&found)?;
    let Found { path, mut snapshot, .. } = found;
    let shapes = job.replica.shapes();
    let take = |snapshot: &mut Snapshot, group: &str| {
        snapshot.check_fits(&path, group, &shapes)?;
        Ok::<_, Error>(snapshot.take_group(group).unwrap_or_default())
    };
    let model = take(&mut snapshot, "model")?;
    let best = match snapshot.group("best") {
        Some(_) => Some(take(&mut snapshot, "best")?),
        None => None,
    };
    let unpack = |saved| Rewind::unpack(saved, &path, &mut snapshot, &shapes);
    let rewind = story.rewind.as_ref().map(unpack).transpose()?;
    let moments = snapshot.take_group("optimizer").unwrap_or_default();
    let optimizer = optimizer::unpack(&path, &story.optimizer, moments, &shapes)?;
    if let Some(needed) = job.replica.carried() {
        snapshot.check_fits(&path, CARRIED, &[(needed.name, needed.shape)])?;
    }
    let carried = snapshot.take_group(CARRIED).unwrap_or_default();
    job.replica.restore(&model)?;
    if let (Some(carry), Some(carried)) = (job.replica.model.carry(), carried.first()) {
        carry.restore(&carried.values)?;
    }
    let told = ToldFrom {
        step: snapshot.step,
        metrics_bytes: snapshot.metrics_bytes,
        optimizer_step: optimizer.step,
        averaged: optimizer.averaged,
        best: best.is_some(),
        story,
    };
    Ok(Restored { told, optimizer, best, rewind })
}

/// Every rank's model carries on the states that rank 0 read.
fn share_carried(job: &Job, group: &mut Group) -> Result<()> {
    let Some(carry) = job.replica.model.carry() else { return Ok(()) };
    let mut states = carry.states();
    group.broadcast(&mut states, 0)?;
    carry.restore(&states)
}

/// Every rank's optimizer gets the state that rank 0 read.
fn share_optimizer(
    job: &mut Job,
    read: Option<State>,
    told: &ToldFrom,
    group: &mut Group,
) -> Result<()> {
    let mut state = read.unwrap_or_else(|| job.replica.optimizer_state());
    (state.step, state.averaged) = (told.optimizer_step, told.averaged);
    for values in state.moments.iter_mut().flat_map(|(_, all)| all) {
        group.broadcast(values, 0)?;
    }
    let loaded = job.replica.load_optimizer(state);
    group.together(loaded)
}

/// Every rank gets the best parameters that rank 0 read.
fn share_best(job: &Job, read: Option<Vec<Named>>, group: &mut Group) -> Result<Vec<Named>> {
    let mut best = match read {
        Some(best) => best,
        None => job.replica.snapshot()?,
    };
    for named in &mut best {
        group.broadcast(&mut named.values, 0)?;
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resume_on_another_kind_of_processor_is_told_with_both() {
        assert_eq!(other_processor(None, "x86_64 avx2"), None, "a checkpoint that does not say");
        assert_eq!(other_processor(Some("x86_64 avx2"), "x86_64 avx2"), None);
        let text = other_processor(Some("x86_64 avx512f"), "x86_64 avx2").unwrap();
        assert!(text.contains("(x86_64 avx512f; here x86_64 avx2)"), "{text}");
    }
}

//! One optimizer step, from batch to updated parameters.
//!
//! ```text
//!   each rank:   its part of the global batch, in micro-batches
//!                    │ forward, loss / W, backward       W = weight of the global batch
//!                    ▼
//!                gradient buckets (sums)  ──all-reduce──►  sums over all ranks
//!                    │                                     = gradient of the global mean
//!                    ▼
//!                clip by global norm, optimizer: the same bits on every rank
//! ```
//!
//! In reproducible mode the micro-batches are leaves, and [`super::leaves`] adds them up.

use super::faults;
use super::leaves::Leaves;
use super::reduce::{self, Reduced};
use super::replica::{Replica, Spent};
use super::tally::Tally;
use super::wishes::Votes;
use crate::collective::{Group, Op};
use crate::config::Card;
use crate::data::Loader;
use crate::error::{Error, Result};
use crate::util::whereabouts::{Phase, at_step, enter};
use std::time::{Duration, Instant};

/// What one step came to. The numbers are equal on all ranks, the times are this rank's.
#[derive(Debug, Clone, Copy)]
pub struct StepReport {
    /// Sums over the global batch, before the update.
    pub tally: Tally,
    /// Wishes to leave, over all ranks.
    pub votes: Votes,
    /// Norm of the gradient, penalties included, before clipping, without the loss scale.
    pub grad_norm: f64,
    /// What the loss was multiplied by before the backward pass, where the card wants that.
    pub loss_scale: Option<u32>,
    /// Whether the parameters were updated: not with a loss or gradient that is not finite, nor with a
    /// loss above the limit.
    pub updated: bool,
    /// Learning rate.
    pub lr: f64,
    /// Wall time of the step.
    pub wall: Duration,
    /// Of it, waiting for data.
    pub input: Duration,
    /// Of it, forward passes.
    pub forward: Duration,
    /// Of it, backward passes.
    pub backward: Duration,
    /// Of it, gradient reduction that nothing hides.
    pub comm: Duration,
    /// Of it, the optimizer.
    pub optimizer: Duration,
}

impl StepReport {
    /// Whether loss and gradient are finite.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        self.tally.loss.is_finite() && self.grad_norm.is_finite()
    }
}

/// How a step is to be taken.
pub struct Settings<'a> {
    /// The job.
    pub card: &'a Card,
    /// Whether gradients are reduced while the backward pass goes on.
    pub overlap: bool,
    /// In reproducible mode.
    pub leaves: Option<&'a mut Leaves>,
    /// This rank's wishes to leave.
    pub votes: Votes,
    /// What the loss is multiplied by before the backward pass.
    pub loss_scale: Option<u32>,
    /// With a loss above it, nothing is updated.
    pub limit: f64,
}

/// Takes step `step` (counted from 0) at learning rate `lr`.
///
/// # Errors
/// When data, an operation or another rank fails.
pub fn take(
    replica: &mut Replica,
    loader: &mut Loader,
    group: &mut Group,
    settings: Settings,
    step: u64,
    lr: f64,
) -> Result<StepReport> {
    let (start, card) = (Instant::now(), settings.card);
    let loss_scale = settings.loss_scale;
    // Exact: a power of two up to 2²⁴.
    replica.loss_scale = loss_scale.map_or(1.0, |scale| scale as f32);
    at_step(step + 1);
    faults::before_step(&card.faults, step + 1, group)?;
    let (rank, spent) = (group.rank(), Spent::default());
    if let Some(carry) = replica.model.carry() {
        carry.begin();
    }
    let mut passes = Passes { replica, loader, card, rank, step, spent };
    let reduced = match settings.leaves {
        Some(leaves) => by_leaves(&mut passes, leaves, settings.votes, group)?,
        None => by_ranks(&mut passes, settings.overlap, settings.votes, group)?,
    };
    let Spent { input, forward, backward } = passes.spent;
    let Reduced { tally, votes, grad_norm, exposed } = reduced;
    let grad_norm = grad_norm / f64::from(replica.loss_scale);
    enter(Phase::Optimizer);
    let update = Instant::now();
    let grad_norm = replica.penalised_norm(grad_norm)?;
    let finite = tally.loss.is_finite() && grad_norm.is_finite();
    let updated = finite && tally.mean_loss() <= settings.limit;
    if updated {
        replica.update(lr, clip_scale(card.train.clip_norm, grad_norm))?;
    }
    let optimizer = update.elapsed();
    carry_on(replica, updated, group)?;
    let wall = start.elapsed();
    Ok(StepReport {
        tally,
        votes,
        grad_norm,
        loss_scale,
        updated,
        lr,
        wall,
        input,
        forward,
        backward,
        comm: exposed,
        optimizer,
    })
}

/// Every rank gets all states that are carried to the next step, unless this one does not count.
fn carry_on(replica: &Replica, counts: bool, group: &mut Group) -> Result<()> {
    let Some(carry) = replica.model.carry() else { return Ok(()) };
    carry.exchange(|states| {
        // In f64: `comm.wire` rounds sums of f32.
        let mut wide: Vec<f64> = states.iter().map(|&v| f64::from(v)).collect();
        group.all_reduce(&mut wide, Op::Sum)?;
        states.iter_mut().zip(wide).for_each(|(state, v)| *state = v as f32);
        Ok(())
    })?;
    if counts {
        carry.commit();
    }
    Ok(())
}

/// Each rank adds up its part of the batch, then the ranks add up theirs.
fn by_ranks(
    passes: &mut Passes,
    overlap: bool,
    votes: Votes,
    group: &mut Group,
) -> Result<Reduced> {
    let params = &passes.replica.params;
    let overlap = overlap && !faults::spoil_a_gradient(&passes.card.faults, passes.step + 1);
    let mut tally = Tally::default();
    params.grads().begin_step();
    for left in (0..passes.card.train.accumulate).rev() {
        if overlap && left == 0 {
            return reduce::during(params, group, tally, votes, || passes.next(true));
        }
        tally += passes.next(left == 0)?;
    }
    reduce::after(params.grads(), group, tally, votes)
}

/// Each leaf has a gradient of its own; all are added up in one order, whoever has computed them.
fn by_leaves(
    passes: &mut Passes,
    leaves: &mut Leaves,
    votes: Votes,
    group: &mut Group,
) -> Result<Reduced> {
    let grads = passes.replica.params.grads();
    for leaf in leaves.own() {
        leaves.begin(leaf, grads);
        let tally = passes.next(leaf + 1 == leaves.own().end)?;
        leaves.put(leaf, grads, tally)?;
    }
    leaves.reduce(grads, votes, group)
}

/// The forward and backward passes of one step on this rank.
struct Passes<'a> {
    replica: &'a Replica,
    loader: &'a mut Loader,
    card: &'a Card,
    rank: usize,
    step: u64,
    spent: Spent,
}

impl Passes<'_> {
    /// The pass over the next micro-batch; `last`: the last of this rank in this step.
    fn next(&mut self, last: bool) -> Result<Tally> {
        enter(Phase::Input);
        let (asked, step) = (Instant::now(), self.step + 1);
        let batch = self.loader.next_batch()?.ok_or_else(|| {
            Error::Internal(format!("the loader had no batch left at step {step}"))
        })?;
        self.spent.input += asked.elapsed();
        let mut tally = self.replica.forward_backward(&batch, &mut self.spent)?;
        tally.loss *= faults::loss_factor(&self.card.faults, step, self.rank);
        if last {
            faults::after_backward(&self.card.faults, step, self.rank, &self.replica.params);
        }
        self.loader.recycle(batch);
        Ok(tally)
    }
}

/// What the gradient is multiplied by so that its norm is at most `limit`.
fn clip_scale(limit: Option<f64>, norm: f64) -> f32 {
    match limit {
        Some(limit) if norm > limit => (limit / norm) as f32,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clipping_scales_to_the_limit_and_leaves_smaller_gradients_alone() {
        assert_eq!(clip_scale(Some(1.0), 4.0), 0.25);
        assert_eq!(clip_scale(Some(5.0), 4.0), 1.0);
        assert_eq!(clip_scale(None, 4.0), 1.0);
    }
}

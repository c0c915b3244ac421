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

use super::faults;
use super::reduce::{self, Reduced};
use super::replica::{Replica, Spent};
use super::tally::Tally;
use super::wishes::Votes;
use crate::collective::Group;
use crate::config::Card;
use crate::data::{Batch, Loader};
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
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
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

/// What is equal for all steps of a run.
pub struct Settings<'a> {
    /// The job.
    pub card: &'a Card,
    /// Whether gradients are reduced while the backward pass goes on.
    pub overlap: bool,
    /// This rank's wishes to leave.
    pub votes: Votes,
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
    settings: &Settings,
    step: u64,
    lr: f64,
) -> Result<StepReport> {
    let (start, card) = (Instant::now(), settings.card);
    at_step(step + 1);
    faults::before_step(&card.faults, step + 1, group)?;

    let (mut tally, mut spent) = (Tally::default(), Spent::default());
    let (rank, micro_batches) = (group.rank(), card.train.accumulate);
    let overlap = settings.overlap && !faults::spoil_a_gradient(&card.faults, step + 1);
    let mut reduced = None;
    replica.params.grads().begin_step();
    for micro in 1..=micro_batches {
        let batch = next_batch(loader, step, &mut spent)?;
        let mut pass = || {
            let mut tally = replica.forward_backward(&batch, &mut spent)?;
            tally.loss *= faults::loss_factor(&card.faults, step + 1, rank);
            if micro == micro_batches {
                faults::after_backward(&card.faults, step + 1, rank, &replica.params);
            }
            Ok(tally)
        };
        if overlap && micro == micro_batches {
            reduced = Some(reduce::during(&replica.params, group, tally, settings.votes, pass)?);
        } else {
            tally += pass()?;
        }
        loader.recycle(batch);
    }
    let Reduced { tally, votes, grad_norm, exposed } = match reduced {
        Some(reduced) => reduced,
        None => reduce::after(replica.params.grads(), group, tally, settings.votes)?,
    };
    enter(Phase::Optimizer);
    let update = Instant::now();
    let finite = tally.loss.is_finite() && grad_norm.is_finite();
    let updated = finite && tally.mean_loss() <= settings.limit;
    if updated {
        replica.update(lr, clip_scale(card.train.clip_norm, grad_norm))?;
    }
    let (optimizer, wall) = (update.elapsed(), start.elapsed());
    let Spent { input, forward, backward } = spent;
    Ok(StepReport {
        tally,
        votes,
        grad_norm,
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

fn next_batch(loader: &mut Loader, step: u64, spent: &mut Spent) -> Result<Batch> {
    enter(Phase::Input);
    let asked = Instant::now();
    let batch = loader.next_batch()?.ok_or_else(|| {
        Error::Internal(format!("the loader had no batch left at step {}", step + 1))
    })?;
    spent.input += asked.elapsed();
    Ok(batch)
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

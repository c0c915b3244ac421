//! One optimizer step, from batch to updated parameters.
//!
//! ```text
//!   each rank:   its part of the global batch, in micro-batches
//!                    │ forward, loss / W, backward       W = weight of the global batch
//!                    ▼
//!                gradient buckets (sums)  ──ring──►  sums over all ranks
//!                    │                               = gradient of the global mean
//!                    ▼
//!                clip by global norm, optimizer: the same bits on every rank
//! ```

use super::faults;
use super::replica::Replica;
use super::tally::Tally;
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
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate.
    pub lr: f64,
    /// Wall time of the step.
    pub wall: Duration,
    /// Of it, in gradient reduction.
    pub comm: Duration,
    /// Of it, waiting for data.
    pub input: Duration,
}

/// Takes step `step` (counted from 0) at learning rate `lr`.
///
/// # Errors
/// When data, an operation or another rank fails, or the loss or gradient is not finite (on all
/// ranks alike).
pub fn take(
    replica: &mut Replica,
    loader: &mut Loader,
    group: &mut Group,
    card: &Card,
    step: u64,
    lr: f64,
) -> Result<StepReport> {
    let start = Instant::now();
    at_step(step + 1);
    faults::before_step(&card.faults, step + 1, group)?;

    let mut tally = Tally::default();
    let mut input = Duration::ZERO;
    replica.params.grads().begin_step();
    for _ in 0..card.train.accumulate {
        enter(Phase::Input);
        let asked = Instant::now();
        let batch = loader.next_batch()?.ok_or_else(|| {
            Error::Internal(format!("the loader had no batch left at step {}", step + 1))
        })?;
        input += asked.elapsed();
        tally += replica.forward_backward(&batch)?;
        loader.recycle(batch);
    }
    faults::after_backward(&card.faults, step + 1, group.rank(), &replica.params);

    enter(Phase::Reduce);
    let reduce = Instant::now();
    let tally = reduce_all(replica, group, tally)?;
    let comm = reduce.elapsed();

    enter(Phase::Optimizer);
    let grad_norm = replica.params.grads().norm_squared().sqrt();
    if !(tally.loss.is_finite() && grad_norm.is_finite()) {
        return Err(group.common_failure(not_finite(tally, grad_norm, step + 1)));
    }
    replica.update(lr, clip_scale(card.train.clip_norm, grad_norm))?;
    Ok(StepReport { tally, grad_norm, lr, wall: start.elapsed(), comm, input })
}

/// Sums gradients and metrics over all ranks. Parameters without a gradient here count as zeros:
/// every rank reduces the same buckets in the same order, whatever its share of the batch.
fn reduce_all(replica: &Replica, group: &mut Group, tally: Tally) -> Result<Tally> {
    let grads = replica.params.grads();
    grads.zero_missing();
    for k in 0..grads.bucket_count() {
        grads.with_bucket(k, |bucket| group.all_reduce(bucket, Op::Sum))?;
    }
    tally.reduce(group)
}

/// What the gradient is multiplied by so that its norm is at most `limit`.
fn clip_scale(limit: Option<f64>, norm: f64) -> f32 {
    match limit {
        Some(limit) if norm > limit => (limit / norm) as f32,
        _ => 1.0,
    }
}

fn not_finite(tally: Tally, grad_norm: f64, step: u64) -> Error {
    Error::NonFinite(format!(
        "step {step}: the loss is {} and the gradient's norm {grad_norm}; training has diverged. All \
         ranks stop before the update. Try a lower optimizer.lr, a longer schedule.warmup_steps, or \
         train.clip_norm",
        tally.mean_loss()
    ))
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

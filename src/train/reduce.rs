//! Gradients of all ranks become one: after the backward pass, or bucket by bucket while it goes on.
//!
//! ```text
//!   without overlap    │ forward │      backward      │ bucket 0 │ bucket 1 │ optimizer │
//!
//!   with overlap       │ forward │      backward      │     │ optimizer │
//!     second thread              │ bucket 0 │ bucket 1 │
//! ```
//!
//! The sums are the same bits either way: buckets are reduced in index order.

use super::tally::Tally;
use crate::collective::{Group, Op, chunks::chunk};
use crate::error::{Error, Result};
use crate::nn::{GradBuckets, ParamSet, sum_of_squares};
use crate::util::whereabouts::{Phase, enter};
use std::time::{Duration, Instant};

/// The gradients' buckets hold the sums over all ranks; here are the numbers that came with them.
#[derive(Debug, Clone, Copy)]
pub struct Reduced {
    /// Sums over the global batch.
    pub tally: Tally,
    /// Norm of the summed gradient.
    pub grad_norm: f64,
    /// How long this rank did nothing but reduce.
    pub exposed: Duration,
}

/// Reduces gradients and metrics. Parameters without a gradient here count as zeros: every rank
/// reduces the same buckets in the same order, whatever its share of the batch.
///
/// # Errors
/// When a rank is late or dead.
pub fn after(grads: &GradBuckets, group: &mut Group, tally: Tally) -> Result<Reduced> {
    enter(Phase::Reduce);
    let start = Instant::now();
    grads.zero_missing();
    let mut squares = 0.0;
    for k in 0..grads.bucket_count() {
        squares += reduce_bucket(grads, k, group)?;
    }
    conclude(tally, squares, group, start)
}

/// Runs `pass`, the last forward and backward pass of a step, while a second thread reduces each
/// bucket as soon as it is final. `before` is the tally of earlier micro-batches.
///
/// # Errors
/// Those of `pass`; and when a rank is late or dead, or a gradient changes after it was reduced.
pub fn during(
    params: &ParamSet,
    group: &mut Group,
    before: Tally,
    pass: impl FnOnce() -> Result<Tally>,
) -> Result<Reduced> {
    let grads = params.grads();
    grads.ready().begin();
    let (tally, squares, start) = std::thread::scope(|scope| {
        let reducer = scope.spawn(|| {
            let mut squares = 0.0;
            for k in 0..grads.bucket_count() {
                if !grads.ready().wait_for(k) {
                    break;
                }
                squares += reduce_bucket(grads, k, group)?;
            }
            Ok(squares)
        });
        let passed = pass();
        enter(Phase::Reduce);
        let start = Instant::now();
        if passed.is_ok() {
            grads.zero_missing();
        }
        let late = grads.ready().end(passed.is_err());
        let squares: Result<f64> =
            reducer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let tally = passed?;
        late.map_err(|i| changed_too_late(params, i))?;
        Ok::<_, Error>((tally, squares?, start))
    })?;
    let mut all = before;
    all += tally;
    conclude(all, squares, group, start)
}

/// Reduces bucket `k`; returns this rank's part of the sum of squares of the result. Each rank adds up
/// a part of its own, so that the norm costs no rank a pass over everything.
fn reduce_bucket(grads: &GradBuckets, k: usize, group: &mut Group) -> Result<f64> {
    grads.with_bucket(k, |bucket| {
        group.all_reduce(bucket, Op::Sum)?;
        let own = chunk(bucket.len(), group.size(), group.rank());
        Ok(sum_of_squares(&bucket[own]))
    })
}

fn conclude(tally: Tally, squares: f64, group: &mut Group, start: Instant) -> Result<Reduced> {
    let mut sums = [tally.loss, tally.correct, tally.count, squares];
    group.all_reduce(&mut sums, Op::Sum)?;
    let [loss, correct, count, squares] = sums;
    let tally = Tally { loss, correct, count };
    Ok(Reduced { tally, grad_norm: squares.sqrt(), exposed: start.elapsed() })
}

fn changed_too_late(params: &ParamSet, i: usize) -> Error {
    let name = params.iter().nth(i).map_or("a parameter", |p| p.name());
    Error::Internal(format!(
        "the gradient of {name} changed after it was reduced: in this step it was written more often \
         than in the probe batch. Set comm.overlap to \"off\" for models that do so"
    ))
}

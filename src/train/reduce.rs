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
use super::wishes::Votes;
use crate::collective::{Group, Op, chunks::chunk};
use crate::error::{Error, Result};
use crate::nn::{GradBuckets, ParamSet, Ready, sum_of_squares};
use crate::util::whereabouts::{Phase, at_bucket, enter};
use std::time::{Duration, Instant};

/// The gradients' buckets hold the sums over all ranks; here are the numbers that came with them.
#[derive(Debug, Clone, Copy)]
pub struct Reduced {
    /// Sums over the global batch.
    pub tally: Tally,
    /// Wishes to leave, over all ranks.
    pub votes: Votes,
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
pub fn after(
    grads: &GradBuckets,
    group: &mut Group,
    tally: Tally,
    votes: Votes,
) -> Result<Reduced> {
    enter(Phase::Reduce);
    let start = Instant::now();
    grads.zero_missing();
    let mut squares = 0.0;
    for k in 0..grads.bucket_count() {
        squares += reduce_bucket(grads, k, group)?;
    }
    conclude(tally, votes, squares, group, start)
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
    votes: Votes,
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
        let unwinding = AbandonOnPanic(grads.ready());
        let passed = pass();
        std::mem::forget(unwinding);
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
    conclude(all, votes, squares, group, start)
}

/// A pass that panics lets the reducing thread go: the panic cannot leave before that thread has ended.
struct AbandonOnPanic<'a>(&'a Ready);

impl Drop for AbandonOnPanic<'_> {
    fn drop(&mut self) {
        let _ = self.0.end(true);
    }
}

/// Reduces bucket `k`; returns this rank's part of the sum of squares of the result. Each rank adds up
/// a part of its own, so that the norm costs no rank a pass over everything.
fn reduce_bucket(grads: &GradBuckets, k: usize, group: &mut Group) -> Result<f64> {
    grads.with_bucket(k, |bucket| {
        at_bucket(Some(k));
        group.all_reduce(bucket, Op::Sum)?;
        let own = chunk(bucket.len(), group.size(), group.rank());
        Ok(sum_of_squares(&bucket[own]))
    })
}

fn conclude(
    tally: Tally,
    Votes([a, b, c, d]): Votes,
    squares: f64,
    group: &mut Group,
    start: Instant,
) -> Result<Reduced> {
    at_bucket(None);
    let mut sums = [tally.loss, tally.correct, tally.count, squares, a, b, c, d];
    group.all_reduce(&mut sums, Op::Sum)?;
    let [loss, correct, count, squares, a, b, c, d] = sums;
    let tally = Tally { loss, correct, count };
    let (votes, grad_norm) = (Votes([a, b, c, d]), squares.sqrt());
    Ok(Reduced { tally, votes, grad_norm, exposed: start.elapsed() })
}

fn changed_too_late(params: &ParamSet, i: usize) -> Error {
    let name = params.iter().nth(i).map_or("a parameter", |p| p.name());
    Error::Internal(format!(
        "the gradient of {name} changed after it was reduced: in this step it was written more often \
         than in the probe batch. Set comm.overlap to \"off\" for models that do so"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads;
    use crate::nn::{BucketBytes, Course, Init, Param, ParamBuilder};
    use candle_core::Device;

    /// Two parameters of 16 values in a bucket each; `b` is final first.
    fn two_buckets(group: &mut Group) -> ParamSet {
        let builder = ParamBuilder::new(1, &Device::Cpu);
        builder.param("a", 16, Init::Zeros).unwrap();
        builder.param("b", 16, Init::Zeros).unwrap();
        let mut params = builder.finish(64, 64).unwrap();
        let course = Course { order: vec![1, 0], writes: vec![1, 1] };
        let bytes = BucketBytes { first: 64, others: 64 };
        params.lay_out(&course, bytes, &mut |len| group.shared_buffer(len)).unwrap();
        params.grads().begin_step();
        params
    }

    fn write(param: &Param, value: f32) {
        param.write_grad(|slot, _| slot.fill(value)).unwrap();
    }

    /// Runs `f` on each of two ranks.
    fn on_two_ranks<R: Send>(f: impl Fn(&mut Group) -> R + Sync) -> Vec<R> {
        std::thread::scope(|scope| {
            let ranks: Vec<_> = threads::world(2)
                .into_iter()
                .map(|peer| scope.spawn(|| f(&mut Group::meet(Box::new(peer)).unwrap())))
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    #[test]
    fn a_bucket_is_reduced_while_the_pass_still_computes() {
        let norms = on_two_ranks(|group| {
            let params = two_buckets(group);
            let all: Vec<Param> = params.iter().cloned().collect();
            let reduced = during(&params, group, Tally::default(), Votes::default(), || {
                write(&all[1], 1.0);
                // The pass ends only when the sum of `b` is there: without overlap, never.
                let start = Instant::now();
                while params.grads().read(1, |b| b[15]) != 2.0 {
                    assert!(start.elapsed() < Duration::from_secs(10), "nothing was reduced");
                    std::thread::yield_now();
                }
                write(&all[0], 3.0);
                Ok(Tally::default())
            });
            assert_eq!(params.grads().read(0, |a| a.to_vec()), [6.0; 16]);
            reduced.unwrap().grad_norm
        });
        let norm = (16.0f64 * (4.0 + 36.0)).sqrt();
        assert_eq!(norms, [norm, norm]);
    }

    #[test]
    fn a_gradient_that_changes_after_it_was_reduced_is_an_error_with_its_name() {
        let errors = on_two_ranks(|group| {
            let params = two_buckets(group);
            let all: Vec<Param> = params.iter().cloned().collect();
            let pass = || {
                [1, 1, 0].iter().for_each(|&i: &usize| write(&all[i], 1.0));
                Ok(Tally::default())
            };
            during(&params, group, Tally::default(), Votes::default(), pass)
                .unwrap_err()
                .to_string()
        });
        assert!(errors[0].contains("the gradient of b changed"), "{}", errors[0]);
    }
}

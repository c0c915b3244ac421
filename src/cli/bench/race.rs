//! Timing several things in turn, so that a machine that slows down meanwhile harms all of them alike.
//!
//! A *batch* is as many calls of one entrant as take [`BATCH`]: then neither the clock nor the
//! barrier before the batch matters. In each round every entrant has one batch; the first in turn
//! changes from round to round. The slowest rank's time counts, and because that time is reduced over
//! all ranks, all of them come to the same decision on when to stop.

use crate::collective::{Group, Op};
use crate::error::Result;
use std::time::{Duration, Instant};

/// The least time that one batch takes.
const BATCH: Duration = Duration::from_micros(200);
/// Calls in a batch, at the most: an empty call of a single rank takes nanoseconds.
const MAX_CALLS: u64 = 100_000;
/// Rounds of a race, at the least and at the most.
const ROUNDS: std::ops::Range<usize> = 3..5000;

/// What one entrant needed.
#[derive(Debug, Clone, Default)]
pub struct Times {
    /// Seconds of one call on the slowest rank, one mean per batch, in rising order.
    per_call: Vec<f64>,
    /// Calls in a batch.
    pub batch: u64,
}

impl Times {
    /// Times from measured batches, in any order.
    fn new(mut per_call: Vec<f64>, batch: u64) -> Times {
        per_call.sort_by(f64::total_cmp);
        Times { per_call, batch }
    }

    /// Median of the batches, in seconds.
    #[must_use]
    pub fn p50(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The time that 99 of 100 batches kept, in seconds; with fewer than 100 batches the slowest.
    #[must_use]
    pub fn p99(&self) -> f64 {
        self.quantile(0.99)
    }

    /// The fastest batch, in seconds per call.
    #[must_use]
    pub fn best(&self) -> f64 {
        self.quantile(0.0)
    }

    /// Batches measured.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.per_call.len()
    }

    /// The smallest time that a share `q` of the batches kept.
    fn quantile(&self, q: f64) -> f64 {
        let n = self.per_call.len();
        let rank = (q * n as f64).ceil() as usize;
        self.per_call.get(rank.clamp(1, n.max(1)) - 1).copied().unwrap_or(f64::NAN)
    }
}

/// Times `entrants` things for about `seconds`. `call` does the one with the given number once.
///
/// # Errors
/// What `call` returns, or a rank that is late.
pub fn race(
    group: &mut Group,
    entrants: usize,
    seconds: f64,
    mut call: impl FnMut(&mut Group, usize) -> Result<()>,
) -> Result<Vec<Times>> {
    let start = Instant::now();
    let mut calls = Vec::with_capacity(entrants);
    for entrant in 0..entrants {
        calls.push(warm_up(group, entrant, &mut call)?);
    }
    let mut seen = vec![Vec::new(); entrants];
    for round in 0..ROUNDS.end {
        // One place more than entrants: the time that has passed.
        let mut took = vec![0.0; entrants + 1];
        for turn in 0..entrants {
            let entrant = (round + turn) % entrants;
            took[entrant] = batch(group, entrant, calls[entrant], &mut call)?;
        }
        took[entrants] = start.elapsed().as_secs_f64();
        group.all_reduce(&mut took, Op::Max)?;
        for (entrant, seen) in seen.iter_mut().enumerate() {
            seen.push(took[entrant] / calls[entrant] as f64);
        }
        let (passed, rounds) = (took[entrants], round + 1);
        if rounds >= ROUNDS.start && passed + passed / rounds as f64 > seconds {
            break;
        }
    }
    Ok(seen.into_iter().zip(calls).map(|(seen, batch)| Times::new(seen, batch)).collect())
}

/// Calls an entrant until a batch is long enough; gives the number of calls in such a batch.
fn warm_up(
    group: &mut Group,
    entrant: usize,
    call: &mut impl FnMut(&mut Group, usize) -> Result<()>,
) -> Result<u64> {
    let mut calls = 1;
    // The first call faults pages in and connects ranks: it says nothing about the others.
    batch(group, entrant, 1, call)?;
    loop {
        let mut took = [batch(group, entrant, calls, call)?];
        group.all_reduce(&mut took, Op::Max)?;
        let share = BATCH.as_secs_f64() / took[0].max(1e-9);
        if share <= 1.0 || calls == MAX_CALLS {
            return Ok(calls);
        }
        // A quarter more than needed, and not more than tenfold on the word of one short batch.
        calls = ((calls as f64 * (1.25 * share).min(10.0)).ceil() as u64).min(MAX_CALLS);
    }
}

/// Seconds that `calls` calls of one entrant take on this rank, all ranks starting together. One call
/// before them is not timed: it finds the caches full of what the entrant before has left, which
/// made a single call on 16 MiB four times slower than those after it.
fn batch(
    group: &mut Group,
    entrant: usize,
    calls: u64,
    call: &mut impl FnMut(&mut Group, usize) -> Result<()>,
) -> Result<f64> {
    call(group, entrant)?;
    group.barrier()?;
    let start = Instant::now();
    for _ in 0..calls {
        call(group, entrant)?;
    }
    Ok(start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads;

    #[test]
    fn quantiles_are_batches_that_were_measured() {
        let times = Times::new((1..=200).rev().map(f64::from).collect(), 1);
        assert_eq!((times.best(), times.p50(), times.p99()), (1.0, 100.0, 198.0));
        let one = Times::new(vec![3.0], 1);
        assert_eq!((one.best(), one.p50(), one.p99()), (3.0, 3.0, 3.0));
        assert!(Times::default().p50().is_nan());
    }

    #[test]
    fn the_slowest_rank_counts_and_all_ranks_stop_after_the_same_round() {
        let results: Vec<Vec<Times>> = std::thread::scope(|scope| {
            let ranks: Vec<_> = threads::world(3)
                .into_iter()
                .map(|peer| {
                    scope.spawn(|| {
                        let mut group = Group::meet(Box::new(peer)).unwrap();
                        let slow = group.rank() == 2;
                        let nap = move |entrant| match (slow, entrant) {
                            (true, 0) => Duration::from_millis(3),
                            _ => Duration::from_micros(50),
                        };
                        race(&mut group, 2, 0.1, |_, entrant| {
                            std::thread::sleep(nap(entrant));
                            Ok(())
                        })
                        .unwrap()
                    })
                })
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        });
        for times in &results {
            assert_eq!(times[0].per_call, results[0][0].per_call);
            assert!(times[0].best() >= 0.003 && times[0].batch == 1, "{:?}", times[0]);
            assert!(times[1].best() >= 50e-6, "{:?}", times[1]);
            assert!(times[0].batches() >= ROUNDS.start);
        }
    }
}

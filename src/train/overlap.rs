//! Whether gradients are reduced while the backward pass goes on: measured on this machine.
//!
//! With a core to spare, or a network that works by itself, overlap hides the reduction; where every
//! core already computes, a second thread only gets in the way. So the first steps are taken both
//! ways in turn, and the ranks together keep the faster one. The results are the same bits.

use super::step::StepReport;
use crate::collective::{Group, Op};
use crate::config::{self, Card};
use crate::error::Result;
use crate::nn::GradBuckets;

/// Steps before the measurement: caches, memory and clocks settle.
const WARM_UP: usize = 4;
/// Steps taken each way.
const TRIALS: usize = 8;
/// Overlap must win by this factor: what is equal is done the simple way.
const MARGIN: f64 = 0.98;

/// Decides, step by step.
#[derive(Debug)]
pub struct Overlap {
    decided: Option<bool>,
    taken: usize,
    /// Seconds of steps without and with overlap.
    times: [Vec<f64>; 2],
}

/// The outcome of a measurement: milliseconds a step, the mean over ranks of their medians.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// Whether overlap is used from now on.
    pub on: bool,
    /// Without overlap.
    pub off_ms: f64,
    /// With overlap.
    pub on_ms: f64,
}

impl Overlap {
    /// As the card says; nothing to decide where there is one rank, one bucket (final only at the
    /// end), no knowledge of when a bucket is final, or leaves that are added up first.
    pub fn new(card: &Card, grads: &GradBuckets, group: &Group) -> Overlap {
        let possible =
            group.size() > 1 && grads.ready().knows_the_course() && card.reproducible.is_none();
        let decided = match card.comm.overlap {
            config::Overlap::On => Some(possible),
            config::Overlap::Auto if possible && grads.bucket_count() > 1 => None,
            _ => Some(false),
        };
        Overlap { decided, taken: 0, times: Default::default() }
    }

    /// Whether the next step is taken with overlap.
    #[must_use]
    pub fn next(&self) -> bool {
        self.decided.unwrap_or(self.taken % 2 == 1)
    }

    /// Takes note of a step; tells the verdict when this was the last trial.
    ///
    /// # Errors
    /// When a rank is late or dead.
    pub fn see(&mut self, step: &StepReport, group: &mut Group) -> Result<Option<Verdict>> {
        if self.decided.is_some() {
            return Ok(None);
        }
        if self.taken >= WARM_UP {
            self.times[usize::from(self.next())].push((step.wall - step.input).as_secs_f64());
        }
        self.taken += 1;
        if self.taken < WARM_UP + 2 * TRIALS {
            return Ok(None);
        }
        let mut sums = self.times.each_mut().map(|times| median(times));
        group.all_reduce(&mut sums, Op::Sum)?;
        let [off_ms, on_ms] = sums.map(|sum| sum * 1e3 / group.size() as f64);
        let on = on_ms < MARGIN * off_ms;
        self.decided = Some(on);
        Ok(Some(Verdict { on, off_ms, on_ms }))
    }
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads;
    use crate::train::Tally;
    use crate::train::wishes::Votes;
    use std::time::Duration;

    fn step(ms: u64) -> StepReport {
        let (wall, zero) = (Duration::from_millis(ms), Duration::ZERO);
        StepReport {
            tally: Tally::default(),
            votes: Votes::default(),
            grad_norm: 1.0,
            loss_scale: None,
            updated: true,
            lr: 0.1,
            wall,
            input: zero,
            forward: zero,
            backward: zero,
            comm: zero,
            optimizer: zero,
        }
    }

    /// What one rank decides when its steps take `off` and `on` milliseconds.
    fn verdict(off: u64, on: u64) -> Verdict {
        let mut group = Group::meet(Box::new(threads::alone())).unwrap();
        let mut overlap = Overlap { decided: None, taken: 0, times: Default::default() };
        loop {
            let ms = if overlap.next() { on } else { off };
            if let Some(verdict) = overlap.see(&step(ms), &mut group).unwrap() {
                assert_eq!(overlap.next(), verdict.on, "the verdict is kept");
                return verdict;
            }
        }
    }

    #[test]
    fn the_faster_way_is_kept_and_what_is_equal_is_done_the_simple_way() {
        assert_eq!(verdict(10, 8), Verdict { on: true, off_ms: 10.0, on_ms: 8.0 });
        assert!(!verdict(10, 10).on);
        assert!(!verdict(10, 12).on);
    }
}

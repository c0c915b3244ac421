//! Metrics as sums and counts. They are added over micro-batches and ranks and divided once at the
//! end: a mean of means would be wrong wherever ranks have unequal shares.

use crate::collective::{Group, Op};
use crate::error::Result;
use std::ops::AddAssign;

/// Sums over some samples.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tally {
    /// Sum of the losses.
    pub loss: f64,
    /// Samples classified right. An `f64` counts exactly up to 2⁵³.
    pub correct: f64,
    /// Samples.
    pub count: f64,
}

impl Tally {
    /// Adds up the tallies of all ranks; every rank gets the same sums.
    ///
    /// # Errors
    /// When a rank is late or dead.
    pub fn reduce(self, group: &mut Group) -> Result<Tally> {
        let mut sums = [self.loss, self.correct, self.count];
        group.all_reduce(&mut sums, Op::Sum)?;
        let [loss, correct, count] = sums;
        Ok(Tally { loss, correct, count })
    }

    /// Mean loss.
    #[must_use]
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.count
    }

    /// Share of samples classified right.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        self.correct / self.count
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.loss += other.loss;
        self.correct += other.correct;
        self.count += other.count;
    }
}

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
    /// Samples classified right; of a mixture, the share of the label that was found. An `f64` counts
    /// exactly up to 2⁵³. NaN where numbers are predicted: nothing is right or wrong.
    pub correct: f64,
    /// Samples; of text, tokens.
    pub count: f64,
}

impl Tally {
    /// Adds up the tallies of pieces, each of which one rank has counted and the others left at zero.
    /// Every rank gets the same sums, and any number of ranks the same bits: adding zeros is exact,
    /// and the pieces are then added in their order.
    ///
    /// # Errors
    /// When a rank is late or dead.
    pub fn reduce(pieces: &[Tally], group: &mut Group) -> Result<Tally> {
        let mut table = Tally::flat(pieces);
        group.all_reduce(&mut table, Op::Sum)?;
        Ok(Tally::sum_of_flat(&table))
    }

    /// The numbers of some tallies, one after another.
    #[must_use]
    pub fn flat(pieces: &[Tally]) -> Vec<f64> {
        pieces.iter().flat_map(|t| [t.loss, t.correct, t.count]).collect()
    }

    /// The sum, in their order, of tallies written by [`Tally::flat`].
    #[must_use]
    pub fn sum_of_flat(numbers: &[f64]) -> Tally {
        let mut sum = Tally::default();
        for &[loss, correct, count] in numbers.as_chunks::<3>().0 {
            sum += Tally { loss, correct, count };
        }
        sum
    }

    /// Mean loss.
    #[must_use]
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.count
    }

    /// Share of samples classified right; NaN where numbers are predicted.
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

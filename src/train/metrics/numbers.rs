//! How far predicted numbers are from those wanted.

use crate::collective::{Group, Op};
use crate::config::Monitor;
use crate::error::Result;

/// Sums over the samples of one batch.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sums {
    absolute: f64,
    squares: f64,
    /// Of the wanted numbers, less the shift.
    wanted: f64,
    /// Of their squares.
    wanted_squares: f64,
    count: f64,
}

/// Sums of each batch of the test set, of which each has one owner among the ranks.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    /// Subtracted from the wanted numbers, so that the square of a large mean hides no small deviation; the
    /// same on all ranks.
    shift: f64,
    batches: Vec<Sums>,
}

impl Numbers {
    /// Nothing in `batches` batches; `first` is the number wanted of the first sample of all.
    #[must_use]
    pub fn new(first: f32, batches: usize) -> Numbers {
        Numbers { shift: f64::from(first), batches: vec![Sums::default(); batches] }
    }

    /// Takes in one sample of a batch.
    pub fn see(&mut self, batch: usize, said: f32, wanted: f32) {
        let (said, wanted) = (f64::from(said), f64::from(wanted));
        let (error, shifted) = (said - wanted, wanted - self.shift);
        let sums = &mut self.batches[batch];
        sums.absolute += error.abs();
        sums.squares += error * error;
        sums.wanted += shifted;
        sums.wanted_squares += shifted * shifted;
        sums.count += 1.0;
    }

    /// Mean absolute error, mean squared error, its root, and R², the share of the variance that is explained
    /// (NaN where there is none). The batches are added in their order: the same bits at any number of ranks.
    ///
    /// # Errors
    /// When a rank is late or dead.
    pub fn scores(&self, group: &mut Group) -> Result<[(Monitor, f64); 4]> {
        let flat = |s: &Sums| [s.absolute, s.squares, s.wanted, s.wanted_squares, s.count];
        let mut table: Vec<f64> = self.batches.iter().flat_map(flat).collect();
        group.all_reduce(&mut table, Op::Sum)?;
        let mut sums = [0.0; 5];
        for batch in table.as_chunks::<5>().0 {
            sums.iter_mut().zip(batch).for_each(|(sum, value)| *sum += value);
        }
        let [absolute, squares, wanted, wanted_squares, count] = sums;
        let variance = wanted_squares - wanted * wanted / count;
        let r2 = if variance > 0.0 { 1.0 - squares / variance } else { f64::NAN };
        Ok([
            (Monitor::Mae, absolute / count),
            (Monitor::Mse, squares / count),
            (Monitor::Rmse, (squares / count).sqrt()),
            (Monitor::R2, r2),
        ])
    }
}

//! States that a recurrent model hands on from one global batch to the next, one for each stream of a text:
//! truncated back-propagation through time with the state carried.
//!
//! Sample i of such a data set is window ⌊i / streams⌋ of stream i mod streams, so a global batch has at most one
//! window of each stream, and the stream's state belongs to the job, not to a rank:
//!
//! ```text
//! begin        `next` = 0
//! forward      a window goes on from its stream's state in `now`, or from zeros if it is the stream's first;
//!              what it comes to goes into `next`
//! exchange     the ranks add up `next`: each cell has one owner, so the sum is exact in any order
//! commit       `next` becomes `now`, on all ranks alike
//! ```
//!
//! All ranks hold all states: the parts of the ranks may change from step to step, and the rank count when a
//! run goes on.

use crate::error::{Error, Result};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The states of all streams.
pub struct Carry {
    streams: usize,
    width: usize,
    tables: Mutex<Tables>,
}

/// Both (streams, width).
struct Tables {
    now: Vec<f32>,
    next: Vec<f32>,
}

impl Carry {
    /// Zeros for `streams` streams of `width` values each.
    #[must_use]
    pub fn new(streams: usize, width: usize) -> Carry {
        let zeros = vec![0.0; streams * width];
        Carry { streams, width, tables: Mutex::new(Tables { now: zeros.clone(), next: zeros }) }
    }

    /// Streams, and values of each.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        [self.streams, self.width]
    }

    /// Before the forward passes of a step.
    pub fn begin(&self) {
        self.lock().next.fill(0.0);
    }

    /// The states from which `samples` go on, one row of values for each.
    #[must_use]
    pub fn before(&self, samples: &[u64]) -> Vec<Vec<f32>> {
        let tables = self.lock();
        let row = |&sample: &u64| {
            let (window, stream) = (sample / self.streams as u64, self.stream(sample));
            let state = &tables.now[stream * self.width..][..self.width];
            if window == 0 { vec![0.0; self.width] } else { state.to_vec() }
        };
        samples.iter().map(row).collect()
    }

    /// Keeps what `samples` came to.
    pub fn after(&self, samples: &[u64], states: &[Vec<f32>]) {
        let mut tables = self.lock();
        for (&sample, state) in samples.iter().zip(states) {
            let at = self.stream(sample) * self.width;
            tables.next[at..at + self.width].copy_from_slice(state);
        }
    }

    /// Lets `add_up` add what all ranks have kept.
    ///
    /// # Errors
    /// As `add_up`.
    pub fn exchange(&self, add_up: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<()> {
        add_up(&mut self.lock().next)
    }

    /// After a step that counts: its states are those to go on from.
    pub fn commit(&self) {
        let tables = &mut *self.lock();
        std::mem::swap(&mut tables.now, &mut tables.next);
    }

    /// A copy of the states to go on from, (streams, width).
    #[must_use]
    pub fn states(&self) -> Vec<f32> {
        self.lock().now.clone()
    }

    /// Takes over states that [`Carry::states`] gave.
    ///
    /// # Errors
    /// [`Error::Data`] when there are more or fewer.
    pub fn restore(&self, states: &[f32]) -> Result<()> {
        let now = &mut self.lock().now;
        if now.len() != states.len() {
            return Err(Error::Data(format!(
                "{} carried values for {} streams of {}",
                states.len(),
                self.streams,
                self.width
            )));
        }
        now.copy_from_slice(states);
        Ok(())
    }

    fn stream(&self, sample: u64) -> usize {
        (sample % self.streams as u64) as usize
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        // A panic in between ends the job anyway; floats are never invalid.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_goes_on_where_the_one_before_it_in_its_stream_ended() {
        let carry = Carry::new(3, 2);
        carry.begin();
        assert_eq!(carry.before(&[1, 2]), [[0.0; 2]; 2]);
        carry.after(&[1, 2], &[vec![1.0, 2.0], vec![3.0, 4.0]]);
        // What is kept counts from the commit on; another rank had stream 0.
        assert_eq!(carry.before(&[4]), [[0.0; 2]]);
        let add = |next: &mut [f32]| {
            next.iter_mut().zip([5.0, 6.0, 0.0, 0.0, 0.0, 0.0]).for_each(|(a, b)| *a += b);
            Ok(())
        };
        carry.exchange(add).unwrap();
        carry.commit();
        assert_eq!(carry.before(&[3, 4, 5]), [[5.0, 6.0], [1.0, 2.0], [3.0, 4.0]]);
        assert_eq!(carry.before(&[0, 1]), [[0.0; 2]; 2], "an epoch begins anew");
    }

    #[test]
    fn a_step_that_does_not_count_leaves_the_states_as_they_were() {
        let carry = Carry::new(1, 1);
        for (value, counts) in [(1.0, true), (f32::NAN, false)] {
            carry.begin();
            carry.after(&[1], &[vec![value]]);
            if counts {
                carry.commit();
            }
        }
        assert_eq!(carry.states(), [1.0]);
        carry.restore(&[4.0]).unwrap();
        assert_eq!(carry.before(&[1]), [[4.0]]);
        assert_eq!(carry.restore(&[1.0, 2.0]).unwrap_err().exit_code(), 65);
    }
}

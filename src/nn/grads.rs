//! Gradient buckets: flat memory that backward passes write into and the ring reduces in place.
//!
//! Each parameter owns a slot in one bucket. Parameters are given in name order; buckets are cut from
//! the end, because the last layers' gradients are ready first, and the first bucket is small so that
//! its journey can begin early. The layout depends on names and shapes alone, so it is equal on all
//! ranks.

use crate::error::Result;
use crate::util::aligned::FlatBuf;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Slots start on a multiple of 16 floats: one cache line, one AVX-512 register.
const ALIGN: usize = 16;

/// How a gradient enters its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// First since [`GradBuckets::begin_step`]: what the slot held before is to be overwritten.
    Set,
    /// Micro-batch after the first, or a parameter used twice: to be added.
    Add,
}

#[derive(Debug)]
struct Slot {
    bucket: usize,
    range: Range<usize>,
    written: AtomicBool,
}

/// The gradients of all parameters, in buckets.
pub struct GradBuckets {
    buckets: Vec<Mutex<FlatBuf>>,
    slots: Vec<Slot>,
}

impl GradBuckets {
    /// Lays out slots of the given lengths (elements, in parameter order) in buckets of about
    /// `bucket_bytes`, the first of about `first_bytes`. A slot is never divided: a parameter larger
    /// than a bucket has one of its own.
    ///
    /// # Errors
    /// When there is no memory for the buckets.
    pub fn new(lens: &[usize], first_bytes: usize, bucket_bytes: usize) -> Result<GradBuckets> {
        let mut sizes = vec![0usize];
        let mut slots: Vec<Slot> = Vec::with_capacity(lens.len());
        for &len in lens.iter().rev() {
            let padded = len.next_multiple_of(ALIGN);
            let cap = if sizes.len() == 1 { first_bytes } else { bucket_bytes } / size_of::<f32>();
            let bucket = sizes.len() - 1;
            let start = sizes[bucket];
            if start > 0 && start + padded > cap {
                sizes.push(padded);
                slots.push(Slot {
                    bucket: bucket + 1,
                    range: 0..len,
                    written: AtomicBool::new(false),
                });
            } else {
                sizes[bucket] += padded;
                slots.push(Slot {
                    bucket,
                    range: start..start + len,
                    written: AtomicBool::new(false),
                });
            }
        }
        slots.reverse();
        let buckets = sizes
            .into_iter()
            .map(|n| Ok(Mutex::new(FlatBuf::zeroed(n)?)))
            .collect::<Result<_>>()?;
        Ok(GradBuckets { buckets, slots })
    }

    /// Forgets the gradients of the step before. What the slots hold stays until it is overwritten.
    pub fn begin_step(&self) {
        for slot in &self.slots {
            slot.written.store(false, Relaxed);
        }
    }

    /// Lets `write` put the gradient of parameter `i` into its slot, in the way that [`Write`] says.
    pub fn write<R>(&self, i: usize, write: impl FnOnce(&mut [f32], Write) -> R) -> R {
        let slot = &self.slots[i];
        let how = if slot.written.swap(true, Relaxed) { Write::Add } else { Write::Set };
        write(&mut self.lock(slot.bucket)[slot.range.clone()], how)
    }

    /// Shows the gradient of parameter `i`.
    pub fn read<R>(&self, i: usize, read: impl FnOnce(&[f32]) -> R) -> R {
        let slot = &self.slots[i];
        read(&self.lock(slot.bucket)[slot.range.clone()])
    }

    /// Parameters that received no gradient since [`GradBuckets::begin_step`].
    #[must_use]
    pub fn missing(&self) -> Vec<usize> {
        (0..self.slots.len()).filter(|&i| !self.slots[i].written.load(Relaxed)).collect()
    }

    /// Gives zeros to parameters that received no gradient: a rank without samples takes part so.
    pub fn zero_missing(&self) {
        for i in self.missing() {
            self.write(i, |slot, _| slot.fill(0.0));
        }
    }

    /// Number of buckets. They are reduced in index order.
    #[must_use]
    pub fn bucket_count(&self) -> usize {
        self.buckets.len()
    }

    /// Bytes of all buckets together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        (0..self.buckets.len()).map(|k| self.lock(k).len() * size_of::<f32>()).sum()
    }

    /// Lets `f` work on bucket `k` in place.
    pub fn with_bucket<R>(&self, k: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
        f(&mut self.lock(k))
    }

    /// The square of the norm of all gradients together, summed in `f64` in parameter order.
    #[must_use]
    pub fn norm_squared(&self) -> f64 {
        (0..self.slots.len())
            .map(|i| self.read(i, |g| g.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>()))
            .sum()
    }

    fn lock(&self, k: usize) -> MutexGuard<'_, FlatBuf> {
        // A panic while a slot was written ends the job anyway; the floats are never invalid.
        self.buckets[k].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_parameters_come_first_and_the_first_bucket_is_small() {
        let grads = GradBuckets::new(&[1000, 1000, 100, 10], 512, 8000).unwrap();
        assert_eq!(grads.slots.iter().map(|s| s.bucket).collect::<Vec<_>>(), [2, 1, 0, 0]);
        assert_eq!(grads.slots[3].range, 0..10);
        assert_eq!(grads.slots[2].range, 16..116);
        assert_eq!(grads.bucket_count(), 3);
        assert_eq!(grads.bytes(), (16 + 112 + 1008 + 1008) * 4);
    }

    #[test]
    fn a_parameter_larger_than_a_bucket_has_one_of_its_own() {
        let grads = GradBuckets::new(&[5, 100_000, 5], 64, 64).unwrap();
        assert_eq!(grads.bucket_count(), 3);
    }

    #[test]
    fn the_first_write_of_a_step_sets_and_later_ones_add() {
        let grads = GradBuckets::new(&[3, 2], 1 << 20, 1 << 20).unwrap();
        grads.begin_step();
        assert_eq!(grads.missing(), [0, 1]);
        assert_eq!(grads.write(0, |_, how| how), Write::Set);
        assert_eq!(grads.write(0, |_, how| how), Write::Add);
        assert_eq!(grads.missing(), [1]);
        grads.begin_step();
        assert_eq!(grads.write(0, |_, how| how), Write::Set);
    }

    #[test]
    fn parameters_without_gradient_count_as_zeros() {
        let grads = GradBuckets::new(&[2, 2], 1 << 20, 1 << 20).unwrap();
        grads.write(0, |g, _| g.copy_from_slice(&[3.0, 4.0]));
        grads.write(1, |g, _| g.fill(7.0));
        grads.begin_step();
        grads.write(0, |g, _| g.copy_from_slice(&[3.0, 4.0]));
        grads.zero_missing();
        assert_eq!(grads.norm_squared(), 25.0);
    }
}

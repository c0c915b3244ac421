//! Gradient buckets: flat memory that backward passes write into and collectives reduce in place.
//!
//! Each parameter owns a slot in one bucket. Buckets are filled in the order in which a backward pass
//! finishes the gradients: first the reverse of name order, a guess, then the order that the probe
//! batch has shown. The first bucket is small, so that its journey can begin early. The layout depends
//! on names, shapes and that order alone, so it is equal on all ranks. Buckets are reduced in index
//! order, whatever rank finishes what first.

use super::host::store;
use super::ready::Ready;
use crate::error::Result;
use crate::util::aligned::FlatBuf;
use crate::util::wide::wide;
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

/// What a backward pass does to the gradients: found out by the probe batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    /// Parameters in the order in which their gradients are final.
    pub order: Vec<usize>,
    /// How often each parameter is written.
    pub writes: Vec<u32>,
}

/// Sizes of buckets in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketBytes {
    /// Of the first.
    pub first: usize,
    /// Of the others.
    pub others: usize,
}

#[derive(Debug)]
struct Slot {
    bucket: usize,
    range: Range<usize>,
    written: AtomicBool,
    /// Whether this step's gradient went to [`GradBuckets::onto`].
    added_there: AtomicBool,
}

/// The gradients of all parameters, in buckets.
pub struct GradBuckets {
    buckets: Vec<Mutex<FlatBuf>>,
    slots: Vec<Slot>,
    /// Sums, by bucket, to which the gradients of the pass that goes on are to be added.
    onto: Mutex<Option<Vec<FlatBuf>>>,
    ready: Ready,
}

impl GradBuckets {
    /// Lays out slots of the given lengths (elements, in parameter order) in buckets of about the
    /// given sizes, in reverse order, in memory of this process.
    ///
    /// # Errors
    /// When there is no memory for the buckets.
    pub fn new(lens: &[usize], bytes: BucketBytes) -> Result<GradBuckets> {
        let order: Vec<usize> = (0..lens.len()).rev().collect();
        let course = Course { order, writes: Vec::new() };
        GradBuckets::laid_out(lens, &course, bytes, &mut FlatBuf::zeroed)
    }

    /// The same in the order of `course`, in memory that `allocate` gives. A slot is never divided: a
    /// parameter larger than a bucket has one of its own.
    ///
    /// # Errors
    /// As `allocate`.
    pub fn laid_out(
        lens: &[usize],
        course: &Course,
        bytes: BucketBytes,
        allocate: &mut dyn FnMut(usize) -> Result<FlatBuf>,
    ) -> Result<GradBuckets> {
        let mut sizes = vec![0usize];
        let mut slots: Vec<Option<Slot>> = lens.iter().map(|_| None).collect();
        for &i in &course.order {
            let padded = lens[i].next_multiple_of(ALIGN);
            let cap = if sizes.len() == 1 { bytes.first } else { bytes.others } / size_of::<f32>();
            if sizes[sizes.len() - 1] > 0 && sizes[sizes.len() - 1] + padded > cap {
                sizes.push(0);
            }
            let bucket = sizes.len() - 1;
            let start = sizes[bucket];
            sizes[bucket] += padded;
            let range = start..start + lens[i];
            slots[i] =
                Some(Slot { bucket, range, written: false.into(), added_there: false.into() });
        }
        let slots: Vec<Slot> = slots.into_iter().flatten().collect();
        assert_eq!(slots.len(), lens.len(), "the order must name each parameter once");
        let buckets =
            sizes.into_iter().map(|n| Ok(Mutex::new(allocate(n)?))).collect::<Result<Vec<_>>>()?;
        let bucket_of = slots.iter().map(|slot| slot.bucket).collect();
        let ready = Ready::new(bucket_of, buckets.len(), course.writes.clone());
        Ok(GradBuckets { buckets, slots, onto: Mutex::new(None), ready })
    }

    /// Forgets the gradients of the step before. What the slots hold stays until it is overwritten.
    pub fn begin_step(&self) {
        for slot in &self.slots {
            slot.written.store(false, Relaxed);
            slot.added_there.store(false, Relaxed);
        }
    }

    /// Lets `write` put the gradient of parameter `i` into its slot, in the way that [`Write`] says.
    pub fn write<R>(&self, i: usize, write: impl FnOnce(&mut [f32], Write) -> R) -> R {
        let slot = &self.slots[i];
        let how = if slot.written.swap(true, Relaxed) { Write::Add } else { Write::Set };
        let result = write(&mut self.lock(slot.bucket)[slot.range.clone()], how);
        self.ready.wrote(i);
        result
    }

    /// As [`GradBuckets::write`], by a `write` that with [`Write::Add`] adds to each value *one* number,
    /// formed elsewhere: the same bits as when the slot is set and then added. So it may go where
    /// [`GradBuckets::add_onto`] wants it.
    pub fn write_whole<R>(&self, i: usize, write: impl FnOnce(&mut [f32], Write) -> R) -> R {
        let slot = &self.slots[i];
        if self.ready.writes_of(i) != Some(1) || slot.written.load(Relaxed) {
            return self.write(i, write);
        }
        let mut onto = self.lock_onto();
        let Some(sums) = onto.as_mut() else {
            drop(onto);
            return self.write(i, write);
        };
        slot.written.store(true, Relaxed);
        slot.added_there.store(true, Relaxed);
        let result = write(&mut sums[slot.bucket][slot.range.clone()], Write::Add);
        self.ready.wrote(i);
        result
    }

    /// Lets the gradients of the next pass be added to `sums`, laid out as the buckets: the same bits as
    /// when they are added after the pass, without reading and writing most of them again. Comes after
    /// [`GradBuckets::begin_step`].
    pub fn add_onto(&self, sums: Vec<FlatBuf>) {
        *self.lock_onto() = Some(sums);
    }

    /// After that pass: the sums, with every gradient added; a parameter without one adds zeros.
    pub fn added(&self) -> Option<Vec<FlatBuf>> {
        let mut sums = self.lock_onto().take()?;
        self.zero_missing();
        for slot in self.slots.iter().filter(|slot| !slot.added_there.load(Relaxed)) {
            let bucket = self.lock(slot.bucket);
            let sum = &mut sums[slot.bucket][slot.range.clone()];
            store(sum, &bucket[slot.range.clone()], Write::Add);
        }
        Some(sums)
    }

    /// Spoils the first gradient of the first bucket, wherever it has gone: a rehearsal.
    pub fn spoil(&self, value: f32) {
        if let Some(sums) = self.lock_onto().as_mut() {
            sums[0][0] = value;
        }
        self.lock(0)[0] = value;
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
            let slot = &self.slots[i];
            slot.written.store(true, Relaxed);
            self.lock(slot.bucket)[slot.range.clone()].fill(0.0);
        }
    }

    /// Which buckets are final, for whoever reduces them.
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
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

    /// Lets `f` work on bucket `k` in place. What lies between the slots is zero and stays so.
    pub fn with_bucket<R>(&self, k: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
        f(&mut self.lock(k))
    }

    /// Takes the memory of bucket `k` and gives it `other`, of the same length and zero between the
    /// slots, in its place: a gradient is kept without a copy.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn swap_bucket(&self, k: usize, other: &mut FlatBuf) {
        let mut bucket = self.lock(k);
        assert_eq!(bucket.len(), other.len(), "a bucket keeps its length");
        std::mem::swap(&mut *bucket, other);
    }

    fn lock_onto(&self) -> MutexGuard<'_, Option<Vec<FlatBuf>>> {
        self.onto.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self, k: usize) -> MutexGuard<'_, FlatBuf> {
        // A panic while a slot was written ends the job anyway; the floats are never invalid.
        self.buckets[k].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sum of squares of some gradients, for the norm over all of them.
///
/// Sums of 16 squares in `f32` lanes, joined in `f64`: as fast as memory, and within 1e-6 of the exact
/// sum. Squares beyond the range of `f32` are taken again in `f64`, so that only gradients that are
/// not finite themselves give a sum that is not.
#[must_use]
pub fn sum_of_squares(values: &[f32]) -> f64 {
    let (blocks, rest) = values.as_chunks::<256>();
    let fast = squares_of(blocks);
    let exact = |part: &[f32]| part.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
    if fast.is_finite() { fast + exact(rest) } else { exact(values) }
}

wide! {
    fn squares_of(blocks: &[[f32; 256]]) -> f64 {
        let mut sum = 0.0;
        for block in blocks {
            let mut lanes = [0.0f32; 16];
            for row in block.as_chunks::<16>().0 {
                for (lane, value) in lanes.iter_mut().zip(row) {
                    *lane += value * value;
                }
            }
            sum += f64::from(lanes.iter().sum::<f32>());
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grads(lens: &[usize], first: usize, others: usize) -> GradBuckets {
        GradBuckets::new(lens, BucketBytes { first, others }).unwrap()
    }

    #[test]
    fn the_last_parameters_come_first_and_the_first_bucket_is_small() {
        let grads = grads(&[1000, 1000, 100, 10], 512, 8000);
        assert_eq!(grads.slots.iter().map(|s| s.bucket).collect::<Vec<_>>(), [2, 1, 0, 0]);
        assert_eq!(grads.slots[3].range, 0..10);
        assert_eq!(grads.slots[2].range, 16..116);
        assert_eq!(grads.bucket_count(), 3);
        assert_eq!(grads.bytes(), (16 + 112 + 1008 + 1008) * 4);
    }

    #[test]
    fn a_parameter_larger_than_a_bucket_has_one_of_its_own() {
        assert_eq!(grads(&[5, 100_000, 5], 64, 64).bucket_count(), 3);
    }

    #[test]
    fn a_known_course_puts_what_is_final_first_into_the_first_bucket() {
        let course = Course { order: vec![1, 0, 2], writes: vec![1, 1, 1] };
        let bytes = BucketBytes { first: 128, others: 4096 };
        let grads =
            GradBuckets::laid_out(&[16, 16, 16], &course, bytes, &mut FlatBuf::zeroed).unwrap();
        assert_eq!(grads.slots.iter().map(|s| s.bucket).collect::<Vec<_>>(), [0, 0, 1]);
        assert_eq!(grads.slots[1].range, 0..16);
    }

    #[test]
    fn the_first_write_of_a_step_sets_and_later_ones_add() {
        let grads = grads(&[3, 2], 1 << 20, 1 << 20);
        grads.begin_step();
        assert_eq!(grads.missing(), [0, 1]);
        assert_eq!(grads.write(0, |_, how| how), Write::Set);
        assert_eq!(grads.write(0, |_, how| how), Write::Add);
        assert_eq!(grads.missing(), [1]);
        grads.begin_step();
        assert_eq!(grads.write(0, |_, how| how), Write::Set);
    }

    #[test]
    fn gradients_that_are_formed_whole_are_added_to_the_sums_at_once_and_the_others_afterwards() {
        let course = Course { order: vec![3, 2, 1, 0], writes: vec![1, 1, 2, 1] };
        let bytes = BucketBytes { first: 64, others: 4096 };
        let grads = GradBuckets::laid_out(&[2; 4], &course, bytes, &mut FlatBuf::zeroed).unwrap();
        let sums = || {
            let lens = (0..grads.bucket_count()).map(|k| grads.with_bucket(k, |b| b.len()));
            let mut sums: Vec<FlatBuf> = lens.map(|n| FlatBuf::zeroed(n).unwrap()).collect();
            sums.iter_mut().for_each(|sum| sum.fill(100.0));
            sums
        };
        grads.with_bucket(0, |bucket| bucket.fill(f32::NAN));
        grads.begin_step();
        grads.add_onto(sums());
        assert_eq!(grads.write_whole(0, |g, how| (store(g, &[1.0, 2.0], how), how).1), Write::Add);
        assert_eq!(grads.write(1, |g, how| (store(g, &[3.0, 4.0], how), how).1), Write::Set);
        // Written twice in a pass: its own two parts come first.
        for expected in [Write::Set, Write::Add] {
            let how = grads.write_whole(2, |g, how| (store(g, &[5.0, 6.0], how), how).1);
            assert_eq!(how, expected);
        }
        let sums = grads.added().unwrap();
        let of = |i: usize| sums[grads.slots[i].bucket][grads.slots[i].range.clone()].to_vec();
        assert_eq!(
            [of(0), of(1), of(2), of(3)],
            [[101.0, 102.0], [103.0, 104.0], [110.0, 112.0], [100.0, 100.0]]
        );
        assert!(grads.added().is_none());
        grads.begin_step();
        assert_eq!(grads.write_whole(0, |_, how| how), Write::Set);
    }

    #[test]
    fn parameters_without_gradient_count_as_zeros() {
        let grads = grads(&[2, 2], 1 << 20, 1 << 20);
        grads.write(0, |g, _| g.copy_from_slice(&[3.0, 4.0]));
        grads.write(1, |g, _| g.fill(7.0));
        grads.begin_step();
        grads.write(0, |g, _| g.copy_from_slice(&[3.0, 4.0]));
        grads.zero_missing();
        assert_eq!(grads.with_bucket(0, |all| sum_of_squares(all)), 25.0);
    }

    #[test]
    fn a_sum_of_squares_is_near_the_exact_one_and_infinite_only_for_what_is_not_finite() {
        let values: Vec<f32> =
            (0..10_007).map(|i| ((i * 37 % 1000) as f32 - 500.0) / 7.0).collect();
        let exact: f64 = values.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        assert!((sum_of_squares(&values) / exact - 1.0).abs() < 1e-6);
        assert!((sum_of_squares(&[1e30; 300]) / 300e60 - 1.0).abs() < 1e-6);
        let mut bad = vec![1.0; 300];
        bad[17] = f32::NAN;
        assert!(sum_of_squares(&bad).is_nan());
        bad[17] = f32::INFINITY;
        assert!(sum_of_squares(&bad).is_infinite());
    }
}

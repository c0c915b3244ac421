//! Which samples make up which step, and which rank computes them.
//!
//! Nothing here has state: the order of an epoch is a keyed permutation that answers "which sample
//! is at position p?" at once, so a run resumes anywhere and any number of ranks sees the same
//! global batches.
//!
//! ```text
//!   positions of an epoch   0 ........ G ........ 2G ...... n     G = the global batch
//!   step                    |    0     |    1     |    2    |     the last one has what is left
//!   rank (of 3)             | 0 | 1 | 2| 0 | 1 | 2| 0 |1 | 2|     contiguous, sizes differ by 1
//!   micro-batch (of 2)      |.|.|.|.|.|.|                         the same rule once more
//! ```

use crate::util::rng::{Purpose, Rng, below, mix};
use std::ops::Range;

/// Rounds of the Feistel network. Four make it as good as random against an observer of all pairs
/// (Luby and Rackoff, 1988) on large halves; ten suit the small ones of small data sets.
const ROUNDS: usize = 10;

/// A permutation of `0..n`: the order of the samples in one epoch.
///
/// A Feistel network over pairs (l, r) with l < a, r < b, a·b ≥ n (Black and Rogaway, "Ciphers
/// with arbitrary finite domains", 2002). A result ≥ n is put in again until one is below
/// ("cycle-walking"); as a·b < n + 2·√n + 1, that is rare.
#[derive(Debug, Clone)]
pub struct Order {
    n: u64,
    a: u64,
    b: u64,
    keys: [u64; ROUNDS],
}

impl Order {
    /// The order of `n` samples in `epoch`.
    #[must_use]
    pub fn new(seed: u64, epoch: u64, n: u64) -> Order {
        let mut rng = Rng::new(seed, Purpose::Order, epoch, 0, 0);
        let a = n.isqrt().max(2);
        let b = n.div_ceil(a).max(1);
        Order { n, a, b, keys: std::array::from_fn(|_| rng.next_u64()) }
    }

    /// Number of samples.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "an order of no samples is of no use")]
    pub fn len(&self) -> u64 {
        self.n
    }

    /// The sample at `position`. Positions from `n` on are taken modulo `n`.
    ///
    /// # Panics
    /// If the order is one of no samples.
    #[must_use]
    pub fn at(&self, position: u64) -> u64 {
        let mut x = position % self.n;
        loop {
            x = self.permute(x);
            if x < self.n {
                return x;
            }
        }
    }

    /// A permutation of `0..a·b`. Each round adds to one half a number made from the other, which
    /// can be undone, so no two inputs meet.
    fn permute(&self, x: u64) -> u64 {
        let (mut l, mut r) = (x / self.b, x % self.b);
        for keys in self.keys.chunks_exact(2) {
            l = (l + below(mix(r ^ keys[0]), self.a)) % self.a;
            r = (r + below(mix(l ^ keys[1]), self.b)) % self.b;
        }
        l * self.b + r
    }
}

/// Part `i` of `parts` contiguous parts of `range`, as equal as can be: the first ones get one more.
#[must_use]
pub fn part(range: &Range<u64>, i: usize, parts: usize) -> Range<u64> {
    let (i, parts) = (i as u64, (parts as u64).max(1));
    let len = range.end.saturating_sub(range.start);
    let (size, more) = (len / parts, len % parts);
    let edge = |i: u64| range.start + i * size + i.min(more);
    edge(i)..edge(i + 1)
}

/// The steps of a run over `n` samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    /// Samples in the data set, at least 1.
    pub n: u64,
    /// Samples in a step over all ranks, at least 1.
    pub global_batch: u64,
    /// Seed of the order.
    pub seed: u64,
}

impl Sampler {
    /// A sampler; zeros count as 1.
    #[must_use]
    pub fn new(n: u64, global_batch: u64, seed: u64) -> Sampler {
        Sampler { n: n.max(1), global_batch: global_batch.max(1), seed }
    }

    /// Steps in an epoch; the last may be smaller than the others.
    #[must_use]
    pub fn steps_per_epoch(&self) -> u64 {
        self.n.div_ceil(self.global_batch)
    }

    /// Steps of a run, given the two options of the card. `None` for both is a run of no steps.
    #[must_use]
    pub fn total_steps(&self, epochs: Option<u64>, max_steps: Option<u64>) -> u64 {
        let all = epochs.map(|epochs| epochs.saturating_mul(self.steps_per_epoch()));
        all.into_iter().chain(max_steps).min().unwrap_or(0)
    }

    /// Epoch and step in it of a step of the run, all counted from 0.
    #[must_use]
    pub fn locate(&self, step: u64) -> (u64, u64) {
        (step / self.steps_per_epoch(), step % self.steps_per_epoch())
    }

    /// The positions in the epoch that make up the global batch of its step `step_in_epoch`; empty
    /// after the last step.
    #[must_use]
    pub fn global_batch(&self, step_in_epoch: u64) -> Range<u64> {
        let start = step_in_epoch.saturating_mul(self.global_batch).min(self.n);
        start..start.saturating_add(self.global_batch).min(self.n)
    }

    /// The order of the samples in `epoch`.
    #[must_use]
    pub fn order(&self, epoch: u64) -> Order {
        Order::new(self.seed, epoch, self.n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_sample_comes_exactly_once_per_epoch(n in 1u64..2000, seed: u64, epoch in 0u64..9) {
            let order = Order::new(seed, epoch, n);
            let mut seen = vec![false; n as usize];
            for position in 0..n {
                let sample = order.at(position) as usize;
                prop_assert!(!seen[sample], "{sample} twice");
                seen[sample] = true;
            }
        }

        #[test]
        fn the_parts_of_all_ranks_make_up_the_global_batch(
            n in 1u64..2000, batch in 1u64..300, world in 1usize..17, micros in 1usize..9,
        ) {
            let sampler = Sampler::new(n, batch, 1);
            let mut next = 0;
            for step in 0..sampler.steps_per_epoch() {
                let global = sampler.global_batch(step);
                prop_assert!(!global.is_empty());
                let mut sizes = vec![];
                for rank in 0..world {
                    let mine = part(&global, rank, world);
                    sizes.push(mine.end - mine.start);
                    for micro in 0..micros {
                        let micro = part(&mine, micro, micros);
                        prop_assert_eq!(micro.start, next);
                        next = micro.end;
                    }
                }
                prop_assert_eq!(next, global.end);
                prop_assert!(sizes.is_sorted_by(|a, b| a >= b) && sizes[0] - sizes[world - 1] <= 1);
            }
            prop_assert_eq!(next, n);
            prop_assert!(sampler.global_batch(sampler.steps_per_epoch()).is_empty());
        }
    }

    fn all(seed: u64, epoch: u64, n: u64) -> Vec<u64> {
        let order = Order::new(seed, epoch, n);
        (0..n).map(|p| order.at(p)).collect()
    }

    #[test]
    fn the_order_differs_between_epochs_and_seeds_and_repeats_for_the_same() {
        for n in [20, 1000, 60_000] {
            assert_eq!(all(1, 0, n), all(1, 0, n));
            for other in [all(1, 1, n), all(2, 0, n), all(1, 2, n)] {
                let same = all(1, 0, n).iter().zip(&other).filter(|(a, b)| a == b).count();
                assert!(same < 12, "{same} of {n} samples stay in place");
            }
        }
    }

    #[test]
    fn the_order_looks_random() {
        for (n, seed) in [(1000u64, 1), (60_000, 2), (65_536, 3), (99_991, 4)] {
            let order = all(seed, 0, n);
            let nf = n as f64;
            // A random permutation moves a sample by n / 3 in the mean.
            let moved: u64 = order.iter().enumerate().map(|(i, &x)| x.abs_diff(i as u64)).sum();
            let mean = moved as f64 / nf / nf;
            assert!((mean - 1.0 / 3.0).abs() < 0.03, "n {n}: {mean}");
            // Neighbours are no closer than chance: two of n differ by n / 3 in the mean as well.
            let gaps: u64 = order.windows(2).map(|w| w[0].abs_diff(w[1])).sum();
            let mean = gaps as f64 / nf / nf;
            assert!((mean - 1.0 / 3.0).abs() < 0.03, "n {n}: {mean}");
            // Ascending steps by one: 1 expected.
            let runs = order.windows(2).filter(|w| w[1] == w[0] + 1).count();
            assert!(runs < 9, "n {n}: {runs} neighbours stayed neighbours");
        }
    }

    #[test]
    fn all_orders_of_a_tiny_set_occur_about_equally_often() {
        let mut counts = std::collections::BTreeMap::new();
        for seed in 0..6000 {
            *counts.entry(all(seed, 0, 3)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|&c| (800..1200).contains(&c)), "{counts:?}");
    }

    #[test]
    fn first_samples_of_sorted_classes_are_mixed_in_each_batch() {
        // Sorted by class, ten classes: a batch of 128 holds each about 12.8 times.
        for step in 0..20 {
            let mut classes = [0; 10];
            let order = Order::new(5, 0, 60_000);
            for p in step * 128..(step + 1) * 128 {
                classes[(order.at(p) / 6000) as usize] += 1;
            }
            assert!(classes.iter().all(|c| (1..35).contains(c)), "{classes:?}");
        }
    }

    #[test]
    fn the_golden_order_never_changes() {
        // Another order is another run: old checkpoints would resume on other samples.
        assert_eq!(all(42, 3, 12), GOLDEN);
    }
    const GOLDEN: [u64; 12] = [3, 5, 6, 10, 0, 2, 8, 9, 7, 11, 4, 1];

    #[test]
    fn a_step_of_the_run_is_found_in_its_epoch_and_the_run_has_an_end() {
        let sampler = Sampler::new(10, 4, 0);
        assert_eq!(sampler.steps_per_epoch(), 3);
        assert_eq!([0, 2, 3, 7].map(|s| sampler.locate(s)), [(0, 0), (0, 2), (1, 0), (2, 1)]);
        assert_eq!(sampler.global_batch(2), 8..10);
        assert_eq!(sampler.total_steps(Some(2), None), 6);
        assert_eq!(sampler.total_steps(Some(2), Some(4)), 4);
        assert_eq!(sampler.total_steps(None, Some(40)), 40);
        assert_eq!(Sampler::new(10, 1 << 30, 0).global_batch(0), 0..10);
    }
}

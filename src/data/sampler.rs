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

use crate::util::rng::{Purpose, Rng, mix};
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
        let a = n.isqrt().max(1);
        let b = n.div_ceil(a).max(1);
        Order { n, a, b, keys: std::array::from_fn(|_| rng.next_u64()) }
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

/// A number below `bound` from 64 random bits; the bias is below bound / 2⁶⁴.
fn below(bits: u64, bound: u64) -> u64 {
    ((u128::from(bits) * u128::from(bound)) >> 64) as u64
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

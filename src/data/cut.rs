//! How the global batch is cut into the micro-batches of each rank.
//!
//! ```text
//!   positions of a global batch     0 1 2 3 4 5 6 7 8 9 a b          12 samples, 2 ranks
//!   ranks, 2 micro-batches each     0 . . : . . 0|1 . . : . . 1      ranks first: another count cuts
//!                                                                    elsewhere
//!   4 leaves                        . . . : . . .|. . . : . . .      leaves first, then whole leaves
//!   the same with 3 ranks           . . . : . . .|. . .|. . .        to ranks: the cuts stay
//! ```

use super::sampler::part;
use std::ops::Range;

/// Which micro-batches a rank has in each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Each rank has a part of the batch, and cuts it into so many micro-batches.
    Ranks(usize),
    /// The batch is cut into so many leaves, whatever the number of ranks; each rank has a run of
    /// them, each a micro-batch.
    Leaves(usize),
}

impl Cut {
    /// Number of micro-batches of `rank` in each step; some may be empty.
    #[must_use]
    pub fn micro_batches(self, rank: usize, world: usize) -> usize {
        match self {
            Cut::Ranks(parts) => parts.max(1),
            Cut::Leaves(leaves) => own_leaves(leaves, rank, world).len(),
        }
    }

    /// The positions, out of the global batch's, of micro-batch `micro` of `rank`.
    #[must_use]
    pub fn positions(
        self,
        global: &Range<u64>,
        rank: usize,
        world: usize,
        micro: usize,
    ) -> Range<u64> {
        match self {
            Cut::Ranks(parts) => part(&part(global, rank, world), micro, parts),
            Cut::Leaves(leaves) => {
                part(global, own_leaves(leaves, rank, world).start + micro, leaves)
            }
        }
    }
}

/// The leaves of `rank`: a contiguous run, empty where there are more ranks than leaves.
#[must_use]
pub fn own_leaves(leaves: usize, rank: usize, world: usize) -> Range<usize> {
    let run = part(&(0..leaves as u64), rank, world);
    run.start as usize..run.end as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_micro_batches_of_all_ranks_make_up_the_batch_in_order(
            start in 0u64..1000, len in 0u64..300, world in 1usize..17, n in 1usize..40, by_leaf: bool,
        ) {
            let global = start..start + len;
            let cut = if by_leaf { Cut::Leaves(n) } else { Cut::Ranks(n) };
            let mut next = start;
            for rank in 0..world {
                for micro in 0..cut.micro_batches(rank, world) {
                    let positions = cut.positions(&global, rank, world, micro);
                    prop_assert_eq!(positions.start, next);
                    next = positions.end;
                }
            }
            prop_assert_eq!(next, global.end);
        }

        #[test]
        fn the_leaves_are_the_same_at_any_number_of_ranks(
            len in 0u64..300, world in 1usize..17, leaves in 1usize..40,
        ) {
            let of = |world: usize| -> Vec<Range<u64>> {
                let cut = Cut::Leaves(leaves);
                let of_rank = |rank| {
                    let micros = 0..cut.micro_batches(rank, world);
                    micros.map(move |micro| cut.positions(&(0..len), rank, world, micro))
                };
                (0..world).flat_map(of_rank).collect()
            };
            prop_assert_eq!(of(world), of(1));
        }
    }
}

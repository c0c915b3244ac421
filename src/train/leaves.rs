//! Gradients in reproducible mode: one per leaf of the global batch, added up in the order of a tree
//! over the leaves ([`crate::collective::tree`]), whoever has computed which.
//!
//! ```text
//!   leaf gradients   0   1   2   3 │ 4   5   6   7       2 ranks: each adds up its side of the tree,
//!                     0..2   2..4  │  4..6   6..8        then the owner of each chunk adds 0..4 and
//!                         0..4     │      4..8           4..8
//! ```
//!
//! Everything else that is a sum over samples or values (loss, accuracy, the gradient's norm) is taken
//! in pieces that do not depend on the ranks; each piece has one owner, and a table of all pieces is
//! filled by adding the other ranks' zeros, which is exact in any order.

use super::reduce::Reduced;
use super::tally::Tally;
use super::wishes::Votes;
use crate::collective::tree::{Joiner, most_nodes};
use crate::collective::{self, Element, Group, Op};
use crate::config::Card;
use crate::data::cut::own_leaves;
use crate::error::{Error, Result};
use crate::nn::{GradBuckets, sum_of_squares};
use crate::util::aligned::FlatBuf;
use crate::util::whereabouts::{Phase, enter};
use std::ops::Range;
use std::time::Instant;

/// Values whose squares are added up by one rank.
const PIECE: usize = 1 << 16;

/// The sums of one node of the tree, by bucket.
type Sums = Vec<FlatBuf>;

/// This rank's leaves of the step that goes on.
pub struct Leaves {
    shape: collective::Leaves,
    own: Range<usize>,
    nodes: Joiner<Sums>,
    /// The node to whose sums the gradient of the leaf that goes on is added.
    left: Option<Range<usize>>,
    /// Memory for nodes: at most 2·log₂ of this rank's leaves are ever needed.
    spare: Vec<Sums>,
    tallies: Vec<Tally>,
}

impl Leaves {
    /// The leaves that the card asks for, if it does, with the memory that sums of them need: the ranks
    /// of a host read each other's.
    ///
    /// # Errors
    /// When there is not so much memory, or a rank is late.
    pub fn of(card: &Card, grads: &GradBuckets, group: &mut Group) -> Result<Option<Leaves>> {
        let Some(mode) = card.reproducible else { return Ok(None) };
        let count = mode.leaves;
        let (rank, size) = (group.rank(), group.size());
        let run = |rank| own_leaves(count, rank, size);
        let runs: Vec<Range<usize>> = (0..size).map(run).collect();
        // As many on each rank, whatever it needs itself: shared memory is made by all together.
        let most = runs.iter().map(|run| most_nodes(run, count)).max().unwrap_or(0);
        let mut node = || {
            let lens = (0..grads.bucket_count()).map(|k| grads.with_bucket(k, |b| b.len()));
            lens.map(|len| group.shared_buffer(len)).collect::<Result<Sums>>()
        };
        let spare = (0..most).map(|_| node()).collect::<Result<Vec<Sums>>>()?;
        Ok(Some(Leaves {
            shape: collective::Leaves::new(count, &runs),
            own: run(rank),
            nodes: Joiner::new(count),
            left: None,
            spare,
            tallies: Vec::new(),
        }))
    }

    /// The leaves that this rank computes.
    #[must_use]
    pub fn own(&self) -> Range<usize> {
        self.own.clone()
    }

    /// Before the pass over `leaf`. Where the sum of its left sibling is there, the gradient is added to
    /// that as it is formed.
    pub fn begin(&mut self, leaf: usize, grads: &GradBuckets) {
        grads.begin_step();
        let node = leaf..leaf + 1;
        if self.nodes.sibling_of(&node).is_some()
            && let Some((left, sums)) = self.nodes.pop()
        {
            self.left = Some(left);
            grads.add_onto(sums);
        }
    }

    /// Takes the gradient of `leaf` out of the buckets. A leaf without samples counts as zeros.
    ///
    /// # Errors
    /// [`Error::Internal`], never seen.
    pub fn put(&mut self, leaf: usize, grads: &GradBuckets, tally: Tally) -> Result<()> {
        self.tallies.push(tally);
        if let (Some(left), Some(sums)) = (self.left.take(), grads.added()) {
            self.join(left.start..leaf + 1, sums);
            return Ok(());
        }
        grads.zero_missing();
        let mut sums = self.spare.pop().ok_or_else(|| {
            Error::Internal(format!("leaf {leaf}: more sums are needed than were counted"))
        })?;
        for (k, sum) in sums.iter_mut().enumerate() {
            grads.swap_bucket(k, sum);
        }
        self.join(leaf..leaf + 1, sums);
        Ok(())
    }

    fn join(&mut self, node: Range<usize>, sums: Sums) {
        let spare = &mut self.spare;
        self.nodes.push(node, sums, |left, right| {
            for (left, right) in left.iter_mut().zip(&right) {
                f32::reduce(Op::Sum, left, right);
            }
            spare.push(right);
        });
    }

    /// Adds up the leaves of all ranks, into the buckets.
    ///
    /// # Errors
    /// When a rank is late or dead.
    pub fn reduce(
        &mut self,
        grads: &GradBuckets,
        votes: Votes,
        group: &mut Group,
    ) -> Result<Reduced> {
        enter(Phase::Reduce);
        let start = Instant::now();
        let nodes = self.nodes.take();
        let mut squares = Vec::new();
        for k in 0..grads.bucket_count() {
            let mine: Vec<&[f32]> = nodes.iter().map(|(_, sums)| &sums[k][..]).collect();
            grads.with_bucket(k, |bucket| {
                group.tree_sum(&self.shape, &mine, bucket)?;
                for piece in bucket.chunks(PIECE) {
                    let own = squares.len() % group.size() == group.rank();
                    squares.push(if own { sum_of_squares(piece) } else { 0.0 });
                }
                Ok::<_, Error>(())
            })?;
        }
        self.spare.extend(nodes.into_iter().map(|(_, sums)| sums));

        let mut tallies = vec![Tally::default(); self.shape.count()];
        tallies[self.own.clone()].copy_from_slice(&self.tallies);
        self.tallies.clear();
        // One collective for all the small numbers.
        let mut table = Tally::flat(&tallies);
        table.extend(&squares);
        table.extend(votes.0);
        group.all_reduce(&mut table, Op::Sum)?;
        let (tallies, rest) = table.split_at(3 * self.shape.count());
        let (squares, votes) = rest.split_at(squares.len());
        let votes = Votes([votes[0], votes[1], votes[2], votes[3]]);
        let grad_norm = squares.iter().sum::<f64>().sqrt();
        let tally = Tally::sum_of_flat(tallies);
        Ok(Reduced { tally, votes, grad_norm, exposed: start.elapsed() })
    }
}

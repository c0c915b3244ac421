//! The sum whose bits do not depend on the number of ranks.
//!
//! Each rank brings the sums of the largest nodes of the [`tree`](super::tree) that lie in its run of
//! leaves. The buffer is cut into one chunk per rank, as in a ring all-reduce, but the chunks of all
//! nodes go to their owner unsummed, and the owner alone adds them up, in the order of the tree:
//!
//! ```text
//!             rank 0: 0..4     rank 1: 4..6, 6..7     rank 2: 7..8
//!   chunk 0     ▒▒               ▒▒      ▒▒             ▒▒          ──► owner adds by the tree
//!   chunk 1     ▒▒               ▒▒      ▒▒             ▒▒          ──► owner
//!   chunk 2     ▒▒               ▒▒      ▒▒             ▒▒          ──► owner
//!                                                        then the chunks go round: all-gather
//! ```
//!
//! Where the ranks divide the leaves and each holds a power of two of them, a rank brings one node and
//! sends 2(P−1)/P · S bytes, as a ring does; else somewhat more, one chunk for each further node.

use super::chunks::chunk;
use super::header::Kind;
use super::tree::{Joiner, Node, cover};
use super::{Algorithm, Element, Group, Op, canonical_in_node, ring};
use crate::comm::Peer;
use crate::error::{Error, Result};
use std::ops::Range;

/// The part of the leaves that each rank holds, for [`Group::tree_sum`].
#[derive(Debug, Clone)]
pub struct Leaves {
    count: usize,
    /// The nodes that each rank brings, by rank.
    nodes: Vec<Vec<Node>>,
}

impl Leaves {
    /// `runs`: the leaves of each rank, contiguous, in order, by rank.
    #[must_use]
    pub fn new(count: usize, runs: &[Range<usize>]) -> Leaves {
        Leaves { count, nodes: runs.iter().map(|run| cover(run, count)).collect() }
    }

    /// Number of nodes that `rank` brings.
    pub(super) fn nodes_of(&self, rank: usize) -> usize {
        self.nodes[rank].len()
    }

    /// Number of leaves over all ranks.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }
}

impl Group {
    /// Adds up the leaves of all ranks in the order of the tree; every rank gets the sum in `into`.
    ///
    /// Where all buffers of all ranks lie in memory that the ranks of one host share
    /// ([`Group::shared_buffer`]), the bytes are read there; else they are sent.
    ///
    /// `mine` holds the sums of this rank's nodes, in order, each as long as `into`; none where this
    /// rank has no leaves.
    ///
    /// # Errors
    /// When a rank is late, or does something else.
    pub fn tree_sum(&mut self, leaves: &Leaves, mine: &[&[f32]], into: &mut [f32]) -> Result<()> {
        let header = self.next_header(Kind::TreeSum, f32::TYPE, 0, into.len(), leaves.count as u64);
        let by_memory = matches!(self.tuning.algorithm, Algorithm::Auto | Algorithm::Shared);
        let nodes = &leaves.nodes[self.rank()];
        if mine.len() != nodes.len() || mine.iter().any(|sum| sum.len() != into.len()) {
            return Err(Error::Internal(format!("tree_sum wants the sums of the nodes {nodes:?}")));
        }
        if self.size() == 1 {
            // One rank holds all leaves, which are one node.
            into.copy_from_slice(mine[0]);
            return Ok(());
        }
        if let Some(node) = self.node.as_mut().filter(|_| self.host_count == 1 && by_memory)
            && let Some(places) = canonical_in_node::places(node, mine, into)
        {
            self.sent += size_of_val(into) as u64;
            let (peer, scratch) = (&mut self.peer, &mut self.tree_scratch);
            return canonical_in_node::sum(node, peer, &header, leaves, &places, into, scratch);
        }
        self.begin(&header)?;
        self.reduce_own_chunk(leaves, mine, into)?;
        self.sent += ring::all_gather(&mut self.peer, &self.everyone, into)?;
        Ok(())
    }

    /// Gathers the chunk that this rank owns from all ranks' nodes and adds it up into `into`.
    fn reduce_own_chunk(
        &mut self,
        leaves: &Leaves,
        mine: &[&[f32]],
        into: &mut [f32],
    ) -> Result<()> {
        let (size, place, len) = (self.size(), self.everyone.place(), into.len());
        // As after a ring's reduce-scatter, place p owns chunk p + 1.
        let owned = |place: usize| chunk(len, size, (place + 1) % size);
        let own = owned(place);
        let width = own.len();
        let firsts: Vec<usize> = leaves
            .nodes
            .iter()
            .scan(0, |next, nodes| Some(std::mem::replace(next, *next + nodes.len())))
            .collect();
        let total: usize = leaves.nodes.iter().map(Vec::len).sum();
        let mut all = std::mem::take(&mut self.tree_scratch);
        all.resize(total * width, 0.0);
        let slot = |rank: usize, node: usize| {
            let at = (firsts[rank] + node) * width;
            at..at + width
        };
        for (node, sum) in mine.iter().enumerate() {
            all[slot(self.rank(), node)].copy_from_slice(&sum[own.clone()]);
        }
        for distance in 1..size {
            let (to, from) = (place + distance, place + size - distance);
            let (to_rank, from_rank) = (self.everyone.rank(to), self.everyone.rank(from));
            let theirs = owned(to % size);
            for node in 0..mine.len().max(leaves.nodes[from_rank].len()) {
                let out = mine.get(node).map_or(&[][..], |sum| &sum[theirs.clone()]);
                let expected = node < leaves.nodes[from_rank].len();
                let get = if expected { slot(from_rank, node) } else { 0..0 };
                let (out, get) =
                    (bytemuck::cast_slice(out), bytemuck::cast_slice_mut(&mut all[get]));
                self.peer.exchange(to_rank, out, from_rank, get)?;
                self.sent += out.len() as u64;
            }
        }
        if width > 0 {
            add_up(leaves, &mut all, width);
            into[own].copy_from_slice(&all[..width]);
        }
        self.tree_scratch = all;
        Ok(())
    }
}

/// Adds up rows of `width` numbers, one per node in order, by the tree; the sum is left in the first.
pub(super) fn add_up(leaves: &Leaves, rows: &mut [f32], width: usize) {
    let mut joiner = Joiner::new(leaves.count);
    for (row, node) in leaves.nodes.iter().flatten().enumerate() {
        joiner.push(node.clone(), row, |left: &mut usize, right: usize| {
            let (head, tail) = rows.split_at_mut(right * width);
            f32::reduce(Op::Sum, &mut head[*left * width..][..width], &tail[..width]);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads;
    use crate::util::aligned::FlatBuf;
    use crate::util::rng::{Purpose, Rng};
    use proptest::prelude::*;

    /// The gradient of one leaf: of any size and sign, so that every order of adding differs.
    fn leaf(leaf: usize, len: usize) -> Vec<f32> {
        let mut rng = Rng::new(3, Purpose::Synthetic, 0, leaf as u64, 0);
        let mut draw = || f32::from_bits(rng.next_u32() & 0x87ff_ffff | 0x3800_0000);
        (0..len).map(|_| draw()).collect()
    }

    fn add(left: &mut [f32], right: &[f32]) {
        f32::reduce(Op::Sum, left, right);
    }

    /// The bits that every rank ends with; `hosts` has a letter for each rank.
    fn sum_over(hosts: &str, leaves: usize, len: usize, segment: usize) -> Vec<Vec<u32>> {
        sum_in(false, hosts, leaves, len, segment)
    }

    /// The same, with all buffers in memory that the ranks of a host share if `shared`.
    fn sum_in(
        shared: bool,
        hosts: &str,
        leaves: usize,
        len: usize,
        segment: usize,
    ) -> Vec<Vec<u32>> {
        let size = hosts.len();
        let run = |rank: usize| rank * leaves / size..(rank + 1) * leaves / size;
        let runs: Vec<_> = (0..size).map(run).collect();
        let shape = Leaves::new(leaves, &runs);
        std::thread::scope(|scope| {
            let ranks: Vec<_> = threads::world(size)
                .into_iter()
                .zip(hosts.chars())
                .map(|(peer, host)| {
                    let (shape, runs) = (&shape, &runs);
                    scope.spawn(move || {
                        let mut group = Group::meet_on(Box::new(peer), host.to_string()).unwrap();
                        let tuning = crate::collective::Tuning { segment, ..Default::default() };
                        group.configure(tuning).unwrap();
                        let mut own = Joiner::new(leaves);
                        for i in runs[group.rank()].clone() {
                            own.push(i..i + 1, leaf(i, len), |left, right| add(left, &right));
                        }
                        let most = leaves + 1;
                        let mut buffer = || match shared {
                            true => group.shared_buffer(len).unwrap(),
                            false => FlatBuf::zeroed(len).unwrap(),
                        };
                        let mut nodes: Vec<FlatBuf> = (0..most).map(|_| buffer()).collect();
                        let mut into = nodes.pop().unwrap();
                        into.fill(f32::NAN);
                        for (node, (_, sum)) in nodes.iter_mut().zip(own.nodes()) {
                            node.copy_from_slice(sum);
                        }
                        let count = own.nodes().count();
                        let mine: Vec<&[f32]> = nodes[..count].iter().map(|n| &n[..]).collect();
                        group.tree_sum(shape, &mine, &mut into).unwrap();
                        into.iter().map(|x| x.to_bits()).collect()
                    })
                })
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn the_bits_are_the_same_at_any_number_of_ranks_and_hosts(
            size in 2usize..=9, leaves in 1usize..20, len in 0usize..200, segment in 1usize..400,
        ) {
            let one = &sum_over("a", leaves, len, segment)[0];
            for hosts in ["aaaaaaaaa", "abcabcabc", "aabbbbccc"] {
                for shared in [false, true] {
                    let all = sum_in(shared, &hosts[..size], leaves, len, segment);
                    prop_assert!(all.iter().all(|bits| bits == one));
                }
            }
        }
    }

    #[test]
    fn another_order_would_give_other_bits() {
        let mut in_turn = leaf(0, 100);
        (1..16).for_each(|i| add(&mut in_turn, &leaf(i, 100)));
        let bits: Vec<u32> = in_turn.iter().map(|x| x.to_bits()).collect();
        assert_ne!(sum_over("aaa", 16, 100, 64)[0], bits);
    }
}

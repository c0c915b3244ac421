//! The order in which the sums of leaves are added up: a binary tree over the leaves that is the same
//! whoever holds which leaf. Pure.
//!
//! ```text
//!   7 leaves                     0..7                 A node over n leaves has the largest power of
//!                         0..4    +    4..7           two below n on its left.
//!                     0..2 + 2..4    4..6 + 6
//!                     0+1    2+3     4+5
//!
//!   3 ranks          │ rank 0 │ rank 1  │ rank 2 │    Rank 0 (leaves 0 1 2) can add up 0..2 and keeps 2
//!   leaves           │ 0 1 2  │  3 4    │  5 6   │    by itself; rank 1 keeps 3 and 4, rank 2 5 and 6.
//! ```
//!
//! Floating-point addition is not associative, so only one fixed order gives the same bits at any
//! number of ranks. A rank adds up what lies whole on its side of the tree; the few sums that are
//! left (at most 2·log₂ of its leaves) are joined across ranks in the same order.

use std::ops::Range;

/// A node of the tree, by the leaves under it.
pub type Node = Range<usize>;

/// Where a node's left child ends and its right child begins.
fn middle(node: &Node) -> usize {
    let len = node.end - node.start;
    node.start + (len.next_power_of_two() / 2)
}

/// Whether `left` and `right` are the two children of one node of the tree over `leaves` leaves.
#[must_use]
pub fn are_siblings(left: &Node, right: &Node, leaves: usize) -> bool {
    let parent = left.start..right.end;
    let mut node = 0..leaves;
    while node.end - node.start > 1 {
        let middle = middle(&node);
        if node == parent {
            return left.end == middle && right.start == middle;
        }
        // A node that contains the parent and is not it has it on one side.
        node = if parent.end <= middle { node.start..middle } else { middle..node.end };
        if parent.start < node.start || parent.end > node.end {
            return false;
        }
    }
    false
}

/// Joins the sums of nodes, given in the order of their leaves, as soon as both children of a node are
/// there. What is left at the end are the largest nodes inside the leaves given.
#[derive(Debug)]
pub struct Joiner<T> {
    leaves: usize,
    nodes: Vec<(Node, T)>,
}

impl<T> Joiner<T> {
    /// For the tree over `leaves` leaves.
    #[must_use]
    pub fn new(leaves: usize) -> Joiner<T> {
        Joiner { leaves, nodes: Vec::new() }
    }

    /// The node to the left, if `node` is its sibling: the sum to which that of `node` is to be added.
    pub fn sibling_of(&mut self, node: &Node) -> Option<&mut T> {
        let leaves = self.leaves;
        let (left, sum) = self.nodes.last_mut()?;
        are_siblings(left, node, leaves).then_some(sum)
    }

    /// Puts the sum of the next node, joining it and its parents with their siblings on the left:
    /// `add(left, right)`.
    pub fn push(&mut self, node: Node, sum: T, mut add: impl FnMut(&mut T, T)) {
        let (mut node, mut sum) = (node, sum);
        while self.sibling_of(&node).is_some() {
            let Some((left, mut left_sum)) = self.nodes.pop() else { break };
            add(&mut left_sum, sum);
            (node, sum) = (left.start..node.end, left_sum);
        }
        self.nodes.push((node, sum));
    }

    /// Takes the last node.
    pub fn pop(&mut self) -> Option<(Node, T)> {
        self.nodes.pop()
    }

    /// The nodes that are left, in order.
    pub fn nodes(&self) -> impl Iterator<Item = &(Node, T)> {
        self.nodes.iter()
    }

    /// Takes the nodes that are left.
    pub fn take(&mut self) -> Vec<(Node, T)> {
        std::mem::take(&mut self.nodes)
    }
}

/// How many nodes a rank that computes the leaves of `run` one by one ever holds at a time.
#[must_use]
pub fn most_nodes(run: &Range<usize>, leaves: usize) -> usize {
    let mut joiner = Joiner::new(leaves);
    let after = run.clone().map(|leaf| {
        joiner.push(leaf..leaf + 1, (), |(), ()| {});
        joiner.nodes.len()
    });
    after.max().unwrap_or(0)
}

/// The largest nodes inside a run of leaves, in order.
#[must_use]
pub fn cover(run: &Range<usize>, leaves: usize) -> Vec<Node> {
    let mut joiner = Joiner::new(leaves);
    for leaf in run.clone() {
        joiner.push(leaf..leaf + 1, (), |(), ()| {});
    }
    joiner.take().into_iter().map(|(node, ())| node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The sum of a node as a formula.
    fn formula(node: &Node) -> String {
        if node.end - node.start == 1 {
            return node.start.to_string();
        }
        let middle = middle(node);
        format!("({}+{})", formula(&(node.start..middle)), formula(&(middle..node.end)))
    }

    fn join(left: &mut String, right: String) {
        *left = format!("({left}+{right})");
    }

    #[test]
    fn the_tree_of_seven_leaves_is_the_one_in_the_picture() {
        assert_eq!(formula(&(0..7)), "(((0+1)+(2+3))+((4+5)+6))");
        assert_eq!(cover(&(0..3), 7), [0..2, 2..3]);
        assert_eq!(cover(&(3..5), 7), [3..4, 4..5]);
        assert_eq!(cover(&(5..7), 7), [5..6, 6..7]);
        assert_eq!(cover(&(4..7), 7), vec![4..7; 1]);
        assert_eq!([0..7, 0..4, 4..7, 3..3].map(|run| most_nodes(&run, 7)), [2, 2, 1, 0]);
        assert!(!are_siblings(&(1..2), &(2..3), 7) && are_siblings(&(4..6), &(6..7), 7));
    }

    proptest! {
        #[test]
        fn however_leaves_are_dealt_to_ranks_the_formula_is_the_same(
            leaves in 1usize..70, edges in prop::collection::vec(0usize..70, 0..9),
        ) {
            let mut edges: Vec<usize> = edges.into_iter().map(|e| e.min(leaves)).collect();
            edges.extend([0, leaves]);
            edges.sort_unstable();
            let mut across = Joiner::new(leaves);
            for run in edges.windows(2) {
                let mut own = Joiner::new(leaves);
                for leaf in run[0]..run[1] {
                    own.push(leaf..leaf + 1, leaf.to_string(), join);
                }
                let few = 2 * (run[1] - run[0] + 1).next_power_of_two().ilog2() as usize;
                prop_assert!(own.nodes().count() <= few);
                for (node, sum) in own.take() {
                    across.push(node, sum, join);
                }
            }
            let whole = across.take();
            prop_assert_eq!(whole.len(), 1);
            prop_assert_eq!(&whole[0].0, &(0..leaves));
            prop_assert_eq!(&whole[0].1, &formula(&(0..leaves)));
        }
    }
}

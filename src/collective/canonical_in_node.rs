//! The sum of [`super::canonical`] among the ranks of one host: the owner of a chunk reads it from the
//! nodes of all ranks where they lie, and writes the sum to all ranks.
//!
//! The same memory is another node in each step (gradients are kept by exchanging memory), so the ranks
//! tell each other on their boards where their nodes and their result lie.
#![allow(unsafe_code)]

use super::canonical::{Leaves, add_up};
use super::header::Header;
use super::in_node::{BLOCK, own_part};
use super::node::{Node, Place};
use crate::comm::Peer;
use crate::error::Result;

/// Where one rank's buffers lie: the result first, then its nodes in order. `None` where one of them is
/// not in shared memory.
pub(super) fn places(node: &Node, mine: &[&[f32]], into: &[f32]) -> Option<Vec<Place>> {
    let all = std::iter::once(into).chain(mine.iter().copied());
    all.map(|buffer| node.place(buffer)).collect()
}

/// Adds up the nodes of all ranks into `into` on each of them; `places` are this rank's.
pub(super) fn sum(
    node: &mut Node,
    peer: &mut dyn Peer,
    header: &Header,
    leaves: &Leaves,
    places: &[Place],
    into: &mut [f32],
    scratch: &mut Vec<f32>,
) -> Result<()> {
    let tags: Vec<u64> = places.iter().map(|place| place.tag()).collect();
    node.put(bytemuck::cast_slice(&tags));
    node.turn(peer, header)?;
    let (size, len) = (node.ranks.len(), into.len());
    let (mut results, mut rows) = (Vec::new(), Vec::new());
    for i in 0..size {
        let tags = node.staged::<u64>(i, 1 + leaves.nodes_of(i));
        let view = |tag: &u64| node.view::<f32>(i, Place::of_tag(*tag), len);
        results.push(view(&tags[0])?);
        for tag in &tags[1..] {
            rows.push(view(tag)?.cast_const());
        }
    }
    let own = own_part(len, size, node.me);
    for start in own.clone().step_by(BLOCK) {
        let block = start..(start + BLOCK).min(own.end);
        let width = block.len();
        scratch.clear();
        for row in &rows {
            // SAFETY: inside that rank's node, checked by `view`. Between the two turns around this
            // loop no rank writes to its nodes.
            scratch.extend_from_slice(unsafe { std::slice::from_raw_parts(row.add(start), width) });
        }
        add_up(leaves, scratch, width);
        let sum = &scratch[..width];
        for (i, result) in results.iter().enumerate() {
            if i == node.me {
                into[block.clone()].copy_from_slice(sum);
                continue;
            }
            // SAFETY: inside that rank's result, checked by `view`. Between the two turns that rank
            // touches only its own part of it, and this block is of ours; a result is no node.
            unsafe { std::slice::from_raw_parts_mut(result.add(start), width) }
                .copy_from_slice(sum);
        }
    }
    node.turn(peer, header)
}

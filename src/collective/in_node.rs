//! All-reduce among the ranks of one host, in shared memory.
//!
//! [`in_place`] works on buffers that lie in shared memory (gradient buckets do). The buffer is cut
//! into one chunk per rank; each rank reads its chunk from everybody and writes the sum to everybody:
//!
//! ```text
//!              chunk 0      chunk 1      chunk 2
//!   rank 0   [▒▒▒▒▒▒▒▒▒▒] [          ] [          ]      rank 0 adds the three chunks 0 and
//!   rank 1   [▒▒▒▒▒▒▒▒▒▒] [          ] [          ]      writes them to all three buffers;
//!   rank 2   [▒▒▒▒▒▒▒▒▒▒] [          ] [          ]      ranks 1 and 2 do so with theirs
//! ```
//!
//! Each rank reads S bytes and writes S bytes, once, for a buffer of S bytes and any number of ranks;
//! a ring of messages copies each byte twice more on the way. Two turns: one before (all gradients
//! are there), one after (all sums are).
//!
//! [`staged`] works on any buffer: through the boards, piece by piece, and each rank adds up
//! everything itself: one turn a piece. It is the faster one for small data.
//!
//! Either way every element is summed in one order, so all ranks end with the same bits.
#![allow(unsafe_code)]

use super::chunks::chunk;
use super::element::{Element, Op};
use super::header::Header;
use super::node::{Node, Place, STAGE};
use crate::comm::Peer;
use crate::error::Result;
use std::ops::Range;

/// Elements per block: 16 KiB of `f32`, so that what was just added is copied from the L1 cache.
pub(super) const BLOCK: usize = 4096;
/// Chunks are whole multiples of this many elements: at least a cache line, so that no two ranks
/// write to one line.
const LINE: usize = 16;

/// Reduces `data`, wherever it lies, over the ranks of the host.
pub(super) fn staged<T: Element>(
    node: &mut Node,
    peer: &mut dyn Peer,
    header: &Header,
    data: &mut [T],
    op: Op,
) -> Result<()> {
    let size = node.ranks.len();
    if data.is_empty() {
        return node.turn(peer, header);
    }
    for piece in data.chunks_mut(STAGE / size_of::<T>()) {
        node.put(bytemuck::cast_slice(piece));
        node.turn(peer, header)?;
        if size == 2 {
            // a + b and b + a are the same bits: what is here need not be read again.
            T::reduce(op, piece, node.staged(1 - node.me, piece.len()));
            continue;
        }
        piece.copy_from_slice(node.staged(0, piece.len()));
        for other in 1..size {
            T::reduce(op, piece, node.staged(other, piece.len()));
        }
    }
    Ok(())
}

/// Gives the ranks of the host what their first rank holds.
pub(super) fn hand_out<T: Element>(
    node: &mut Node,
    peer: &mut dyn Peer,
    header: &Header,
    data: &mut [T],
) -> Result<()> {
    for piece in data.chunks_mut(STAGE / size_of::<T>()) {
        if node.me == 0 {
            node.put(bytemuck::cast_slice(piece));
        }
        node.turn(peer, header)?;
        if node.me != 0 {
            piece.copy_from_slice(node.staged(0, piece.len()));
        }
    }
    Ok(())
}

/// Reduces the buffer at `place` over the ranks of the host, where it lies. The local ranks `targets`
/// receive the sums; with `0..1` follows [`from_first`].
pub(super) fn in_place<T: Element>(
    node: &mut Node,
    peer: &mut dyn Peer,
    header: &Header,
    place: Place,
    data: &mut [T],
    op: Op,
    targets: Range<usize>,
) -> Result<()> {
    node.turn(peer, header)?;
    reduce_own_chunk(node, place, data, op, targets)?;
    node.turn(peer, header)
}

/// Copies the buffer of the first rank of the host to the others.
pub(super) fn from_first<T: Element>(
    node: &mut Node,
    peer: &mut dyn Peer,
    header: &Header,
    place: Place,
    data: &mut [T],
) -> Result<()> {
    node.turn(peer, header)?;
    if node.me != 0 {
        let first = node.view::<T>(0, place, data.len())?;
        // SAFETY: inside the first rank's block, which it leaves alone between these two turns.
        data.copy_from_slice(unsafe { std::slice::from_raw_parts(first, data.len()) });
    }
    node.turn(peer, header)
}

/// What local rank `me` of `size` adds up of a buffer of `len` elements.
pub(super) fn own_part(len: usize, size: usize, me: usize) -> Range<usize> {
    let lines = chunk(len.div_ceil(LINE), size, me);
    (lines.start * LINE).min(len)..(lines.end * LINE).min(len)
}

/// Adds up this rank's chunk over all ranks of the host and writes it to the local ranks `targets`.
fn reduce_own_chunk<T: Element>(
    node: &Node,
    place: Place,
    data: &mut [T],
    op: Op,
    targets: Range<usize>,
) -> Result<()> {
    let (size, me, len) = (node.ranks.len(), node.me, data.len());
    let own = own_part(len, size, me);
    let others: Vec<usize> = (1..size).map(|d| (me + d) % size).collect();
    let views = (0..size).map(|i| node.view::<T>(i, place, len)).collect::<Result<Vec<_>>>()?;
    for start in own.clone().step_by(BLOCK) {
        let block = start..(start + BLOCK).min(own.end);
        let mine = &mut data[block.clone()];
        for &other in &others {
            // SAFETY: inside that rank's buffer, checked by `view`. Between the two turns around
            // this call that rank touches only its own chunk, and this block is of ours.
            let theirs =
                unsafe { std::slice::from_raw_parts(views[other].add(start), block.len()) };
            T::reduce(op, mine, theirs);
        }
        for &other in others.iter().filter(|other| targets.contains(other)) {
            // SAFETY: as above; no other reference to this block exists here or there.
            let theirs =
                unsafe { std::slice::from_raw_parts_mut(views[other].add(start), block.len()) };
            theirs.copy_from_slice(mine);
        }
    }
    Ok(())
}

//! Ring all-reduce (Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of
//! workstations", 2009): reduce-scatter, then all-gather.
//!
//! ```text
//!          ┌──────► rank 1 ──────┐          Each rank talks to its two neighbours only:
//!          │                     ▼          it sends to the right and receives from the left.
//!       rank 0                rank 2        The buffer is cut into P chunks, one per rank.
//!          ▲                     │
//!          └─────── rank 3 ◄─────┘
//!
//!   P = 4, rank r. What is sent and what arrives, by chunk (all indices modulo 4):
//!
//!     reduce-scatter   step 0   send r        add    r−1 to mine
//!                      step 1   send r−1      add    r−2
//!                      step 2   send r−2      add    r−3   → chunk r+1 is complete here
//!     all-gather       step 0   send r+1      store  r
//!                      step 1   send r        store  r−1
//!                      step 2   send r−1      store  r−2   → every chunk is complete everywhere
//! ```
//!
//! Cost: 2(P−1) steps; each rank sends and receives 2(P−1)/P · S bytes of a buffer of S bytes, the
//! least that any all-reduce can do, and adds (P−1)/P · S. Within a step the chunk travels in
//! segments, so adding one overlaps moving the next. Nothing is allocated. Every chunk is summed in
//! one place and then copied, so all ranks end with the same bits.

use super::chunks::{chunk, pair};
use super::circle::Circle;
use super::element::{Element, Op};
use crate::comm::Peer;
use crate::error::Result;

/// Reduces `data` over the ranks of a circle, in place; returns the bytes that this rank sent.
///
/// # Errors
/// When a neighbour is late or the transport fails; `data` is then undefined.
pub fn all_reduce<T: Element>(
    peer: &mut dyn Peer,
    circle: &Circle,
    data: &mut [T],
    op: Op,
) -> Result<u64> {
    Ok(reduce_scatter(peer, circle, data, op)? + all_gather(peer, circle, data)?)
}

/// Leaves chunk `place + 1` of `data` reduced over all ranks; the others hold partial results.
///
/// # Errors
/// As [`all_reduce`].
pub fn reduce_scatter<T: Element>(
    peer: &mut dyn Peer,
    circle: &Circle,
    data: &mut [T],
    op: Op,
) -> Result<u64> {
    let (rank, size, len) = (circle.place(), circle.size(), data.len());
    let (right, left) = (circle.right(), circle.left());
    let mut sent = 0;
    for step in 0..size - 1 {
        let send = chunk(len, size, (rank + size - step) % size);
        let add = chunk(len, size, (rank + 2 * size - step - 1) % size);
        let (out, mine) = pair(data, send, add);
        let (out, bytes) = (bytemuck::cast_slice(out), size_of_val(mine));
        peer.exchange_with(right, out, left, bytes, &mut |at, segment| {
            let segment: &[T] = bytemuck::cast_slice(segment);
            let at = at / size_of::<T>();
            T::reduce(op, &mut mine[at..at + segment.len()], segment);
        })?;
        sent += out.len() as u64;
    }
    Ok(sent)
}

/// Spreads the chunks that [`reduce_scatter`] completed to all ranks.
///
/// # Errors
/// As [`all_reduce`].
pub fn all_gather<T: Element>(peer: &mut dyn Peer, circle: &Circle, data: &mut [T]) -> Result<u64> {
    let (rank, size, len) = (circle.place(), circle.size(), data.len());
    let (right, left) = (circle.right(), circle.left());
    let mut sent = 0;
    for step in 0..size - 1 {
        let send = chunk(len, size, (rank + size + 1 - step) % size);
        let store = chunk(len, size, (rank + size - step) % size);
        let (out, into) = pair(data, send, store);
        let (out, into) = (bytemuck::cast_slice(out), bytemuck::cast_slice_mut(into));
        peer.exchange(right, out, left, into)?;
        sent += out.len() as u64;
    }
    Ok(sent)
}

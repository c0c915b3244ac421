//! All-reduce by recursive doubling (Thakur, Rabenseifner and Gropp, "Optimization of collective
//! communication operations in MPICH", 2005): few messages instead of few bytes, for small data.
//!
//! ```text
//!   P = 6:  the last two ranks give their data to the first two, which stand for them;
//!           round 0   0⇄1   2⇄3          each pair swaps and both add: after ⌊log₂ P⌋ rounds
//!           round 1   0⇄2   1⇄3          everybody holds everything;
//!           the first two return the result.
//! ```
//!
//! Every pair computes a + b on one side and b + a on the other, which are the same bits; so all
//! ranks end with the same bits.

use super::circle::Circle;
use super::element::{Element, Op};
use crate::comm::Peer;
use crate::error::Result;

/// Reduces `data` over the ranks of a circle, in place; returns the bytes that this rank sent.
///
/// # Errors
/// When a partner is late or the transport fails; `data` is then undefined.
pub fn all_reduce<T: Element>(
    peer: &mut dyn Peer,
    circle: &Circle,
    data: &mut [T],
    op: Op,
) -> Result<u64> {
    let (place, size, bytes) = (circle.place(), circle.size(), size_of_val(data));
    let core = 1 << size.ilog2();
    let extra = size - core;
    if place >= core {
        let stand_in = circle.rank(place - core);
        peer.send(stand_in, bytemuck::cast_slice(data))?;
        peer.recv(stand_in, bytemuck::cast_slice_mut(data))?;
        return Ok(bytes as u64);
    }
    let mut theirs = vec![T::zeroed(); data.len()];
    let mut sent = 0;
    if place < extra {
        peer.recv(circle.rank(place + core), bytemuck::cast_slice_mut(&mut theirs))?;
        T::reduce(op, data, &theirs);
    }
    let mut distance = 1;
    while distance < core {
        let partner = circle.rank(place ^ distance);
        let into = bytemuck::cast_slice_mut(&mut theirs);
        peer.exchange(partner, bytemuck::cast_slice(data), partner, into)?;
        T::reduce(op, data, &theirs);
        sent += bytes as u64;
        distance *= 2;
    }
    if place < extra {
        peer.send(circle.rank(place + core), bytemuck::cast_slice(data))?;
        sent += bytes as u64;
    }
    Ok(sent)
}

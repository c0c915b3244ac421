//! The ring with 16-bit floats on the wire: half the bytes on links that are the limit.
//!
//! Sums are formed in `f32`; only what travels is rounded (to nearest, ties to even). In the
//! reduce-scatter each partial sum is rounded once per hop, so the error grows with the number of
//! hops: about P · 2⁻⁹ of a value for bf16, P · 2⁻¹² for f16, whose range ends at 65,504. The
//! finished chunk is rounded before it is gathered, so that all ranks end with the same bits.

use super::chunks::chunk;
use super::circle::Circle;
use super::element::{Element, Op};
use crate::comm::Peer;
use crate::config::Wire;
use crate::error::Result;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Sums `data` over the ranks of a circle, in place; returns the bytes that this rank sent.
///
/// # Errors
/// When a neighbour is late or the transport fails; `data` is then undefined.
pub fn all_reduce(
    peer: &mut dyn Peer,
    circle: &Circle,
    data: &mut [f32],
    wire: Wire,
    scratch: &mut Vec<u16>,
) -> Result<u64> {
    let (place, size, len) = (circle.place(), circle.size(), data.len());
    let (right, left) = (circle.right(), circle.left());
    let most = chunk(len, size, 0).len();
    scratch.resize(2 * most, 0);
    let (out, into) = scratch.split_at_mut(most);
    let mut addend = vec![0.0; most];
    let mut sent = 0;
    for step in 0..size - 1 {
        let send = chunk(len, size, (place + size - step) % size);
        let add = chunk(len, size, (place + 2 * size - step - 1) % size);
        let (out, into) = (&mut out[..send.len()], &mut into[..add.len()]);
        round(wire, &data[send], out);
        peer.exchange(right, bytemuck::cast_slice(out), left, bytemuck::cast_slice_mut(into))?;
        let addend = &mut addend[..add.len()];
        widen(wire, into, addend);
        f32::reduce(Op::Sum, &mut data[add], addend);
        sent += size_of_val(out) as u64;
    }
    let own = chunk(len, size, (place + 1) % size);
    round(wire, &data[own.clone()], &mut out[..own.len()]);
    widen(wire, &out[..own.len()], &mut data[own]);
    for step in 0..size - 1 {
        let send = chunk(len, size, (place + size + 1 - step) % size);
        let store = chunk(len, size, (place + size - step) % size);
        let (out, into) = (&mut out[..send.len()], &mut into[..store.len()]);
        round(wire, &data[send], out);
        peer.exchange(right, bytemuck::cast_slice(out), left, bytemuck::cast_slice_mut(into))?;
        widen(wire, into, &mut data[store]);
        sent += size_of_val(out) as u64;
    }
    Ok(sent)
}

fn round(wire: Wire, from: &[f32], into: &mut [u16]) {
    match wire {
        Wire::F16 => bytemuck::cast_slice_mut::<u16, f16>(into).convert_from_f32_slice(from),
        _ => bytemuck::cast_slice_mut::<u16, bf16>(into).convert_from_f32_slice(from),
    }
}

fn widen(wire: Wire, from: &[u16], into: &mut [f32]) {
    match wire {
        Wire::F16 => bytemuck::cast_slice::<u16, f16>(from).convert_to_f32_slice(into),
        _ => bytemuck::cast_slice::<u16, bf16>(from).convert_to_f32_slice(into),
    }
}

//! A fast hash of floats by their bits: are two copies of a tensor the same?
//!
//! Not cryptographic: it is against memory and networks that fail, not against people. Each step is a
//! bijection of the lane for a given value and of the value for a given lane, so copies that differ in
//! one value never have the same hash; copies that differ in more have it with a chance of 2⁻³² at most.
//! 32 lanes in vectors, as fast as the values come from memory.

use super::rng::mix;
use super::wide::wide;

/// Independent lanes: four AVX2 registers, enough to hide the latency of a multiplication.
const LANES: usize = 32;
/// The first prime of xxHash32: odd, so that multiplication by it can be undone.
const PRIME: u32 = 0x9E37_79B1;

/// The hash of a tensor's values, in order.
#[must_use]
pub fn of_values(values: &[f32]) -> u64 {
    let mut lanes = [0u32; LANES];
    let (blocks, rest) = values.as_chunks::<LANES>();
    absorb(&mut lanes, blocks);
    if !rest.is_empty() {
        let mut last = [0.0; LANES];
        last[..rest.len()].copy_from_slice(rest);
        absorb(&mut lanes, &[last]);
    }
    // The length tells zeros at the end from none.
    lanes.iter().fold(values.len() as u64, |hash, &lane| mix(hash ^ u64::from(lane)))
}

/// One hash of several, in order.
#[must_use]
pub fn of_hashes(hashes: &[u64]) -> u64 {
    hashes.iter().fold(hashes.len() as u64, |all, &hash| mix(all ^ hash))
}

wide! {
    fn absorb(lanes: &mut [u32; LANES], blocks: &[[f32; LANES]]) {
        for block in blocks {
            for (lane, value) in lanes.iter_mut().zip(block) {
                // The rotation brings high bits down: a product alone only carries upward.
                *lane = (*lane ^ value.to_bits()).rotate_left(15).wrapping_mul(PRIME);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_single_flipped_bit_changes_the_hash() {
        for len in [1, 31, 32, 33, 100] {
            let values: Vec<f32> = (0..len).map(|i| i as f32 * 0.37 - 3.0).collect();
            let hash = of_values(&values);
            for i in 0..len {
                for bit in 0..32 {
                    let mut other = values.clone();
                    other[i] = f32::from_bits(other[i].to_bits() ^ (1 << bit));
                    assert_ne!(of_values(&other), hash, "bit {bit} of value {i} of {len}");
                }
            }
        }
    }

    #[test]
    fn order_length_signs_of_zero_and_pairs_of_flips_count() {
        let hash = |values: &[f32]| of_values(values);
        assert_ne!(hash(&[1.0, 2.0]), hash(&[2.0, 1.0]));
        assert_ne!(hash(&[]), hash(&[0.0]));
        assert_ne!(hash(&[0.0]), hash(&[-0.0]));
        // Sign bits of two values of one lane: they would cancel without the rotation.
        let (plain, mut flipped) = ([1.0f32; 128], [1.0f32; 128]);
        (flipped[3], flipped[35]) = (-1.0, -1.0);
        assert_ne!(hash(&plain), hash(&flipped));
        assert_ne!(of_hashes(&[1, 2]), of_hashes(&[2, 1]));
    }
}

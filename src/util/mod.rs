//! Small things that know nothing of the rest: random numbers, memory, where a rank is, formatting.

pub mod aligned;
pub mod bits_hash;
pub mod files;
pub mod human;
pub mod malloc;
pub mod processor;
pub mod restart;
pub mod rng;
pub mod shared;
pub mod whereabouts;
pub(crate) mod wide;

//! Small things that know nothing of the rest: random numbers, memory, where a rank is, files,
//! formatting.

pub mod aligned;
pub mod allocator;
pub mod bits_hash;
pub mod clock;
pub mod files;
pub mod flight;
pub mod human;
pub mod label;
pub mod malloc;
pub mod panics;
pub mod processes;
pub mod processor;
pub mod restart;
pub mod rng;
pub mod shared;
pub mod tensor_header;
pub mod whereabouts;
pub(crate) mod wide;

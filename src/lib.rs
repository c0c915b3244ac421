//! annulus: ring all-reduce data-parallel training of Candle models over MPI.

pub mod config;
pub mod error;
pub mod nn;
pub mod util;

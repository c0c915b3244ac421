//! annulus: ring all-reduce data-parallel training of Candle models over MPI.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod config;
pub mod error;
pub mod model;
pub mod nn;
pub mod optim;
pub mod util;

//! Layers with hand-written backward passes, their parameters, and the buckets their gradients go to.

mod grads;
mod params;

pub use grads::{GradBuckets, Write};
pub use params::{Init, Param, ParamBuilder, ParamSet};

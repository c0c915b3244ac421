//! Layers with hand-written backward passes, their parameters, and the buckets their gradients go to.
//!
//! A layer's backward pass on the CPU writes parameter gradients straight into the buckets. On other
//! devices a layer is made of Candle's own operations (those whose gradients are right), and
//! [`tracked`] carries the gradients to the buckets. Each layer holds both forms, and its tests
//! compare them with each other and with finite differences.

mod attention;
mod average;
mod batch_norm;
mod block;
mod conv;
mod direct;
mod dropout;
mod elementary;
mod embedding;
mod gelu;
mod gemm;
#[cfg(all(test, feature = "cuda"))]
mod gpu_tests;
mod grads;
mod group_norm;
mod groups;
mod gru;
mod hook;
mod host;
mod im2col;
mod layer_norm;
mod linear;
mod loss;
mod lstm;
mod packed;
mod params;
mod pool;
mod probe;
mod ready;
mod recurrent;
mod recurrent_op;
mod recycle;
mod regression;
mod relu;
mod shortcut;
mod simd;
mod sparse;
#[cfg(test)]
pub(crate) mod testing;
mod transformer;

pub use attention::causal_attention;
pub use average::global_average;
pub use batch_norm::{BatchNorm2d, RunningStats, SumOverRanks};
pub use block::ConvReluPool;
pub use conv::Conv2d;
pub use dropout::Dropout;
pub use embedding::Embedding;
pub use gelu::gelu;
pub use gemm::{Mat, matmul, set_threads, threads};
pub use grads::{BucketBytes, Course, GradBuckets, Write, sum_of_squares};
pub use group_norm::GroupNorm;
pub use hook::tracked;
pub use layer_norm::LayerNorm;
pub use linear::{Activation, Linear};
pub use loss::{Targets, correct, cross_entropy, cross_entropy_to};
pub use params::{Init, Param, ParamBuilder, ParamSet};
pub use pool::max_pool2d;
pub use probe::{probe, probe_trained};
pub use ready::Ready;
pub use recurrent::{Cell, Recurrent};
pub use regression::{Distance, distance};
pub use relu::relu;
pub use shortcut::shortcut;
pub use transformer::Block;

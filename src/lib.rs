//! `annulus`: ring all-reduce data-parallel training of Candle models over MPI, in one binary.
//!
//! Every rank holds a replica of the model and works on its part of each global batch; the ranks sum
//! their gradients round a ring and take the same optimizer step. The rank count is an execution
//! detail: batch size, learning rate, sample order, augmentation and dropout belong to the job.
//!
//! # The map
//!
//! A file uses its own folder and lower floors, never a higher floor or a neighbour
//! (`tests/architecture.rs` holds that).
//!
//! | floor | module | |
//! |---|---|---|
//! | 4 | [`cli`] | speaks to people and the shell |
//! | 3 | [`train`] | ties everything: the loop, one step of it, evaluation, [`Strategy`] |
//! | 2 | [`checkpoint`] [`report`] | files of named tensors; metrics, status, screen |
//! | 1 | [`collective`] on [`comm`] | the ring; bytes and ranks, no model, no data |
//! | 1 | [`data`] | samples, their order, their changes, batches made ahead; no MPI, no model |
//! | 1 | [`model`] on [`nn`]; [`optim`] | layers, parameters, gradient buckets, updates; no ranks |
//! | 0 | [`config`] [`error`] [`util`] | plain data; knows nobody |
//!
//! # One step
//!
//! 1. [`data::Loader`] hands over this rank's part of the global batch, made ahead by a thread.
//! 2. [`model`] runs forward; the loss is a *sum* divided by the weight of the global batch.
//! 3. The backward pass of each layer writes its parameter gradients into [`nn::GradBuckets`].
//! 4. [`collective`] sums each bucket over all ranks, in place.
//! 5. The gradient is clipped by its global norm, if the card says so.
//! 6. [`optim`] updates every parameter in one pass: the same bits on every rank.
//! 7. Loss and accuracy travel as sums and counts; rank 0 writes them down ([`report`]).
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod checkpoint;
pub mod cli;
pub mod collective;
pub mod comm;
pub mod config;
pub mod data;
pub mod error;
pub mod model;
pub mod nn;
pub mod optim;
pub mod report;
pub mod train;
pub mod util;

pub use train::Strategy;
pub use train::strategy;

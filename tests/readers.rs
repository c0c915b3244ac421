//! Readers of data sets: what the Python library that people use would read, at any number of ranks; bad
//! files are refused with their name, the place and what was found (`tests/attacks/README.md`).
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "readers/arrays.rs"]
mod arrays;
#[path = "readers/cifar.rs"]
mod cifar;
mod common;
#[path = "readers/golden.rs"]
mod golden;
#[path = "readers/museum.rs"]
mod museum;
#[cfg(feature = "parquet")]
#[path = "readers/parquet.rs"]
mod parquet;
#[path = "readers/pictures.rs"]
mod pictures;
#[path = "readers/ranks.rs"]
mod ranks;
#[path = "readers/shards.rs"]
mod shards;
#[path = "readers/tables.rs"]
mod tables;
#[path = "readers/tensors.rs"]
mod tensors;
#[path = "readers/text.rs"]
mod text;

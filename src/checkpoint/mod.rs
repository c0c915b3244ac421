//! Files of named tensors.

pub mod model_file;

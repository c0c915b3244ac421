//! Labels: class numbers.

/// The label of a place that does not count: not scored, and without loss and gradient, as with PyTorch's
/// `ignore_index`.
pub const IGNORED: u32 = u32::MAX;

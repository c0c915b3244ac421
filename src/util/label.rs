//! Labels: class numbers, or numbers to predict by their bits.

/// The label of a place that does not count: not scored, and without loss and gradient, as with PyTorch's
/// `ignore_index`.
pub const IGNORED: u32 = u32::MAX;

/// A number to predict in the place of a label: its bits. No finite number has those of [`IGNORED`].
#[must_use]
pub fn of_number(number: f32) -> u32 {
    number.to_bits()
}

/// The number that [`of_number`] has put into a label.
#[must_use]
pub fn number(label: u32) -> f32 {
    f32::from_bits(label)
}

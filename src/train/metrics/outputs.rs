//! The outputs of a model for some samples, on the host.

/// One row of numbers for each label.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outputs {
    values: Vec<f32>,
    width: usize,
}

impl Outputs {
    /// Rows of `width` numbers, one after another.
    ///
    /// # Panics
    /// When `width` is 0.
    #[must_use]
    pub fn new(values: Vec<f32>, width: usize) -> Outputs {
        assert!(width > 0, "a row has at least one number");
        Outputs { values, width }
    }

    /// The rows.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.width.max(1))
    }
}

/// How many numbers of `row` stand before that of `label` when they are sorted from the highest down; of
/// equal ones the first comes first. A row with NaN has no order: its end.
pub(super) fn place(row: &[f32], label: usize) -> usize {
    if row.iter().any(|v| v.is_nan()) {
        return row.len();
    }
    let own = row[label];
    row.iter().enumerate().filter(|&(i, &v)| v > own || (v == own && i < label)).count()
}

/// Where the first maximum of a row is; `None` if the row has NaN.
pub(super) fn highest(row: &[f32]) -> Option<usize> {
    let mut best = 0;
    for (i, &v) in row.iter().enumerate() {
        if v.is_nan() {
            return None;
        }
        if v > row[best] {
            best = i;
        }
    }
    Some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_from_the_highest_and_equal_ones_keep_their_order() {
        let row = [0.5, 2.0, 0.5, -1.0];
        assert_eq!([0, 1, 2, 3].map(|label| place(&row, label)), [1, 0, 2, 3]);
        assert_eq!((highest(&row), highest(&[1.0, 1.0])), (Some(1), Some(0)));
    }

    #[test]
    fn a_row_with_nan_is_never_right() {
        assert_eq!((place(&[f32::NAN, 1.0], 1), highest(&[f32::NAN, 1.0])), (2, None));
    }
}

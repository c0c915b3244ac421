//! Moved by whole pixels, up to `pixels` each way; what is vacated gets the fill value. The same as
//! padding with that value and cutting out a window at a random place.

use super::{Scratch, Size, Transform};
use crate::util::rng::Rng;

#[derive(Debug)]
pub(super) struct Shift {
    pub pixels: usize,
    pub fill: f32,
}

impl Transform for Shift {
    fn apply(&self, image: &mut [f32], size: Size, rng: &mut Rng, _: &mut Scratch) {
        let [down, right] = offsets(self.pixels, rng);
        for plane in image.chunks_exact_mut(size.plane()) {
            shift(plane, size, down, right, self.fill);
        }
    }
}

/// Two whole numbers from −`pixels` to `pixels`.
pub(super) fn offsets(pixels: usize, rng: &mut Rng) -> [isize; 2] {
    [(); 2].map(|()| rng.below(2 * pixels as u64 + 1) as isize - pixels as isize)
}

/// Moves one channel in place.
pub(super) fn shift(plane: &mut [f32], size: Size, down: isize, right: isize, fill: f32) {
    let Size { rows, columns, .. } = size;
    let gap = right.unsigned_abs().min(columns);
    let kept = columns - gap;
    // A row's values come from a row that must not have been written yet.
    for i in 0..rows {
        let row = if down > 0 { rows - 1 - i } else { i };
        let (at, source) = (row * columns, row as isize - down);
        if !(0..rows as isize).contains(&source) {
            plane[at..][..columns].fill(fill);
            continue;
        }
        let from = source as usize * columns;
        if right >= 0 {
            plane.copy_within(from..from + kept, at + gap);
            plane[at..][..gap].fill(fill);
        } else {
            plane.copy_within(from + gap..from + columns, at);
            plane[at + kept..][..gap].fill(fill);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pixel_moves_by_the_same_whole_number_and_what_is_vacated_is_filled() {
        let size = Size { channels: 1, rows: 5, columns: 7 };
        let before: Vec<f32> = (0..35).map(|i| i as f32).collect();
        for down in -6..=6isize {
            for right in -8..=8isize {
                let mut after = before.clone();
                shift(&mut after, size, down, right, -1.0);
                for (i, &value) in after.iter().enumerate() {
                    let (row, column) = ((i / 7) as isize - down, (i % 7) as isize - right);
                    let inside = (0..5).contains(&row) && (0..7).contains(&column);
                    let wanted = if inside { (row * 7 + column) as f32 } else { -1.0 };
                    assert_eq!(value, wanted, "by {down}, {right} at {i}");
                }
            }
        }
    }

    #[test]
    fn every_offset_is_drawn_about_equally_often() {
        let mut counts = [[0; 5]; 5];
        let mut rng = Rng::new(1, crate::util::rng::Purpose::Synthetic, 0, 0, 0);
        for _ in 0..25_000 {
            let [down, right] = offsets(2, &mut rng);
            counts[(down + 2) as usize][(right + 2) as usize] += 1;
        }
        assert!(counts.as_flattened().iter().all(|c| (850..1150).contains(c)), "{counts:?}");
    }
}

//! Padded by `pixels` on each side by mirroring (the edge itself is not repeated), then a window of
//! the image's size is cut out at a random place.

use super::shift::offsets;
use super::{Scratch, Size, Transform};
use crate::util::rng::Rng;

#[derive(Debug)]
pub(super) struct Crop {
    pixels: usize,
}

impl Crop {
    /// Mirroring needs images of more rows and columns than `pixels`.
    pub fn new(pixels: usize, size: Size) -> Result<Crop, String> {
        if pixels >= size.rows.min(size.columns) {
            return Err(format!(
                "images of {}×{} cannot be padded by {pixels} mirrored pixels; give fewer",
                size.rows, size.columns
            ));
        }
        Ok(Crop { pixels })
    }
}

impl Transform for Crop {
    fn apply(&self, image: &mut [f32], size: Size, rng: &mut Rng, scratch: &mut Scratch) {
        let [down, right] = offsets(self.pixels, rng);
        for plane in image.chunks_exact_mut(size.plane()) {
            scratch.image.clear();
            scratch.image.extend_from_slice(plane);
            crop(&scratch.image, plane, size, down, right);
        }
    }
}

/// Writes the window of one channel whose corner lies `down` and `right` of the image's.
fn crop(from: &[f32], plane: &mut [f32], size: Size, down: isize, right: isize) {
    let Size { rows, columns, .. } = size;
    // Columns of the window that lie in the image: the others are mirrored.
    let start = right.min(0).unsigned_abs();
    let end = columns - right.max(0).unsigned_abs();
    for (row, out) in plane.chunks_exact_mut(columns).enumerate() {
        let from = &from[mirror(row as isize + down, rows) * columns..][..columns];
        let inside = (start as isize + right) as usize;
        out[start..end].copy_from_slice(&from[inside..][..end - start]);
        for column in (0..start).chain(end..columns) {
            out[column] = from[mirror(column as isize + right, columns)];
        }
    }
}

/// The place in `0..n` that a place up to n − 1 outside of it mirrors.
fn mirror(place: isize, n: usize) -> usize {
    let last = n as isize - 1;
    let place = place.unsigned_abs() as isize;
    (if place > last { 2 * last - place } else { place }) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_shows_the_image_and_its_mirror_images() {
        let size = Size { channels: 1, rows: 3, columns: 4 };
        let image: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let window = |down, right| {
            let mut out = vec![f32::NAN; 12];
            crop(&image, &mut out, size, down, right);
            out
        };
        assert_eq!(window(0, 0), image);
        assert_eq!(window(0, -2), [2., 1., 0., 1., 6., 5., 4., 5., 10., 9., 8., 9.]);
        assert_eq!(window(0, 1), [1., 2., 3., 2., 5., 6., 7., 6., 9., 10., 11., 10.]);
        assert_eq!(window(-2, 0)[..8], [8., 9., 10., 11., 4., 5., 6., 7.]);
        assert_eq!(window(1, 3), [7., 6., 5., 4., 11., 10., 9., 8., 7., 6., 5., 4.]);
    }

    #[test]
    fn more_padding_than_an_image_can_mirror_is_refused() {
        let size = Size { channels: 1, rows: 28, columns: 4 };
        assert!(Crop::new(3, size).is_ok());
        let refused = Crop::new(4, size).unwrap_err();
        assert!(refused.contains("28×4 cannot be padded by 4"), "{refused}");
    }
}

//! Mirrored: left and right, or top and bottom, change places.

use super::{Scratch, Size, Transform};
use crate::config::Axis;
use crate::util::rng::Rng;

#[derive(Debug)]
pub(super) struct Flip {
    pub axis: Axis,
}

impl Transform for Flip {
    fn apply(&self, image: &mut [f32], size: Size, _: &mut Rng, _: &mut Scratch) {
        match self.axis {
            Axis::Horizontal => image.chunks_exact_mut(size.columns).for_each(<[f32]>::reverse),
            Axis::Vertical => {
                for plane in image.chunks_exact_mut(size.plane()) {
                    let (top, bottom) = plane.split_at_mut(size.rows / 2 * size.columns);
                    let rows = top.chunks_exact_mut(size.columns);
                    for (a, b) in rows.zip(bottom.chunks_exact_mut(size.columns).rev()) {
                        a.swap_with_slice(b);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::rng::Purpose;

    #[test]
    fn sides_change_places_and_do_so_back() {
        // Two channels of 3 × 2.
        let size = Size { channels: 2, rows: 3, columns: 2 };
        let before: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let rng = &mut Rng::new(1, Purpose::Synthetic, 0, 0, 0);
        for (axis, once) in [
            (Axis::Horizontal, [1., 0., 3., 2., 5., 4., 7., 6., 9., 8., 11., 10.]),
            (Axis::Vertical, [4., 5., 2., 3., 0., 1., 10., 11., 8., 9., 6., 7.]),
        ] {
            let mut image = before.clone();
            let mut flip = || Flip { axis }.apply(&mut image, size, rng, &mut Scratch::default());
            flip();
            let seen = image.clone();
            let mut flip = || Flip { axis }.apply(&mut image, size, rng, &mut Scratch::default());
            flip();
            assert_eq!((seen, image), (once.to_vec(), before.clone()));
        }
    }
}

//! Turned about the image's centre by an angle that is uniform in ±`degrees`. What comes from outside
//! the image gets the fill value.

use super::warp::{Row, warp};
use super::{Scratch, Size, Transform};
use crate::util::rng::Rng;

#[derive(Debug)]
pub(super) struct Rotate {
    pub degrees: f64,
    pub fill: f32,
}

impl Transform for Rotate {
    fn apply(&self, image: &mut [f32], size: Size, rng: &mut Rng, scratch: &mut Scratch) {
        let angle = (2.0 * rng.uniform_f64() - 1.0) * self.degrees.to_radians();
        rotate(image, size, angle, self.fill, scratch);
    }
}

/// Turns by `angle` counter-clockwise: each pixel comes from the place turned back.
fn rotate(image: &mut [f32], size: Size, angle: f64, fill: f32, scratch: &mut Scratch) {
    let (sin, cos) = (angle.sin() as f32, angle.cos() as f32);
    let middle = |n: usize| (n as f32 - 1.0) / 2.0;
    let (cy, cx) = (middle(size.rows), middle(size.columns));
    let turn = |row: usize, line: &mut Row| {
        let dy = row as f32 - cy;
        let (x0, y0) = (cx - dy * sin, cy + dy * cos);
        for (column, (y, x)) in line.ys.iter_mut().zip(&mut line.xs).enumerate() {
            let dx = column as f32 - cx;
            (*y, *x) = (y0 + dx * sin, x0 + dx * cos);
        }
    };
    warp(image, size, fill, &mut scratch.image, &mut scratch.row, turn);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::FRAC_PI_2;

    fn rotated(image: &[f32], size: Size, angle: f64) -> Vec<f32> {
        let mut out = image.to_vec();
        rotate(&mut out, size, angle, -1.0, &mut Scratch::default());
        out
    }

    #[test]
    fn by_nothing_it_stays_and_by_a_right_angle_it_turns_counter_clockwise() {
        let size = Size { channels: 1, rows: 3, columns: 3 };
        let image = [0., 1., 2., 3., 4., 5., 6., 7., 8.];
        assert_eq!(rotated(&image, size, 0.0), image);
        let turned = rotated(&image, size, FRAC_PI_2);
        let wanted = [2., 5., 8., 1., 4., 7., 0., 3., 6.];
        for (a, b) in turned.iter().zip(&wanted) {
            assert!((a - b).abs() < 1e-5, "{turned:?}");
        }
    }

    #[test]
    fn corners_that_come_from_outside_are_filled() {
        let size = Size { channels: 1, rows: 9, columns: 9 };
        let turned = rotated(&[1.0; 81], size, FRAC_PI_2 / 2.0);
        assert_eq!((turned[0], turned[8], turned[72], turned[80]), (-1.0, -1.0, -1.0, -1.0));
        assert_eq!(turned[40], 1.0);
    }
}

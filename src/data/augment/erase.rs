//! Random erasing (Zhong et al., "Random erasing data augmentation", 2017): a rectangle of a random
//! share of the image, of a random shape at a random place, gets the fill value in all channels.

use super::{Scratch, Size, Transform};
use crate::util::rng::Rng;
use std::ops::Range;

/// Height over width lies between this and its inverse, uniform on a logarithmic scale.
const FLATTEST: f64 = 0.3;
/// So often a rectangle is drawn until one fits into the image.
const TRIES: usize = 10;

#[derive(Debug)]
pub(super) struct Erase {
    /// Least and largest share.
    pub area: [f64; 2],
    pub fill: f32,
}

impl Transform for Erase {
    fn apply(&self, image: &mut [f32], size: Size, rng: &mut Rng, _: &mut Scratch) {
        let Some((rows, columns)) = self.rectangle(size, rng) else { return };
        for plane in image.chunks_exact_mut(size.plane()) {
            for row in rows.clone() {
                plane[row * size.columns..][columns.clone()].fill(self.fill);
            }
        }
    }
}

impl Erase {
    /// Rows and columns to erase; `None` if no rectangle fitted.
    fn rectangle(&self, size: Size, rng: &mut Rng) -> Option<(Range<usize>, Range<usize>)> {
        let [least, most] = self.area;
        for _ in 0..TRIES {
            let area = (least + (most - least) * rng.uniform_f64()) * size.plane() as f64;
            let shape = FLATTEST.powf(2.0 * rng.uniform_f64() - 1.0);
            let height = (area * shape).sqrt().round() as usize;
            let width = (area / shape).sqrt().round() as usize;
            if (1..=size.rows).contains(&height) && (1..=size.columns).contains(&width) {
                return Some((place(height, size.rows, rng), place(width, size.columns, rng)));
            }
        }
        None
    }
}

/// `length` places of `0..n`, anywhere.
fn place(length: usize, n: usize, rng: &mut Rng) -> Range<usize> {
    let start = rng.below((n - length + 1) as u64) as usize;
    start..start + length
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::rng::Purpose;

    #[test]
    fn the_erased_rectangles_have_the_shares_and_shapes_asked_for_and_lie_everywhere() {
        let size = Size { channels: 2, rows: 40, columns: 50 };
        let erase = Erase { area: [0.05, 0.25], fill: -1.0 };
        let mut hits = vec![0; size.plane()];
        let mut total = 0.0;
        for seed in 0..2000 {
            let mut image = vec![1.0; 2 * size.plane()];
            let rng = &mut Rng::new(seed, Purpose::Synthetic, 0, 0, 0);
            erase.apply(&mut image, size, rng, &mut Scratch::default());
            let (one, two) = image.split_at(size.plane());
            assert_eq!(one, two);
            let erased = |i: &usize| one[*i] == -1.0;
            let all: Vec<usize> = (0..size.plane()).filter(erased).collect();
            all.iter().for_each(|&i| hits[i] += 1);
            let share = all.len() as f64 / size.plane() as f64;
            assert!((0.04..0.27).contains(&share), "{share}");
            total += share;
            // A rectangle: as many as rows × columns between the first and the last.
            let (rows, columns) = (all.iter().map(|i| i / 50), all.iter().map(|i| i % 50));
            let height = rows.clone().max().unwrap() - rows.min().unwrap() + 1;
            let width = columns.clone().max().unwrap() - columns.min().unwrap() + 1;
            assert_eq!(all.len(), height * width);
            let shape = height as f64 / width as f64;
            assert!((0.25..4.0).contains(&shape), "{height} × {width}");
        }
        assert!((total / 2000.0 - 0.15).abs() < 0.01, "{}", total / 2000.0);
        assert!(hits.iter().all(|&n| n > 0), "some pixels are never erased");
    }

    #[test]
    fn an_image_that_nothing_fits_into_stays_as_it_is() {
        let size = Size { channels: 1, rows: 1, columns: 1 };
        let mut image = [5.0];
        let rng = &mut Rng::new(1, Purpose::Synthetic, 0, 0, 0);
        Erase { area: [0.02, 0.1], fill: 0.0 }.apply(
            &mut image,
            size,
            rng,
            &mut Scratch::default(),
        );
        assert_eq!(image, [5.0]);
    }
}

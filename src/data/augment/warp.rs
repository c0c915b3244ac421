//! Bilinear sampling: each pixel of the new image comes from any place of the old one.
//!
//! The old image is copied with a border of the fill value, and places are clamped to that border, so
//! that the inner loop knows no edges. Beyond one pixel outside the image all is fill; within it
//! image and fill are blended.

use super::Size;

/// The places that one row of pixels comes from.
#[derive(Debug, Default)]
pub(super) struct Row {
    /// Rows and columns of the old image; whole numbers are centres of pixels.
    pub ys: Vec<f32>,
    pub xs: Vec<f32>,
    /// Index of the upper left of the four pixels around each place.
    corners: Vec<u32>,
}

/// Border of fill around the image: before the first row and column, after the last.
const BEFORE: usize = 1;
const AFTER: usize = 2;

/// Gives each pixel of `image` the value at the place that `source` writes for it: one call a row.
pub(super) fn warp(
    image: &mut [f32],
    size: Size,
    fill: f32,
    padded: &mut Vec<f32>,
    line: &mut Row,
    mut source: impl FnMut(usize, &mut Row),
) {
    let stride = size.columns + BEFORE + AFTER;
    let plane = stride * (size.rows + BEFORE + AFTER);
    pad(image, size, fill, padded);
    for places in [&mut line.ys, &mut line.xs] {
        places.resize(size.columns, 0.0);
    }
    line.corners.resize(size.columns, 0);
    for row in 0..size.rows {
        source(row, line);
        let places = line.ys.iter_mut().zip(&mut line.xs).zip(&mut line.corners);
        for ((y, x), corner) in places {
            *corner = split(y, size.rows) * stride as u32 + split(x, size.columns);
        }
        for (channel, old) in padded.chunks_exact(plane).enumerate() {
            let out = &mut image[channel * size.plane() + row * size.columns..][..size.columns];
            let places = line.ys.iter().zip(&line.xs).zip(&line.corners);
            for (out, ((&down, &right), &corner)) in out.iter_mut().zip(places) {
                let four = &old[corner as usize..][..stride + 2];
                let upper = between(four[0], four[1], right);
                let lower = between(four[stride], four[stride + 1], right);
                *out = between(upper, lower, down);
            }
        }
    }
}

/// Cuts a place into the index of the pixel before it, in the padded image of `n` pixels, and the
/// distance from there, which is left in `place`.
fn split(place: &mut f32, n: usize) -> u32 {
    let within = place.clamp(-1.0, n as f32) + BEFORE as f32;
    let whole = within as u32;
    *place = within - whole as f32;
    whole
}

/// From `a` (0) to `b` (1); exactly `a` at 0.
fn between(a: f32, b: f32, part: f32) -> f32 {
    a + (b - a) * part
}

fn pad(image: &[f32], size: Size, fill: f32, padded: &mut Vec<f32>) {
    let stride = size.columns + BEFORE + AFTER;
    padded.clear();
    for plane in image.chunks_exact(size.plane()) {
        padded.resize(padded.len() + BEFORE * stride, fill);
        for row in plane.chunks_exact(size.columns) {
            padded.resize(padded.len() + BEFORE, fill);
            padded.extend_from_slice(row);
            padded.resize(padded.len() + AFTER, fill);
        }
        padded.resize(padded.len() + AFTER * stride, fill);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warped(image: &[f32], size: Size, place: impl Fn(usize, usize) -> (f32, f32)) -> Vec<f32> {
        let mut out = image.to_vec();
        warp(&mut out, size, -1.0, &mut Vec::new(), &mut Row::default(), |row, line| {
            for column in 0..size.columns {
                (line.ys[column], line.xs[column]) = place(row, column);
            }
        });
        out
    }

    #[test]
    fn whole_places_are_exact_places_between_are_blended_and_far_ones_are_fill() {
        let size = Size { channels: 2, rows: 2, columns: 3 };
        let image = [0., 1., 2., 3., 4., 5., 10., 11., 12., 13., 14., 15.];
        let own = |row: usize, column: usize| (row as f32, column as f32);
        assert_eq!(warped(&image, size, own), image);
        let middle = |_, _| (0.5, 1.25);
        assert_eq!(warped(&image, size, middle), [[2.75; 6], [12.75; 6]].concat());
        for far in
            [(-1.0, 0.0), (2.0, 0.0), (0.0, 3.0), (-9e9, 1.0), (1.0, 9e9), (f32::INFINITY, 0.0)]
        {
            assert_eq!(warped(&image, size, |_, _| far), [-1.0; 12], "{far:?}");
        }
        // Half a pixel outside: half the edge, half the fill.
        assert_eq!(warped(&image, size, |_, _| (-0.5, 2.0))[0], 0.5);
        assert_eq!(warped(&image, size, |_, _| (1.0, 2.5))[0], 2.0);
    }
}

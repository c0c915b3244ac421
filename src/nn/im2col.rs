//! Convolution as a matrix product: each column of the unrolled image is the patch under one output
//! position, so that `weight (c_out × c_in·k·k) · columns (c_in·k·k × positions)` is the convolution.
//!
//! One image at a time: its columns (25 × 576 floats for LeNet's first layer) stay in the L2 cache,
//! the columns of a batch would not.

use super::recycle::Buffer;

/// Sizes of a convolution over one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) channels: usize,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) kernel: usize,
    pub(super) padding: usize,
    pub(super) stride: usize,
}

impl Geometry {
    /// Rows of the output.
    pub(super) fn out_rows(&self) -> usize {
        (self.rows + 2 * self.padding - self.kernel) / self.stride + 1
    }

    /// Columns of the output.
    pub(super) fn out_cols(&self) -> usize {
        (self.cols + 2 * self.padding - self.kernel) / self.stride + 1
    }

    /// Output positions.
    pub(super) fn positions(&self) -> usize {
        self.out_rows() * self.out_cols()
    }

    /// Values of one patch.
    pub(super) fn patch(&self) -> usize {
        self.channels * self.kernel * self.kernel
    }

    /// Values of one image.
    pub(super) fn image(&self) -> usize {
        self.channels * self.rows * self.cols
    }

    /// Whether output rows have one of the widths that become plain vector moves instead of calls of
    /// memcpy: 24 and 8 are LeNet on 28×28, 28 and 10 on 32×32 images; 28, 14, 7 and 32, 16, 8 ResNet.
    fn has_fixed_rows(&self) -> bool {
        self.stride == 1 && matches!(self.out_cols(), 7 | 8 | 10 | 14 | 16 | 24 | 28 | 32)
    }

    /// The same convolution of an image that brings its zeros with it.
    fn padded(&self) -> Geometry {
        let (rows, cols) = (self.rows + 2 * self.padding, self.cols + 2 * self.padding);
        Geometry { rows, cols, padding: 0, ..*self }
    }

    /// Calls `f(start in the image, start in the padded image)` for each row of the image.
    fn each_inner_row(&self, mut f: impl FnMut(usize, usize)) {
        let (padded, p) = (self.padded(), self.padding);
        for row in 0..self.channels * self.rows {
            let (channel, y) = (row / self.rows, row % self.rows);
            f(row * self.cols, (channel * padded.rows + y + p) * padded.cols + p);
        }
    }

    /// Where in the image lies what offset (`ky`, `kx`) of the kernel sees at output position (`y`, `x`).
    fn first(&self, channel: usize, ky: usize, kx: usize, y: usize, x: usize) -> usize {
        let row = channel * self.rows + y * self.stride + ky - self.padding;
        row * self.cols + x * self.stride + kx - self.padding
    }

    /// The rows of the output for which offset `k` of the kernel lies inside `n` input rows.
    fn inside(&self, k: usize, n: usize, out: usize) -> std::ops::Range<usize> {
        let start = self.padding.saturating_sub(k).div_ceil(self.stride).min(out);
        start..(n + self.padding).saturating_sub(k).div_ceil(self.stride).clamp(start, out)
    }
}

/// Unrolls one image into `columns` (patch × positions).
pub(super) fn im2col(g: &Geometry, image: &[f32], columns: &mut [f32]) {
    if !g.has_fixed_rows() {
        return im2col_any(g, image, columns);
    }
    if g.padding > 0 {
        let mut wide = Buffer::take(g.padded().image());
        wide.fill(0.0);
        g.each_inner_row(|row, at| {
            wide[at..at + g.cols].copy_from_slice(&image[row..row + g.cols])
        });
        return im2col(&g.padded(), &wide, columns);
    }
    match g.out_cols() {
        7 => im2col_fixed::<7>(g, image, columns),
        8 => im2col_fixed::<8>(g, image, columns),
        10 => im2col_fixed::<10>(g, image, columns),
        14 => im2col_fixed::<14>(g, image, columns),
        16 => im2col_fixed::<16>(g, image, columns),
        24 => im2col_fixed::<24>(g, image, columns),
        28 => im2col_fixed::<28>(g, image, columns),
        32 => im2col_fixed::<32>(g, image, columns),
        _ => im2col_any(g, image, columns),
    }
}

/// Adds each column back to the image positions it came from; `image` must hold zeros or a sum.
pub(super) fn col2im(g: &Geometry, columns: &[f32], image: &mut [f32]) {
    if !g.has_fixed_rows() {
        return col2im_any(g, columns, image);
    }
    if g.padding > 0 {
        let mut wide = Buffer::take(g.padded().image());
        wide.fill(0.0);
        col2im(&g.padded(), columns, &mut wide);
        return g.each_inner_row(|row, at| {
            let to = image[row..row + g.cols].iter_mut();
            to.zip(&wide[at..]).for_each(|(t, s)| *t += s);
        });
    }
    match g.out_cols() {
        7 => col2im_fixed::<7>(g, columns, image),
        8 => col2im_fixed::<8>(g, columns, image),
        10 => col2im_fixed::<10>(g, columns, image),
        14 => col2im_fixed::<14>(g, columns, image),
        16 => col2im_fixed::<16>(g, columns, image),
        24 => col2im_fixed::<24>(g, columns, image),
        28 => col2im_fixed::<28>(g, columns, image),
        32 => col2im_fixed::<32>(g, columns, image),
        _ => col2im_any(g, columns, image),
    }
}

/// Calls `f(first input value, out row index in the columns)` for each kernel offset and output row.
fn each_row(g: &Geometry, mut f: impl FnMut(usize, usize)) {
    let out_rows = g.out_rows();
    let mut line = 0;
    for channel in 0..g.channels {
        for ky in 0..g.kernel {
            for kx in 0..g.kernel {
                for y in 0..out_rows {
                    f((channel * g.rows + y + ky) * g.cols + kx, line);
                    line += 1;
                }
            }
        }
    }
}

fn im2col_fixed<const W: usize>(g: &Geometry, image: &[f32], columns: &mut [f32]) {
    let (lines, _) = columns.as_chunks_mut::<W>();
    each_row(g, |from, line| {
        if let Some(source) = image[from..].first_chunk::<W>() {
            lines[line] = *source;
        }
    });
}

fn col2im_fixed<const W: usize>(g: &Geometry, columns: &[f32], image: &mut [f32]) {
    let (lines, _) = columns.as_chunks::<W>();
    each_row(g, |to, line| {
        if let Some(target) = image[to..].first_chunk_mut::<W>() {
            for (t, s) in target.iter_mut().zip(&lines[line]) {
                *t += s;
            }
        }
    });
}

fn im2col_any(g: &Geometry, image: &[f32], columns: &mut [f32]) {
    let (out_rows, width) = (g.out_rows(), g.out_cols());
    if g.padding > 0 {
        columns[..g.patch() * g.positions()].fill(0.0);
    }
    let mut lines = columns.chunks_exact_mut(out_rows * width);
    for_each_offset(g, |channel, ky, kx| {
        let Some(block) = lines.next() else { return };
        let across = g.inside(kx, g.cols, width);
        if across.is_empty() {
            return;
        }
        for y in g.inside(ky, g.rows, out_rows) {
            let from = g.first(channel, ky, kx, y, across.start);
            let (line, source) = (&mut block[y * width..][across.clone()], &image[from..]);
            if g.stride == 1 {
                line.copy_from_slice(&source[..line.len()]);
            } else {
                line.iter_mut().zip(source.iter().step_by(g.stride)).for_each(|(l, s)| *l = *s);
            }
        }
    });
}

fn col2im_any(g: &Geometry, columns: &[f32], image: &mut [f32]) {
    let (out_rows, width) = (g.out_rows(), g.out_cols());
    let mut lines = columns.chunks_exact(out_rows * width);
    for_each_offset(g, |channel, ky, kx| {
        let Some(block) = lines.next() else { return };
        let across = g.inside(kx, g.cols, width);
        if across.is_empty() {
            return;
        }
        for y in g.inside(ky, g.rows, out_rows) {
            let to = &mut image[g.first(channel, ky, kx, y, across.start)..];
            let source = &block[y * width..][across.clone()];
            if g.stride == 1 {
                to.iter_mut().zip(source).for_each(|(t, s)| *t += s);
            } else {
                to.iter_mut().step_by(g.stride).zip(source).for_each(|(t, s)| *t += s);
            }
        }
    });
}

fn for_each_offset(g: &Geometry, mut f: impl FnMut(usize, usize, usize)) {
    for channel in 0..g.channels {
        for ky in 0..g.kernel {
            for kx in 0..g.kernel {
                f(channel, ky, kx);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::random;

    const CASES: [(usize, usize, usize, usize, usize, usize); 19] = [
        (1, 28, 28, 5, 0, 1),
        (6, 12, 12, 5, 0, 1),
        (3, 32, 32, 5, 0, 1),
        (2, 14, 14, 5, 0, 1),
        (2, 7, 5, 3, 0, 1),
        (2, 5, 7, 3, 1, 1),
        (1, 3, 4, 5, 2, 1),
        (1, 2, 2, 4, 3, 1),
        (1, 1, 1, 1, 0, 1),
        (1, 1, 1, 5, 2, 1),
        (2, 7, 7, 3, 1, 1),
        (3, 14, 14, 3, 1, 1),
        (1, 5, 28, 3, 1, 1),
        (2, 9, 8, 5, 2, 1),
        (2, 6, 8, 3, 1, 2),
        (1, 7, 5, 3, 1, 2),
        (3, 4, 7, 1, 0, 2),
        (1, 8, 9, 3, 0, 3),
        (1, 2, 1, 3, 1, 2),
    ];

    fn geometry(
        (channels, rows, cols, kernel, padding, stride): (usize, usize, usize, usize, usize, usize),
    ) -> Geometry {
        Geometry { channels, rows, cols, kernel, padding, stride }
    }

    #[test]
    fn each_column_is_the_patch_under_its_position() {
        for g in CASES.map(geometry) {
            let image = random(g.image(), 1);
            let mut columns = vec![f32::NAN; g.patch() * g.positions()];
            im2col(&g, &image, &mut columns);
            let mut at = 0;
            for_each_offset(&g, |c, ky, kx| {
                for y in 0..g.out_rows() {
                    for x in 0..g.out_cols() {
                        let row =
                            (y * g.stride + ky).checked_sub(g.padding).filter(|&r| r < g.rows);
                        let col =
                            (x * g.stride + kx).checked_sub(g.padding).filter(|&c| c < g.cols);
                        let expected = match (row, col) {
                            (Some(row), Some(col)) => image[(c * g.rows + row) * g.cols + col],
                            _ => 0.0,
                        };
                        assert_eq!(columns[at], expected, "{g:?} {c} {ky} {kx} {y} {x}");
                        at += 1;
                    }
                }
            });
        }
    }

    #[test]
    fn rolling_up_is_the_transpose_of_unrolling() {
        for g in CASES.map(geometry) {
            let (image, columns) = (random(g.image(), 1), random(g.patch() * g.positions(), 2));
            let mut unrolled = vec![0.0; columns.len()];
            im2col(&g, &image, &mut unrolled);
            let mut rolled = vec![0.0; image.len()];
            col2im(&g, &columns, &mut rolled);
            let dot = |a: &[f32], b: &[f32]| -> f64 {
                a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
            };
            let (left, right) = (dot(&unrolled, &columns), dot(&image, &rolled));
            assert!((left - right).abs() < 1e-4 * left.abs().max(1.0), "{g:?}: {left} {right}");
        }
    }
}

//! Products of a few rows with one matrix, again and again: the step of a recurrent layer.
//!
//! A general product rearranges its right operand in each call, which for 16 rows takes as long as the
//! multiplications. Here that is done once for a whole sequence:
//!
//! ```text
//! for each block of inner rows (its panels stay in the first-level cache)
//!     for each panel of 32 columns
//!         for each tile of up to 8 rows                 accumulators stay in registers
//!             for each inner row: acc[row][vector] += a[row] (in every lane) · panel
//! ```
//!
//! The order of each sum depends on the sizes of the matrix alone, not on the number of rows. With AVX-512 this is
//! also the faster way for many rows: `gemm` stays at AVX2 ([`is_faster`]).

use super::gemm::threads;
use super::recycle::Buffer;
use super::simd::{self, Kernel, Vector, load_rows, transpose};

/// Columns that lie side by side: two AVX-512 vectors, four of AVX2.
const PANEL: usize = 32;
/// Inner rows of a block: 256 × 32 values are 32 KB.
const DEPTH: usize = 256;
/// Most rows of a tile.
const TALL: usize = 8;

/// A matrix (inner, cols) laid out for such products.
pub(super) struct Packed {
    panels: Buffer,
    inner: usize,
    cols: usize,
}

impl Packed {
    /// Lays out `values` (inner, cols).
    pub(super) fn new(values: &[f32], inner: usize, cols: usize) -> Packed {
        let mut packed = Packed::empty(inner, cols);
        packed.fill(|panel, (first, depth), (col, width)| {
            for (k, to) in panel.chunks_exact_mut(PANEL).enumerate().take(depth) {
                to[..width].copy_from_slice(&values[(first + k) * cols + col..][..width]);
                to[width..].fill(0.0);
            }
        });
        packed
    }

    /// Lays out the transpose of `values` (cols, inner).
    pub(super) fn transposed(values: &[f32], cols: usize, inner: usize) -> Packed {
        let mut packed = Packed::empty(inner, cols);
        packed.fill(|panel, (first, depth), (col, width)| {
            let from = &values[col * inner + first..];
            if width == PANEL {
                return transpose(PANEL, depth, from, inner, panel);
            }
            for (k, to) in panel.chunks_exact_mut(PANEL).enumerate().take(depth) {
                to[width..].fill(0.0);
                for (i, to) in to[..width].iter_mut().enumerate() {
                    *to = from[i * inner + k];
                }
            }
        });
        packed
    }

    fn empty(inner: usize, cols: usize) -> Packed {
        Packed { panels: Buffer::take(inner * cols.next_multiple_of(PANEL)), inner, cols }
    }

    /// Lets `write` fill each panel; it gets first row and number of rows, first column and number of columns.
    fn fill(&mut self, write: impl Fn(&mut [f32], (usize, usize), (usize, usize))) {
        let mut rest = &mut self.panels[..];
        for (first, depth) in blocks(self.inner) {
            for col in (0..self.cols).step_by(PANEL) {
                let (panel, after) = rest.split_at_mut(depth * PANEL);
                write(panel, (first, depth), (col, PANEL.min(self.cols - col)));
                rest = after;
            }
        }
    }

    /// `c` (rows, cols) += `a` (rows, inner) · this matrix.
    ///
    /// # Panics
    /// When a slice is not of that size for a whole number of rows.
    pub(super) fn add_product(&self, a: &[f32], c: &mut [f32]) {
        self.add(a, false, c);
    }

    /// `c` (rows, cols) += `a`ᵀ · this matrix, `a` being (inner, rows).
    ///
    /// # Panics
    /// As [`Packed::add_product`].
    pub(super) fn add_product_of_columns(&self, a: &[f32], c: &mut [f32]) {
        self.add(a, true, c);
    }

    fn add(&self, a: &[f32], of_columns: bool, c: &mut [f32]) {
        if self.inner == 0 || self.cols == 0 || a.is_empty() {
            return;
        }
        let rows = a.len() / self.inner;
        assert_eq!(a.len(), rows * self.inner, "rows of {} values", self.inner);
        assert_eq!(c.len(), rows * self.cols, "{rows} rows of {} values", self.cols);
        simd::run(Product { matrix: self, a, of_columns, rows, c }, self.cols);
    }
}

/// Whether products of many rows should go this way, too, instead of by [`super::gemm`].
pub(super) fn is_faster() -> bool {
    threads() == 1 && simd::has_sixteen_lanes()
}

/// First row and number of rows of each block.
fn blocks(inner: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..inner).step_by(DEPTH).map(move |first| (first, DEPTH.min(inner - first)))
}

struct Product<'a> {
    matrix: &'a Packed,
    a: &'a [f32],
    of_columns: bool,
    rows: usize,
    c: &'a mut [f32],
}

impl Kernel for Product<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Packed { panels, inner, cols } = self.matrix;
        // As many sums as registers allow, tiles of about equal height.
        let tallest = if V::LANES >= 16 { TALL } else { TALL / 2 };
        let tall = self.rows.div_ceil(self.rows.div_ceil(tallest));
        let mut turned = [0.0; TALL * DEPTH];
        for (first, depth) in blocks(*inner) {
            let panels = &panels[first * cols.next_multiple_of(PANEL)..];
            for row in (0..self.rows).step_by(tall) {
                let height = tall.min(self.rows - row);
                // The rows of the tile side by side, so that the inner loop reads on.
                let a = &mut turned[..height * depth];
                if self.of_columns {
                    let columns = self.a[first * self.rows..].chunks_exact(self.rows);
                    for (a, column) in a.chunks_exact_mut(height).zip(columns) {
                        a.copy_from_slice(&column[row..row + height]);
                    }
                } else {
                    transpose(height, depth, &self.a[row * inner + first..], *inner, a);
                }
                let c = &mut self.c[row * cols..(row + height) * cols];
                for (p, panel) in panels.chunks_exact(depth * PANEL).enumerate() {
                    if p * PANEL >= *cols {
                        break;
                    }
                    tile_of::<V>(height, a, panel, *cols, p * PANEL, c);
                }
            }
        }
    }
}

/// [`tile`] for `height` rows.
#[inline(always)]
fn tile_of<V: Vector>(
    height: usize,
    a: &[f32],
    panel: &[f32],
    cols: usize,
    col: usize,
    c: &mut [f32],
) {
    match height {
        1 => tile::<V, 1>(a, panel, cols, col, c),
        2 => tile::<V, 2>(a, panel, cols, col, c),
        3 => tile::<V, 3>(a, panel, cols, col, c),
        4 => tile::<V, 4>(a, panel, cols, col, c),
        5 => tile::<V, 5>(a, panel, cols, col, c),
        6 => tile::<V, 6>(a, panel, cols, col, c),
        7 => tile::<V, 7>(a, panel, cols, col, c),
        _ => tile::<V, 8>(a, panel, cols, col, c),
    }
}

/// Adds to columns `col` to `col` + 32 of `c` (R, cols) the product of `a` (depth, R) and `panel`.
#[inline(always)]
fn tile<V: Vector, const R: usize>(
    a: &[f32],
    panel: &[f32],
    cols: usize,
    col: usize,
    c: &mut [f32],
) {
    let (a, panel) = (a.as_chunks::<R>().0, panel.as_chunks::<PANEL>().0);
    for part in (0..PANEL).step_by(2 * V::LANES) {
        let mut sums = [[V::splat(0.0); 2]; R];
        for (a, b) in a.iter().zip(panel) {
            let [b] = load_rows::<V, 1, 2>(b, part, 0);
            for (sums, &a) in sums.iter_mut().zip(a) {
                let a = V::splat(a);
                sums[0] = a.mul_add(b[0], sums[0]);
                sums[1] = a.mul_add(b[1], sums[1]);
            }
        }
        for (row, sums) in c.chunks_exact_mut(cols).zip(sums) {
            let row = &mut row[col..];
            for (n, sum) in sums.into_iter().enumerate() {
                add_to(sum, row, part + n * V::LANES);
            }
        }
    }
}

/// Adds a vector to the values of `row` from `at` on, as far as there are any.
#[inline(always)]
fn add_to<V: Vector>(sum: V, row: &mut [f32], at: usize) {
    if let Some(to) = row.get_mut(at..at + V::LANES) {
        return V::load(to).add(sum).store(to);
    }
    let mut lanes = [0.0; PANEL];
    sum.store(&mut lanes);
    row.iter_mut().skip(at).zip(lanes).for_each(|(to, v)| *to += v);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::gemm::{Mat, matmul};
    use crate::nn::grads::Write;
    use crate::nn::testing::random;

    const SIZES: [[usize; 3]; 7] = [
        [1, 1, 1],
        [3, 5, 7],
        [16, 256, 64],
        [9, 257, 33],
        [8, 40, 96],
        [17, 600, 31],
        [2, 64, 128],
    ];

    fn both(rows: usize, inner: usize, cols: usize) -> (Packed, Packed, Vec<f32>) {
        let b = random(inner * cols, 2);
        let turned: Vec<f32> = (0..cols * inner).map(|i| b[i % inner * cols + i / inner]).collect();
        let packed = (Packed::new(&b, inner, cols), Packed::transposed(&turned, cols, inner));
        let mut expected = vec![1.0; rows * cols];
        let a = random(rows * inner, 1);
        matmul(&mut expected, Mat::new(&a, rows, inner), Mat::new(&b, inner, cols), Write::Add);
        (packed.0, packed.1, expected)
    }

    #[test]
    fn products_of_any_number_of_rows_equal_general_ones() {
        for [rows, inner, cols] in SIZES {
            let (plain, turned, expected) = both(rows, inner, cols);
            let a = random(rows * inner, 1);
            let columns: Vec<f32> =
                (0..inner * rows).map(|i| a[i % rows * inner + i / rows]).collect();
            let mut by_rows = vec![1.0; rows * cols];
            let mut by_columns = by_rows.clone();
            plain.add_product(&a, &mut by_rows);
            plain.add_product_of_columns(&columns, &mut by_columns);
            assert_eq!(by_rows, by_columns, "{rows}×{inner}×{cols}");
            for packed in [plain, turned] {
                let mut c = vec![1.0; rows * cols];
                packed.add_product(&random(rows * inner, 1), &mut c);
                for (x, y) in c.iter().zip(&expected) {
                    assert!((x - y).abs() < 2e-4, "{rows}×{inner}×{cols}: {x} {y}");
                }
            }
        }
    }

    #[test]
    fn every_width_of_vectors_gives_the_same_sums_within_rounding() {
        struct Narrow<'a>(Product<'a>);
        impl Kernel for Narrow<'_> {
            fn run<V: Vector>(self) {
                self.0.run::<V>();
            }
        }
        let (packed, _, expected) = both(11, 300, 70);
        let a = random(11 * 300, 1);
        for work in [4, 8, 16] {
            let mut c = vec![1.0; 11 * 70];
            let of_columns = false;
            let product = Product { matrix: &packed, a: &a, of_columns, rows: 11, c: &mut c };
            simd::run(Narrow(product), work);
            assert!(c.iter().zip(&expected).all(|(x, y)| (x - y).abs() < 2e-4), "{work}");
        }
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_among_others() {
        let packed = Packed::new(&random(90 * 50, 1), 90, 50);
        let a = random(13 * 90, 3);
        let mut together = vec![0.0; 13 * 50];
        packed.add_product(&a, &mut together);
        for (a, together) in a.chunks_exact(90).zip(together.chunks_exact(50)) {
            let mut alone = vec![0.0; 50];
            packed.add_product(a, &mut alone);
            assert_eq!(alone, together);
        }
    }

    #[test]
    fn nothing_times_a_matrix_is_nothing() {
        Packed::new(&random(6, 1), 2, 3).add_product(&[], &mut []);
        let mut c = [4.0; 3];
        Packed::new(&[], 0, 3).add_product(&[], &mut c);
        assert_eq!(c, [4.0; 3]);
    }
}

//! Matrix products over plain slices, by the `gemm` crate.
//!
//! The one place of the layers with `unsafe`: `gemm` takes raw pointers and strides, and the types
//! here make sure that these stay inside their slices. On large shapes it is level with OpenBLAS
//! (96–109 GFLOP/s on a core where OpenBLAS reaches 100–103).
#![allow(unsafe_code)]

use super::grads::Write;
use super::params::Param;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Threads of one product. Ranks share a machine, so the default is 1.
static THREADS: AtomicUsize = AtomicUsize::new(1);

/// Lets one product use `n` threads of Rayon's pool (0 counts as 1).
///
/// How sums are split over threads can change last bits: keep `n` fixed in a reproducible job.
pub fn set_threads(n: usize) {
    THREADS.store(n.max(1), Relaxed);
}

/// How many threads one product uses.
#[must_use]
pub fn threads() -> usize {
    THREADS.load(Relaxed)
}

/// A matrix that is read: a slice seen as rows and columns.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// The first `rows × cols` values of `data`, row after row.
    ///
    /// # Panics
    /// When `data` is shorter than that.
    #[must_use]
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Mat<'a> {
        assert!(data.len() >= rows * cols, "{rows}×{cols} matrix over {} values", data.len());
        Mat { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The same values, transposed; nothing is moved.
    #[must_use]
    pub fn t(self) -> Mat<'a> {
        Mat {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

/// C = A·B ([`Write::Set`]) or C += A·B ([`Write::Add`]), C row after row in the first values of `c`.
///
/// # Panics
/// When the inner sizes differ or `c` is too short.
pub fn matmul(c: &mut [f32], a: Mat, b: Mat, how: Write) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert_eq!(k, b.rows, "product of {m}×{k} and {}×{n}", b.rows);
    assert!(c.len() >= m * n, "{m}×{n} result in {} values", c.len());
    if m == 0 || n == 0 {
        return;
    }
    let add = how == Write::Add;
    if k == 0 {
        if !add {
            c[..m * n].fill(0.0);
        }
        return;
    }
    let parallelism = match THREADS.load(Relaxed) {
        0 | 1 => gemm::Parallelism::None,
        threads => gemm::Parallelism::Rayon(threads),
    };
    let alpha = if add { 1.0 } else { 0.0 };
    // SAFETY: `Mat` holds rows × cols ≤ data.len() values with strides (cols, 1) or their transpose,
    // so the last value read has an index below rows × cols; `c` has m × n values, asserted above,
    // and strides (n, 1). `c` is borrowed mutably, so it overlaps neither `a` nor `b`. Strides fit
    // isize because slices do.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            add,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            alpha,
            1.0f32,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// Enters the gradient A·B of `param`.
///
/// # Errors
/// As [`Param::write_grad`].
pub fn write_gradient(param: &Param, a: Mat, b: Mat) -> candle_core::Result<()> {
    let write = |slot: &mut [f32], how| matmul(slot, a, b, how);
    if adds_whole(a, b) { param.write_whole_grad(write) } else { param.write_grad(write) }
}

/// Whether [`matmul`] with [`Write::Add`] adds to each value the same bits that [`Write::Set`] would have
/// put there: the sums over k must be formed in registers, in one go. `gemm` cuts k into blocks of at least
/// 512 and takes other ways for vectors and for k below 3.
#[must_use]
fn adds_whole(a: Mat, b: Mat) -> bool {
    (3..=512).contains(&a.cols) && a.rows > 1 && b.cols > 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::random;
    use proptest::prelude::*;

    fn naive(a: Mat, b: Mat) -> Vec<f32> {
        let at =
            |m: &Mat, r: usize, c: usize| f64::from(m.data[r * m.row_stride + c * m.col_stride]);
        let mut c = Vec::new();
        for i in 0..a.rows {
            for j in 0..b.cols {
                c.push((0..a.cols).map(|l| at(&a, i, l) * at(&b, l, j)).sum::<f64>() as f32);
            }
        }
        c
    }

    #[test]
    fn every_shape_and_transposition_equals_the_definition() {
        for (m, n, k) in [(1, 1, 1), (3, 5, 7), (6, 576, 25), (16, 64, 150), (33, 1, 9), (1, 40, 1)]
        {
            let (a, b) = (random(m * k, 1), random(k * n, 2));
            for (a, b) in [
                (Mat::new(&a, m, k), Mat::new(&b, k, n)),
                (Mat::new(&a, k, m).t(), Mat::new(&b, k, n)),
                (Mat::new(&a, m, k), Mat::new(&b, n, k).t()),
                (Mat::new(&a, k, m).t(), Mat::new(&b, n, k).t()),
            ] {
                let expected = naive(a, b);
                let mut c = vec![f32::NAN; m * n];
                matmul(&mut c, a, b, Write::Set);
                let close = |x: f32, y: f32| (x - y).abs() < 1e-4;
                assert!(c.iter().zip(&expected).all(|(&x, &y)| close(x, y)), "{m} {n} {k}");
                matmul(&mut c, a, b, Write::Add);
                assert!(c.iter().zip(&expected).all(|(&x, &y)| close(x, 2.0 * y)), "{m} {n} {k}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_product_that_adds_whole_adds_the_bits_of_the_product(
            m in 2usize..160, n in 2usize..160, k in 3usize..=512, turned in 0..4,
        ) {
            let (a, b, before) = (random(m * k, 1), random(k * n, 2), random(m * n, 3));
            let a = if turned & 1 == 0 { Mat::new(&a, m, k) } else { Mat::new(&a, k, m).t() };
            let b = if turned & 2 == 0 { Mat::new(&b, k, n) } else { Mat::new(&b, n, k).t() };
            prop_assert!(adds_whole(a, b));
            let mut product = vec![0.0; m * n];
            matmul(&mut product, a, b, Write::Set);
            let mut sum = before.clone();
            matmul(&mut sum, a, b, Write::Add);
            let same = |i: usize| sum[i].to_bits() == (before[i] + product[i]).to_bits();
            prop_assert!((0..m * n).all(same));
        }
    }

    #[test]
    fn a_sum_over_nothing_is_zero() {
        let mut c = [f32::NAN; 6];
        matmul(&mut c, Mat::new(&[], 2, 0), Mat::new(&[], 0, 3), Write::Set);
        assert_eq!(c, [0.0; 6]);
        c = [1.0; 6];
        matmul(&mut c, Mat::new(&[], 2, 0), Mat::new(&[], 0, 3), Write::Add);
        assert_eq!(c, [1.0; 6]);
        matmul(&mut [], Mat::new(&[], 0, 2), Mat::new(&[1.0, 2.0], 2, 1), Write::Set);
    }

    #[test]
    #[should_panic(expected = "3×3 matrix over 8 values")]
    fn a_matrix_larger_than_its_slice_is_refused() {
        let _ = Mat::new(&[0.0; 8], 3, 3);
    }

    #[test]
    #[should_panic(expected = "2×2 result in 3 values")]
    fn a_result_larger_than_its_slice_is_refused() {
        let a = [0.0; 4];
        matmul(&mut [0.0; 3], Mat::new(&a, 2, 2), Mat::new(&a, 2, 2), Write::Set);
    }
}

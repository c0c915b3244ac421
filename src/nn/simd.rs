//! Vectors of `f32` as wide as this processor has them, chosen at run time.
//!
//! A kernel is written once, over any [`Vector`], and [`run`] compiles it three times: for AVX-512
//! (16 lanes), for AVX2 with FMA (8 lanes), and for what every processor of the target has (4 lanes,
//! plain arrays that the compiler turns into SSE2 or NEON). A program built for any x86-64 then uses
//! what it finds.
//!
//! Everything on the way from [`run`] to the vector's methods must be `#[inline(always)]` (no
//! closures over vectors): code that is not inlined into the function with the wider instructions is
//! compiled without them, and every vector then goes through memory.
#![allow(unsafe_code)]

/// Some `f32` side by side. Operations are lane by lane.
pub(super) trait Vector: Copy {
    /// One truth value per lane.
    type Mask: Copy;

    /// How many values.
    const LANES: usize;

    /// `v` in each lane.
    fn splat(v: f32) -> Self;

    /// The first values of `from`.
    ///
    /// # Panics
    /// When there are fewer than [`Vector::LANES`].
    fn load(from: &[f32]) -> Self;

    /// The values from `from` on.
    ///
    /// # Safety
    /// [`Vector::LANES`] values must be there.
    unsafe fn load_from(from: *const f32) -> Self;

    /// Overwrites the first values of `to`.
    ///
    /// # Panics
    /// When there are fewer than [`Vector::LANES`].
    fn store(self, to: &mut [f32]);

    /// self + other
    fn add(self, other: Self) -> Self;

    /// self · factor + addend, rounded once where the processor can.
    fn mul_add(self, factor: Self, addend: Self) -> Self;

    /// Where self > other, or self is NaN.
    fn above(self, other: Self) -> Self::Mask;

    /// `yes` where the mask is true, else `no`.
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self;
}

/// A computation that is compiled once per width.
pub(super) trait Kernel {
    /// Does it. Mark the implementation `#[inline(always)]`.
    fn run<V: Vector>(self);
}

/// Runs the kernel with vectors as wide as this processor has them, but not wider than `work` values
/// side by side need: lanes without work cost time, too.
pub(super) fn run(kernel: impl Kernel, work: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        if work > 8 && x86::has_avx512() {
            // SAFETY: the processor has the instructions, which was asked on the line above.
            return unsafe { x86::run_avx512(kernel) };
        }
        if work > 4 && x86::has_avx2() {
            // SAFETY: the processor has the instructions, which was asked on the line above.
            return unsafe { x86::run_avx2(kernel) };
        }
    }
    let _ = work;
    kernel.run::<Portable>();
}

/// Whether [`run`] has vectors of 16 values here.
pub(super) fn has_sixteen_lanes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return x86::has_avx512();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// `R` rows of `N` vectors from `from[at]` on, `step` values apart: a loop over [`Vector::load`] with
/// one check of bounds instead of `R`, which take as long as the loads.
///
/// # Panics
/// When the last row ends behind the slice.
#[inline(always)]
pub(super) fn load_rows<V: Vector, const R: usize, const N: usize>(
    from: &[f32],
    at: usize,
    step: usize,
) -> [[V; N]; R] {
    let len = from.len();
    assert!(at <= len && step <= len && at + (R - 1) * step + N * V::LANES <= len);
    let mut rows = [[V::splat(0.0); N]; R];
    for (r, row) in rows.iter_mut().enumerate() {
        for (n, vector) in row.iter_mut().enumerate() {
            // SAFETY: r < R and n < N, so the last value read lies below the end that was asserted.
            // That sum does not overflow: a slice has at most isize::MAX / 4 values, R is small.
            *vector = unsafe { V::load_from(from.as_ptr().add(at + r * step + n * V::LANES)) };
        }
    }
    rows
}

/// `from`, `rows` rows of `step` values of which the first `cols` count, as `cols` rows of `rows`
/// values in `to`. In squares of 4×4; the last ones overlap those before.
///
/// # Panics
/// When a slice is too short.
#[inline(always)]
pub(super) fn transpose(rows: usize, cols: usize, from: &[f32], step: usize, to: &mut [f32]) {
    if rows == 1 || (cols == 1 && step == 1) {
        return to[..rows * cols].copy_from_slice(&from[..rows * cols]);
    }
    if rows < 4 || cols < 4 {
        for (col, to) in to[..rows * cols].chunks_exact_mut(rows).enumerate() {
            for (row, to) in to.iter_mut().enumerate() {
                *to = from[row * step + col];
            }
        }
        return;
    }
    for row in (0..rows).step_by(4).map(|row| row.min(rows - 4)) {
        for col in (0..cols).step_by(4).map(|col| col.min(cols - 4)) {
            let mut square = [[0.0; 4]; 4];
            for (i, line) in square.iter_mut().enumerate() {
                line.copy_from_slice(&from[(row + i) * step + col..][..4]);
            }
            for (i, line) in transpose4(square).iter().enumerate() {
                to[(col + i) * rows + row..][..4].copy_from_slice(line);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn transpose4(square: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    use std::arch::x86_64::*;
    use std::mem::transmute;
    // SAFETY: every x86-64 has SSE; `__m128` is four `f32`, so the arrays are of equal size.
    unsafe {
        let [a, b, c, d]: [__m128; 4] = transmute(square);
        let (low, high) = (_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b));
        let (low2, high2) = (_mm_unpacklo_ps(c, d), _mm_unpackhi_ps(c, d));
        transmute([
            _mm_movelh_ps(low, low2),
            _mm_movehl_ps(low2, low),
            _mm_movelh_ps(high, high2),
            _mm_movehl_ps(high2, high),
        ])
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn transpose4(square: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    std::array::from_fn(|col| std::array::from_fn(|row| square[row][col]))
}

#[derive(Clone, Copy)]
struct Portable([f32; 4]);

impl Vector for Portable {
    type Mask = [bool; 4];
    const LANES: usize = 4;

    #[inline(always)]
    fn splat(v: f32) -> Self {
        Portable([v; 4])
    }

    #[inline(always)]
    fn load(from: &[f32]) -> Self {
        Portable([from[0], from[1], from[2], from[3]])
    }

    #[inline(always)]
    unsafe fn load_from(from: *const f32) -> Self {
        // SAFETY: the caller promises four values; an array of them has their alignment.
        Portable(unsafe { from.cast::<[f32; 4]>().read() })
    }

    #[inline(always)]
    fn store(self, to: &mut [f32]) {
        to[..4].copy_from_slice(&self.0);
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Portable(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        let one = |i: usize| match cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
            true => self.0[i].mul_add(factor.0[i], addend.0[i]),
            // Without the instruction, `mul_add` is a call into the C library.
            false => self.0[i] * factor.0[i] + addend.0[i],
        };
        Portable(std::array::from_fn(one))
    }

    #[inline(always)]
    fn above(self, other: Self) -> Self::Mask {
        std::array::from_fn(|i| self.0[i] > other.0[i] || self.0[i].is_nan())
    }

    #[inline(always)]
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self {
        Portable(std::array::from_fn(|i| if mask[i] { yes.0[i] } else { no.0[i] }))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Kernel, Vector};
    use std::arch::x86_64::*;

    /// Whether the processor has what `run_avx512` needs (looked up in a static after the first call).
    pub(super) fn has_avx512() -> bool {
        has_avx2()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
    }

    /// Whether the processor has what `run_avx2` needs.
    pub(super) fn has_avx2() -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
    }

    /// To be called only where the processor has these.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) fn run_avx512(kernel: impl Kernel) {
        kernel.run::<Avx512>();
    }

    /// To be called only where the processor has these.
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn run_avx2(kernel: impl Kernel) {
        kernel.run::<Avx2>();
    }

    // Private: no code but the two functions above can name these types, so no method of theirs runs
    // on a processor without the instructions.
    #[derive(Clone, Copy)]
    struct Avx512(__m512);
    #[derive(Clone, Copy)]
    struct Avx2(__m256);

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn above512(a: __m512, b: __m512) -> __mmask16 {
        _mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b) | _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn select512(mask: __mmask16, yes: __m512, no: __m512) -> __m512 {
        _mm512_mask_blend_ps(mask, no, yes)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn above256(a: __m256, b: __m256) -> __m256 {
        _mm256_or_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(a, b), _mm256_cmp_ps::<_CMP_UNORD_Q>(a, a))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn select256(mask: __m256, yes: __m256, no: __m256) -> __m256 {
        _mm256_blendv_ps(no, yes, mask)
    }

    macro_rules! vector {
        ($name:ident, $lanes:literal, $mask:ty, $splat:ident, $load:ident, $store:ident, $add:ident,
         $mul_add:ident, $above:ident, $select:ident) => {
            impl Vector for $name {
                type Mask = $mask;
                const LANES: usize = $lanes;

                #[inline(always)]
                fn splat(v: f32) -> Self {
                    // SAFETY: the processor has the instruction, see the types.
                    $name(unsafe { $splat(v) })
                }

                #[inline(always)]
                fn load(from: &[f32]) -> Self {
                    assert!(from.len() >= $lanes);
                    // SAFETY: as above; and as many values are there, at any alignment.
                    $name(unsafe { $load(from.as_ptr()) })
                }

                #[inline(always)]
                unsafe fn load_from(from: *const f32) -> Self {
                    // SAFETY: as above; and the caller promises the values.
                    $name(unsafe { $load(from) })
                }

                #[inline(always)]
                fn store(self, to: &mut [f32]) {
                    assert!(to.len() >= $lanes);
                    // SAFETY: as above; and as many values are there, at any alignment.
                    unsafe { $store(to.as_mut_ptr(), self.0) }
                }

                #[inline(always)]
                fn add(self, other: Self) -> Self {
                    // SAFETY: the processor has the instruction, see the types.
                    $name(unsafe { $add(self.0, other.0) })
                }

                #[inline(always)]
                fn mul_add(self, factor: Self, addend: Self) -> Self {
                    // SAFETY: the processor has the instruction, see the types.
                    $name(unsafe { $mul_add(self.0, factor.0, addend.0) })
                }

                #[inline(always)]
                fn above(self, other: Self) -> Self::Mask {
                    // SAFETY: the processor has the instructions, see the types.
                    unsafe { $above(self.0, other.0) }
                }

                #[inline(always)]
                fn select(mask: Self::Mask, yes: Self, no: Self) -> Self {
                    // SAFETY: the processor has the instruction, see the types.
                    $name(unsafe { $select(mask, yes.0, no.0) })
                }
            }
        };
    }

    vector!(
        Avx512,
        16,
        __mmask16,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_add_ps,
        _mm512_fmadd_ps,
        above512,
        select512
    );
    vector!(
        Avx2,
        8,
        __m256,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_add_ps,
        _mm256_fmadd_ps,
        above256,
        select256
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transpose_moves_every_value_to_its_mirror_place() {
        for (rows, cols, step) in
            [(1, 9, 9), (9, 1, 1), (5, 1, 4), (3, 7, 7), (4, 4, 4), (13, 6, 8), (6, 144, 144)]
        {
            let from: Vec<f32> = (0..rows * step).map(|i| i as f32).collect();
            let mut to = vec![f32::NAN; rows * cols];
            transpose(rows, cols, &from, step, &mut to);
            for (i, &v) in to.iter().enumerate() {
                assert_eq!(v, from[i % rows * step + i / rows], "{rows}×{cols}, {i}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "at <= len")]
    fn rows_that_end_behind_the_slice_are_refused() {
        load_rows::<Portable, 2, 1>(&[0.0; 12], 1, 8);
    }
}

//! Numbers whose sum over all ranks is known and exact, and the check that it came out.
//!
//! Rank `r` puts `h(i) + r·(1 + i mod 8)` at place `i`, where `h` scatters the index over whole
//! numbers. So a chunk in the wrong place, a rank left out, or one added twice all change the sum.
//! All partial sums are whole numbers below 2²⁴, which `f32` holds exactly in whatever order they
//! are added.

use crate::error::{Error, Result};

/// What buffers hold while they are timed. Sums of sums overflow after some calls whatever they began
/// with; from here every call adds the same numbers, which costs what adding any numbers does. Zeros
/// would not do: there are processors that leave out writing a zero over a zero.
pub const STEADY: f32 = f32::INFINITY;

/// Fills `data` with this rank's numbers.
pub fn fill(data: &mut [f32], rank: usize, ranks: usize) {
    let bits = bits(ranks);
    for (i, x) in data.iter_mut().enumerate() {
        *x = (scattered(i, bits) + rank as u32 * step(i)) as f32;
    }
}

/// Checks that `data` holds the sums over `ranks` ranks.
///
/// # Errors
/// [`Error::Internal`] with the first place that is wrong.
pub fn check(data: &[f32], ranks: usize, what: &str) -> Result<()> {
    let (bits, count) = (bits(ranks), ranks as u32);
    let expected =
        |i: usize| (count * scattered(i, bits) + count * (count - 1) / 2 * step(i)) as f32;
    let Some(i) = (0..data.len()).find(|&i| data[i] != expected(i)) else { return Ok(()) };
    let wrong = (0..data.len()).filter(|&i| data[i] != expected(i)).count();
    Err(Error::Internal(format!(
        "{what}: the sum is wrong in {wrong} of {} places, first at {i}: {} instead of {}. The \
         figures mean nothing; please report this with the MPI library and the command",
        data.len(),
        data[i],
        expected(i)
    )))
}

/// Bits of `h`, so that the sum over all ranks stays below 2²³; the ranks' own steps add less than
/// another 2²³ up to 1448 ranks.
fn bits(ranks: usize) -> u32 {
    23u32.saturating_sub(ranks.next_power_of_two().ilog2()).max(1)
}

/// `h`: the top bits of the index times 2³² divided by the golden ratio (Knuth's hash).
fn scattered(i: usize, bits: u32) -> u32 {
    (i as u32).wrapping_mul(2_654_435_769) >> (32 - bits)
}

fn step(i: usize) -> u32 {
    1 + (i as u32 & 7)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summed(ranks: usize, len: usize) -> Vec<f32> {
        let mut sum = vec![0.0; len];
        for rank in 0..ranks {
            let mut mine = vec![0.0; len];
            fill(&mut mine, rank, ranks);
            sum.iter_mut().zip(mine).for_each(|(a, b)| *a += b);
        }
        sum
    }

    #[test]
    fn right_sums_pass_at_any_rank_count() {
        for ranks in [1, 2, 3, 8, 300, 1000] {
            check(&summed(ranks, 5000), ranks, "test").unwrap();
        }
    }

    #[test]
    fn partial_sums_are_exact_in_any_order() {
        let ranks = 1000;
        let top = summed(ranks, 5000).into_iter().fold(0.0, f32::max);
        assert!(top < (1 << 24) as f32, "{top}");
    }

    #[test]
    fn a_wrong_sum_fails_and_names_its_place() {
        let good = summed(3, 1000);
        let spoil = |spoil: &dyn Fn(&mut Vec<f32>)| {
            let mut bad = good.clone();
            spoil(&mut bad);
            check(&bad, 3, "64 KiB by ring").unwrap_err().to_string()
        };
        let one = spoil(&|x| x[17] += 1.0);
        assert!(one.contains("64 KiB by ring") && one.contains("1 of 1000 places, first at 17"));
        assert!(spoil(&|x| x[999] = f32::NAN).contains("first at 999"));
        assert!(spoil(&|x| x.rotate_left(8)).contains("wrong in"));
        assert!(spoil(&|x| x.swap_with_slice(&mut summed(2, 1000))).contains("of 1000 places"));
        let mut twice = vec![0.0; 1000];
        fill(&mut twice, 1, 3);
        assert!(spoil(&|x| x.iter_mut().zip(&twice).for_each(|(a, b)| *a += b)).contains("wrong"));
    }
}

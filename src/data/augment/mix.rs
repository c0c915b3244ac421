//! Two images become one, and their labels two with shares.
//!
//! Mixup (Zhang et al., "mixup: beyond empirical risk minimization", 2018): λ · own + (1 − λ) · other.
//! Cutmix (Yun et al., "CutMix", 2019): a rectangle of about 1 − λ of the image, cut off at its edges,
//! comes from the other; its exact share of the pixels is the other label's share. λ is Beta(α, α).

use super::Size;
use super::beta::beta;
use crate::config::{Transform, TransformKind};
use crate::util::rng::Rng;
use std::ops::Range;

#[derive(Debug, Clone, Copy)]
pub(super) enum Mix {
    Up { alpha: f64 },
    Cut { alpha: f64 },
}

impl Mix {
    /// The mixture of one entry of the card's list, if it is one.
    pub fn of(wanted: &Transform) -> Option<Mix> {
        let alpha = |default| f64::from(wanted.alpha.unwrap_or(default));
        match wanted.kind {
            TransformKind::Mixup => Some(Mix::Up { alpha: alpha(0.2) }),
            TransformKind::Cutmix => Some(Mix::Cut { alpha: alpha(1.0) }),
            _ => None,
        }
    }

    /// Mixes `other` into `image`; gives the other's share.
    pub fn apply(self, image: &mut [f32], other: &[f32], size: Size, rng: &mut Rng) -> f32 {
        match self {
            Mix::Up { alpha } => {
                let share = 1.0 - beta(alpha, rng);
                image.iter_mut().zip(other).for_each(|(a, b)| *a += (b - *a) * share);
                share
            }
            Mix::Cut { alpha } => {
                let side = (1.0 - beta(alpha, rng)).sqrt();
                let rows = window(side, size.rows, rng);
                let columns = window(side, size.columns, rng);
                let planes = image.chunks_exact_mut(size.plane());
                for (plane, other) in planes.zip(other.chunks_exact(size.plane())) {
                    for row in rows.clone() {
                        let at = row * size.columns;
                        plane[at..][columns.clone()].copy_from_slice(&other[at..][columns.clone()]);
                    }
                }
                (rows.len() * columns.len()) as f32 / size.plane() as f32
            }
        }
    }
}

/// A share `side` of `0..n` about a random middle, cut off at both ends.
fn window(side: f32, n: usize, rng: &mut Rng) -> Range<usize> {
    let length = (side * n as f32) as usize;
    let middle = rng.below(n as u64) as usize;
    let start = middle.saturating_sub(length / 2);
    start..n.min((middle + length).saturating_sub(length / 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::rng::Purpose;

    const SIZE: Size = Size { channels: 2, rows: 20, columns: 30 };

    fn mixed(mix: Mix, seed: u64) -> (Vec<f32>, f32) {
        let mut image = vec![0.0; 1200];
        let rng = &mut Rng::new(seed, Purpose::Synthetic, 0, 0, 0);
        let share = mix.apply(&mut image, &[1.0; 1200], SIZE, rng);
        (image, share)
    }

    #[test]
    fn mixup_gives_every_pixel_the_share_that_the_label_gets() {
        let mut mean = 0.0;
        for seed in 0..500 {
            let (image, share) = mixed(Mix::Up { alpha: 1.0 }, seed);
            assert!(image.iter().all(|&v| v == share));
            mean += share / 500.0;
        }
        assert!((mean - 0.5).abs() < 0.05, "{mean}");
    }

    #[test]
    fn cutmix_gives_the_label_the_share_of_pixels_that_came_from_the_other() {
        let mut seen = Vec::new();
        for seed in 0..500 {
            let (image, share) = mixed(Mix::Cut { alpha: 1.0 }, seed);
            let count = image.iter().filter(|&&v| v == 1.0).count();
            assert_eq!(count as f32 / 1200.0, share);
            assert!(image.iter().all(|&v| v == 0.0 || v == 1.0));
            assert_eq!(image[..600], image[600..]);
            seen.push(share);
        }
        seen.sort_by(f32::total_cmp);
        seen.dedup();
        assert!(seen.len() > 150 && seen[0] < 0.01 && seen[seen.len() - 1] > 0.5, "{seen:?}");
    }
}

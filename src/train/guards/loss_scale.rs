//! The loss scale: gradients in 16 bits lose what is small and overflow where they are large.
//!
//! The loss is multiplied by a power of two before the backward pass, and the gradient by its inverse
//! in the update. In `f32` that changes no bit. A sum that overflows makes the gradient of *all* ranks
//! infinite, since every rank has the sum: so all of them halve the scale and leave the update out in
//! the same step, without a word more between them. Names and meanings: `torch.amp.GradScaler`, with
//! its factors 2 and ½.

use crate::config;
use serde::{Deserialize, Serialize};

/// It grows no further: gradients of `f32` on a wire of `f32` would never overflow.
const MOST: u32 = 1 << 24;

/// The scale of the next step, and what led to it: saved in every checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossScale {
    scale: u32,
    /// Steps since it last changed, all of them finite.
    good: u64,
}

impl LossScale {
    /// What `rule` begins with.
    #[must_use]
    pub fn new(rule: &config::LossScale) -> LossScale {
        LossScale { scale: rule.initial, good: 0 }
    }

    /// What the loss of the next step is multiplied by.
    #[must_use]
    pub fn get(self) -> u32 {
        self.scale
    }

    /// A step's loss and gradient were finite, or were not.
    pub fn see(&mut self, rule: &config::LossScale, finite: bool) {
        self.good = if finite { self.good + 1 } else { 0 };
        if !finite {
            self.scale = (self.scale / 2).max(1);
        } else if rule.growth_interval.is_some_and(|steps| self.good >= steps) {
            self.scale = (2 * self.scale).min(MOST);
            self.good = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_halves_at_once_and_doubles_after_the_interval_within_its_bounds() {
        let rule = config::LossScale { initial: 4, growth_interval: Some(3) };
        let mut scale = LossScale::new(&rule);
        let mut after = |finite: bool| {
            scale.see(&rule, finite);
            scale.get()
        };
        assert_eq!(
            [true, true, false, true, true, true, true].map(&mut after),
            [4, 4, 2, 2, 2, 4, 4]
        );
        assert_eq!([false; 4].map(&mut after), [2, 1, 1, 1]);
        for _ in 0..200 {
            after(true);
        }
        assert_eq!(after(true), MOST);
    }

    #[test]
    fn without_an_interval_it_never_grows() {
        let rule = config::LossScale { initial: 8, growth_interval: None };
        let mut scale = LossScale::new(&rule);
        (0..10_000).for_each(|_| scale.see(&rule, true));
        assert_eq!(scale.get(), 8);
        scale.see(&rule, false);
        assert_eq!(scale.get(), 4);
    }
}

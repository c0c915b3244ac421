//! How long a run is: steps, epochs, and where each step stands. Pure.

use crate::config::{Card, Swa, Train};
use crate::data::{Augment, Cut, Feed, Sampler, Sampling};
use std::sync::Arc;

/// The length of a run and the order of its samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Order and global batches.
    pub sampler: Sampler,
    /// Optimizer steps in a full epoch; the last of them may be smaller than the others.
    pub steps_per_epoch: u64,
    /// Optimizer steps of the whole run.
    pub total_steps: u64,
}

impl Plan {
    /// The plan of a card's run over `samples` training samples.
    #[must_use]
    pub fn new(card: &Card, samples: u64) -> Plan {
        let sampler = Sampler::new(samples, card.train.global_batch as u64, card.seed);
        Plan {
            sampler,
            steps_per_epoch: sampler.steps_per_epoch(),
            total_steps: sampler.total_steps(card.train.epochs, card.train.max_steps),
        }
    }

    /// What the loader of one rank is to hand out, from step `from` (counted from 0) on: each sample
    /// once an epoch, as it is.
    #[must_use]
    pub fn feed(&self, card: &Card, from: u64, rank: usize, world: usize) -> Feed {
        Feed {
            sampler: self.sampler,
            sampling: Sampling::default(),
            augment: Arc::new(Augment::default()),
            rank,
            world,
            cut: match &card.reproducible {
                Some(mode) => Cut::Leaves(mode.leaves),
                None => Cut::Ranks(card.train.accumulate),
            },
            steps: from.min(self.total_steps)..self.total_steps,
            ahead: card.data.prefetch,
        }
    }

    /// After how many steps the card wants the run to pause, if it does.
    #[must_use]
    pub fn pause(&self, card: &Card) -> Option<u64> {
        let epochs = card.train.pause_at_epoch;
        let by_epoch = epochs.map(|epochs| epochs.saturating_mul(self.steps_per_epoch));
        by_epoch.into_iter().chain(card.train.pause_at_step).min()
    }

    /// The epoch that step `step` (from 0) belongs to, from 0.
    #[must_use]
    pub fn epoch_of(&self, step: u64) -> u64 {
        self.sampler.locate(step).0
    }

    /// Epochs that the run touches, the last one perhaps in part.
    #[must_use]
    pub fn epochs(&self) -> u64 {
        self.total_steps.div_ceil(self.steps_per_epoch)
    }

    /// Whether an epoch, or the run, ends with step `step` (from 0).
    #[must_use]
    pub fn ends_epoch(&self, step: u64) -> bool {
        (step + 1).is_multiple_of(self.steps_per_epoch) || step + 1 == self.total_steps
    }

    /// Whether the mean of the parameters takes them in after `done` steps.
    #[must_use]
    pub fn averages_after(&self, rule: &Swa, done: u64) -> bool {
        let first = rule.from_epoch.saturating_mul(self.steps_per_epoch);
        let every = rule.every_steps.unwrap_or(self.steps_per_epoch);
        done >= first && (done - first).is_multiple_of(every)
    }

    /// Whether there is an evaluation after `done` steps: at the end of the run and wherever the card's
    /// steps or epochs ask for one.
    #[must_use]
    pub fn evaluates_after(&self, rule: &Train, done: u64) -> bool {
        let epochs = done.is_multiple_of(self.steps_per_epoch).then(|| done / self.steps_per_epoch);
        // Nothing but 0 is a multiple of 0.
        let by_epochs = epochs.is_some_and(|n| n.is_multiple_of(rule.eval_every_epochs));
        done > 0
            && (done == self.total_steps
                || by_epochs
                || rule.eval_every_steps.is_some_and(|n| done.is_multiple_of(n)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(samples: u64, epochs: Option<u64>, max_steps: Option<u64>) -> Plan {
        let sampler = Sampler::new(samples, 96, 1);
        let steps_per_epoch = sampler.steps_per_epoch();
        Plan { sampler, steps_per_epoch, total_steps: sampler.total_steps(epochs, max_steps) }
    }

    #[test]
    fn the_last_step_of_an_epoch_takes_what_is_left() {
        let plan = plan(1003, Some(3), None);
        assert_eq!((plan.steps_per_epoch, plan.total_steps, plan.epochs()), (11, 33, 3));
        assert_eq!((plan.epoch_of(10), plan.epoch_of(11)), (0, 1));
        assert!(plan.ends_epoch(10) && !plan.ends_epoch(11) && plan.ends_epoch(32));
    }

    #[test]
    fn a_pause_is_the_earlier_of_the_two_that_the_card_names() {
        let card = include_str!("../../configs/lenet-mnist-quick.json");
        let mut card: Card = serde_json::from_str(card).unwrap();
        let plan = plan(1003, Some(9), None);
        assert_eq!(plan.pause(&card), None);
        card.train.pause_at_epoch = Some(2);
        assert_eq!(plan.pause(&card), Some(22));
        card.train.pause_at_step = Some(30);
        assert_eq!(plan.pause(&card), Some(22));
        card.train.pause_at_step = Some(7);
        assert_eq!(plan.pause(&card), Some(7));
    }

    #[test]
    fn the_smaller_of_epochs_and_max_steps_counts() {
        assert_eq!(plan(960, Some(2), Some(15)).total_steps, 15);
        assert_eq!(plan(960, Some(2), Some(15)).epochs(), 2);
        assert_eq!(plan(960, None, Some(25)).total_steps, 25);
        assert!(plan(960, None, Some(25)).ends_epoch(24));
    }

    #[test]
    fn evaluations_come_by_steps_and_by_epochs_and_at_the_end() {
        let of = |json: &str| -> Vec<u64> {
            let rule = serde_json::from_str(json).unwrap();
            let plan = plan(960, None, Some(35));
            (0..=35).filter(|&done| plan.evaluates_after(&rule, done)).collect()
        };
        assert_eq!(of(r#"{"global_batch": 96}"#), [10, 20, 30, 35]);
        assert_eq!(of(r#"{"global_batch": 96, "eval_every_epochs": 2}"#), [20, 35]);
        assert_eq!(of(r#"{"global_batch": 96, "eval_every_epochs": 0}"#), [35]);
        let both = r#"{"global_batch": 96, "eval_every_epochs": 3, "eval_every_steps": 12}"#;
        assert_eq!(of(both), [12, 24, 30, 35]);
    }

    #[test]
    fn the_mean_of_the_parameters_takes_in_the_ends_of_the_last_epochs_or_every_few_steps() {
        let of = |every_steps| -> Vec<u64> {
            let rule = Swa { from_epoch: 2, every_steps, evaluate: true };
            let plan = plan(960, None, Some(35));
            (1..=35).filter(|&done| plan.averages_after(&rule, done)).collect()
        };
        assert_eq!(of(None), [20, 30]);
        assert_eq!(of(Some(4)), [20, 24, 28, 32]);
    }
}

//! Learning rate as a function of the step. Pure.

use crate::config::{Optimizer, Schedule, ScheduleKind};
use std::f64::consts::PI;

/// The learning rate of each step of a run.
#[derive(Debug, Clone)]
pub struct LearningRate {
    peak: f64,
    schedule: Schedule,
    total: u64,
}

impl LearningRate {
    /// The rates of a run of `total` steps.
    #[must_use]
    pub fn new(optimizer: &Optimizer, schedule: &Schedule, total: u64) -> LearningRate {
        LearningRate { peak: optimizer.lr, schedule: schedule.clone(), total }
    }

    /// The rate of step `step`, counted from 0.
    #[must_use]
    pub fn at(&self, step: u64) -> f64 {
        let warmup = self.schedule.warmup_steps;
        if step < warmup {
            return self.peak * (step + 1) as f64 / warmup as f64;
        }
        let since = step - warmup;
        match self.schedule.kind {
            ScheduleKind::Constant => self.peak,
            ScheduleKind::Step => {
                let every = self.schedule.step_every.unwrap_or(u64::MAX).max(1);
                let drops = i32::try_from(since / every).unwrap_or(i32::MAX);
                self.peak * self.schedule.gamma.unwrap_or(0.1).powi(drops)
            }
            ScheduleKind::Cosine => {
                let low = self.peak * self.schedule.final_fraction.unwrap_or(0.0);
                let length = self.total.saturating_sub(warmup + 1).max(1);
                let share = (since as f64 / length as f64).min(1.0);
                low + (self.peak - low) * 0.5 * (1.0 + (PI * share).cos())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(schedule: Schedule, total: u64) -> Vec<f64> {
        let optimizer = Optimizer { lr: 0.4, ..Optimizer::default() };
        let lr = LearningRate::new(&optimizer, &schedule, total);
        (0..total).map(|step| (lr.at(step) * 1e6).round() / 1e6).collect()
    }

    #[test]
    fn warm_up_rises_in_equal_steps_to_the_peak() {
        let schedule = Schedule { warmup_steps: 4, ..Schedule::default() };
        assert_eq!(rates(schedule, 6), [0.1, 0.2, 0.3, 0.4, 0.4, 0.4]);
    }

    #[test]
    fn step_drops_at_each_interval_after_the_warm_up() {
        let schedule = Schedule {
            kind: ScheduleKind::Step,
            warmup_steps: 1,
            step_every: Some(2),
            gamma: Some(0.5),
            ..Schedule::default()
        };
        assert_eq!(rates(schedule, 6), [0.4, 0.4, 0.4, 0.2, 0.2, 0.1]);
    }

    #[test]
    fn cosine_goes_from_the_peak_to_its_final_fraction_on_the_last_step() {
        let schedule = Schedule {
            kind: ScheduleKind::Cosine,
            final_fraction: Some(0.1),
            ..Schedule::default()
        };
        let rates = rates(schedule, 5);
        assert_eq!((rates[0], rates[2], rates[4]), (0.4, 0.22, 0.04));
    }

    #[test]
    fn a_run_shorter_than_its_warm_up_never_leaves_it() {
        let schedule =
            Schedule { kind: ScheduleKind::Cosine, warmup_steps: 10, ..Schedule::default() };
        assert!(rates(schedule, 5).windows(2).all(|w| w[0] < w[1]));
    }
}

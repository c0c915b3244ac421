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

    /// The rate of step `step`, counted from 0; after the warm-up `dropped`, if a plateau has a say.
    #[must_use]
    pub fn at(&self, step: u64, dropped: Option<f64>) -> f64 {
        let warmup = self.schedule.warmup_steps;
        if step < warmup {
            return self.peak * (step + 1) as f64 / warmup as f64;
        }
        let (since, s) = (step - warmup, &self.schedule);
        let gamma = s.gamma.unwrap_or(0.1);
        let drops = |n: u64| self.peak * gamma.powi(i32::try_from(n).unwrap_or(i32::MAX));
        let every = s.step_every.unwrap_or(u64::MAX).max(1);
        let low = self.peak * s.final_fraction.unwrap_or(0.0);
        // The last step of the run is the end of the curve.
        let length = self.total.saturating_sub(warmup + 1).max(1);
        let share = (since as f64 / length as f64).min(1.0);
        match s.kind {
            ScheduleKind::Constant => self.peak,
            ScheduleKind::Plateau => dropped.unwrap_or(self.peak),
            ScheduleKind::Step => drops(since / every),
            ScheduleKind::MultiStep => {
                drops(s.milestones.partition_point(|&milestone| milestone <= since) as u64)
            }
            ScheduleKind::Exponential => self.peak * gamma.powf(since as f64 / every as f64),
            ScheduleKind::Polynomial => {
                low + (self.peak - low) * (1.0 - share).powf(s.power.unwrap_or(1.0))
            }
            ScheduleKind::Cosine => between(self.peak, low, share),
            ScheduleKind::CosineRestarts => between(self.peak, low, self.share_of_cycle(since)),
            ScheduleKind::OneCycle => self.one_cycle(step),
        }
    }

    /// How far the cycle of the step is that comes `since` steps after the warm-up, 0 at its first step.
    fn share_of_cycle(&self, mut since: u64) -> f64 {
        let mut length = self.schedule.cycle_steps.unwrap_or(u64::MAX).max(1);
        let factor = self.schedule.cycle_factor.unwrap_or(1).max(1);
        if factor == 1 {
            since %= length;
        }
        while since >= length {
            since -= length;
            length = length.saturating_mul(factor);
        }
        since as f64 / length as f64
    }

    /// Two half cosines: up from lr / div_factor to lr, down to the first rate / final_div_factor.
    fn one_cycle(&self, step: u64) -> f64 {
        let s = &self.schedule;
        let first = self.peak / s.div_factor.unwrap_or(25.0);
        let last = first / s.final_div_factor.unwrap_or(1e4);
        let top = s.pct_start.unwrap_or(0.3) * self.total as f64 - 1.0;
        let (end, step) = (self.total as f64 - 1.0, step as f64);
        if step <= top {
            between(first, self.peak, step / top.max(f64::MIN_POSITIVE))
        } else {
            between(self.peak, last, ((step - top) / (end - top)).min(1.0))
        }
    }
}

/// Half a cosine from `from` (share 0) to `to` (share 1).
fn between(from: f64, to: f64, share: f64) -> f64 {
    to + (from - to) * 0.5 * (1.0 + (PI * share).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(schedule: Schedule, total: u64) -> Vec<f64> {
        let optimizer = Optimizer { lr: 0.4, ..Optimizer::default() };
        let lr = LearningRate::new(&optimizer, &schedule, total);
        (0..total).map(|step| (lr.at(step, None) * 1e6).round() / 1e6).collect()
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

    #[test]
    fn multistep_drops_at_each_milestone_and_exponential_falls_smoothly() {
        let schedule = Schedule {
            kind: ScheduleKind::MultiStep,
            warmup_steps: 1,
            milestones: vec![1, 3],
            gamma: Some(0.5),
            ..Schedule::default()
        };
        assert_eq!(rates(schedule, 6), [0.4, 0.4, 0.2, 0.2, 0.1, 0.1]);
        let schedule = Schedule {
            kind: ScheduleKind::Exponential,
            step_every: Some(2),
            gamma: Some(0.25),
            ..Schedule::default()
        };
        assert_eq!(rates(schedule, 5), [0.4, 0.2, 0.1, 0.05, 0.025]);
    }

    #[test]
    fn polynomial_is_a_line_or_bends_and_ends_on_the_last_step() {
        let line = Schedule { kind: ScheduleKind::Polynomial, ..Schedule::default() };
        assert_eq!(rates(line.clone(), 5), [0.4, 0.3, 0.2, 0.1, 0.0]);
        let bent = Schedule { power: Some(2.0), final_fraction: Some(0.5), ..line };
        assert_eq!(rates(bent, 3), [0.4, 0.25, 0.2]);
    }

    #[test]
    fn restarts_begin_again_at_the_peak_in_cycles_that_grow() {
        // torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(T_0=2, T_mult=2, eta_min=0.04), lr 0.4.
        let schedule = Schedule {
            kind: ScheduleKind::CosineRestarts,
            cycle_steps: Some(2),
            cycle_factor: Some(2),
            final_fraction: Some(0.1),
            ..Schedule::default()
        };
        let expected = [0.4, 0.22, 0.4, 0.347279, 0.22, 0.092721, 0.4, 0.386298];
        assert_eq!(rates(schedule.clone(), 8), expected);
        let even = Schedule { cycle_factor: None, ..schedule };
        assert_eq!(rates(even, 6), [0.4, 0.22, 0.4, 0.22, 0.4, 0.22]);
    }

    #[test]
    fn one_cycle_rises_to_the_peak_and_falls_to_almost_nothing() {
        // torch.optim.lr_scheduler.OneCycleLR(max_lr=0.4, total_steps=10).
        let schedule = Schedule { kind: ScheduleKind::OneCycle, ..Schedule::default() };
        let expected =
            [0.016, 0.208, 0.4, 0.380194, 0.324698, 0.244505, 0.155497, 0.075303, 0.019808, 2e-6];
        assert_eq!(rates(schedule, 10), expected);
    }
}

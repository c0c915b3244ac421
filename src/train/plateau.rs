//! When the learning rate drops because a watched number no longer improves. Pure: it sees reduced numbers, so
//! all ranks come to the same decision. Mirrors Keras's `ReduceLROnPlateau`.

use crate::checkpoint::Bits;
use crate::config::{Plateau as Rule, Schedule};
use serde::{Deserialize, Serialize};

/// The history of the watched number, and the learning rate that it has led to.
#[derive(Debug, Clone)]
pub struct Plateau {
    rule: Rule,
    /// Evaluations up to this many steps do not count.
    warmup: u64,
    state: State,
}

/// What a checkpoint holds of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The learning rate after the warm-up.
    lr: Bits,
    /// The best gain so far.
    best: Option<Bits>,
    /// Evaluations without improvement.
    wait: u64,
    /// Evaluations that are still not waited through.
    cooldown: u64,
}

impl Plateau {
    /// The card's rule, if its schedule has one, before the first evaluation; `lr` is the peak.
    #[must_use]
    pub fn new(schedule: &Schedule, lr: f64) -> Option<Plateau> {
        let rule = schedule.plateau()?;
        let state = State { lr: Bits(lr), best: None, wait: 0, cooldown: 0 };
        Some(Plateau { rule, warmup: schedule.warmup_steps, state })
    }

    /// The learning rate after the warm-up.
    #[must_use]
    pub fn lr(&self) -> f64 {
        self.state.lr.0
    }

    /// What is watched.
    #[must_use]
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// For a checkpoint.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Goes on from a checkpoint.
    pub fn go_on(&mut self, state: State) {
        self.state = state;
    }

    /// Takes in the watched number of the evaluation after `done` steps; gives the learning rate if it drops.
    pub fn see(&mut self, done: u64, value: f64) -> Option<f64> {
        if done <= self.warmup {
            return None;
        }
        let (rule, state) = (&self.rule, &mut self.state);
        let now = rule.monitor.gain(rule.mode, value);
        if state.cooldown > 0 {
            state.cooldown -= 1;
            state.wait = 0;
        }
        // What is no number never improves, not even at first.
        if now > state.best.map_or(f64::NEG_INFINITY, |best| best.0) + rule.min_delta {
            (state.best, state.wait) = (Some(Bits(now)), 0);
            return None;
        }
        if state.cooldown > 0 {
            return None;
        }
        state.wait += 1;
        let old = state.lr.0;
        if state.wait < rule.patience || old <= rule.min_lr {
            return None;
        }
        state.lr = Bits((old * rule.factor).max(rule.min_lr));
        (state.cooldown, state.wait) = (rule.cooldown, 0);
        Some(state.lr.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Mode, Monitor, ScheduleKind};

    fn plateau(rule: Rule) -> Plateau {
        let schedule = Schedule {
            kind: ScheduleKind::Plateau,
            warmup_steps: 5,
            plateau: Some(rule),
            ..Schedule::default()
        };
        Plateau::new(&schedule, 0.8).unwrap()
    }

    /// The rate after each of these losses.
    fn rates(plateau: &mut Plateau, losses: &[f64]) -> Vec<f64> {
        let mut see = |&loss| {
            plateau.see(6, loss);
            plateau.lr()
        };
        losses.iter().map(&mut see).collect()
    }

    /// Keras 3's callback, driven by hand with the same losses, gives these rates.
    #[test]
    fn the_rate_drops_as_in_keras() {
        let rule = Rule { factor: 0.5, patience: 2, cooldown: 2, ..Rule::default() };
        let losses = [1.0, 1.0, 0.99995, 1.0, 1.0, 1.0, 1.0, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6];
        let expected = [0.8, 0.8, 0.4, 0.4, 0.4, 0.2, 0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.05];
        assert_eq!(rates(&mut plateau(rule), &losses), expected);
    }

    #[test]
    fn the_rate_stops_at_its_least_and_a_loss_that_is_no_number_is_no_improvement() {
        let rule = Rule { patience: 1, min_lr: 0.3, factor: 0.5, ..Rule::default() };
        let mut p = plateau(rule);
        assert_eq!(rates(&mut p, &[1.0, f64::NAN, 1.0, 1.0]), [0.8, 0.4, 0.3, 0.3]);
        assert_eq!(p.see(6, 1.0), None);
    }

    #[test]
    fn evaluations_during_the_warm_up_do_not_count() {
        let rule = Rule { patience: 1, ..Rule::default() };
        let mut p = plateau(rule);
        let fresh = p.state();
        assert_eq!((p.see(4, 0.1), p.see(5, 9.0)), (None, None));
        assert_eq!(p.state(), fresh);
        assert_eq!((p.see(6, 9.0), p.see(7, 9.0)), (None, Some(0.8 * 0.1)));
    }

    #[test]
    fn what_rises_is_watched_by_its_name_or_by_the_mode() {
        for (monitor, mode) in [(Monitor::Accuracy, Mode::Auto), (Monitor::Loss, Mode::Max)] {
            let mut p = plateau(Rule { monitor, mode, patience: 1, ..Rule::default() });
            assert!(p.see(6, 0.5).is_none() && p.see(7, 0.6).is_none() && p.see(8, 0.6).is_some());
        }
    }

    #[test]
    fn a_history_goes_on_where_it_was_saved() {
        let rule = Rule { factor: 0.5, patience: 3, cooldown: 1, ..Rule::default() };
        let losses = [1.0, 0.9, 0.9, 0.9, 0.9, 0.95, 0.9, 0.9, 0.8, 0.9, 0.9, 0.9];
        let whole = rates(&mut plateau(rule.clone()), &losses);
        for cut in 0..losses.len() {
            let mut first = plateau(rule.clone());
            let mut found = rates(&mut first, &losses[..cut]);
            let text = serde_json::to_string(&first.state()).unwrap();
            let mut second = plateau(rule.clone());
            second.go_on(serde_json::from_str(&text).unwrap());
            found.extend(rates(&mut second, &losses[cut..]));
            assert_eq!(found, whole, "cut at {cut}");
        }
    }
}

//! When to stop, and which evaluation was the best. Pure: it sees reduced numbers, so all ranks come
//! to the same decision. Mirrors Keras's `EarlyStopping` (monitor, patience, min_delta).

use crate::config::EarlyStopping;

/// The history of the watched number.
#[derive(Debug, Clone)]
pub struct Watcher {
    rule: EarlyStopping,
    best: Option<f64>,
    waited: u64,
}

/// What an evaluation means for the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The best so far: keep these parameters.
    pub improved: bool,
    /// Patience is at its end.
    pub stop: bool,
}

impl Watcher {
    /// A watcher that has seen nothing.
    #[must_use]
    pub fn new(rule: EarlyStopping) -> Watcher {
        Watcher { rule, best: None, waited: 0 }
    }

    /// Takes in the watched number of an evaluation.
    pub fn see(&mut self, value: f64) -> Verdict {
        let now = self.rule.monitor.gain(self.rule.mode, value);
        // What is no number never improves, not even at first.
        let improved = now > self.best.unwrap_or(f64::NEG_INFINITY) + self.rule.min_delta;
        if improved {
            self.best = Some(now);
            self.waited = 0;
        } else {
            self.waited += 1;
        }
        Verdict { improved, stop: self.waited >= self.rule.patience && !improved }
    }

    /// The history: the best gain, if there is one, and the evaluations since it.
    #[must_use]
    pub fn history(&self) -> (Option<f64>, u64) {
        (self.best, self.waited)
    }

    /// Goes on from a history.
    pub fn go_on(&mut self, (best, waited): (Option<f64>, u64)) {
        (self.best, self.waited) = (best, waited);
    }

    /// Whether the run ends with the best parameters instead of the last.
    #[must_use]
    pub fn restores_best(&self) -> bool {
        self.rule.restore_best_weights
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Mode, Monitor};

    fn watcher(monitor: Monitor, patience: u64, min_delta: f64) -> Watcher {
        let (mode, restore_best_weights) = (Mode::Auto, true);
        Watcher::new(EarlyStopping { monitor, patience, min_delta, mode, restore_best_weights })
    }

    #[test]
    fn stops_after_patience_evaluations_without_improvement() {
        let mut w = watcher(Monitor::Accuracy, 2, 0.0);
        let verdicts: Vec<_> = [0.5, 0.7, 0.7, 0.6].iter().map(|&a| w.see(a)).collect();
        assert_eq!(
            verdicts.iter().map(|v| v.improved).collect::<Vec<_>>(),
            [true, true, false, false]
        );
        assert_eq!(
            verdicts.iter().map(|v| v.stop).collect::<Vec<_>>(),
            [false, false, false, true]
        );
    }

    #[test]
    fn a_smaller_loss_improves_and_a_gain_below_min_delta_does_not() {
        let mut w = watcher(Monitor::Loss, 1, 0.1);
        assert!(w.see(1.0).improved);
        assert!(w.see(0.8).improved);
        assert_eq!(w.see(0.75), Verdict { improved: false, stop: true });
    }

    #[test]
    fn a_loss_that_is_no_number_is_no_improvement() {
        let mut w = watcher(Monitor::Loss, 2, 0.0);
        assert!(!w.see(f64::NAN).improved && w.see(1.0).improved);
        assert!(!w.see(f64::NAN).stop && w.see(f64::NAN).stop);
    }

    #[test]
    fn the_mode_decides_what_an_improvement_is() {
        let mut w = watcher(Monitor::Accuracy, 1, 0.0);
        w.rule.mode = Mode::Min;
        assert!(w.see(0.5).improved && w.see(0.4).improved && !w.see(0.6).improved);
    }
}

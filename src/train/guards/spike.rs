//! Is the loss far above the last ones? Pure: it sees reduced numbers, so all ranks decide alike.
//!
//! PaLM's runs (Chowdhery et al., 2022, section 5.1) met such spikes and went round them by leaving
//! batches out.

use crate::checkpoint::Bits;
use crate::config::Spike;
use serde::{Deserialize, Serialize};

/// The losses of the last steps that were updated, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Window(Vec<Bits>);

impl Window {
    /// The loss above which a step is a spike; infinite until the window is full.
    #[must_use]
    pub fn limit(&self, rule: &Spike) -> f64 {
        self.median(rule).map_or(f64::INFINITY, |median| rule.factor * median)
    }

    /// What is to be said of `loss`, if it is a spike.
    #[must_use]
    pub fn describe(&self, rule: &Spike, loss: f64) -> Option<String> {
        let median = self.median(rule).filter(|_| loss > self.limit(rule))?;
        let (factor, window) = (rule.factor, rule.window);
        Some(format!(
            "the loss is {loss}, more than {factor} × {median}, the median of the last {window} steps"
        ))
    }

    /// Takes a loss in; the oldest goes.
    pub fn push(&mut self, rule: &Spike, loss: f64) {
        self.0.push(Bits(loss));
        let over = self.0.len().saturating_sub(rule.window);
        self.0.drain(..over);
    }

    /// The upper median, once the window is full.
    fn median(&self, rule: &Spike) -> Option<f64> {
        let mut losses: Vec<f64> = self.0.iter().map(|loss| loss.0).collect();
        losses.sort_by(f64::total_cmp);
        losses.get(losses.len() / 2).copied().filter(|_| losses.len() >= rule.window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SpikeAction;

    #[test]
    fn a_spike_is_far_above_the_median_of_a_full_window_and_of_nothing_else() {
        let rule = Spike { factor: 3.0, window: 3, action: SpikeAction::Warn };
        let mut window = Window::default();
        for loss in [1.0, 100.0] {
            assert_eq!(window.limit(&rule), f64::INFINITY);
            window.push(&rule, loss);
        }
        window.push(&rule, 2.0);
        assert_eq!(window.limit(&rule), 6.0);
        assert_eq!(window.describe(&rule, 6.0), None);
        let text = window.describe(&rule, 6.5).unwrap();
        assert!(text.contains("6.5, more than 3 × 2, the median of the last 3 steps"), "{text}");
        window.push(&rule, 1.0);
        window.push(&rule, 1.0);
        assert_eq!(window.limit(&rule), 3.0);
    }
}

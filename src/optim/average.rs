//! An average of the parameters over a run, kept beside them: of all steps with weights that fade (EMA), as
//! `torch.optim.swa_utils.get_ema_multi_avg_fn`, or of some moments with equal weights (SWA: Izmailov et al.,
//! 2018), as `get_swa_multi_avg_fn` there.
//!
//! Both are average += share · (parameter − average), with share 1 at first: one pass over both.

use super::State;
use super::state::{self, Moment};
use crate::error::Result;
use crate::util::wide::wide;

/// The average and how often it has taken in the parameters.
pub struct Average {
    rule: Rule,
    values: Moment,
    taken: u64,
    /// Weight of the newest parameters.
    share: f32,
}

/// What the average is of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// Every step keeps `decay` of the average. With `warmup`, min(decay, (1 + t) / (10 + t)) in the step after
    /// t others, as TensorFlow's `ExponentialMovingAverage` with `num_updates`.
    Ema {
        /// Close to 1.
        decay: f64,
        /// Whether the first steps keep less.
        warmup: bool,
    },
    /// All moments alike.
    Swa,
}

impl Rule {
    /// What the average is called in checkpoints.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Rule::Ema { .. } => "ema",
            Rule::Swa => "swa",
        }
    }

    /// Weight of the newest parameters after `taken` others.
    fn share(self, taken: u64) -> f64 {
        match self {
            _ if taken == 0 => 1.0,
            Rule::Swa => 1.0 / (taken + 1) as f64,
            Rule::Ema { decay, warmup: false } => 1.0 - decay,
            Rule::Ema { decay, warmup: true } => {
                let t = taken as f64;
                1.0 - decay.min((1.0 + t) / (10.0 + t))
            }
        }
    }
}

impl Average {
    /// An average for parameters of the given lengths.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new(rule: Rule, lens: &[usize]) -> Result<Average> {
        Ok(Average { rule, values: Moment::new(rule.name(), lens)?, taken: 0, share: 1.0 })
    }

    /// How often it has taken in the parameters.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Begins to take in the parameters; [`Average::take`] follows once for each of them.
    pub fn begin(&mut self) {
        self.share = self.rule.share(self.taken) as f32;
        self.taken += 1;
    }

    /// Takes in parameter `i`.
    ///
    /// # Panics
    /// When its length is not the one that the average was made for.
    pub fn take(&mut self, i: usize, theta: &[f32]) {
        let average = self.values.slot(i);
        assert_eq!(theta.len(), average.len(), "parameter {i}: values and average");
        blend(self.share, theta, average);
    }

    /// The average of parameter `i`.
    pub fn of(&mut self, i: usize) -> &mut [f32] {
        self.values.slot(i)
    }

    /// Shows `see` the average of each parameter, under its name.
    pub fn visit(&self, see: &mut dyn FnMut(&'static str, usize, &[f32])) {
        self.values.visit(see);
    }

    /// Adds it to the memory of an optimizer that is saved.
    pub fn save_in(&self, state: &mut State) {
        state.moments.extend(state::save("", 0, &[&self.values]).moments);
        state.averaged = self.taken;
    }

    /// Goes on from a memory that [`Average::save_in`] was called with, and takes its part out of it.
    ///
    /// # Errors
    /// [`crate::error::Error::Data`] when it has no such part, or one of other lengths or with NaN or infinity.
    pub fn load_from(&mut self, state: &mut State) -> Result<()> {
        let at = state.moments.len().saturating_sub(1);
        let (name, moments) = (self.rule.name(), state.moments.split_off(at));
        let own = State { kind: name.to_owned(), step: state.averaged, moments, averaged: 0 };
        self.taken = state::load(name, &own, &mut [&mut self.values])?;
        Ok(())
    }
}

wide! {
    fn blend(share: f32, theta: &[f32], average: &mut [f32]) {
        for (a, &p) in average.iter_mut().zip(theta) {
            *a += share * (p - *a);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The average after each of some steps of one parameter, by the usual form of the recursion in `f64`.
    fn expected(rule: Rule, values: &[f64]) -> Vec<f64> {
        let mut average = 0.0;
        let step = |(t, value): (usize, &f64)| {
            let keep = match rule {
                _ if t == 0 => 0.0,
                Rule::Swa => t as f64 / (t + 1) as f64,
                Rule::Ema { decay, warmup: true } => decay.min((1 + t) as f64 / (10 + t) as f64),
                Rule::Ema { decay, .. } => decay,
            };
            average = keep * average + (1.0 - keep) * value;
            average
        };
        values.iter().enumerate().map(step).collect()
    }

    const SLOW: Rule = Rule::Ema { decay: 0.9, warmup: false };
    const FAST: Rule = Rule::Ema { decay: 0.6, warmup: true };

    #[test]
    fn each_rule_is_its_recursion_and_goes_on_where_it_was_saved() {
        let values: Vec<f64> = (0..40).map(|i| f64::from(i * i % 17) - 5.0).collect();
        for rule in [SLOW, FAST, Rule::Swa] {
            let mut average = Average::new(rule, &[1, 20]).unwrap();
            for (t, (value, expected)) in values.iter().zip(expected(rule, &values)).enumerate() {
                if t == 23 {
                    let mut state = State::default();
                    average.save_in(&mut state);
                    average = Average::new(rule, &[1, 20]).unwrap();
                    average.load_from(&mut state).unwrap();
                    assert!(state.moments.is_empty());
                }
                average.begin();
                average.take(0, &[*value as f32]);
                average.take(1, &[2.0 * *value as f32; 20]);
                let (one, two) = (average.of(0)[0], average.of(1)[19]);
                assert!((f64::from(one) - expected).abs() < 3e-6, "{rule:?} {t}: {one} {expected}");
                assert_eq!(two, 2.0 * one);
            }
        }
    }

    #[test]
    fn the_first_parameters_are_the_average() {
        let mut average = Average::new(Rule::Ema { decay: 0.999, warmup: false }, &[2]).unwrap();
        average.begin();
        average.take(0, &[0.1, -3.0e-39]);
        assert_eq!(average.of(0), [0.1, -3.0e-39]);
    }

    #[test]
    fn the_memory_of_another_run_is_refused() {
        let mut state = State::default();
        Average::new(Rule::Swa, &[2]).unwrap().save_in(&mut state);
        let mut other = Average::new(Rule::Swa, &[3]).unwrap();
        assert_eq!(other.load_from(&mut state.clone()).unwrap_err().exit_code(), 65);
        let mut ema = Average::new(SLOW, &[2]).unwrap();
        assert_eq!(ema.load_from(&mut state).unwrap_err().exit_code(), 65);
        assert_eq!(ema.load_from(&mut State::default()).unwrap_err().exit_code(), 65);
    }
}

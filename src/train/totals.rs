//! Sums and smoothed numbers of a run, for people.

use super::step::StepReport;
use super::tally::Tally;
use crate::report::console::Progress;
use std::time::Duration;

/// Smoothed numbers for the progress bar: exponential means over about 50 steps.
#[derive(Default)]
pub struct Recent {
    /// What the bar shows.
    pub progress: Progress,
    seconds: f64,
    comm: f64,
    samples: f64,
    /// Sums of the epoch so far, not smoothed.
    pub epoch_tally: Tally,
}

/// Sums over the run.
#[derive(Default)]
pub struct Totals {
    /// Steps taken or skipped.
    pub steps: u64,
    /// Labels trained on.
    pub samples: f64,
    /// Wall time of the steps.
    pub wall: Duration,
    /// Of that, spent in gradient reduction.
    pub comm: Duration,
    /// Mean loss of the last step.
    pub loss: f64,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Steps whose update was left out.
    pub skipped: u64,
}

impl Totals {
    /// Takes in a step.
    pub fn add(&mut self, taken: &StepReport) {
        self.steps += 1;
        self.samples += taken.tally.count;
        self.wall += taken.wall;
        self.comm += taken.comm;
        self.loss = taken.tally.mean_loss();
        self.lr = taken.lr;
    }

    /// Share of training time spent in gradient reduction.
    #[must_use]
    pub fn comm_share(&self) -> f64 {
        self.comm.as_secs_f64() / self.wall.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

impl Recent {
    /// Takes in a step.
    pub fn add(&mut self, taken: &StepReport) {
        self.epoch_tally += taken.tally;
        // Weight of the newest step: 1 at first, 1/50 later.
        let share = (1.0 / (self.progress.step + 1) as f64).max(0.02);
        let blend = |old: &mut f64, new: f64| *old += share * (new - *old);
        blend(&mut self.progress.loss, taken.tally.mean_loss());
        blend(&mut self.progress.accuracy, taken.tally.accuracy());
        blend(&mut self.seconds, taken.wall.as_secs_f64());
        blend(&mut self.comm, taken.comm.as_secs_f64());
        blend(&mut self.samples, taken.tally.count);
        self.progress.lr = taken.lr;
        self.progress.samples_per_s = self.samples / self.seconds;
        self.progress.comm_share = self.comm / self.seconds;
    }
}

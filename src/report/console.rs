//! What a person sees: a heading, a progress bar or plain lines, a last block.

use super::terminal;
use crate::util::human;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::Write;
use std::time::{Duration, Instant};

/// Without a terminal, a line about progress comes this often at the most.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The numbers of the moment, smoothed over the last steps.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// The epoch, counted from 1.
    pub epoch: u64,
    /// Mean training loss.
    pub loss: f64,
    /// Training accuracy, 0..1; NaN where numbers are predicted.
    pub accuracy: f64,
    /// Learning rate.
    pub lr: f64,
    /// Samples (tokens, of text) per second, all ranks together.
    pub samples_per_s: f64,
    /// Share of the time spent in gradient reduction, 0..1.
    pub comm_share: f64,
}

/// Prints a line to standard output. A reader that has gone away must not end the run.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// The screen of rank 0; on the other ranks nothing is shown.
pub struct Console {
    shown: bool,
    bar: Option<ProgressBar>,
    total: u64,
    /// Steps done when this process began.
    from: u64,
    started: Instant,
    last_line: Instant,
}

impl Console {
    /// A screen, or a silent stand-in for it.
    #[must_use]
    pub fn new(shown: bool) -> Console {
        let now = Instant::now();
        Console { shown, bar: None, total: 0, from: 0, started: now, last_line: now }
    }

    /// Prints one line above the bar.
    pub fn line(&self, text: &str) {
        match &self.bar {
            _ if !self.shown => {}
            Some(bar) => bar.println(text),
            None => say(text),
        }
    }

    /// Prints `label  text` with all labels of one width.
    pub fn fact(&self, label: &str, text: &str) {
        self.line(&format!("  {label:<10} {text}"));
    }

    /// Training begins, or goes on after `from` of its `total` steps.
    pub fn start(&mut self, total: u64, from: u64) {
        (self.total, self.from) = (total, from);
        self.started = Instant::now();
        self.last_line = self.started;
        if !self.shown {
            return;
        }
        if let Some(target) = terminal::draw_target() {
            let bar = ProgressBar::with_draw_target(Some(total), target);
            // A template that does not parse leaves indicatif's default style, which is fine.
            if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len}  {msg}") {
                bar.set_style(style.progress_chars("━╸─"));
            }
            self.bar = Some(bar);
        }
    }

    /// Shows how far training is.
    pub fn progress(&mut self, now: &Progress) {
        if !self.shown {
            return;
        }
        if let Some(bar) = &self.bar {
            bar.set_message(self.describe(now));
            bar.set_position(now.step);
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            say(&format!("  step {}/{}  {}", now.step, self.total, self.describe(now)));
        }
    }

    /// Training is over: the bar goes, what was printed stays.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn describe(&self, now: &Progress) -> String {
        let (done, ahead) =
            (now.step - self.from.min(now.step), self.total - self.from.min(self.total));
        let share = done as f64 / ahead.max(1) as f64;
        let left = self.started.elapsed().mul_f64((1.0 - share) / share.max(1e-9));
        let accuracy = if now.accuracy.is_nan() {
            String::new()
        } else {
            format!("  acc {:.2} %", 100.0 * now.accuracy)
        };
        format!(
            "epoch {}  loss {:.4}{accuracy}  lr {:.2e}  {}/s  comm {:.0} %  left {}",
            now.epoch,
            now.loss,
            now.lr,
            human::count(now.samples_per_s as u64),
            100.0 * now.comm_share,
            human::duration(left),
        )
    }
}

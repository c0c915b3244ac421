//! What a learning rate range test found: numbers, a suggestion, a page.

use super::axis::{Axis, Scale, short};
use super::page;
use super::plot::{Look, Plot, Series};
use crate::error::{Error, Result};
use crate::util::files::write_whole;
use serde::Serialize;
use std::path::Path;

/// The rates of the test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Range {
    /// The rate of the first step.
    pub from: f64,
    /// The rate of the last step.
    pub to: f64,
    /// How many steps there are if the loss allows.
    pub steps: u64,
}

impl Range {
    /// The rate of step `step`, counted from 0: each is the one before times the same factor.
    #[must_use]
    pub fn rate(&self, step: u64) -> f64 {
        let share = step as f64 / (self.steps.saturating_sub(1)).max(1) as f64;
        self.from * (self.to / self.from).powf(share)
    }
}

/// One step of the test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Its learning rate.
    pub lr: f64,
    /// Mean loss of its batch, before the update.
    pub loss: f64,
    /// The smoothed loss.
    pub smoothed: f64,
}

/// An exponential mean whose weights always add up to 1: divided by what the weights so far add up to, as
/// Adam's moments are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Smooth {
    mean: f64,
    count: i32,
}

impl Smooth {
    /// As in fastai.
    const BETA: f64 = 0.98;

    /// Takes in a value and gives the mean.
    pub fn add(&mut self, value: f64) -> f64 {
        self.mean = Self::BETA * self.mean + (1.0 - Self::BETA) * value;
        self.count = self.count.saturating_add(1);
        self.mean / (1.0 - Self::BETA.powi(self.count))
    }
}

/// Rates to train with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Suggestion {
    /// Where the smoothed loss falls fastest over the logarithm of the rate.
    pub steepest: f64,
    /// A tenth of the rate at which it is lowest.
    pub lowest_over_ten: f64,
}

/// The suggestion: as in fastai, the first tenth of the steps does not count, nor do the last five, where the loss
/// may rise already. `None` where fewer than two points are left.
#[must_use]
pub fn suggest(points: &[Point], range: &Range) -> Option<Suggestion> {
    let begin = (range.steps / 10) as usize;
    let end = points.len().saturating_sub(5);
    let counted = points.get(begin..end).filter(|counted| counted.len() >= 2)?;
    let slope = |pair: &[Point]| {
        (pair[1].smoothed - pair[0].smoothed) / (pair[1].lr.ln() - pair[0].lr.ln())
    };
    let steepest = counted.windows(2).min_by(|a, b| slope(a).total_cmp(&slope(b)))?[0].lr;
    let lowest = counted.iter().min_by(|a, b| a.smoothed.total_cmp(&b.smoothed))?.lr;
    Some(Suggestion { steepest, lowest_over_ten: lowest / 10.0 })
}

/// What the files hold.
#[derive(Debug, Serialize)]
pub struct Found<'a> {
    /// The card, as it was named.
    pub card: &'a str,
    /// The rates that were asked for.
    #[serde(flatten)]
    pub range: Range,
    /// Why the test ended: `diverged` or `all steps taken`.
    pub end: &'static str,
    /// The rates to take.
    pub suggestion: Option<Suggestion>,
    /// All steps.
    pub points: &'a [Point],
}

impl Found<'_> {
    /// Writes `lr-find.json` and `lr-find.html` into `folder`. Neither has a time in it.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(|e| Error::writing(folder, &e))?;
        let mut json = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::Internal(format!("the test as JSON: {e}")))?;
        json.push(b'\n');
        write_whole(&folder.join("lr-find.json"), &json)?;
        write_whole(&folder.join("lr-find.html"), self.page().as_bytes())
    }

    /// The two axes of its pictures.
    #[must_use]
    pub fn axes() -> (Axis, Axis) {
        (Axis::new("learning rate", Scale::Log), Axis::new("loss", Scale::Linear))
    }

    fn page(&self) -> String {
        // A single batch of a test that diverges can be far above all else: the curve matters.
        let highest = self.points.iter().map(|p| p.smoothed).fold(f64::MIN, f64::max);
        let of = |value: fn(&Point) -> f64| {
            let drawn = self.points.iter().filter(|p| value(p) <= 1.5 * highest);
            drawn.map(|p| (p.lr, value(p), String::new())).collect()
        };
        let (x, y) = Self::axes();
        let marks = self.suggestion.map_or(Vec::new(), |s| {
            vec![
                (s.steepest, format!("steepest {}", short(s.steepest))),
                (s.lowest_over_ten, String::new()),
            ]
        });
        let series = vec![
            Series { points: of(|p| p.loss), look: Look::Faint },
            Series { points: of(|p| p.smoothed), look: Look::Line },
        ];
        let mut html = page::begin(&format!("Learning rate range test: {}", self.card));
        html += &format!(
            "<p>{} steps, the rate from {} up to {}; {}. Grey: the loss of each batch; blue: smoothed; \
             dashed: the suggestions.</p>\n",
            self.points.len(),
            short(self.range.from),
            short(self.points.last().map_or(self.range.to, |p| p.lr)),
            self.end
        );
        html += &Plot { x, y, series, marks }.svg();
        html += &match self.suggestion {
            Some(s) => format!(
                "<table><tr><th>the loss falls fastest at<td>{}</tr><tr><th>a tenth of the rate at which it \
                 is lowest<td>{}</tr></table>\n",
                short(s.steepest),
                short(s.lowest_over_ten)
            ),
            None => "<p>Too few steps for a suggestion.</p>\n".to_owned(),
        };
        html
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: Range = Range { from: 1e-6, to: 1.0, steps: 61 };

    fn points(loss: impl Fn(f64) -> f64) -> Vec<Point> {
        (0..RANGE.steps)
            .map(|step| {
                let lr = RANGE.rate(step);
                Point { lr, loss: loss(lr), smoothed: loss(lr) }
            })
            .collect()
    }

    #[test]
    fn the_rate_rises_by_one_factor_from_the_first_step_to_the_last() {
        assert_eq!((RANGE.rate(0), RANGE.rate(60)), (1e-6, 1.0));
        assert!((RANGE.rate(30) / 1e-3 - 1.0).abs() < 1e-12);
        let one = Range { steps: 1, ..RANGE };
        assert_eq!(one.rate(0), 1e-6);
    }

    #[test]
    fn the_smoothed_loss_of_a_constant_is_that_constant_from_the_first_step_on() {
        let mut smooth = Smooth::default();
        for _ in 0..300 {
            assert!((smooth.add(2.5) - 2.5).abs() < 1e-12);
        }
        // Two values: (0.98 × 0.02 × 1 + 0.02 × 3) / (1 − 0.98²).
        let mut smooth = Smooth::default();
        smooth.add(1.0);
        assert!((smooth.add(3.0) - 0.0796 / 0.0396).abs() < 1e-12);
    }

    #[test]
    fn the_suggestion_is_where_a_sigmoid_falls_fastest_and_a_tenth_of_its_lowest_point() {
        // Falls fastest at 1e-3; its lowest point within the counted steps is at 1e-1, before it rises.
        let loss = |lr: f64| {
            let x: f64 = lr.log10();
            1.0 / (1.0 + (4.0 * (x + 3.0)).exp()) + if x > -1.0 { 5.0 * (x + 1.0) } else { 0.0 }
        };
        let found = suggest(&points(loss), &RANGE).unwrap();
        assert!((0.5e-3..2e-3).contains(&found.steepest), "{found:?}");
        assert!((found.lowest_over_ten / 1e-2 - 1.0).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn a_test_that_ends_at_once_has_no_suggestion_but_a_page() {
        let points = points(|_| 1.0);
        assert_eq!(suggest(&points[..8], &RANGE), None);
        assert_eq!(suggest(&[], &RANGE), None);
        let folder = tempfile::tempdir().unwrap();
        let found = Found {
            card: "a<b",
            range: RANGE,
            end: "diverged",
            suggestion: None,
            points: &points[..8],
        };
        found.write(folder.path()).unwrap();
        let page = std::fs::read_to_string(folder.path().join("lr-find.html")).unwrap();
        assert!(page.contains("Too few steps") && page.contains("a&lt;b"), "{page}");
        let json = std::fs::read(folder.path().join("lr-find.json")).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!((&json["steps"], json["points"].as_array().unwrap().len()), (&61.into(), 8));
    }
}

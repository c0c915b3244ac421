//! The learning rate range test (Smith, "Cyclical learning rates for training neural networks", WACV 2017),
//! with the choices of fastai's `lr_find`: the rate rises by the same factor from step to step, the loss is
//! smoothed, and the test ends when the smoothed loss is far above its lowest.
//!
//! All numbers are sums over all ranks, so every rank sees the same ones and stops after the same step.

use super::Plan;
use super::device::Choice;
use super::leaves::Leaves;
use super::setup::Job;
use super::step::{self, Settings};
use super::wishes::Votes;
use crate::collective::Group;
use crate::config::Card;
use crate::data::Loader;
use crate::error::{Error, Result};
use crate::report::lr_range::{Point, Range, Smooth};

/// The test ends when the smoothed loss is above so many times its lowest.
const DIVERGED: f64 = 4.0;

/// Takes up to `range.steps` steps of the card's job at rising rates and tells the loss before each; nothing is
/// evaluated or written. The same on all ranks.
///
/// # Errors
/// As [`super::run()`], up to the first step; [`Error::NonFinite`] when the first loss is not finite.
pub fn lr_find(card: Card, device: Choice, range: &Range, group: &mut Group) -> Result<Vec<Point>> {
    let mut job = Job::prepare(card, device, group)?;
    job.probe(group)?;
    let plan = Plan { total_steps: range.steps, ..job.plan };
    let feed = job.feed(&plan, 0, group.rank(), group.size());
    let mut loader = Loader::start(job.train.clone(), feed)?;
    let mut leaves = Leaves::of(&job.card, job.replica.params.grads(), group)?;
    let (mut points, mut smooth, mut lowest) = (Vec::new(), Smooth::default(), f64::INFINITY);
    for step in 0..range.steps {
        let (card, votes, limit) = (&job.card, Votes::default(), f64::INFINITY);
        let settings = Settings {
            card,
            overlap: false,
            leaves: leaves.as_mut(),
            votes,
            loss_scale: None,
            limit,
        };
        let lr = range.rate(step);
        let taken = step::take(&mut job.replica, &mut loader, group, settings, step, lr)?;
        if !taken.updated {
            break;
        }
        let loss = taken.tally.mean_loss();
        let smoothed = smooth.add(loss);
        points.push(Point { lr, loss, smoothed });
        lowest = lowest.min(smoothed);
        if smoothed > DIVERGED * lowest {
            break;
        }
    }
    if points.is_empty() {
        let text = "the loss or gradient of the first step is not finite, before any learning rate \
                    could matter: look at the data and at model.init";
        return Err(group.common_failure(Error::NonFinite(text.to_owned())));
    }
    Ok(points)
}

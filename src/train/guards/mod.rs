//! What is watched while a run goes on: are the numbers finite, is the loss like
//! the last ones, are all replicas still the same?
//!
//! Every decision here follows from numbers that all ranks have alike, so they stop, skip or go on
//! together.

mod loss_scale;
mod non_finite;
pub mod replicas;
pub mod rewind;
mod spike;

use super::faults;
use super::setup::Job;
use super::step::StepReport;
use crate::collective::Group;
use crate::config::{self, Card, NonFinite, SpikeAction};
use crate::error::{Error, Result};
use loss_scale::LossScale;
use replicas::Replicas;
use serde::{Deserialize, Serialize};
use spike::Window;
use std::path::Path;

/// So many times that a run went back are kept in its checkpoints; `metrics.jsonl` has all.
const REMEMBERED: usize = 1000;

/// What the guards know of the run so far: saved in every checkpoint.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// Steps without an update, up to now without a break.
    in_a_row: u64,
    /// The loss scale, where the card has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    loss_scale: Option<LossScale>,
    /// The last losses, where spikes are watched for.
    losses: Window,
    /// Steps that left no trace since the run went back to before them: first and last, from 1.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    passed_over: Vec<[u64; 2]>,
}

/// The guards of a run.
pub struct Guards {
    rule: config::Guards,
    scaling: Option<config::LossScale>,
    replicas: Replicas,
    state: State,
}

impl Guards {
    /// The guards that `card` asks for, of a run that goes on with `state` after `done` of `total`
    /// steps.
    #[must_use]
    pub fn new(card: &Card, mut state: State, done: u64, total: u64) -> Guards {
        let (rule, scaling) = (card.guards.clone(), card.train.loss_scale.clone());
        if let Some(rule) = &scaling {
            state.loss_scale.get_or_insert_with(|| LossScale::new(rule));
        }
        let replicas = Replicas::new(rule.replicas_every, done, total);
        Guards { rule, scaling, replicas, state }
    }

    /// What the loss of the next step is multiplied by, where the card wants that.
    #[must_use]
    pub fn loss_scale(&self) -> Option<u32> {
        self.state.loss_scale.map(LossScale::get)
    }

    fn rescale(&mut self, finite: bool) {
        if let (Some(rule), Some(scale)) = (&self.scaling, &mut self.state.loss_scale) {
            scale.see(rule, finite);
        }
    }

    /// The watch over replicas.
    #[must_use]
    pub fn replicas(&self) -> &Replicas {
        &self.replicas
    }

    /// For a checkpoint.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.clone()
    }

    /// The loss above which the next step is to be taken without its update.
    #[must_use]
    pub fn limit(&self) -> f64 {
        match &self.rule.spike {
            Some(spike) if spike.action != SpikeAction::Warn => self.state.losses.limit(spike),
            _ => f64::INFINITY,
        }
    }

    /// A step was taken with its update. Gives what is to be said of its loss.
    pub fn updated(&mut self, taken: &StepReport) -> Option<String> {
        self.state.in_a_row = 0;
        self.rescale(true);
        let spike = self.rule.spike.as_ref()?;
        let loss = taken.tally.mean_loss();
        let told = self.state.losses.describe(spike, loss);
        self.state.losses.push(spike, loss);
        told
    }

    /// Step `step` (from 0) was taken, but its loss or gradient is not finite, or its loss a spike, and
    /// nothing was updated. Gives why, if the run goes on.
    ///
    /// # Errors
    /// [`Error::NonFinite`] on all ranks, naming rank, tensor and samples, when the card says so or too
    /// many steps were skipped in a row.
    pub fn withheld(
        &mut self,
        step: u64,
        taken: &StepReport,
        job: &Job,
        group: &mut Group,
    ) -> Result<String> {
        let (loss, norm) = (taken.tally.mean_loss(), taken.grad_norm);
        let finite = taken.is_finite();
        self.state.in_a_row += 1;
        self.rescale(finite);
        let spike = self.rule.spike.as_ref().filter(|_| finite);
        let scales = !finite && taken.loss_scale.is_some();
        let stops = !finite && !scales && self.rule.non_finite == NonFinite::Stop;
        let goes_on = !stops && self.state.in_a_row < self.rule.max_skips;
        let spiked = spike.and_then(|spike| self.state.losses.describe(spike, loss));
        let why = match (spiked, taken.loss_scale, self.loss_scale()) {
            (Some(why), ..) => why,
            // An overflow is in the nature of a scale: whose it was is of interest where it is the last.
            (None, Some(was), Some(is)) if goes_on => format!(
                "the loss is {loss} and the gradient's norm {norm} with the loss scale {was}, which is \
                 {is} from now on"
            ),
            (None, scale, _) => {
                let found = non_finite::find_out(step, job, group)?;
                let scale = scale.map_or(String::new(), |s| format!(" with the loss scale {s}"));
                format!("the loss is {loss} and the gradient's norm {norm}{scale}, {found}")
            }
        };
        if goes_on {
            return Ok(why);
        }
        let skips = if stops {
            " Such steps can be skipped instead: guards.non_finite \"skip\"".to_owned()
        } else {
            format!(" {} steps in a row are guards.max_skips", self.state.in_a_row)
        };
        Err(group.common_failure(Error::NonFinite(format!(
            "step {}: {why}. Training has diverged, or a sample or a machine is bad. All ranks stop \
             before the update. Try a lower optimizer.lr, a longer schedule.warmup_steps or \
             train.clip_norm.{skips}",
            step + 1
        ))))
    }

    /// The run went back to where `from` steps were done, after step `to` (from 1). Gives what is to be
    /// said of it.
    pub fn went_back(&mut self, from: u64, to: u64) -> String {
        let first = from + 1;
        match self.state.passed_over.last_mut() {
            // Back once more to the same state.
            Some(last) if last[0] == first => last[1] = to,
            _ => self.state.passed_over.push([first, to]),
        }
        let over = self.state.passed_over.len().saturating_sub(REMEMBERED);
        self.state.passed_over.drain(..over);
        format!("; back to the state after step {from}: steps {first} to {to} leave no trace")
    }

    /// Looks at the replica after `done` steps. `folder` is the run folder, on the rank that writes it.
    ///
    /// # Errors
    /// [`Error::ReplicasDiffer`] on all ranks, naming rank and tensor.
    pub fn after_step(
        &mut self,
        done: u64,
        job: &Job,
        folder: Option<&Path>,
        group: &mut Group,
    ) -> Result<()> {
        faults::after_update(&job.card.faults, done, group.rank(), &job.replica.params)?;
        self.replicas.check(done, &job.replica, folder, group)
    }
}

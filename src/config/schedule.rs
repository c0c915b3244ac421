//! How the learning rate changes over the run: [`Schedule`].

use super::{Mode, Monitor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Learning rate over the run: `warmup_steps` of linear rise, then the given curve.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// The curve after the warm-up.
    pub kind: ScheduleKind,
    /// Steps over which the rate rises linearly from lr / warmup_steps to lr.
    pub warmup_steps: u64,
    /// Where the curve ends, as a share of lr (cosine, cosine-restarts, polynomial); 0 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub final_fraction: Option<f64>,
    /// Steps between two drops (step), or in which the rate falls by gamma (exponential).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub step_every: Option<u64>,
    /// Steps, counted from the end of the warm-up, at which the rate drops (multistep).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(range(min = 1)))]
    pub milestones: Vec<u64>,
    /// Factor of each drop (step, multistep, exponential); 0.1 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub gamma: Option<f64>,
    /// Exponent of the curve (polynomial); 1, a straight line, when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub power: Option<f64>,
    /// Steps of the first cycle (cosine-restarts).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub cycle_steps: Option<u64>,
    /// Each cycle is so many times as long as the one before (cosine-restarts); 1 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub cycle_factor: Option<u64>,
    /// Share of the run in which the rate rises (one-cycle); 0.3 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub pct_start: Option<f64>,
    /// The rate begins at lr divided by this (one-cycle); 25 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub div_factor: Option<f64>,
    /// The rate ends at its beginning divided by this (one-cycle); 10,000 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub final_div_factor: Option<f64>,
    /// When the rate drops (plateau); Keras's defaults when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plateau: Option<Plateau>,
}

/// Curves of the learning rate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    /// Stays at lr.
    #[default]
    Constant,
    /// Multiplied by `gamma` every `step_every` steps, as PyTorch's StepLR.
    Step,
    /// Multiplied by `gamma` at each of `milestones`, as PyTorch's MultiStepLR.
    #[serde(rename = "multistep")]
    MultiStep,
    /// Falls smoothly, by `gamma` in `step_every` steps, as TensorFlow's ExponentialDecay.
    Exponential,
    /// From lr to lr × final_fraction at the end of the run, as TensorFlow's PolynomialDecay.
    Polynomial,
    /// Half a cosine from lr down to lr × final_fraction at the end of the run.
    Cosine,
    /// Half cosines one after another (SGDR: Loshchilov and Hutter, 2017), as PyTorch's
    /// CosineAnnealingWarmRestarts.
    CosineRestarts,
    /// Stays at lr until the watched number no longer improves, as Keras's ReduceLROnPlateau.
    Plateau,
    /// Up to lr and far down again over the run (Smith and Topin, 2018), as PyTorch's OneCycleLR; momentum
    /// stays as it is.
    OneCycle,
}

/// A drop of the learning rate, with the names and meanings of Keras's ReduceLROnPlateau. Evaluations during
/// the warm-up do not count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Plateau {
    /// What is watched.
    pub monitor: Monitor,
    /// The rate is multiplied by this.
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub factor: f64,
    /// Evaluations without improvement after which the rate drops.
    pub patience: u64,
    /// A change that is not larger than this is no improvement.
    #[schemars(range(min = 0))]
    pub min_delta: f64,
    /// Evaluations after a drop that are not waited through.
    pub cooldown: u64,
    /// The rate never drops below this.
    #[schemars(range(min = 0))]
    pub min_lr: f64,
    /// Which change is an improvement.
    pub mode: Mode,
}

impl Default for Plateau {
    fn default() -> Self {
        Plateau {
            monitor: Monitor::Loss,
            factor: 0.1,
            patience: 10,
            min_delta: 1e-4,
            cooldown: 0,
            min_lr: 0.0,
            mode: Mode::Auto,
        }
    }
}

impl ScheduleKind {
    /// Whether the rate of a step depends on the length of the run.
    #[must_use]
    pub fn follows_the_length(self) -> bool {
        matches!(self, ScheduleKind::Cosine | ScheduleKind::Polynomial | ScheduleKind::OneCycle)
    }
}

impl Schedule {
    /// The rule of a plateau schedule.
    #[must_use]
    pub fn plateau(&self) -> Option<Plateau> {
        let of_kind = self.kind == ScheduleKind::Plateau;
        of_kind.then(|| self.plateau.clone().unwrap_or_default())
    }

    /// Fields that another kind uses, or that this one lacks: whether it is so, the field, what is wrong.
    pub(super) fn problems(&self) -> Vec<(bool, &'static str, String)> {
        use ScheduleKind::{
            Cosine, CosineRestarts, Exponential, MultiStep, OneCycle, Polynomial, Step,
        };
        let kind = self.kind;
        let of = |users: &[ScheduleKind]| users.contains(&kind);
        let used: [(bool, &'static str, &[ScheduleKind], &str); 10] = [
            (
                self.final_fraction.is_some(),
                "final_fraction",
                &[Cosine, CosineRestarts, Polynomial],
                "`cosine`, `cosine-restarts` and `polynomial`",
            ),
            (
                self.step_every.is_some(),
                "step_every",
                &[Step, Exponential],
                "`step` and `exponential`",
            ),
            (!self.milestones.is_empty(), "milestones", &[MultiStep], "`multistep`"),
            (
                self.gamma.is_some(),
                "gamma",
                &[Step, MultiStep, Exponential],
                "`step`, `multistep` and `exponential`",
            ),
            (self.power.is_some(), "power", &[Polynomial], "`polynomial`"),
            (self.cycle_steps.is_some(), "cycle_steps", &[CosineRestarts], "`cosine-restarts`"),
            (self.cycle_factor.is_some(), "cycle_factor", &[CosineRestarts], "`cosine-restarts`"),
            (self.pct_start.is_some(), "pct_start", &[OneCycle], "`one-cycle`"),
            (self.plateau.is_some(), "plateau", &[ScheduleKind::Plateau], "`plateau`"),
            (
                self.div_factor.is_some() || self.final_div_factor.is_some(),
                if self.div_factor.is_some() { "div_factor" } else { "final_div_factor" },
                &[OneCycle],
                "`one-cycle`",
            ),
        ];
        let mut found: Vec<_> = used
            .into_iter()
            .map(|(given, field, kinds, users)| {
                let what = format!("is used by {users} only; remove it or change schedule.kind");
                (given && !of(kinds), field, what)
            })
            .collect();
        let missing = |what: &str| format!("is missing; schedule.kind {what}");
        found.extend([
            (
                of(&[Step, Exponential]) && self.step_every.is_none(),
                "step_every",
                missing(match kind {
                    Step => "`step` needs the number of steps between two drops",
                    _ => "`exponential` needs the number of steps in which the rate falls by gamma",
                }),
            ),
            (
                of(&[MultiStep]) && self.milestones.is_empty(),
                "milestones",
                missing("`multistep` needs the steps at which the rate drops"),
            ),
            (
                !self.milestones.is_sorted_by(|a, b| a < b),
                "milestones",
                "do not rise from each to the next".to_owned(),
            ),
            (
                of(&[CosineRestarts]) && self.cycle_steps.is_none(),
                "cycle_steps",
                missing("`cosine-restarts` needs the number of steps of the first cycle"),
            ),
            (
                of(&[OneCycle]) && self.warmup_steps > 0,
                "warmup_steps",
                "is not for `one-cycle`, which has a rise of its own; remove it".to_owned(),
            ),
        ]);
        found
    }
}

//! How parameters are updated: [`Optimizer`], [`ParameterGroup`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The optimizer. A field that the chosen kind does not use must be left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Optimizer {
    /// Which optimizer.
    pub kind: OptimizerKind,
    /// Peak learning rate; the schedule scales it.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub lr: f64,
    /// Weight decay: added to the gradient (sgd, adam, rmsprop, lars), decoupled from it (adamw, lion), or part
    /// of the step that is scaled (lamb).
    #[schemars(range(min = 0))]
    pub weight_decay: f64,
    /// L1 penalty: the gradient of l1 × Σ|value| is added to that of the loss before clipping, as Keras's
    /// `regularizers.L1`; losses are told without it.
    #[schemars(range(min = 0))]
    pub l1: f64,
    /// L2 penalty: the same of l2 × Σ value². Plain SGD moves as with a weight decay of 2 × l2; adamw, lamb and
    /// lion do not.
    #[schemars(range(min = 0))]
    pub l2: f64,
    /// Momentum (sgd, rmsprop, lars); 0 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub momentum: Option<f64>,
    /// Nesterov's form of momentum (sgd); false when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nesterov: Option<bool>,
    /// Decay rates of the two moments (adam, adamw, lamb: [0.9, 0.999] when left out), or of the step and the
    /// moment (lion: [0.9, 0.99]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub betas: Option<[f64; 2]>,
    /// Decay rate of the mean square (rmsprop); 0.99 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub alpha: Option<f64>,
    /// Added to the root of the second moment (adam, adamw, rmsprop: 1e-8 when left out; lamb: 1e-6), or to the
    /// norm by which is divided (lars: 1e-8).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub eps: Option<f64>,
    /// How far a step may go, as a share of the norm of a tensor (lars); 0.001 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub trust: Option<f64>,
    /// Parameters with another weight decay, penalty or learning rate; of several groups that have a parameter the first
    /// counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<ParameterGroup>,
}

impl Default for Optimizer {
    fn default() -> Self {
        Optimizer {
            kind: OptimizerKind::Adamw,
            lr: 1e-3,
            weight_decay: 0.0,
            l1: 0.0,
            l2: 0.0,
            momentum: None,
            nesterov: None,
            betas: None,
            alpha: None,
            eps: None,
            trust: None,
            groups: Vec::new(),
        }
    }
}

/// Some of the parameters, by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParameterGroup {
    /// Names, in which `*` stands for any characters: `*.bias`, `bl.0.*`. Each must be the name of a parameter.
    #[schemars(length(min = 1))]
    pub parameters: Vec<String>,
    /// Their weight decay; the optimizer's when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub weight_decay: Option<f64>,
    /// Their L1 penalty; the optimizer's when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub l1: Option<f64>,
    /// Their L2 penalty; the optimizer's when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub l2: Option<f64>,
    /// Their learning rate is that of the step times this; 0 keeps them as they are.
    #[serde(default = "one")]
    #[schemars(range(min = 0))]
    pub lr_factor: f64,
}

fn one() -> f64 {
    1.0
}

/// The optimizers that a card can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Stochastic gradient descent, with momentum if given.
    Sgd,
    /// Adam (Kingma and Ba, 2015).
    Adam,
    /// AdamW (Loshchilov and Hutter, 2019).
    Adamw,
    /// RMSProp (Tieleman and Hinton, 2012), as PyTorch's.
    Rmsprop,
    /// Lion (Chen et al., 2023): steps of one size, in the direction of the momentum.
    Lion,
    /// LAMB (You et al., 2020): AdamW with steps in proportion to each tensor's norm, for large batches.
    Lamb,
    /// LARS (You, Gitman and Ginsburg, 2017): SGD with steps in proportion to each tensor's norm.
    Lars,
}

impl Optimizer {
    /// Fields that only other kinds use: whether one is given, the field, and what uses it.
    pub(super) fn unused(&self) -> Vec<(bool, &'static str, &'static str)> {
        use OptimizerKind::{Adam, Adamw, Lamb, Lars, Lion, Rmsprop, Sgd};
        let not = |kinds: &[OptimizerKind]| !kinds.contains(&self.kind);
        vec![
            (
                self.momentum.is_some() && not(&[Sgd, Rmsprop, Lars]),
                "momentum",
                "`sgd`, `rmsprop` and `lars`",
            ),
            (self.nesterov.is_some() && not(&[Sgd]), "nesterov", "`sgd`"),
            (
                self.betas.is_some() && not(&[Adam, Adamw, Lamb, Lion]),
                "betas",
                "`adam`, `adamw`, `lamb` and `lion`",
            ),
            (self.alpha.is_some() && not(&[Rmsprop]), "alpha", "`rmsprop`"),
            (
                self.eps.is_some() && not(&[Adam, Adamw, Rmsprop, Lamb, Lars]),
                "eps",
                "`adam`, `adamw`, `rmsprop`, `lamb` and `lars`",
            ),
            (self.trust.is_some() && not(&[Lars]), "trust", "`lars`"),
        ]
    }
}

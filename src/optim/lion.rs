//! Lion (Chen et al., 2023, algorithm 2): every value moves by the learning rate, in the direction of the sign
//! of its momentum.

use super::groups::Groups;
use super::state::{self, Moment};
use super::{Optimizer, State};
use crate::config;
use crate::error::Result;
use crate::util::wide::wide;

/// Lion with decoupled weight decay.
pub struct Lion {
    betas: [f64; 2],
    groups: Groups,
    step: u64,
    exp_avg: Moment,
    /// Learning rate and 1 − lr · weight decay of each group.
    now: Vec<[f32; 2]>,
}

impl Lion {
    /// The optimizer for parameters of the given lengths. Of the card it uses `betas` and `weight_decay`.
    ///
    /// # Errors
    /// When there is no memory for the moment.
    pub(super) fn new(card: &config::Optimizer, lens: &[usize], groups: Groups) -> Result<Lion> {
        let betas = card.betas.unwrap_or([0.9, 0.99]);
        Ok(Lion { betas, groups, step: 0, exp_avg: Moment::new("exp_avg", lens)?, now: Vec::new() })
    }
}

impl Optimizer for Lion {
    fn begin_step(&mut self, lr: f64) {
        self.step += 1;
        self.now = self.groups.each(|factor, decay| {
            let lr = lr * factor;
            [lr as f32, (1.0 - lr * decay) as f32]
        });
    }

    fn update(&mut self, i: usize, theta: &mut [f32], grad: &[f32], scale: f32) {
        let [lr, keep] = self.now[self.groups.of(i)];
        let m = self.exp_avg.slot(i);
        assert_eq!(theta.len(), grad.len(), "parameter {i}: values and gradient");
        assert_eq!(theta.len(), m.len(), "parameter {i}: values and moments");
        let rates = self.betas.map(|beta| [beta as f32, (1.0 - beta) as f32]);
        update(lr, keep, rates, theta, grad, scale, m);
    }

    fn name(&self) -> &'static str {
        "lion"
    }

    fn state(&self) -> State {
        state::save(self.name(), self.step, &[&self.exp_avg])
    }

    fn visit(&self, see: &mut dyn FnMut(&'static str, usize, &[f32])) {
        self.exp_avg.visit(see);
    }

    fn load_state(&mut self, state: State) -> Result<()> {
        self.step = state::load("lion", &state, &mut [&mut self.exp_avg])?;
        Ok(())
    }
}

wide! {
    /// `rates` are β and 1 − β, of the step and of the moment.
    fn update(
        lr: f32,
        keep: f32,
        rates: [[f32; 2]; 2],
        theta: &mut [f32],
        grad: &[f32],
        scale: f32,
        m: &mut [f32],
    ) {
        let [step, moment] = rates;
        for ((p, &g), m) in theta.iter_mut().zip(grad).zip(m) {
            let g = g * scale;
            let u = step[0] * *m + step[1] * g;
            // The sign, 0 of 0.
            let sign = f32::from(u8::from(u > 0.0)) - f32::from(u8::from(u < 0.0));
            *p = keep * *p - lr * sign;
            *m = moment[0] * *m + moment[1] * g;
        }
    }
}

//! LARS (You, Gitman and Ginsburg, 2017): SGD with momentum in which each tensor has a learning rate of its own,
//! trust · ‖θ‖ / (‖g‖ + decay · ‖θ‖ + ε) times that of the step.

use super::groups::Groups;
use super::norm::norm;
use super::state::{self, Moment};
use super::{Optimizer, State};
use crate::config;
use crate::error::Result;
use crate::util::wide::wide;

/// LARS with coupled weight decay.
pub struct Lars {
    trust: f64,
    eps: f64,
    momentum: f32,
    groups: Groups,
    step: u64,
    buffer: Moment,
    /// Learning rate and weight decay of each group.
    now: Vec<[f64; 2]>,
}

impl Lars {
    /// The optimizer for parameters of the given lengths. Of the card it uses `trust`, `eps`, `momentum` and
    /// `weight_decay`.
    ///
    /// # Errors
    /// When there is no memory for the momentum.
    pub(super) fn new(card: &config::Optimizer, lens: &[usize], groups: Groups) -> Result<Lars> {
        Ok(Lars {
            trust: card.trust.unwrap_or(1e-3),
            eps: card.eps.unwrap_or(1e-8),
            momentum: card.momentum.unwrap_or(0.0) as f32,
            groups,
            step: 0,
            buffer: Moment::new("momentum_buffer", lens)?,
            now: Vec::new(),
        })
    }
}

impl Optimizer for Lars {
    fn begin_step(&mut self, lr: f64) {
        self.step += 1;
        self.now = self.groups.each(|factor, decay| [lr * factor, decay]);
    }

    fn update(&mut self, i: usize, theta: &mut [f32], grad: &[f32], scale: f32) {
        let [lr, decay] = self.now[self.groups.of(i)];
        let buffer = self.buffer.slot(i);
        assert_eq!(theta.len(), grad.len(), "parameter {i}: values and gradient");
        assert_eq!(theta.len(), buffer.len(), "parameter {i}: values and momentum");
        let (values, gradient) = (norm(theta), norm(grad) * f64::from(scale));
        // A tensor that is all zeros, such as a new bias, takes the step as it is.
        let own = if values > 0.0 && gradient > 0.0 {
            self.trust * values / (gradient + decay * values + self.eps)
        } else {
            1.0
        };
        update(lr as f32, own as f32, decay as f32, self.momentum, theta, grad, scale, buffer);
    }

    fn name(&self) -> &'static str {
        "lars"
    }

    fn state(&self) -> State {
        state::save(self.name(), self.step, &[&self.buffer])
    }

    fn visit(&self, see: &mut dyn FnMut(&'static str, usize, &[f32])) {
        self.buffer.visit(see);
    }

    fn load_state(&mut self, state: State) -> Result<()> {
        self.step = state::load("lars", &state, &mut [&mut self.buffer])?;
        Ok(())
    }
}

wide! {
    fn update(
        lr: f32,
        own: f32,
        decay: f32,
        momentum: f32,
        theta: &mut [f32],
        grad: &[f32],
        scale: f32,
        buffer: &mut [f32],
    ) {
        for ((p, &g), b) in theta.iter_mut().zip(grad).zip(buffer) {
            let g = own * (g * scale + decay * *p);
            *b = momentum * *b + g;
            *p -= lr * *b;
        }
    }
}

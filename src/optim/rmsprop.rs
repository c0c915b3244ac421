//! RMSProp (Tieleman and Hinton, 2012), as `torch.optim.RMSprop` (not centred).

use super::groups::Groups;
use super::state::{self, Moment};
use super::{Optimizer, State};
use crate::config;
use crate::error::Result;
use crate::util::wide::wide;

/// RMSProp with coupled weight decay and, if asked, momentum.
pub struct RmsProp {
    alpha: f64,
    eps: f32,
    momentum: f32,
    groups: Groups,
    step: u64,
    square_avg: Moment,
    /// Present when momentum is not 0.
    buffer: Option<Moment>,
    /// Learning rate and weight decay of each group.
    now: Vec<[f32; 2]>,
}

impl RmsProp {
    /// The optimizer for parameters of the given lengths. Of the card it uses `alpha`, `eps`, `momentum` and
    /// `weight_decay`.
    ///
    /// # Errors
    /// When there is no memory for the moments.
    pub(super) fn new(card: &config::Optimizer, lens: &[usize], groups: Groups) -> Result<RmsProp> {
        let momentum = card.momentum.unwrap_or(0.0) as f32;
        Ok(RmsProp {
            alpha: card.alpha.unwrap_or(0.99),
            eps: card.eps.unwrap_or(1e-8) as f32,
            momentum,
            groups,
            step: 0,
            square_avg: Moment::new("square_avg", lens)?,
            buffer: (momentum != 0.0).then(|| Moment::new("momentum_buffer", lens)).transpose()?,
            now: Vec::new(),
        })
    }

    fn moments(&self) -> Vec<&Moment> {
        std::iter::once(&self.square_avg).chain(&self.buffer).collect()
    }
}

impl Optimizer for RmsProp {
    fn begin_step(&mut self, lr: f64) {
        self.step += 1;
        self.now = self.groups.each(|factor, decay| [(lr * factor) as f32, decay as f32]);
    }

    fn update(&mut self, i: usize, theta: &mut [f32], grad: &[f32], scale: f32) {
        let [lr, decay] = self.now[self.groups.of(i)];
        let squares = self.square_avg.slot(i);
        assert_eq!(theta.len(), grad.len(), "parameter {i}: values and gradient");
        assert_eq!(theta.len(), squares.len(), "parameter {i}: values and moments");
        let rates = [self.alpha as f32, (1.0 - self.alpha) as f32];
        match &mut self.buffer {
            None => plain(lr, decay, rates, self.eps, theta, grad, scale, squares),
            Some(buffer) => {
                let (buffer, momentum) = (buffer.slot(i), self.momentum);
                with_momentum(
                    lr, decay, rates, self.eps, momentum, theta, grad, scale, squares, buffer,
                );
            }
        }
    }

    fn name(&self) -> &'static str {
        "rmsprop"
    }

    fn state(&self) -> State {
        state::save(self.name(), self.step, &self.moments())
    }

    fn visit(&self, see: &mut dyn FnMut(&'static str, usize, &[f32])) {
        self.moments().iter().for_each(|moment| moment.visit(see));
    }

    fn load_state(&mut self, state: State) -> Result<()> {
        let mut moments: Vec<&mut Moment> =
            std::iter::once(&mut self.square_avg).chain(&mut self.buffer).collect();
        self.step = state::load("rmsprop", &state, &mut moments)?;
        Ok(())
    }
}

wide! {
    /// `rates` are α and 1 − α.
    fn plain(
        lr: f32,
        decay: f32,
        rates: [f32; 2],
        eps: f32,
        theta: &mut [f32],
        grad: &[f32],
        scale: f32,
        squares: &mut [f32],
    ) {
        for ((p, &g), v) in theta.iter_mut().zip(grad).zip(squares) {
            let g = g * scale + decay * *p;
            *v = rates[0] * *v + rates[1] * g * g;
            *p -= lr * (g / (v.sqrt() + eps));
        }
    }
}

wide! {
    fn with_momentum(
        lr: f32,
        decay: f32,
        rates: [f32; 2],
        eps: f32,
        momentum: f32,
        theta: &mut [f32],
        grad: &[f32],
        scale: f32,
        squares: &mut [f32],
        buffer: &mut [f32],
    ) {
        for (((p, &g), v), b) in theta.iter_mut().zip(grad).zip(squares).zip(buffer) {
            let g = g * scale + decay * *p;
            *v = rates[0] * *v + rates[1] * g * g;
            *b = momentum * *b + g / (v.sqrt() + eps);
            *p -= lr * *b;
        }
    }
}

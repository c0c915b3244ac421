//! Stochastic gradient descent, as `torch.optim.SGD` (dampening 0).

use super::groups::Groups;
use super::state::{self, Moment};
use super::{Optimizer, State};
use crate::config;
use crate::error::Result;
use crate::util::wide::wide;

/// SGD with coupled weight decay and, if asked, momentum (Polyak's or Nesterov's).
pub struct Sgd {
    momentum: f32,
    nesterov: bool,
    groups: Groups,
    /// Learning rate and weight decay of each group.
    now: Vec<[f32; 2]>,
    step: u64,
    /// Present when momentum is not 0. PyTorch sets it to the first gradient; starting at zero is the
    /// same, as momentum × 0 + g = g.
    buffer: Option<Moment>,
}

impl Sgd {
    /// The optimizer for parameters of the given lengths. Of the card it uses `momentum`, `nesterov`
    /// and `weight_decay`.
    ///
    /// # Errors
    /// When there is no memory for the momentum.
    pub(super) fn new(card: &config::Optimizer, lens: &[usize], groups: Groups) -> Result<Sgd> {
        let momentum = card.momentum.unwrap_or(0.0) as f32;
        let buffer = (momentum != 0.0).then(|| Moment::new("momentum_buffer", lens)).transpose()?;
        Ok(Sgd {
            momentum,
            nesterov: card.nesterov.unwrap_or(false),
            groups,
            now: Vec::new(),
            step: 0,
            buffer,
        })
    }
}

impl Optimizer for Sgd {
    fn begin_step(&mut self, lr: f64) {
        self.step += 1;
        self.now = self.groups.each(|factor, decay| [(lr * factor) as f32, decay as f32]);
    }

    fn update(&mut self, i: usize, theta: &mut [f32], grad: &[f32], scale: f32) {
        assert_eq!(theta.len(), grad.len(), "parameter {i}: values and gradient");
        let ([lr, decay], momentum) = (self.now[self.groups.of(i)], self.momentum);
        let Some(buffer) = &mut self.buffer else {
            return plain(lr, decay, theta, grad, scale);
        };
        let buffer = buffer.slot(i);
        assert_eq!(theta.len(), buffer.len(), "parameter {i}: values and momentum");
        // The part of the gradient itself that is applied besides the momentum.
        let (direct, kept) = if self.nesterov { (1.0, momentum) } else { (0.0, 1.0) };
        let factors = Factors { lr, decay, momentum, direct, kept };
        with_momentum(factors, theta, grad, scale, buffer);
    }

    fn name(&self) -> &'static str {
        "sgd"
    }

    fn state(&self) -> State {
        state::save(self.name(), self.step, &self.buffer.iter().collect::<Vec<_>>())
    }

    fn visit(&self, see: &mut dyn FnMut(&'static str, usize, &[f32])) {
        self.buffer.iter().for_each(|moment| moment.visit(see));
    }

    fn load_state(&mut self, state: State) -> Result<()> {
        let mut moments: Vec<&mut Moment> = self.buffer.iter_mut().collect();
        self.step = state::load("sgd", &state, &mut moments)?;
        Ok(())
    }
}

/// What a step multiplies with.
#[derive(Clone, Copy)]
struct Factors {
    lr: f32,
    decay: f32,
    momentum: f32,
    direct: f32,
    kept: f32,
}

wide! {
    fn plain(lr: f32, decay: f32, theta: &mut [f32], grad: &[f32], scale: f32) {
        for (p, &g) in theta.iter_mut().zip(grad) {
            *p -= lr * (g * scale + decay * *p);
        }
    }
}

wide! {
    fn with_momentum(f: Factors, theta: &mut [f32], grad: &[f32], scale: f32, buffer: &mut [f32]) {
        for ((p, &g), b) in theta.iter_mut().zip(grad).zip(buffer) {
            let g = g * scale + f.decay * *p;
            *b = f.momentum * *b + g;
            *p -= f.lr * (f.direct * g + f.kept * *b);
        }
    }
}

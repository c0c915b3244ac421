//! LAMB (You et al., 2020, algorithm 2, φ(z) = z): AdamW whose step is scaled, tensor by tensor, so that its norm
//! is the learning rate times the norm of the values.

use super::groups::Groups;
use super::norm::{norm, ratio};
use super::state::{self, Moment};
use super::{Optimizer, State};
use crate::config;
use crate::error::Result;
use crate::util::wide::wide;

/// LAMB, with bias correction.
pub struct Lamb {
    betas: [f64; 2],
    eps: f32,
    groups: Groups,
    step: u64,
    exp_avg: Moment,
    exp_avg_sq: Moment,
    /// The step of one tensor before it is scaled.
    ratio: Vec<f32>,
    /// Learning rate and weight decay of each group.
    now: Vec<[f64; 2]>,
}

impl Lamb {
    /// The optimizer for parameters of the given lengths. Of the card it uses `betas`, `eps` and `weight_decay`.
    ///
    /// # Errors
    /// When there is no memory for the moments.
    pub(super) fn new(card: &config::Optimizer, lens: &[usize], groups: Groups) -> Result<Lamb> {
        Ok(Lamb {
            betas: card.betas.unwrap_or([0.9, 0.999]),
            eps: card.eps.unwrap_or(1e-6) as f32,
            groups,
            step: 0,
            exp_avg: Moment::new("exp_avg", lens)?,
            exp_avg_sq: Moment::new("exp_avg_sq", lens)?,
            ratio: Vec::new(),
            now: Vec::new(),
        })
    }
}

impl Optimizer for Lamb {
    fn begin_step(&mut self, lr: f64) {
        self.step += 1;
        self.now = self.groups.each(|factor, decay| [lr * factor, decay]);
    }

    fn update(&mut self, i: usize, theta: &mut [f32], grad: &[f32], scale: f32) {
        let [lr, decay] = self.now[self.groups.of(i)];
        let (m, v) = (self.exp_avg.slot(i), self.exp_avg_sq.slot(i));
        assert_eq!(theta.len(), grad.len(), "parameter {i}: values and gradient");
        assert_eq!(theta.len(), m.len(), "parameter {i}: values and moments");
        let corrections = self.betas.map(|beta| (1.0 - beta.powf(self.step as f64)) as f32);
        let rates = self.betas.map(|beta| [beta as f32, (1.0 - beta) as f32]);
        self.ratio.resize(theta.len(), 0.0);
        let r = &mut self.ratio[..theta.len()];
        step(rates, corrections, self.eps, decay as f32, theta, grad, scale, m, v, r);
        let factor = lr * ratio(norm(theta), norm(r));
        subtract(factor as f32, theta, r);
    }

    fn name(&self) -> &'static str {
        "lamb"
    }

    fn state(&self) -> State {
        state::save(self.name(), self.step, &[&self.exp_avg, &self.exp_avg_sq])
    }

    fn visit(&self, see: &mut dyn FnMut(&'static str, usize, &[f32])) {
        [&self.exp_avg, &self.exp_avg_sq].iter().for_each(|moment| moment.visit(see));
    }

    fn load_state(&mut self, state: State) -> Result<()> {
        let mut moments = [&mut self.exp_avg, &mut self.exp_avg_sq];
        self.step = state::load("lamb", &state, &mut moments)?;
        Ok(())
    }
}

wide! {
    /// `rates` are β and 1 − β of both moments, `corrections` 1 − βᵗ; the step goes into `r`.
    fn step(
        rates: [[f32; 2]; 2],
        corrections: [f32; 2],
        eps: f32,
        decay: f32,
        theta: &[f32],
        grad: &[f32],
        scale: f32,
        m: &mut [f32],
        v: &mut [f32],
        r: &mut [f32],
    ) {
        let [first, second] = rates;
        for ((((&p, &g), m), v), r) in theta.iter().zip(grad).zip(m).zip(v).zip(r) {
            let g = g * scale;
            *m = first[0] * *m + first[1] * g;
            *v = second[0] * *v + second[1] * g * g;
            *r = (*m / corrections[0]) / ((*v / corrections[1]).sqrt() + eps) + decay * p;
        }
    }
}

wide! {
    fn subtract(factor: f32, theta: &mut [f32], r: &[f32]) {
        for (p, &r) in theta.iter_mut().zip(r) {
            *p -= factor * r;
        }
    }
}

//! Adam (Kingma and Ba, 2015) and AdamW (Loshchilov and Hutter, 2019), as `torch.optim.Adam` and
//! `torch.optim.AdamW` (no AMSGrad).

use super::groups::Groups;
use super::state::{self, Moment};
use super::{Optimizer, State};
use crate::config::{self, OptimizerKind};
use crate::error::Result;
use crate::util::wide::wide;

/// Adam with weight decay coupled to the gradient (adam) or applied to the values (adamw).
pub struct Adam {
    decoupled: bool,
    betas: [f64; 2],
    eps: f64,
    groups: Groups,
    step: u64,
    exp_avg: Moment,
    exp_avg_sq: Moment,
    /// Of each group.
    now: Vec<Constants>,
}

/// What is equal for all values of a step: computed once, in `f64`, as PyTorch does.
///
/// PyTorch divides √v by √(1 − β₂ᵗ) before it adds ε; here numerator and denominator are multiplied by
/// that root instead, which is the same number and saves one of two divisions per value.
#[derive(Clone, Copy, Default)]
struct Constants {
    /// lr / (1 − β₁ᵗ) · √(1 − β₂ᵗ)
    step_size: f32,
    /// ε · √(1 − β₂ᵗ)
    eps: f32,
    /// 1 − lr · weight decay (adamw), else 1.
    keep: f32,
    /// Weight decay (adam), else 0.
    couple: f32,
}

impl Adam {
    /// The optimizer for parameters of the given lengths: AdamW if the card's kind is that, else Adam.
    /// Of the card it uses `betas`, `eps` and `weight_decay`.
    ///
    /// # Errors
    /// When there is no memory for the moments.
    pub(super) fn new(card: &config::Optimizer, lens: &[usize], groups: Groups) -> Result<Adam> {
        Ok(Adam {
            decoupled: card.kind == OptimizerKind::Adamw,
            betas: card.betas.unwrap_or([0.9, 0.999]),
            eps: card.eps.unwrap_or(1e-8),
            groups,
            step: 0,
            exp_avg: Moment::new("exp_avg", lens)?,
            exp_avg_sq: Moment::new("exp_avg_sq", lens)?,
            now: Vec::new(),
        })
    }
}

impl Optimizer for Adam {
    fn begin_step(&mut self, lr: f64) {
        self.step += 1;
        let correction = |beta: f64| 1.0 - beta.powf(self.step as f64);
        let root = correction(self.betas[1]).sqrt();
        self.now = self.groups.each(|factor, decay| {
            let lr = lr * factor;
            let (keep, couple) =
                if self.decoupled { (1.0 - lr * decay, 0.0) } else { (1.0, decay) };
            Constants {
                step_size: (lr / correction(self.betas[0]) * root) as f32,
                eps: (self.eps * root) as f32,
                keep: keep as f32,
                couple: couple as f32,
            }
        });
    }

    fn update(&mut self, i: usize, theta: &mut [f32], grad: &[f32], scale: f32) {
        let (m, v) = (self.exp_avg.slot(i), self.exp_avg_sq.slot(i));
        assert_eq!(theta.len(), grad.len(), "parameter {i}: values and gradient");
        assert_eq!(theta.len(), m.len(), "parameter {i}: values and moments");
        // 1 − β is rounded once, from f64: 1 − 0.999 in f32 would be off by 5e-5 of itself.
        let new = self.betas.map(|beta| (1.0 - beta) as f32);
        update(self.now[self.groups.of(i)], new, self.betas[1] as f32, theta, grad, scale, m, v);
    }

    fn name(&self) -> &'static str {
        if self.decoupled { "adamw" } else { "adam" }
    }

    fn state(&self) -> State {
        state::save(self.name(), self.step, &[&self.exp_avg, &self.exp_avg_sq])
    }

    fn visit(&self, see: &mut dyn FnMut(&'static str, usize, &[f32])) {
        [&self.exp_avg, &self.exp_avg_sq].iter().for_each(|moment| moment.visit(see));
    }

    fn load_state(&mut self, state: State) -> Result<()> {
        let kind = self.name();
        let mut moments = [&mut self.exp_avg, &mut self.exp_avg_sq];
        self.step = state::load(kind, &state, &mut moments)?;
        Ok(())
    }
}

wide! {
    /// One pass over values, gradient and moments; `new` is 1 − β of both.
    fn update(
        now: Constants,
        new: [f32; 2],
        beta2: f32,
        theta: &mut [f32],
        grad: &[f32],
        scale: f32,
        m: &mut [f32],
        v: &mut [f32],
    ) {
        let Constants { step_size, eps, keep, couple } = now;
        for (((p, &g), m), v) in theta.iter_mut().zip(grad).zip(m).zip(v) {
            let g = g * scale + couple * *p;
            *m += new[0] * (g - *m);
            *v = beta2 * *v + new[1] * g * g;
            *p = keep * *p - step_size * (*m / (v.sqrt() + eps));
        }
    }
}

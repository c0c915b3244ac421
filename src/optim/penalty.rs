//! L1 and L2 penalties: the gradient of λ₁ Σ|θ| + λ₂ Σθ², added to that of the loss, as Keras's
//! `regularizers.L1L2`. Every optimizer sees the sum; weight decay is another thing where it is decoupled.

use super::groups::Groups;
use crate::config;
use crate::error::Result;
use crate::util::wide::wide;

/// The penalties of each parameter.
pub struct Penalties {
    /// λ₁ and 2λ₂ of each.
    of: Vec<[f32; 2]>,
    sum: Vec<f32>,
}

impl Penalties {
    /// The card's penalties on parameters of these names; `None` where there are none.
    ///
    /// # Errors
    /// When a group of the card has no parameter.
    pub fn new(card: &config::Optimizer, names: &[&str]) -> Result<Option<Penalties>> {
        let groups = Groups::new(card, names)?;
        let of: Vec<[f32; 2]> = (0..names.len())
            .map(|i| {
                let (l1, l2) = groups.penalties(i);
                [l1 as f32, (2.0 * l2) as f32]
            })
            .collect();
        let any = of.iter().flatten().any(|&v| v != 0.0);
        Ok(any.then_some(Penalties { of, sum: Vec::new() }))
    }

    /// The gradient of loss and penalties of parameter `i`, whose values are `theta`, times `by`, where that of
    /// the loss alone, times `by`, is `grad`.
    ///
    /// # Panics
    /// When values and gradient are not of one length.
    pub fn add(&mut self, i: usize, theta: &[f32], grad: &[f32], by: f32) -> &[f32] {
        assert_eq!(theta.len(), grad.len(), "parameter {i}: values and gradient");
        self.sum.resize(grad.len(), 0.0);
        let [l1, l2] = self.of[i];
        add(by * l1, by * l2, theta, grad, &mut self.sum);
        &self.sum
    }
}

wide! {
    fn add(l1: f32, l2: f32, theta: &[f32], grad: &[f32], sum: &mut [f32]) {
        for ((s, &p), &g) in sum.iter_mut().zip(theta).zip(grad) {
            let sign = if p > 0.0 { l1 } else if p < 0.0 { -l1 } else { 0.0 };
            *s = g + (sign + l2 * p);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(groups: &str) -> config::Optimizer {
        let text = format!("{{\"l1\":0.5,\"l2\":0.25,\"groups\":[{groups}]}}");
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn the_gradient_is_that_of_loss_and_penalties() {
        let mut penalties = Penalties::new(&card(""), &["a"]).unwrap().unwrap();
        let sum = penalties.add(0, &[2.0, -4.0, 0.0, -0.0], &[1.0, 1.0, 1.0, 1.0], 1.0);
        // 1 + 0.5 · sign + 2 · 0.25 · value
        assert_eq!(sum, [2.5, -1.5, 1.0, 1.0]);
        let sum = penalties.add(0, &[2.0, -4.0, 0.0, -0.0], &[4.0, 4.0, 4.0, 4.0], 4.0);
        assert_eq!(sum, [10.0, -6.0, 4.0, 4.0]);
    }

    #[test]
    fn groups_have_penalties_of_their_own() {
        let free = r#"{"parameters":["*.bias"],"l1":0,"l2":0},{"parameters":["b.*"],"l2":1}"#;
        let names = ["a.bias", "a.weight", "b.weight"];
        let mut penalties = Penalties::new(&card(free), &names).unwrap().unwrap();
        let sums = [0, 1, 2].map(|i| penalties.add(i, &[1.0], &[0.0], 1.0)[0]);
        assert_eq!(sums, [0.0, 1.0, 2.5]);
        let none = serde_json::from_str("{}").unwrap();
        assert!(Penalties::new(&none, &names).unwrap().is_none());
    }
}

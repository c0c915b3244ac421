//! Gradient coverage: does every parameter receive a gradient?
//!
//! Candle has operations without a backward pass that fail silently (fused layer norm, softmax on the
//! last dimension): everything below them stays as it was initialised, and the loss still falls. One
//! probe batch before the first step finds that out.

use super::{Course, Param, ParamSet};
use crate::error::{Error, Result};
use candle_core::Tensor;

/// Runs `loss` (forward pass and loss of a probe batch, one number) and its backward pass, and checks
/// that each parameter's gradient was written and is not zero everywhere. Leaves no gradients behind.
/// Returns the course of the pass: the order in which the gradients became final.
///
/// # Errors
/// [`Error::Internal`] with the names of the parameters that received none; errors of the pass itself.
pub fn probe(params: &ParamSet, loss: impl FnOnce() -> Result<Tensor>) -> Result<Course> {
    look(params, loss, true)
}

/// The same for parameters that have been trained: units may have died since, which is no mistake of the model.
///
/// # Errors
/// As [`probe`], but for gradients that are zero.
pub fn probe_trained(params: &ParamSet, loss: impl FnOnce() -> Result<Tensor>) -> Result<Course> {
    look(params, loss, false)
}

fn look(
    params: &ParamSet,
    loss: impl FnOnce() -> Result<Tensor>,
    untrained: bool,
) -> Result<Course> {
    let grads = params.grads();
    grads.begin_step();
    grads.ready().learn();
    let passed = loss().and_then(|loss| Ok(loss.backward()?));
    let course = grads.ready().learned();
    passed?;
    let absent = grads.missing();
    let names: Vec<&Param> = params.iter().collect();
    let list = |indices: &[usize]| -> String {
        indices.iter().map(|&i| names[i].name()).collect::<Vec<_>>().join(", ")
    };
    let zero: Vec<usize> = (0..names.len())
        .filter(|i| !absent.contains(i))
        .filter(|&i| grads.read(i, |g| g.iter().all(|&v| v == 0.0)))
        .collect();
    grads.begin_step();
    let mut found = Vec::new();
    if !absent.is_empty() {
        found.push(format!(
            "no gradient reaches {}: is the layer used in the forward pass, and does every operation \
             between it and the loss have a backward pass? (detach, argmax, rounding, copies to the \
             host and Candle's layer_norm, rms_norm and softmax_last_dim cut the graph)",
            list(&absent)
        ));
    }
    if untrained && !zero.is_empty() {
        found.push(format!(
            "the gradient is zero everywhere in {}: a factor of 0, or units behind it that are dead \
             for every sample of the probe batch (ReLU of negative values)",
            list(&zero)
        ));
    }
    match course {
        Some(course) if found.is_empty() => Ok(course),
        _ => Err(Error::Internal(format!("gradient probe: {}", found.join("; ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::nn::testing::{params_of, random_tensor};
    use crate::nn::{Linear, ParamBuilder, cross_entropy};

    fn two_layers() -> (ParamSet, (Linear, Linear)) {
        params_of(|b: &ParamBuilder| {
            Ok((
                Linear::new(&b.pp("fc1"), 4, 6, false, config::Init::He)?,
                Linear::new(&b.pp("fc2"), 6, 3, false, config::Init::He)?,
            ))
        })
    }

    fn run(between: impl Fn(Tensor) -> Tensor) -> Result<Course> {
        run_of(between, true)
    }

    fn run_of(between: impl Fn(Tensor) -> Tensor, untrained: bool) -> Result<Course> {
        let (set, (first, second)) = two_layers();
        let loss = || {
            let hidden = between(first.forward(&random_tensor(&[5, 4], 1))?);
            Ok(cross_entropy(&second.forward(&hidden)?, &[0, 1, 2, 0, 1])?.sum_all()?)
        };
        if untrained { probe(&set, loss) } else { probe_trained(&set, loss) }
    }

    #[test]
    fn a_whole_model_passes() {
        run(|hidden| hidden).unwrap();
    }

    #[test]
    fn a_frozen_layer_is_named() {
        let message = run(|hidden| hidden.detach()).unwrap_err().to_string();
        assert!(message.contains("no gradient reaches fc1.bias, fc1.weight:"), "{message}");
        assert!(!message.contains("fc2"), "{message}");
    }

    #[test]
    fn a_layer_whose_gradient_is_zero_is_named() {
        let gate = |hidden: Tensor| (&hidden * hidden.zeros_like().unwrap()).unwrap();
        let message = run(gate).unwrap_err().to_string();
        assert!(
            message.contains("zero everywhere in fc1.bias, fc1.weight, fc2.weight"),
            "{message}"
        );
    }

    #[test]
    fn a_trained_layer_may_have_died_but_must_still_be_reached() {
        let gate = |hidden: Tensor| (&hidden * hidden.zeros_like().unwrap()).unwrap();
        let course = run_of(gate, false).unwrap();
        assert_eq!(format!("{course:?}"), format!("{:?}", run(|hidden| hidden).unwrap()));
        assert!(run_of(|hidden| hidden.detach(), false).is_err());
    }

    #[test]
    fn the_first_step_after_a_probe_starts_anew() {
        let (set, (first, second)) = two_layers();
        let loss = || {
            let logits = second.forward(&first.forward(&random_tensor(&[2, 4], 1))?)?;
            Ok(cross_entropy(&logits, &[0, 1])?.sum_all()?)
        };
        probe(&set, loss).unwrap();
        assert_eq!(set.grads().missing().len(), 4);
    }
}

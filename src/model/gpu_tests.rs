//! Whole models on a GPU: see [`crate::nn`]'s tests of the same name.

use super::*;
use crate::config::Init;
use crate::nn::cross_entropy;
use crate::nn::testing::check_on_gpu;

/// Rounding grows from layer to layer.
const ROUNDING: f32 = 2e-4;

#[test]
#[ignore = "needs a GPU"]
fn classifiers_on_the_gpu_agree_with_the_processor() {
    let (samples, labels) = ([4, 5, 6], [3, 9, 0]);
    for (kind, hidden, depth) in [
        (ModelKind::LeNet5, vec![], None),
        (ModelKind::Mlp, vec![20, 12], None),
        (ModelKind::ResNet, vec![], Some(8)),
    ] {
        let card = config::Model {
            kind,
            hidden,
            dropout: 0.2,
            init: Init::He,
            width: None,
            layers: None,
            heads: None,
            depth,
            norm: None,
        };
        let build = |params: &ParamBuilder| build(&card, &[1, 28, 28], 10, params);
        check_on_gpu(&[3, 1, 28, 28], ROUNDING, build, |model, x| {
            let pass = Pass { train: true, seed: 1, epoch: 2, samples: &samples };
            cross_entropy(&model.forward(x, &pass)?, &labels)
        });
    }
}

#[test]
#[ignore = "needs a GPU"]
fn a_gpt_on_the_gpu_agrees_with_the_processor() {
    let shape = GptShape { vocab: 11, context: 8, width: 16, layers: 2, heads: 2 };
    let tokens = [1, 2, 3, 4, 5, 6, 10, 9, 8, 7, 0, 1];
    let build = |params: &ParamBuilder| Gpt::new(&shape, params);
    check_on_gpu(&[12, 11], ROUNDING, build, |model, x| Ok((model.forward(&tokens, 2)? * x)?));
}

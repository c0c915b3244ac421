//! What every model promises.

use super::*;
use crate::nn::testing::{check_layer, check_model, random_tensor};
use crate::nn::{Param, ParamSet, cross_entropy, probe};
use candle_core::Device;

fn card(kind: ModelKind, hidden: &[usize], dropout: f32) -> config::Model {
    config::Model { hidden: hidden.to_vec(), dropout, ..config::Model::of(kind) }
}

fn resnet(depth: usize, dropout: f32) -> config::Model {
    config::Model { depth: Some(depth), ..card(ModelKind::ResNet, &[], dropout) }
}

fn all(dropout: f32) -> [config::Model; 3] {
    let [lenet, mlp] = [(ModelKind::LeNet5, &[][..]), (ModelKind::Mlp, &[20, 12])]
        .map(|(k, h)| card(k, h, dropout));
    [lenet, mlp, resnet(8, dropout)]
}

fn make(card: &config::Model, input: &[usize]) -> (ParamSet, Box<dyn Model>) {
    let params = ParamBuilder::new(3, &Device::Cpu);
    let model = build(card, input, 10, &params).unwrap();
    (params.finish(1 << 16, 1 << 20).unwrap(), model)
}

fn error(card: &config::Model, input: &[usize]) -> Error {
    build(card, input, 10, &ParamBuilder::new(3, &Device::Cpu)).err().unwrap()
}

fn pass(samples: &[u64], train: bool) -> Pass<'_> {
    Pass { train, seed: 1, epoch: 2, samples }
}

#[test]
fn parameters_have_pytorchs_names_and_layouts() {
    let (set, _) = make(&all(0.0)[0], &[1, 28, 28]);
    let found: Vec<_> =
        set.iter().map(|p: &Param| format!("{} {:?}", p.name(), p.tensor().dims())).collect();
    let expected = [
        "conv1.bias [6]",
        "conv1.weight [6, 1, 5, 5]",
        "conv2.bias [16]",
        "conv2.weight [16, 6, 5, 5]",
        "fc1.bias [120]",
        "fc1.weight [120, 256]",
        "fc2.bias [10]",
        "fc2.weight [10, 120]",
    ];
    assert_eq!(found, expected);
}

#[test]
fn the_description_counts_every_parameter() {
    for card in all(0.5) {
        let (set, model) = make(&card, &[3, 20, 17]);
        let count = |line: &String| -> usize {
            line.split_whitespace().rev().nth(1).unwrap().parse().unwrap()
        };
        let lines = model.describe();
        assert_eq!(lines.iter().map(count).sum::<usize>(), set.count(), "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("drops 0.5")));
    }
}

#[test]
fn every_parameter_receives_a_gradient() {
    for card in all(0.3) {
        let (set, model) = make(&card, &[1, 28, 28]);
        let samples: Vec<u64> = (0..16).collect();
        let labels: Vec<u32> = (0..16).map(|i| i % 10).collect();
        probe(&set, || {
            let x = random_tensor(&[16, 1, 28, 28], 1);
            let logits = model.forward(&x, &pass(&samples, true))?;
            Ok(cross_entropy(&logits, &labels)?.sum_all()?)
        })
        .unwrap();
    }
}

#[test]
fn gradients_of_whole_models_equal_finite_differences() {
    let samples = [5, 6];
    for card in all(0.2).into_iter().filter(|card| card.kind != ModelKind::ResNet) {
        let (set, model) = make(&card, &[2, 17, 16]);
        check_model(&set, &[2, 2, 17, 16], 1, |x| {
            cross_entropy(&model.forward(x, &pass(&samples, true))?, &[3, 9])
        });
    }
}

#[test]
fn gradients_of_a_resnet_equal_finite_differences() {
    let samples = [5, 6];
    let (set, model) = make(&resnet(8, 0.2), &[2, 5, 4]);
    check_layer(&set, &[2, 2, 5, 4], 1, |x| {
        cross_entropy(&model.forward(x, &pass(&samples, true))?, &[3, 9])
    });
}

#[test]
fn a_samples_logits_do_not_depend_on_its_batch_and_dropout_sleeps_outside_training() {
    for card in all(0.5) {
        let (_, model) = make(&card, &[1, 16, 16]);
        let x = random_tensor(&[3, 1, 16, 16], 1);
        let logits = |x: &Tensor, samples: &[u64], train: bool| {
            model.forward(x, &pass(samples, train)).unwrap().to_vec2::<f32>().unwrap()
        };
        let together = logits(&x, &[7, 8, 9], true);
        let alone = logits(&x.narrow(0, 1, 1).unwrap(), &[8], true);
        let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5;
        assert!(together[1].iter().zip(&alone[0]).all(close));
        assert_ne!(together, logits(&x, &[7, 8, 9], false));
        assert_eq!(logits(&x, &[7, 8, 9], false), logits(&x, &[1, 2, 3], false));
    }
}

#[test]
fn an_empty_batch_passes_forwards_and_backwards_with_zero_gradients() {
    for card in all(0.5) {
        let (set, model) = make(&card, &[1, 28, 28]);
        let x = random_tensor(&[0, 1, 28, 28], 1);
        let logits = model.forward(&x, &pass(&[], true)).unwrap();
        assert_eq!(logits.dims(), [0, 10]);
        let loss = cross_entropy(&logits, &[]).unwrap().sum_all().unwrap();
        assert_eq!(loss.to_scalar::<f32>().unwrap(), 0.0);
        set.grads().write(0, |slot, _| slot.fill(9.0));
        set.grads().begin_step();
        loss.backward().unwrap();
        set.grads().zero_missing();
        assert!(
            (0..set.grads().bucket_count())
                .all(|k| set.grads().with_bucket(k, |b| b.iter().all(|&g| g == 0.0)))
        );
    }
}

#[test]
fn a_card_that_does_not_fit_the_data_is_a_config_error_in_words() {
    let [lenet, ..] = all(0.0);
    assert!(build(&lenet, &[1, 16, 16], 10, &ParamBuilder::new(1, &Device::Cpu)).is_ok());
    for (card, input, words) in [
        (lenet.clone(), &[1, 15, 28][..], "images are 15×28 pixels; lenet5 needs at least 16×16"),
        (lenet.clone(), &[1, 3, 3], "images are 3×3 pixels"),
        (lenet.clone(), &[28, 28], "`lenet5` takes images"),
        (lenet, &[0, 28, 28], "none of these may be 0"),
        (card(ModelKind::LeNet5, &[3], 0.0), &[1, 28, 28], "fixed widths"),
        (resnet(8, 0.0), &[1, 3, 28], "images are 3×28 pixels; resnet halves them twice"),
        (resnet(8, 0.0), &[30], "`resnet` takes images"),
        (resnet(9, 0.0), &[1, 28, 28], "model.depth: is Some(9); resnet has 6n + 2 layers"),
        (card(ModelKind::Mlp, &[3, 0], 0.0), &[1, 28, 28], "at least 1"),
        (card(ModelKind::Mlp, &[3], 1.0), &[1, 28, 28], "dropout is 1"),
    ] {
        let error = error(&card, input);
        assert_eq!(error.exit_code(), 78);
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn a_resnet_has_6n_plus_2_layers_and_as_many_parameters_as_the_paper_says() {
    // Table 6 of the paper: 0.27, 0.46, 0.66 and 0.85 million.
    for (depth, millions) in [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85)] {
        let (set, model) = make(&resnet(depth, 0.0), &[3, 32, 32]);
        let weights = set.iter().filter(|p: &&Param| p.tensor().rank() > 1).count();
        assert_eq!(weights, depth);
        assert!((set.count() as f64 / 1e6 - millions).abs() < 0.01, "{depth}: {}", set.count());
        assert!(model.describe()[2].contains(&format!("{} blocks", (depth - 2) / 6)));
    }
}

#[test]
fn odd_and_oblong_images_pass_a_resnet() {
    for input in [[1, 4, 4], [2, 5, 7], [3, 33, 18]] {
        let (_, model) = make(&resnet(8, 0.0), &input);
        let x = random_tensor(&[2, input[0], input[1], input[2]], 1);
        assert_eq!(model.forward(&x, &pass(&[1, 2], true)).unwrap().dims(), [2, 10]);
    }
}

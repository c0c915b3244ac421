use super::*;
use crate::model;
use crate::nn::testing::{check_layer, random, random_tensor};
use crate::nn::{Param, ParamSet, cross_entropy, probe};
use candle_core::Device;

const KINDS: [ModelKind; 2] = [ModelKind::Lstm, ModelKind::Gru];

fn card(kind: ModelKind) -> config::Model {
    config::Model { width: Some(6), layers: Some(2), ..config::Model::of(kind) }
}

fn make(card: &config::Model, input: &[usize]) -> (ParamSet, Box<dyn Model>) {
    let params = ParamBuilder::new(3, &Device::Cpu);
    let model = model::build(card, input, 9, &params).unwrap();
    (params.finish(1 << 16, 1 << 20).unwrap(), model)
}

/// Larger values than at the start, so that every term counts.
fn at_random(set: &ParamSet) {
    for (i, param) in set.iter().enumerate() {
        param.update(|values| values.copy_from_slice(&random(values.len(), i as u64))).unwrap();
    }
}

fn pass(samples: &[u64], train: bool) -> Pass<'_> {
    Pass { train, seed: 1, epoch: 2, samples }
}

/// Two windows of five tokens.
fn tokens() -> Tensor {
    let ids = [1f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 0.0, 3.0];
    Tensor::from_slice(&ids, (2, 5), &Device::Cpu).unwrap()
}

fn rows(x: &Tensor) -> Vec<Vec<f32>> {
    x.to_vec2().unwrap()
}

#[test]
fn a_text_model_has_a_row_of_logits_for_each_token_and_one_table_if_tied() {
    for kind in KINDS {
        for tied in [None, Some(true)] {
            let (set, model) = make(&config::Model { tied, dropout: 0.2, ..card(kind) }, &[5]);
            let samples = [4, 7];
            probe(&set, || {
                let logits = model.forward(&tokens(), &pass(&samples, true))?;
                Ok(cross_entropy(&logits, &[3; 10])?.sum_all()?)
            })
            .unwrap();
            let names: Vec<&str> = set.iter().map(Param::name).collect();
            assert_eq!(names.contains(&"head.weight"), tied.is_none(), "{names:?}");
            let counted = |line: &String| -> usize {
                line.split_whitespace().rev().nth(1).unwrap().parse().unwrap()
            };
            let lines = model.describe();
            assert_eq!(lines.iter().map(counted).sum::<usize>(), set.count(), "{lines:#?}");
        }
    }
}

#[test]
fn a_window_has_the_logits_it_has_alone_and_its_start_is_independent_of_its_end() {
    for kind in KINDS {
        let (_, model) = make(&config::Model { dropout: 0.5, ..card(kind) }, &[5]);
        for train in [true, false] {
            let together = rows(&model.forward(&tokens(), &pass(&[4, 7], train)).unwrap());
            for len in [5, 3] {
                let x = tokens().narrow(0, 1, 1).unwrap().narrow(1, 0, len).unwrap();
                let alone = rows(&model.forward(&x, &pass(&[7], train)).unwrap());
                for (a, b) in together[5..].iter().flatten().zip(alone.iter().flatten()) {
                    assert!((a - b).abs() < 1e-6, "{a} {b}");
                }
            }
        }
        let of = |samples: &[u64]| rows(&model.forward(&tokens(), &pass(samples, true)).unwrap());
        assert_ne!(of(&[4, 7]), of(&[4, 8]), "masks belong to samples");
    }
}

#[test]
fn gradients_of_a_text_model_equal_finite_differences() {
    for kind in KINDS {
        let (set, model) = make(&config::Model { tied: Some(true), ..card(kind) }, &[5]);
        at_random(&set);
        check_layer(&set, &[1], 1, |_| model.forward(&tokens(), &pass(&[4, 7], true)));
    }
}

#[test]
fn gradients_of_classifiers_equal_finite_differences_in_both_directions() {
    for kind in KINDS {
        for bidirectional in [None, Some(true)] {
            let card = config::Model { bidirectional, dropout: 0.2, ..card(kind) };
            let (set, model) = make(&card, &[2, 4, 3]);
            at_random(&set);
            check_layer(&set, &[2, 2, 4, 3], 1, |x| {
                cross_entropy(&model.forward(x, &pass(&[5, 6], true))?, &[3, 8])
            });
            let counted = |line: &String| -> usize {
                line.split_whitespace().rev().nth(1).unwrap().parse().unwrap()
            };
            assert_eq!(model.describe().iter().map(counted).sum::<usize>(), set.count());
        }
    }
}

#[test]
fn an_image_is_read_row_by_row_with_all_channels_and_a_table_in_equal_steps() {
    let x = Tensor::arange(0f32, 24.0, &Device::Cpu).unwrap().reshape((1, 2, 3, 4)).unwrap();
    let steps = by_steps(&x, &[2, 3, 4], 3, 8).unwrap();
    let second: Vec<f32> = (4..8).chain(16..20).map(|v| v as f32).collect();
    assert_eq!(steps.get(1).unwrap().to_vec2::<f32>().unwrap(), [second]);
    let x = Tensor::arange(0f32, 12.0, &Device::Cpu).unwrap().reshape((2, 6)).unwrap();
    let steps = by_steps(&x, &[6], 3, 2).unwrap();
    assert_eq!(steps.get(2).unwrap().to_vec2::<f32>().unwrap(), [[4.0, 5.0], [10.0, 11.0]]);
    assert_eq!(super::steps(&[1, 28, 28], None).unwrap(), (28, 28));
    assert_eq!(super::steps(&[3, 5, 7], None).unwrap(), (5, 21));
    assert_eq!(super::steps(&[5, 7], None).unwrap(), (5, 7));
    assert_eq!(super::steps(&[1, 28, 28], Some(49)).unwrap(), (49, 16));
}

#[test]
fn both_ends_decide_where_both_directions_read() {
    for (bidirectional, first_counts) in [(None, false), (Some(true), true)] {
        // Without a way through the states only the ends of each direction are left.
        let (set, model) =
            make(&config::Model { bidirectional, layers: Some(1), ..card(KINDS[0]) }, &[5, 2]);
        for param in set.iter().filter(|p: &&Param| p.name().contains("_hh_")) {
            param.update(|values| values.fill(0.0)).unwrap();
        }
        // Forget what was before.
        for param in set.iter().filter(|p: &&Param| p.name().contains("bias_ih")) {
            param.update(|values| values[6..12].fill(-80.0)).unwrap();
        }
        let logits = |x: &Tensor| rows(&model.forward(x, &pass(&[1], false)).unwrap());
        let x = random_tensor(&[1, 5, 2], 1);
        let changed = |step: usize| {
            let mut values = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            values[2 * step] += 1.0;
            logits(&Tensor::from_vec(values, (1, 5, 2), &Device::Cpu).unwrap()) != logits(&x)
        };
        assert_eq!([changed(0), changed(2), changed(4)], [first_counts, false, true]);
    }
}

#[test]
fn an_empty_batch_passes_forwards_and_backwards() {
    for kind in KINDS {
        for (card, input, shape) in [
            (card(kind), &[5][..], &[0, 5][..]),
            (
                config::Model { bidirectional: Some(true), dropout: 0.5, ..card(kind) },
                &[4, 3],
                &[0, 4, 3],
            ),
        ] {
            let (_, model) = make(&card, input);
            let logits = model.forward(&random_tensor(shape, 1), &pass(&[], true)).unwrap();
            assert_eq!(logits.dims(), [0, 9]);
            cross_entropy(&logits, &[]).unwrap().sum_all().unwrap().backward().unwrap();
        }
    }
}

#[test]
fn samples_that_are_no_sequence_are_a_config_error_in_words() {
    let steps = |steps| config::Model { steps, ..card(KINDS[1]) };
    for (card, input, words) in [
        (
            steps(Some(5)),
            &[1, 28, 28][..],
            "the 784 values of a sample of shape [1, 28, 28] are no 5 steps",
        ),
        (config::Model { layers: Some(0), ..card(KINDS[0]) }, &[5], "width 6, layers 0"),
        (config::Model { dropout: 1.0, ..card(KINDS[0]) }, &[5], "dropout is 1"),
    ] {
        let params = ParamBuilder::new(3, &Device::Cpu);
        let error = model::build(&card, input, 9, &params).err().unwrap();
        assert_eq!(error.exit_code(), 78);
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn with_carried_states_two_windows_in_a_row_have_the_logits_of_one_long_one() {
    for kind in KINDS {
        let params = ParamBuilder::new(3, &Device::Cpu);
        let mut model = model::build(&card(kind), &[10], 9, &params).unwrap();
        params.finish(1 << 16, 1 << 20).unwrap();
        let x = tokens().reshape((1, 10)).unwrap();
        let whole = rows(&model.forward(&x, &pass(&[0], true)).unwrap());
        model.carry_over(2);
        // Streams 0 and 1 read the same; samples 2 and 3 go on where 0 and 1 end.
        let mut parts = Vec::new();
        for (at, samples) in [(0, [0, 1]), (5, [2, 3])] {
            let carry = model.carry().unwrap();
            carry.begin();
            let x = x.narrow(1, at, 5).unwrap();
            let x = Tensor::cat(&[&x, &x], 0).unwrap();
            parts.extend(rows(&model.forward(&x, &pass(&samples, true)).unwrap()).drain(5..));
            carry.commit();
        }
        for (a, b) in whole.iter().flatten().zip(parts.iter().flatten()) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
        // Evaluation begins from zeros whatever was carried.
        let x = x.narrow(1, 0, 5).unwrap();
        let eval = rows(&model.forward(&x, &pass(&[2], false)).unwrap());
        for (a, b) in eval.iter().flatten().zip(whole[..5].iter().flatten()) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
    }
}

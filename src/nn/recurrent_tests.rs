use super::*;
use crate::nn::ParamSet;
use crate::nn::testing::{assert_agree, check_layer, gradients, params_of, random_tensor};

/// Time, batch, inputs, hidden.
const CASES: [[usize; 4]; 4] = [[5, 3, 4, 6], [1, 2, 3, 2], [7, 1, 1, 1], [4, 9, 5, 3]];

/// Both cells in one and in both directions, with parameters of the size that they have in use.
fn layers([_, _, inputs, hidden]: [usize; 4]) -> Vec<(ParamSet, Recurrent)> {
    let ways = [false, true];
    let kinds = [Cell::Lstm, Cell::Gru].into_iter().flat_map(|cell| ways.map(|both| (cell, both)));
    kinds
        .map(|(cell, both)| {
            params_of(|b: &ParamBuilder| {
                Recurrent::new(&b.pp("rnn"), cell, 0, [inputs, hidden], both)
            })
        })
        .collect()
}

#[test]
fn gradients_equal_finite_differences_in_both_forms() {
    for case in CASES {
        for (set, layer) in layers(case) {
            check_layer(&set, &case[..3], 1, |x| layer.forward(x));
            check_layer(&set, &case[..3], 1, |x| Ok(layer.composed(x, None)?.0));
        }
    }
}

#[test]
fn both_forms_agree() {
    for case in CASES.into_iter().chain([[9, 17, 20, 40], [3, 2, 7, 270]]) {
        for (set, layer) in layers(case) {
            for param in &set {
                param.update(|values| values.iter_mut().for_each(|v| *v *= 0.5)).unwrap();
            }
            let x = random_tensor(&case[..3], 7);
            let own = gradients(&set, &x, |x| layer.forward(x));
            assert_agree(own, gradients(&set, &x, |x| Ok(layer.composed(x, None)?.0)));
        }
    }
}

#[test]
fn the_first_layer_needs_no_gradient_of_its_input() {
    let (set, layer) = layers(CASES[0]).swap_remove(0);
    let x = random_tensor(&CASES[0][..3], 1);
    let (with, _) = gradients(&set, &x, |x| layer.forward(x));
    let (without, _) = gradients(&set, &x, |x| layer.forward(&x.detach()));
    assert_eq!(with[1..], without[1..]);
    assert!(without[0].iter().all(|&g| g == 0.0));
}

#[test]
fn a_sequence_alone_has_the_states_it_has_in_a_batch() {
    for (_, layer) in layers(CASES[0]) {
        let x = random_tensor(&CASES[0][..3], 1);
        let states = |x: &Tensor| layer.forward(x).unwrap().to_vec3::<f32>().unwrap();
        let together = states(&x);
        let alone = states(&x.narrow(1, 1, 1).unwrap());
        for (together, alone) in together.iter().zip(&alone) {
            for (a, b) in together[1].iter().zip(&alone[0]) {
                assert!((a - b).abs() < 1e-6, "{a} {b}");
            }
        }
    }
}

#[test]
fn a_sequence_in_two_parts_has_the_states_it_has_as_a_whole() {
    let [time, batch, inputs, hidden] = CASES[0];
    for (_, layer) in layers(CASES[0]).into_iter().filter(|(_, l)| l.outputs() == hidden) {
        let x = random_tensor(&[time, batch, inputs], 1);
        let whole = layer.forward(&x).unwrap();
        type Form<'a> = &'a dyn Fn(&Tensor, &[f32]) -> (Tensor, Vec<f32>);
        let forms: [Form; 2] =
            [&|x, before| layer.forward_from(x, before).unwrap(), &|x, before| {
                layer.composed(x, Some(before)).unwrap()
            }];
        for run in forms {
            let zeros = vec![0.0; batch * layer.state_len()];
            let (start, middle) = run(&x.narrow(0, 0, 2).unwrap(), &zeros);
            let (end, last) = run(&x.narrow(0, 2, time - 2).unwrap(), &middle);
            let parts = Tensor::cat(&[start, end], 0).unwrap();
            let apart = (parts - &whole).unwrap().abs().unwrap().max_all().unwrap();
            assert!(apart.to_scalar::<f32>().unwrap() < 1e-6);
            let states = whole.get(time - 1).unwrap().to_vec2::<f32>().unwrap();
            for (state, last) in states.iter().zip(last.chunks_exact(layer.state_len())) {
                assert!(state.iter().zip(last).all(|(a, b)| (a - b).abs() < 1e-6));
            }
        }
    }
}

#[test]
fn gradients_from_a_given_state_equal_finite_differences() {
    let [time, batch, inputs, hidden] = CASES[0];
    for (set, layer) in layers(CASES[0]).into_iter().filter(|(_, l)| l.outputs() == hidden) {
        let before = crate::nn::testing::random(batch * layer.state_len(), 4);
        check_layer(&set, &[time, batch, inputs], 1, |x| Ok(layer.forward_from(x, &before)?.0));
        let x = random_tensor(&[time, batch, inputs], 7);
        let own = gradients(&set, &x, |x| Ok(layer.forward_from(x, &before)?.0));
        assert_agree(own, gradients(&set, &x, |x| Ok(layer.composed(x, Some(&before))?.0)));
    }
}

#[test]
fn only_the_backward_direction_sees_later_steps() {
    let [time, batch, inputs, hidden] = CASES[0];
    for (_, layer) in layers(CASES[0]) {
        let x = random_tensor(&[time, batch, inputs], 1);
        let start = x.narrow(0, 0, time - 1).unwrap();
        let states = |x: &Tensor| layer.forward(x).unwrap().to_vec3::<f32>().unwrap();
        let (whole, start) = (states(&x), states(&start));
        for (whole, start) in whole.iter().flatten().zip(start.iter().flatten()) {
            let apart = |(a, b): (&f32, &f32)| (a - b).abs() > 1e-6;
            assert!(!whole[..hidden].iter().zip(start).any(apart), "{whole:?} {start:?}");
            let later = whole[hidden..].iter().zip(&start[hidden..]).any(apart);
            assert!(whole.len() == hidden || later, "{whole:?} {start:?}");
        }
    }
}

#[test]
fn parameters_have_pytorchs_names_and_layouts_and_start_within_its_bounds() {
    let builder = ParamBuilder::new(5, &candle_core::Device::Cpu);
    Recurrent::new(&builder.pp("rnn"), Cell::Gru, 2, [5, 16], true).unwrap();
    let set = builder.finish(1 << 16, 1 << 20).unwrap();
    let found: Vec<_> =
        set.iter().map(|p: &Param| format!("{} {:?}", p.name(), p.tensor().dims())).collect();
    let expected = [
        "rnn.bias_hh_l2 [48]",
        "rnn.bias_hh_l2_reverse [48]",
        "rnn.bias_ih_l2 [48]",
        "rnn.bias_ih_l2_reverse [48]",
        "rnn.weight_hh_l2 [48, 16]",
        "rnn.weight_hh_l2_reverse [48, 16]",
        "rnn.weight_ih_l2 [48, 5]",
        "rnn.weight_ih_l2_reverse [48, 5]",
    ];
    assert_eq!(found, expected);
    for param in &set {
        let values = param.to_vec().unwrap();
        assert!(values.iter().all(|v| v.abs() <= 0.25), "{}", param.name());
        assert!(values.iter().any(|v| v.abs() > 0.2), "{}", param.name());
    }
}

#[test]
fn nothing_in_gives_nothing_out_and_zero_gradients() {
    for shape in [[4, 0, 3], [0, 2, 3]] {
        for (set, layer) in layers([4, 2, 3, 5]) {
            let x = random_tensor(&shape, 1);
            let dims = [shape[0], shape[1], layer.outputs()];
            assert_eq!(layer.forward(&x).unwrap().dims(), dims);
            assert_eq!(layer.composed(&x, None).unwrap().0.dims(), dims);
            let (gradients, _) = gradients(&set, &x, |x| layer.forward(x));
            assert!(gradients.iter().flatten().all(|&g| g == 0.0));
        }
    }
}

#[test]
fn a_number_that_is_none_reaches_the_result() {
    for (_, layer) in layers(CASES[0]) {
        let x = Tensor::full(f32::NAN, &CASES[0][..3], &candle_core::Device::Cpu).unwrap();
        let y = layer.forward(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(y.iter().all(|v| v.is_nan()));
    }
}

#[test]
fn what_does_not_fit_is_refused_in_words() {
    let (_, layer) = layers(CASES[0]).swap_remove(0);
    let message = layer.forward(&random_tensor(&[5, 3, 3], 1)).unwrap_err().to_string();
    assert!(message.contains("rnn.weight_ih_l0: expected f32 (time, batch, 4)"), "{message}");
    assert!(layer.forward_from(&random_tensor(&[5, 3, 4], 1), &[0.0; 6]).is_err());
    let builder = ParamBuilder::new(1, &candle_core::Device::Cpu);
    let error = Recurrent::new(&builder, Cell::Lstm, 0, [3, 0], false).err().unwrap();
    assert_eq!(error.exit_code(), 78);
}

//! What every optimizer promises. That they compute what PyTorch computes is in `tests/golden.rs`.

use super::*;
use crate::config::OptimizerKind::{Adam, Adamw, Lamb, Lars, Lion, Rmsprop, Sgd};

const LENS: [usize; 3] = [5, 0, 33];

fn cards() -> Vec<config::Optimizer> {
    let card = |kind, momentum, nesterov| config::Optimizer {
        kind,
        momentum,
        nesterov,
        weight_decay: 0.01,
        ..Default::default()
    };
    vec![
        card(Sgd, None, None),
        card(Sgd, Some(0.9), None),
        card(Sgd, Some(0.9), Some(true)),
        card(Adam, None, None),
        card(Adamw, None, None),
        card(Rmsprop, None, None),
        card(Rmsprop, Some(0.9), None),
        card(Lion, None, None),
        card(Lamb, None, None),
        card(Lars, Some(0.9), None),
    ]
}

fn values() -> Vec<Vec<f32>> {
    LENS.iter().map(|&n| (0..n).map(|j| (j as f32).sin()).collect()).collect()
}

fn step(rule: &mut dyn Optimizer, values: &mut [Vec<f32>], number: usize, scale: f32) {
    rule.begin_step(0.01);
    for (i, values) in values.iter_mut().enumerate() {
        let grad: Vec<f32> =
            (0..values.len()).map(|j| ((i + 3 * j + 7 * number) as f32).cos() / scale).collect();
        rule.update(i, values, &grad, scale);
    }
}

#[test]
fn a_run_continued_from_its_state_goes_on_bit_for_bit() {
    for card in cards() {
        let (mut whole, mut cut) = (values(), values());
        let mut rule = build(&card, &LENS).unwrap();
        (0..7).for_each(|n| step(&mut *rule, &mut whole, n, 1.0));
        let mut rule = build(&card, &LENS).unwrap();
        (0..3).for_each(|n| step(&mut *rule, &mut cut, n, 1.0));
        let state = rule.state();
        assert_eq!((state.kind.as_str(), state.step), (rule.name(), 3));
        let mut rule = build(&card, &LENS).unwrap();
        rule.load_state(state.clone()).unwrap();
        assert_eq!(rule.state(), state);
        (3..7).for_each(|n| step(&mut *rule, &mut cut, n, 1.0));
        assert_eq!(whole, cut, "{card:?}");
        assert_ne!(whole, values());
    }
}

#[test]
fn the_scale_multiplies_the_gradient_and_not_the_weight_decay() {
    for card in cards() {
        let (mut plain, mut scaled) = (values(), values());
        for (values, scale) in [(&mut plain, 1.0), (&mut scaled, 0.25)] {
            let mut rule = build(&card, &LENS).unwrap();
            (0..3).for_each(|n| step(&mut *rule, values, n, scale));
        }
        assert_eq!(plain, scaled, "{card:?}");
    }
}

#[test]
fn a_state_that_does_not_fit_is_a_data_error_and_changes_nothing() {
    let mut rule = build(&cards()[4], &LENS).unwrap();
    let mut theta = values();
    step(&mut *rule, &mut theta, 0, 1.0);
    let good = rule.state();
    let spoiled = |spoil: &dyn Fn(&mut State)| {
        let mut state = good.clone();
        state.step = 99;
        state.moments[0].1[0][0] = 5.0;
        spoil(&mut state);
        state
    };
    type Spoil<'a> = &'a dyn Fn(&mut State);
    let cases: [(Spoil, &str); 6] = [
        (&|s| s.kind = "adam".into(), "is of adam, the card's optimizer is adamw"),
        (&|s| drop(s.moments.pop()), "holds [\"exp_avg\"], expected"),
        (&|s| s.moments.swap(0, 1), "holds [\"exp_avg_sq\", \"exp_avg\"]"),
        (&|s| drop(s.moments[1].1.pop()), "for 2 parameters, the model has 3"),
        (&|s| s.moments[1].1[2].push(0.0), "34 values of exp_avg_sq for parameter 2"),
        (&|s| s.moments[1].1[2][32] = f32::NAN, "exp_avg_sq of parameter 2 is NaN at 32"),
    ];
    for (spoil, words) in cases {
        let error = rule.load_state(spoiled(spoil)).unwrap_err();
        assert_eq!(error.exit_code(), 65);
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(rule.state(), good);
    }
}

#[test]
fn plain_sgd_keeps_no_memory() {
    assert!(build(&cards()[0], &LENS).unwrap().state().moments.is_empty());
}

#[test]
#[should_panic(expected = "parameter 0: values and moments")]
fn a_parameter_of_another_length_is_refused() {
    let mut rule = build(&cards()[3], &LENS).unwrap();
    rule.begin_step(0.1);
    rule.update(0, &mut [0.0; 4], &[0.0; 4], 1.0);
}

#[test]
fn a_group_has_its_own_weight_decay_and_with_factor_0_stays_as_it_is() {
    for mut card in cards() {
        let group = |name: &str, weight_decay, lr_factor| config::ParameterGroup {
            parameters: vec![name.to_owned()],
            weight_decay,
            lr_factor,
            l1: None,
            l2: None,
        };
        let names = ["a", "b", "c"];
        let run = |card: &config::Optimizer| {
            let (mut values, mut rule) = (values(), build_for(card, &names, &LENS).unwrap());
            (0..3).for_each(|n| step(&mut *rule, &mut values, n, 1.0));
            values
        };
        let whole = run(&card);
        card.groups = vec![group("a", None, 0.0), group("c", Some(0.5), 1.0)];
        let parts = run(&card);
        assert_eq!(parts[0], values()[0], "{card:?}");
        assert_ne!(parts[2], whole[2], "{card:?}");
        card.groups.clear();
        card.weight_decay = 0.5;
        assert_eq!(run(&card)[2], parts[2], "{card:?}");
    }
}

/// Numbers of `scripts/golden/make_averages.py`.
fn golden(case: &str) -> serde_json::Value {
    let text = include_str!("../../tests/golden/averages.json");
    serde_json::from_str::<serde_json::Value>(text).unwrap()[case].clone()
}

fn floats(value: &serde_json::Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn assert_close(what: &str, got: &[f32], expected: &[f32]) {
    let largest = expected.iter().fold(1e-3f32, |a, v| a.max(v.abs()));
    for (g, e) in got.iter().zip(expected) {
        assert!((g - e).abs() <= 1e-6 * largest, "{what}: {got:?}, PyTorch {expected:?}");
    }
}

#[test]
fn averages_follow_pytorch() {
    let ema = AverageRule::Ema { decay: 0.9, warmup: false };
    for (case, rule) in [("ema", ema), ("swa", AverageRule::Swa)] {
        let golden = golden(case);
        let mut average = Average::new(rule, &[5]).unwrap();
        for t in 0..12 {
            average.begin();
            average.take(0, &floats(&golden["values"][t]));
            assert_close(case, average.of(0), &floats(&golden["averages"][t]));
        }
    }
}

#[test]
fn steps_with_penalties_follow_pytorch() {
    for (case, card) in [
        ("sgd", r#"{"kind":"sgd","lr":0.1,"l1":0.03,"l2":0.2}"#),
        ("adamw", r#"{"kind":"adamw","lr":0.02,"weight_decay":0.1,"l1":0.05,"l2":0.01}"#),
    ] {
        let (golden, card) = (golden(case), serde_json::from_str(card).unwrap());
        let mut rule = build(&card, &[5]).unwrap();
        let mut penalties = Penalties::new(&card, &["a"]).unwrap().unwrap();
        let mut theta = floats(&golden["start"]);
        for t in 0..12 {
            let sum = penalties.add(0, &theta, &floats(&golden["grads"][t]), 1.0).to_vec();
            let norm = sum.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            assert_close(case, &[norm as f32], &floats(&golden["norms"])[t..=t]);
            rule.begin_step(card.lr);
            // PyTorch adds 1e-6 to the norm by which it clips.
            rule.update(0, &mut theta, &sum, (1.0 / (norm + 1e-6)).min(1.0) as f32);
            assert_close(case, &theta, &floats(&golden["values"][t]));
        }
    }
}

//! The numbers are scikit-learn's (`scripts/golden/make_metrics.py`).

use super::*;
use crate::collective::chunks::chunk;
use crate::comm::threads;
use serde_json::Value;

fn golden(part: &str) -> Value {
    let text = include_str!("../../../tests/golden/metrics.json");
    let all: Value = serde_json::from_str(text).unwrap();
    all[part].clone()
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn labels(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

fn outputs(value: &Value) -> Outputs {
    let rows: Vec<Vec<f64>> = value.as_array().unwrap().iter().map(floats).collect();
    let values = rows.concat().into_iter().map(|v| v as f32).collect();
    Outputs::new(values, rows[0].len())
}

/// Numbers that differ by rounding alone.
fn close(what: &str, got: f64, expected: f64) {
    assert!((got - expected).abs() <= 1e-14, "{what}: {got}, scikit-learn {expected}");
}

/// What the ranks make of rows and labels of which each has seen its run; all must say the same.
fn evaluate(ranks: usize, wanted: Wanted, outputs: &Outputs, labels: &[u32]) -> Evaluation {
    let rows: Vec<&[f32]> = outputs.rows().collect();
    let of_rank = |rank: usize, group: &mut Group| {
        let mut counts = Counts::new(wanted, ranks, labels[0]);
        let mine = chunk(rows.len(), ranks, rank);
        if !mine.is_empty() {
            let own = Outputs::new(rows[mine.clone()].concat(), rows[0].len());
            counts.see(rank, &own, &labels[mine]);
        }
        let tally = Tally { count: labels.len() as f64, ..Tally::default() };
        Evaluation::of(tally, counts, group).unwrap()
    };
    let found: Vec<Evaluation> = std::thread::scope(|scope| {
        let peers = threads::world(ranks).into_iter().enumerate();
        let threads: Vec<_> = peers
            .map(|(rank, peer)| {
                scope.spawn(move || of_rank(rank, &mut Group::meet(Box::new(peer)).unwrap()))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    found.iter().for_each(|eval| assert_eq!(*eval, found[0]));
    found[0].clone()
}

#[test]
fn classes_are_counted_and_judged_as_by_scikit_learn_at_any_rank_count() {
    let golden = golden("classes");
    let (labels, outputs) = (labels(&golden["labels"]), outputs(&golden["outputs"]));
    for (k, ranks) in [(2, 1), (3, 2), (2, 3)] {
        let wanted = Wanted { classes: 6, top_k: Some(k), confusion: true, ..Wanted::default() };
        let eval = evaluate(ranks, wanted, &outputs, &labels);
        close("top k", eval.value(Monitor::TopK), golden[format!("top_{k}")].as_f64().unwrap());
        let confusion = eval.details.as_ref().unwrap();
        assert_eq!(serde_json::to_value(confusion.rows()).unwrap(), golden["confusion"]);
        for (i, class) in confusion.classes().iter().enumerate() {
            close("precision", class.precision, floats(&golden["precision"])[i]);
            close("recall", class.recall, floats(&golden["recall"])[i]);
            close("F1", class.f1, floats(&golden["f1"])[i]);
        }
        let mean = floats(&golden["macro"]);
        close("mean precision", eval.value(Monitor::Precision), mean[0]);
        close("mean recall", eval.value(Monitor::Recall), mean[1]);
        close("mean F1", eval.value(Monitor::F1), mean[2]);
    }
}

#[test]
fn areas_under_the_curve_are_those_of_scikit_learn_at_any_rank_count() {
    let golden = golden("auc");
    let (labels, outputs) = (labels(&golden["labels"]), outputs(&golden["outputs"]));
    for ranks in [1, 2, 3, 5] {
        let wanted = Wanted { classes: 3, auc: true, ..Wanted::default() };
        let eval = evaluate(ranks, wanted, &outputs, &labels);
        close("mean area", eval.value(Monitor::Auc), golden["macro"].as_f64().unwrap());
        let rows: Vec<&[f32]> = outputs.rows().map(|row| &row[..2]).collect();
        let two: Vec<u32> = labels.iter().map(|&label| u32::from(label > 0)).collect();
        let wanted = Wanted { classes: 2, ..wanted };
        let eval = evaluate(ranks, wanted, &Outputs::new(rows.concat(), 2), &two);
        close("area of two", eval.value(Monitor::Auc), golden["two"].as_f64().unwrap());
    }
}

#[test]
fn predicted_numbers_are_judged_as_by_scikit_learn_at_any_rank_count() {
    let golden = golden("numbers");
    let said: Vec<f32> = floats(&golden["said"]).into_iter().map(|v| v as f32).collect();
    let wanted_numbers = floats(&golden["wanted"]).into_iter();
    let labels: Vec<u32> = wanted_numbers.map(|v| label::of_number(v as f32)).collect();
    for ranks in [1, 2, 3] {
        let wanted = Wanted { classes: 1, numbers: true, ..Wanted::default() };
        let eval = evaluate(ranks, wanted, &Outputs::new(said.clone(), 1), &labels);
        for (monitor, name) in [
            (Monitor::Mae, "mae"),
            (Monitor::Mse, "mse"),
            (Monitor::Rmse, "rmse"),
            (Monitor::R2, "r2"),
        ] {
            close(name, eval.value(monitor), golden[name].as_f64().unwrap());
        }
    }
}

#[test]
fn labels_that_do_not_count_are_not_counted() {
    let wanted = Wanted { classes: 2, top_k: Some(1), confusion: true, ..Wanted::default() };
    let mut counts = Counts::new(wanted, 1, 0);
    counts.see(0, &Outputs::new(vec![0.0, 1.0, 0.0, 1.0], 2), &[1, IGNORED]);
    assert_eq!((counts.hits, counts.confusion.unwrap().rows()), (1, vec![vec![0, 0], vec![0, 1]]));
}

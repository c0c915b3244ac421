//! `scripts/golden/make_data.py` wrote the files and what numpy and its companions, webdataset
//! among them, read from them.

use crate::common::root;
use crate::museum::{Museum, sample};
use annulus::data::SharedDataset;
use serde_json::{Value, json};

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// The data set of a card that lies in the golden folder, as far as its paths can tell.
fn open(data: &Value) -> SharedDataset {
    let mut data = data.clone();
    let golden = root().join("tests/golden/data");
    for path in data["train"].as_object_mut().unwrap().values_mut() {
        let whole = |path: &Value| json!(golden.join(path.as_str().unwrap()));
        *path = match &*path {
            Value::Array(list) => list.iter().map(whole).collect(),
            single => whole(single),
        };
    }
    Museum::new().open(&data).unwrap()
}

#[test]
fn every_golden_data_set_is_read_as_python_reads_it() {
    let text = std::fs::read_to_string(root().join("tests/golden/data/expected.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert!(cases.len() >= 33, "{} cases", cases.len());
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let set = open(&case["data"]);
        assert_eq!(json!(set.sample_shape()), case["shape"], "{name}");
        let labels = case["labels"].as_array().unwrap();
        assert_eq!(set.len(), labels.len(), "{name}");
        let tolerance = case["tolerance"].as_f64().unwrap();
        for (i, wanted) in labels.iter().enumerate() {
            let (values, label) = sample(&set, i).unwrap();
            assert_eq!(u64::from(label), wanted.as_u64().unwrap(), "{name}, sample {i}");
            let near = |a: f64, b: f64| (a - b).abs() <= tolerance * b.abs().max(1.0);
            for (v, wanted) in values.iter().zip(floats(&case["first"][i])) {
                assert!(near(f64::from(*v), wanted), "{name}, sample {i}: {v}, not {wanted}");
            }
            let of_places =
                values.iter().enumerate().map(|(place, v)| place as f64 * f64::from(*v));
            let (sum, wanted) = (of_places.sum::<f64>(), case["sums"][i].as_f64().unwrap());
            assert!(near(sum, wanted), "{name}, sample {i}: sum {sum}, not {wanted}");
        }
    }
}

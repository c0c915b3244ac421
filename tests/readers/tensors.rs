use crate::museum::{Museum, mutate, sample, survives};
use serde_json::{Value, json};

/// A safetensors file of this header and data.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), data].concat()
}

/// Tensors of these names, types and shapes, one after another.
pub fn tensors(list: &[(&str, &str, &[u64], &[u8])]) -> Vec<u8> {
    let (mut entries, mut bytes) = (vec![], vec![]);
    for (name, dtype, shape, data) in list {
        let begin = bytes.len();
        bytes.extend_from_slice(data);
        let offsets = [begin, bytes.len()];
        let about = json!({"dtype": dtype, "shape": shape, "data_offsets": offsets});
        entries.push(format!("{}:{about}", json!(name)));
    }
    file(&format!("{{{}}}", entries.join(",")), &bytes)
}

fn data() -> Value {
    json!({"format": "safetensors", "train": {"files": ["exhibit"]}, "classes": 3})
}

fn with(names: &Value) -> Value {
    let mut data = data();
    data["tensors"] = names.clone();
    data
}

const PIXELS: [u8; 24] = [51; 24];
const X: (&str, &str, &[u64], &[u8]) = ("x", "U8", &[2, 3, 4], &PIXELS);
const Y: (&str, &str, &[u64], &[u8]) = ("y", "U8", &[2], &[2, 0]);

#[track_caller]
fn refuses(bytes: &[u8], words: &[&str]) {
    let museum = Museum::new();
    museum.put("exhibit", bytes);
    museum.refuses(&data(), 65, &[&["data.train: ", "exhibit: "], words].concat());
}

#[test]
fn samples_and_labels_are_the_tensors_that_the_card_names_or_the_usual_ones() {
    let museum = Museum::new();
    let other = ("weights", "BF16", &[3][..], &[0; 6][..]);
    museum.put("exhibit", &tensors(&[Y, other, X]));
    let set = museum.open(&data()).unwrap();
    assert_eq!((set.len(), set.sample_shape(), set.classes()), (2, &[1, 3, 4][..], 3));
    assert_eq!(sample(&set, 0).unwrap(), (vec![0.2; 12], 2));
    assert_eq!([0, 1].map(|i| set.label(i).unwrap()), [2, 0]);
    assert!(sample(&set, 2).is_err() && set.read(0, &mut [0.0; 11]).is_err());
    let scores: Vec<u8> = [0.5f32, -1.0, 2.0, 3.0].into_iter().flat_map(f32::to_le_bytes).collect();
    museum.put("exhibit", &tensors(&[X, Y, ("images", "F32", &[2, 2], &scores)]));
    let words = ["has tensors `images` and `x`; name the one to use in data.tensors.images"];
    museum.refuses(&data(), 65, &words);
    let set = museum.open(&with(&json!({"images": "images"}))).unwrap();
    assert_eq!(sample(&set, 0).unwrap(), (vec![0.5, -1.0], 2));
}

#[test]
fn files_follow_one_another_and_must_be_alike() {
    let museum = Museum::new();
    let last = ("x", "U8", &[1, 3, 4][..], &[102; 12][..]);
    let label = ("y", "U8", &[1][..], &[1][..]);
    museum.put("exhibit", &tensors(&[X, Y]));
    museum.put("more", &tensors(&[last, label]));
    let mut two = data();
    two["train"]["files"] = json!(["exhibit", "more"]);
    let of = |limit: usize| {
        let mut limited = two.clone();
        limited["train_limit"] = limit.into();
        museum.open(&limited).unwrap()
    };
    let set = of(9);
    assert_eq!(set.len(), 3);
    assert_eq!([0, 1, 2].map(|i| set.label(i).unwrap()), [2, 0, 1]);
    assert_eq!(sample(&set, 2).unwrap(), (vec![0.4; 12], 1));
    assert_eq!([1, 2].map(|limit| of(limit).len()), [1, 2]);
    assert!(of(2).fingerprint() != set.fingerprint() && of(3).fingerprint() == set.fingerprint());
    let words =
        ["more: tensor `x`: has samples of shape [", "; in the first file they are [1, 3, 4]"];
    for other in [
        ("x", "U8", &[1, 4, 3][..], &[0; 12][..]),
        ("x", "I32", &[1, 3, 4], &[0; 48]),
        ("x", "U8", &[1, 12], &[0; 12]),
    ] {
        museum.put("more", &tensors(&[other, label]));
        museum.refuses(&two, 65, &words);
    }
}

#[test]
fn a_file_cut_at_any_byte_is_refused() {
    let whole = tensors(&[X, Y]);
    let header = whole.len() - 26;
    for cut in 0..whole.len() {
        let word = match cut {
            0 => "the file is empty",
            1..8 => "not a safetensors file",
            _ if cut < header => "or cut off: it announces a header of",
            _ => "its tensors take 26 bytes, the file has ",
        };
        refuses(&whole[..cut], &[word]);
    }
    refuses(&[&whole[..], &[0]].concat(), &["the file has 27 for them"]);
}

#[test]
fn what_a_header_claims_is_compared_with_the_file() {
    let entry = |shape: &str, offsets: &str| {
        format!(r#"{{"x":{{"dtype":"U8","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let sound = entry("[2]", "[0,2]");
    let one = &sound[1..sound.len() - 1];
    let twice = format!("{{{one},{one}}}");
    for (header, word) in [
        (entry("[4294967296,4294967296,2]", "[0,2]"), "larger than any memory"),
        (entry("[1000000000000]", "[0,1000000000000]"), "the file has 2 for them"),
        (entry("[3]", "[0,2]"), "of 3 bytes lies at 0 to 2"),
        (entry("[2]", "[2,0]"), "lies at 2 to 0; expected from 0 on"),
        (entry("[1]", "[1,2]"), "expected from 0 on"),
        (entry("[-2]", "[0,2]"), "its header is damaged"),
        (entry("[2.0]", "[0,2]"), "its header is damaged"),
        (entry("[1,1,1,1,1,1,1,1,2]", "[0,2]"), "at most 8 numbers"),
        (sound.replace("\"x\"", "\"\""), "a tensor's name of 0 bytes"),
        (sound.replace("\"U8\"", "\"F4\""), "is of type \"F4\"; only BOOL, U8"),
        (sound.replace("\"U8\"", "8"), "its header is damaged"),
        (sound.replace(",\"shape\":[2]", ""), "missing field `shape`"),
        (twice, "two tensors are called \"x\""),
        (sound.replace("}}", "}} and more"), "trailing characters"),
        ("[".repeat(100_000), "its header is damaged"),
        ("[]".to_owned(), "its header is damaged"),
        (r#"{"__metadata__":{}}"#.to_owned(), "its tensors take 0 bytes, the file has 2"),
    ] {
        refuses(&file(&header, &[0; 2]), &[word]);
    }
    refuses(&file("\u{1b}[31m", &[]), &["its header is damaged"]);
    refuses(&[0xff; 64], &["announces a header of 18446744073709551615 bytes"]);
    refuses(&(17u64 << 20).to_le_bytes(), &["announces a header of 17825792 bytes"]);
}

#[test]
fn tensors_that_are_missing_or_of_another_kind_are_named() {
    let none = "has no tensor `images` or `x`; name the one to use in data.tensors.images; it has";
    refuses(&file("{}", &[]), &[none, "it has none"]);
    refuses(&tensors(&[("a", "U8", &[2], &[0; 2]), Y]), &[none, "it has: a, y"]);
    refuses(&tensors(&[X]), &["has no tensor `labels` or `y`; name the one"]);
    let strange = ("red\u{1b}[31m", "U8", &[1][..], &[0][..]);
    refuses(&tensors(&[strange]), &[r"it has: red\u{1b}[31m"]);
    for (dtype, size) in [("F16", 2), ("BF16", 2), ("I8", 1), ("U64", 8), ("BOOL", 1)] {
        let data = vec![0; 4 * size];
        let words =
            format!("tensor `x`: holds numbers of type {dtype}; read are U8, I32, I64, F32");
        refuses(&tensors(&[("x", dtype, &[2, 2], &data), Y]), &[&words]);
    }
    for (y, word) in [
        (
            ("y", "U8", &[2][..], &[0, 3][..]),
            "tensor `y`: label 3 of sample 1 is not one of 0 to 2",
        ),
        (("y", "I32", &[1], &[255; 4]), "tensor `y`: label -1 of sample 0"),
        (("y", "U8", &[3], &[0; 3]), "tensor `y`: has 3 labels, but "),
        (
            ("y", "U8", &[3], &[0; 3]),
            "exhibit: tensor `x` has 2 samples; they do not belong together",
        ),
        (
            ("y", "U8", &[2, 1], &[0; 2]),
            "tensor `y`: has shape (2 x 1); labels have shape (samples)",
        ),
        (("y", "F32", &[2], &[0; 8]), "tensor `y`: holds floats"),
    ] {
        refuses(&tensors(&[X, y]), &[word]);
    }
    for (shape, word) in
        [(&[24][..], "are these the labels?"), (&[1, 1, 1, 1, 24], "has shape (1 x 1")]
    {
        refuses(&tensors(&[("x", "U8", shape, &[0; 24]), Y]), &["tensor `x`: ", word]);
    }
    refuses(
        &tensors(&[("x", "U8", &[2, 0], &[]), Y]),
        &["tensor `x`: has shape (2 x 0): no numbers"],
    );
    let museum = Museum::new();
    museum.put("exhibit", &tensors(&[X, Y]));
    let names = with(&json!({"images": "pixels"}));
    museum.refuses(
        &names,
        65,
        &["no tensor `pixels`, which data.tensors.images names; it has: x, y"],
    );
    let nan: Vec<u8> = [1.0, f32::NAN].into_iter().flat_map(f32::to_le_bytes).collect();
    museum.put("exhibit", &tensors(&[("x", "F32", &[2, 1], &nan), Y]));
    let set = museum.open(&data()).unwrap();
    assert!(sample(&set, 0).is_ok());
    let error = sample(&set, 1).unwrap_err().to_string();
    assert!(error.contains("exhibit: tensor `x`: number 0 of sample 1 "), "{error}");
}

#[test]
fn the_card_is_told_what_the_format_takes() {
    let museum = Museum::new();
    museum.refuses(&data(), 66, &["exhibit: no such file"]);
    let same = with(&json!({"images": "a", "labels": "a"}));
    museum.refuses(&same, 78, &["data.tensors.labels: is the same tensor as images"]);
    let mut other = json!({"format": "npy", "train": {"images": "x", "labels": "y"}, "classes": 2});
    other["tensors"] = json!({});
    museum.refuses(&other, 78, &["data.tensors: is used by data.format `safetensors` only"]);
}

#[test]
fn no_mutation_makes_the_safetensors_reader_panic() {
    let museum = Museum::new();
    let whole = tensors(&[X, Y]);
    museum.put("exhibit", &whole);
    let (taken, refused) = survives(&museum, &data(), 4000, |rng| {
        let mut bytes = whole.clone();
        mutate(&mut bytes, 140, rng);
        museum.put("exhibit", &bytes);
    });
    assert!(taken > 30 && refused > 1000, "{taken} {refused}");
}

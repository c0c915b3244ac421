use crate::museum::{Museum, mutate, sample, survives};
use annulus::data::{self, IGNORED};
use serde_json::{Value, json};

fn data(classes: usize, text: &Value) -> Value {
    json!({"format": "text", "train": {"files": ["exhibit"]}, "classes": classes, "text": text})
}

fn characters(classes: usize) -> Value {
    data(classes, &json!({"context": 4, "vocabulary": "characters"}))
}

fn ids(width: &str, classes: usize) -> Value {
    let mut data = data(classes, &json!({"context": 3, "ids": width}));
    data["format"] = "tokens".into();
    data
}

fn all(data: &Value, museum: &Museum) -> Vec<(Vec<f32>, Vec<u32>)> {
    let set = museum.open(data).unwrap();
    (0..set.len())
        .map(|i| {
            let (mut x, mut y) = (vec![0.0; set.sample_len()], vec![0; set.labels_per_sample()]);
            set.read_all(i, &mut x, &mut y).unwrap();
            (x, y)
        })
        .collect()
}

#[test]
fn windows_of_characters_are_numbered_in_the_order_of_code_points() {
    let museum = Museum::new();
    museum.put("exhibit", "héé!a\n".as_bytes());
    // \n 0, ! 1, a 2, h 3, é 4
    let windows = all(&characters(5), &museum);
    let padded = vec![4, 4, 1, 2];
    assert_eq!(windows[0], (vec![3.0, 4.0, 4.0, 1.0], padded));
    assert_eq!(windows[1], (vec![2.0, 0.0, 0.0, 0.0], vec![0, IGNORED, IGNORED, IGNORED]));
    assert_eq!(windows.len(), 2);
    let set = museum.open(&characters(5)).unwrap();
    assert_eq!(sample(&set, 1).unwrap().1, 0);
    assert!(sample(&set, 2).is_err() && set.read(0, &mut [0.0; 3]).is_err());
}

#[test]
fn tokens_of_16_and_32_bits_are_little_endian() {
    let museum = Museum::new();
    let numbers = [7u32, 256, 65_535, 3];
    for width in ["u16", "u32"] {
        let bytes: Vec<u8> = match width {
            "u16" => numbers.iter().flat_map(|&n| (n as u16).to_le_bytes()).collect(),
            _ => numbers.iter().flat_map(|n| n.to_le_bytes()).collect(),
        };
        museum.put("exhibit", &bytes);
        let windows = all(&ids(width, 65_536), &museum);
        assert_eq!(windows, [(vec![7.0, 256.0, 65_535.0], vec![256, 65_535, 3])]);
        museum.refuses(
            &ids(width, 65_535),
            65,
            &["exhibit: token 2 is 65535; data.classes is 65535"],
        );
        museum.put("exhibit", &bytes[1..]);
        museum.refuses(&ids(width, 65_536), 65, &["exhibit: ", "not a whole number of tokens"]);
    }
}

#[test]
fn each_file_of_a_text_stands_by_itself() {
    let museum = Museum::new();
    museum.put("exhibit", b"abc");
    museum.put("other", b"xy");
    let mut card = data(256, &json!({"context": 4}));
    card["train"]["files"] = json!(["exhibit", "other"]);
    let windows = all(&card, &museum);
    let pairs =
        [(vec![97.0, 98.0, 0.0, 0.0], [98, 99]), (vec![120.0, 0.0, 0.0, 0.0], [121, IGNORED])];
    for ((x, y), (expected, labels)) in windows.iter().zip(pairs) {
        assert_eq!((x, &y[..2]), (&expected, &labels[..]));
    }
    card["train_limit"] = 1.into();
    assert_eq!(museum.open(&card).unwrap().len(), 1);
}

#[test]
fn what_is_no_text_is_refused_with_its_name_and_place() {
    let museum = Museum::new();
    museum.refuses(&characters(5), 66, &["data.train: ", "exhibit"]);
    for (bytes, words) in [
        (&b""[..], "the file is empty"),
        (b"a", "has 1 of its 1 tokens"),
        (b"ab\ncd\xc3", "line 2, byte 5: is not UTF-8"),
        (b"a\xed\xa0\x80", "line 1, byte 1: is not UTF-8"),
        (b"\xff\xfeh\0i\0", "line 1, byte 0: is not UTF-8"),
        (b"\x1f\x8b\x08abcdefghijklmnopqrstuvw", "packed with gzip"),
    ] {
        museum.put("exhibit", bytes);
        let classes = if bytes == b"a" { 2 } else { 5 };
        if bytes != b"a" {
            museum.refuses(&characters(classes), 65, &["data.train: ", "exhibit: ", words]);
        }
        if !words.contains("UTF-8") {
            museum.refuses(&data(256, &json!({"context": 4})), 65, &["exhibit: ", words]);
        }
    }
    museum.put("exhibit", b"hello");
    let words = [
        "data.train: ",
        "exhibit: the training text has 4 different characters",
        "set data.classes to 4",
    ];
    museum.refuses(&characters(5), 65, &words);
    museum.put("test", "hell\u{f6}".as_bytes());
    let mut card = characters(4);
    card["test"] = json!({"files": ["test"]});
    museum.refuses(
        &card,
        65,
        &["data.test: ", "test: line 1, byte 4: the character 'ö' is not in the vocabulary"],
    );
}

#[test]
fn a_text_that_is_cut_or_changed_while_in_use_is_an_error() {
    let museum = Museum::new();
    let path = museum.put("exhibit", "abcdé".repeat(1000).as_bytes());
    let set = museum.open(&characters(5)).unwrap();
    std::fs::write(&path, "é".repeat(3000)).unwrap();
    let error = sample(&set, set.len() - 1).unwrap_err().to_string();
    assert!(error.contains("exhibit: has other bytes at character 4"), "{error}");
    std::fs::write(&path, "ab").unwrap();
    let error = sample(&set, set.len() - 1).unwrap_err().to_string();
    assert!(error.contains("exhibit: ends before byte"), "{error}");
}

#[test]
fn thousands_of_broken_texts_and_token_files_are_taken_or_refused() {
    let museum = Museum::new();
    let text = "To be, or not to be – that is the question:\n".repeat(20);
    let numbers: Vec<u8> = (0..500u16).flat_map(|i| (i % 300).to_le_bytes()).collect();
    for (bytes, card) in [(text.as_bytes(), characters(18)), (&numbers, ids("u16", 300))] {
        museum.put("exhibit", bytes);
        museum.open(&card).unwrap();
        let (taken, refused) = survives(&museum, &card, 1000, |rng| {
            let mut bytes = bytes.to_vec();
            mutate(&mut bytes, 100, rng);
            museum.put("exhibit", &bytes);
        });
        assert!(taken > 100 && refused > 100, "{taken} {refused}");
    }
}

#[test]
fn a_card_of_text_is_told_what_does_not_fit() {
    let museum = Museum::new();
    museum.put("exhibit", b"abc");
    let sound = data(256, &json!({"context": 4}));
    museum.open(&sound).unwrap();
    for (field, value, words) in [
        ("text", Value::Null, "data.text: is missing"),
        (
            "text",
            json!({"context": 4, "stride": 5}),
            "data.text.stride: 5 leaves tokens out between windows of 4",
        ),
        (
            "text",
            json!({"context": 4, "ids": "u16"}),
            "data.text.ids: is used by data.format `tokens` only",
        ),
        ("text", json!({"context": 4, "holdout": 1}), "data.text.holdout: "),
        (
            "classes",
            255.into(),
            "data.classes: is 255; with data.text.vocabulary `bytes` it is 256",
        ),
        ("augment", json!([{"kind": "flip"}]), "data.augment: is not for data.format `text`"),
        ("sampling", json!({"kind": "balanced"}), "data.sampling.kind: is not for"),
        ("normalize", json!({"mean": 1}), "data.normalize: is not for"),
        (
            "train",
            json!({"images": "exhibit"}),
            "data.train.images: is not used by data.format `text`",
        ),
        ("format", "tokens".into(), "data.text.ids: is missing"),
        ("format", "npy".into(), "data.text: is used by data.format `text` and `tokens` only"),
    ] {
        let mut card = sound.clone();
        card[field] = value;
        if card["text"].is_null() {
            card.as_object_mut().unwrap().remove("text");
        }
        museum.refuses(&card, 78, &[words]);
    }
    let mut both = data(256, &json!({"context": 4, "holdout": 0.5}));
    both["test"] = json!({"files": ["exhibit"]});
    museum.refuses(&both, 78, &["data.text.holdout: is in place of data.val and data.test"]);
}

#[test]
fn the_end_of_the_training_text_can_be_held_out() {
    let museum = Museum::new();
    museum.put("exhibit", b"abcdefghij");
    let card = museum.card(&data(256, &json!({"context": 4, "holdout": 0.25}))).unwrap();
    let (train, test) = data::open(&card.data).unwrap();
    let test = test.unwrap();
    assert_eq!((train.len(), test.len()), (2, 1));
    assert_eq!((train.weight(1), test.weight(0)), (3, 1));
    assert_eq!(sample(&test, 0).unwrap(), (vec![105.0, 0.0, 0.0, 0.0], 106));
}

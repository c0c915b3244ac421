use crate::museum::{Museum, mutate, sample, survives};
use annulus::error::Error;
use serde_json::{Value, json};

/// An npy file of this header and data.
fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    let mut header = header.to_owned();
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()
}

fn header(descr: &str, shape: &str) -> String {
    format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}")
}

fn bytes<const N: usize, T: Copy>(values: &[T], f: fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&v| f(v)).collect()
}

fn data() -> Value {
    json!({
        "format": "npy",
        "train": {"images": "exhibit", "labels": "exhibit-labels"},
        "classes": 3,
    })
}

/// Five samples of 3 x 4 bytes with labels 0, 1, 2, 0, 1.
fn sound() -> [Vec<u8>; 2] {
    let x = npy(&header("|u1", "5, 3, 4"), &(0..60).collect::<Vec<u8>>());
    [x, npy(&header("<i8", "5,"), &bytes(&[0, 1, 2, 0, 1], i64::to_le_bytes))]
}

fn put(museum: &Museum, [x, y]: [&[u8]; 2]) {
    museum.put("exhibit", x);
    museum.put("exhibit-labels", y);
}

#[track_caller]
fn refuses(x: &[u8], word: &str) -> Error {
    let museum = Museum::new();
    put(&museum, [x, &sound()[1]]);
    museum.refuses(&data(), 65, &["data.train: ", "exhibit", word])
}

#[test]
fn every_type_of_number_is_read_and_only_bytes_are_pixels() {
    let museum = Museum::new();
    let labels = npy(&header("|u1", "2,"), &[2, 0]);
    let mut with = data();
    with["normalize"] = json!({"mean": 1.0, "std": 2.0});
    for (descr, raw) in [
        ("<i4", bytes(&[-3, 0, 70_000, 1], i32::to_le_bytes)),
        ("<i8", bytes(&[-3, 0, 70_000, 1], i64::to_le_bytes)),
        ("<f4", bytes(&[-3.0, 0.0, 70_000.0, 1.0], f32::to_le_bytes)),
        ("<f8", bytes(&[-3.0, 0.0, 70_000.0, 1.0], f64::to_le_bytes)),
    ] {
        put(&museum, [&npy(&header(descr, "2, 2"), &raw), &labels]);
        let set = museum.open(&with).unwrap();
        assert_eq!((set.len(), set.sample_shape()), (2, &[2][..]), "{descr}");
        assert_eq!(sample(&set, 0).unwrap(), (vec![-2.0, -0.5], 2), "{descr}");
        assert_eq!(sample(&set, 1).unwrap(), (vec![34_999.5, 0.0], 0), "{descr}");
    }
    put(&museum, [&npy(&header("|u1", "2, 1, 2"), &[0, 51, 255, 102]), &labels]);
    let set = museum.open(&with).unwrap();
    assert_eq!(set.sample_shape(), [1, 1, 2]);
    assert_eq!(sample(&set, 0).unwrap().0, [-0.5, (0.2 - 1.0) / 2.0]);
}

#[test]
fn headers_of_all_versions_and_of_odd_but_sound_spelling_are_read() {
    let museum = Museum::new();
    let [x, y] = sound();
    let of_version = |version: u8| {
        let length = (x.len() - 60 - 10) as u32;
        let rest = &x[10..];
        [b"\x93NUMPY", &[version, 0][..], &length.to_le_bytes(), rest].concat()
    };
    let text = "{\"shape\":(5,3,4),\"fortran_order\" : False ,'descr':'|u1'}";
    let odd = npy(text, &(0..60).collect::<Vec<u8>>());
    for x in [x.clone(), of_version(2), of_version(3), odd] {
        put(&museum, [&x, &y]);
        let set = museum.open(&data()).unwrap();
        assert_eq!((set.len(), set.sample_shape()), (5, &[1, 3, 4][..]));
        assert_eq!(sample(&set, 4).unwrap().0[11], 59.0 / 255.0);
    }
}

#[test]
fn a_file_cut_at_any_byte_says_where() {
    let [x, _] = sound();
    let end = x.len() - 60;
    for cut in 0..x.len() {
        let word = match cut {
            0 => "the file is empty".to_owned(),
            1..8 => format!("ends at byte {cut}, inside the magic number and version"),
            8..10 => format!("ends at byte {cut}, inside the length of its header"),
            10.. if cut < end => format!("ends at byte {cut}, inside its header (bytes 10..{end})"),
            _ => format!("truncated, {} bytes are missing", x.len() - cut),
        };
        refuses(&x[..cut], &word);
    }
    refuses(&[&x[..], &[0]].concat(), "1 bytes too long");
}

#[test]
fn what_a_header_claims_is_compared_with_the_file() {
    let huge = "18446744073709551615, 18446744073709551615, 2";
    for (shape, word) in [
        (huge, "over 2^64 bytes"),
        ("18446744073709551616, 1", "expected a size below 2^64"),
        ("4294967296, 3, 4", "bytes are missing"),
        ("18446744073709551615,", "over 2^64 bytes"),
        ("6, 3, 4", "truncated, 12 bytes are missing: the header declares (6 x 3 x 4)"),
        ("4, 3, 4", "12 bytes too long"),
        ("-5, 3, 4", "expected a size"),
        ("5, 3, 4.0", "expected `)`"),
        ("60", "are these the labels?"),
        ("5, 3, 1, 2, 2", "has shape (5 x 3 x 1 x 2 x 2)"),
        ("", "59 bytes too long"),
    ] {
        refuses(&npy(&header("|u1", shape), &[7; 60]), word);
    }
    for shape in ["0, 3, 4", "5, 0, 4", "5, 0, 18446744073709551615"] {
        refuses(&npy(&header("|u1", shape), &[]), "no numbers at all");
    }
    refuses(&npy(&header("|u1", &"1, ".repeat(65)), &[7]), "more than 64 sizes");
}

#[test]
fn other_types_orders_and_texts_are_refused_by_name() {
    for (descr, word) in [
        ("|O", "Python objects, which are never loaded"),
        (">f4", "`>f4` (big-endian)"),
        ("<f2", "`<f2` (another type)"),
        ("<c8", "another type"),
        ("<U5", "another type"),
        ("", "`` (another type)"),
    ] {
        refuses(&npy(&header(descr, "5, 3, 4"), &[0; 60]), word);
    }
    let sound = header("|u1", "5, 3, 4");
    for (from, to, word) in [
        ("False", "True", "is in Fortran order"),
        ("False", "Maybe", "expected True or False"),
        ("'|u1'", "[('a', '<f4')]", "structured types are not read"),
        ("'shape'", "'size'", "unknown key `size`"),
        ("'shape': (5, 3, 4), ", "", "`shape` is missing"),
        ("}", ", 'descr': '<f4'}", "expected text"),
        ("}", "'descr': '<f4'}", "`descr` stands there twice"),
        ("}", "} + 1", "text follows its end"),
        ("{", "(", "expected `{`"),
        ("'shape': (5", "'shape': (5) (5", "expected `}`"),
    ] {
        let text = sound.replace(from, to);
        assert_ne!(text, sound);
        refuses(&npy(&text, &[0; 60]), word);
    }
    refuses(b"\x89PNG\r\n\x1a\n0000", "does not begin as npy files do");
    refuses(b"PK\x03\x04 some zip file", "is it npz?");
    refuses(b"\x93NUMPY\x04\x00\x00\x00\x00\x00", "npy version 4.0");
    refuses(b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "its header has 4294967295 bytes");
    refuses(b"\x93NUMPY\x01\x00\x02\x00{\xff", "(byte 11) is not text");
}

#[test]
fn labels_that_are_none_are_refused() {
    let [x, _] = sound();
    for (y, word) in [
        (
            npy(&header("<i4", "5,"), &bytes(&[0, 1, -1, 0, 1], i32::to_le_bytes)),
            "label -1 of sample 2 is",
        ),
        (npy(&header("|u1", "5,"), &[0, 1, 2, 3, 1]), "label 3 of sample 3 is not one of 0 to 2"),
        (npy(&header("<i8", "1,"), &bytes(&[1 << 32], i64::to_le_bytes)), "label 4294967296 of"),
        (npy(&header("<f4", "5,"), &[0; 20]), "holds floats; labels are whole numbers"),
        (npy(&header("|u1", "4,"), &[0; 4]), "has 4 labels, but"),
        (npy(&header("|u1", "5, 1"), &[0; 5]), "has shape (5 x 1); labels have shape (samples)"),
        (npy(&header("|u1", "0,"), &[]), "has 0 labels, but"),
    ] {
        let museum = Museum::new();
        put(&museum, [&x, &y]);
        museum.refuses(&data(), 65, &["data.train: ", "exhibit-labels: ", word]);
    }
}

#[test]
fn a_number_that_is_none_is_named_when_its_sample_is_read() {
    let museum = Museum::new();
    for (value, shown) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (1e39, "inf")] {
        let raw = bytes(&[1.0, 2.0, 3.0, value], f64::to_le_bytes);
        put(&museum, [&npy(&header("<f8", "2, 2"), &raw), &npy(&header("|u1", "2,"), &[0, 1])]);
        let set = museum.open(&data()).unwrap();
        assert_eq!(sample(&set, 0).unwrap().0, [1.0, 2.0]);
        let error = sample(&set, 1).unwrap_err().to_string();
        assert!(
            error.contains("number 1 of sample 1 (byte 152) is") && error.contains(shown),
            "{error}"
        );
    }
}

#[test]
fn the_fingerprint_is_of_the_samples_that_are_used() {
    let museum = Museum::new();
    let [x, y] = sound();
    let mut other = x.clone();
    *other.last_mut().unwrap() = 0;
    let of = |x: &[u8], limit: usize| {
        put(&museum, [x, &y]);
        let mut data = data();
        data["train_limit"] = limit.into();
        museum.open(&data).unwrap().fingerprint()
    };
    assert_ne!(of(&x, 5), of(&other, 5));
    assert_eq!(of(&x, 5), of(&x, 9));
    assert_eq!(of(&x, 4), of(&other, 4));
    assert_ne!(of(&x, 4), of(&x, 3));
}

#[test]
fn no_mutation_makes_the_npy_reader_panic() {
    let museum = Museum::new();
    let sound = sound();
    put(&museum, sound.each_ref().map(|bytes| &bytes[..]));
    let (taken, refused) = survives(&museum, &data(), 3000, |rng| {
        let mut files = sound.clone();
        let which = rng.next_u32() as usize % 2;
        mutate(&mut files[which], 80, rng);
        put(&museum, files.each_ref().map(|bytes| &bytes[..]));
    });
    assert!(taken > 30 && refused > 1000, "{taken} {refused}");
}

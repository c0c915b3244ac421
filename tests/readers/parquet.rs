use crate::common::root;
use crate::museum::{Museum, mutate, sample, survives};
use annulus::data::Dataset;
use annulus::data::formats::parquet::ParquetSet;
use serde_json::{Value, json};

/// A file of 8 rows that pandas wrote (`scripts/golden/make_data.py`).
fn golden(codec: &str) -> Vec<u8> {
    std::fs::read(root().join(format!("tests/golden/data/table-{codec}.parquet"))).unwrap()
}

fn data(columns: &Value) -> Value {
    let csv = json!({"columns": columns});
    json!({"format": "parquet", "train": {"files": ["exhibit"]}, "classes": 3, "csv": csv})
}

/// These columns as numbers, and the label.
fn numeric(names: &[&str]) -> Value {
    let column = |name: &&str| json!({"name": name, "kind": "numeric"});
    let mut columns: Vec<Value> = names.iter().map(column).collect();
    columns.push(json!({"name": "species", "kind": "label", "values": ["fox", "owl", "wolf"]}));
    data(&columns.into())
}

#[test]
fn only_the_named_columns_are_decoded_in_the_cards_order() {
    let museum = Museum::new();
    museum.put("exhibit", &golden("none"));
    let whole = museum.open(&numeric(&["small", "day", "large"])).unwrap();
    let part = museum.open(&numeric(&["day", "small"])).unwrap();
    assert_eq!((whole.len(), whole.sample_shape(), part.sample_shape()), (8, &[3][..], &[2][..]));
    for i in 0..8 {
        let ((all, label), (some, same)) = (sample(&whole, i).unwrap(), sample(&part, i).unwrap());
        assert_eq!((some[0], some[1], same), (all[1], all[0], label));
    }
    assert_ne!(whole.fingerprint(), part.fingerprint());
    assert!(sample(&part, 8).is_err() && part.read(0, &mut [0.0; 3]).is_err());
    let mut few = numeric(&["day"]);
    few["train_limit"] = 3.into();
    assert_eq!(museum.open(&few).unwrap().len(), 3);
}

#[test]
fn features_that_do_not_fit_into_memory_are_the_same_from_a_temporary_file() {
    let museum = Museum::new();
    museum.put("exhibit", &golden("zstd"));
    let card = museum.card(&numeric(&["half", "price"])).unwrap().data;
    let open = |memory| ParquetSet::open(&card, &card.train, None, memory).unwrap();
    let (kept, spilled) = (open(1 << 20), open(20));
    assert_eq!(kept.fingerprint(), spilled.fingerprint());
    for i in [7, 0, 3] {
        let (mut a, mut b) = ([0.0; 2], [1.0; 2]);
        assert_eq!(kept.read(i, &mut a).unwrap(), spilled.read(i, &mut b).unwrap());
        assert_eq!(a, b);
    }
}

#[test]
fn a_cell_that_does_not_fit_its_column_is_told_with_row_and_column() {
    let museum = Museum::new();
    museum.put("exhibit", &golden("snappy"));
    for (card, words) in [
        (numeric(&["double"]), "row 4: column `double`: the value is missing"),
        (numeric(&["colour"]), "row 1: column `colour`: `"),
        (numeric(&["list"]), "column `list` holds lists or structures"),
        (numeric(&["tall"]), "there is no column `tall`; the columns are small, large,"),
    ] {
        museum.refuses(&card, 65, &["data.train: ", "exhibit: ", words]);
    }
    let label = json!([{"name": "small", "kind": "numeric"}, {"name": "species", "kind": "label"}]);
    let mut two = data(&label);
    two["classes"] = 2.into();
    museum.refuses(&two, 78, &["data.classes: is 2", "exhibit: column `species` has 3 classes"]);
}

#[test]
fn what_is_no_parquet_file_is_refused_with_its_name() {
    let museum = Museum::new();
    let card = numeric(&["small"]);
    museum.refuses(&card, 66, &["data.train: ", "exhibit", "no such file"]);
    let sound = golden("none");
    let cut = &sound[..sound.len() / 2];
    for bytes in [&b""[..], b"PAR1", b"PAR1PAR1", b"a,b\n1,2\n3,4\n", cut, &sound[1..]] {
        museum.put("exhibit", bytes);
        museum.refuses(&card, 65, &["data.train: ", "exhibit: "]);
    }
    // The length of the footer, just before the last four bytes.
    for length in [0u32, 4, u32::MAX, i32::MAX as u32, sound.len() as u32] {
        let mut bytes = sound.clone();
        let at = bytes.len() - 8;
        bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        museum.put("exhibit", &bytes);
        museum.refuses(&card, 65, &["exhibit: is no Parquet file or damaged: "]);
    }
    let mut packed = vec![0x1f, 0x8b, 8];
    packed.extend(&sound);
    museum.put("exhibit", &packed);
    museum.refuses(&card, 65, &["exhibit: is packed with gzip"]);
}

#[test]
fn a_flipped_bit_in_a_page_with_a_checksum_is_noticed() {
    let museum = Museum::new();
    let sound = golden("snappy");
    let card = numeric(&["small", "large", "unsigned"]);
    museum.put("exhibit", &sound);
    museum.open(&card).unwrap();
    // The pages of the first columns lie at the beginning of the file.
    let noticed = (40..140).filter(|&at| {
        let mut bytes = sound.clone();
        bytes[at] ^= 4;
        museum.put("exhibit", &bytes);
        museum.open(&card).is_err()
    });
    let noticed = noticed.count();
    assert!(noticed > 60, "{noticed} of 100");
}

#[test]
fn thousands_of_broken_parquet_files_are_taken_or_refused() {
    let museum = Museum::new();
    for codec in ["none", "snappy", "zstd", "gzip", "lz4"] {
        let sound = golden(codec);
        let card = numeric(&["small", "single", "flag", "price", "day"]);
        museum.put("exhibit", &sound);
        museum.open(&card).unwrap();
        let (taken, refused) = survives(&museum, &card, 600, |rng| {
            // The footer matters most, and it lies at the end.
            let mut bytes: Vec<u8> = sound.iter().rev().copied().collect();
            let footer = 5000.min(bytes.len());
            mutate(&mut bytes, footer, rng);
            bytes.reverse();
            museum.put("exhibit", &bytes);
        });
        assert!(taken > 10 && refused > 100, "{codec}: {taken} {refused}");
    }
}

#[test]
fn a_card_of_parquet_is_told_what_does_not_fit() {
    let museum = Museum::new();
    museum.put("exhibit", &golden("none"));
    let mut card = numeric(&["small"]);
    card["csv"]["delimiter"] = ";".into();
    card["csv"]["header"] = false.into();
    let words = ["data.csv.delimiter: is not used by data.format `parquet`", "data.csv.header: "];
    museum.refuses(&card, 78, &words);
    card = numeric(&["small"]);
    card.as_object_mut().unwrap().remove("csv");
    museum.refuses(&card, 78, &["data.csv: is missing"]);
}

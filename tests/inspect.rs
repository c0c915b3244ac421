//! `annulus inspect` says what is in a data set, without training and without other ranks.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Mpi, alone, card};
use std::fs;
use tempfile::tempdir;

#[test]
fn a_cards_data_is_counted_and_its_pictures_are_written() {
    let folder = tempdir().unwrap();
    let sheet = folder.path().join("sheet.png");
    let ended = alone(&Mpi::Open.binary())
        .args(["inspect", &card("lenet-mnist.json"), "--samples", "5", "--sheet"])
        .args([&sheet])
        .succeed();
    for words in [
        "idx, 10 classes",
        "60,000 samples, 1×28×28, fingerprint ",
        "mean -0.02",
        "class        0     5,923 ",
        "10,000 samples, 1×28×28",
        "3 in a row, labels 5 0 4 1 9",
    ] {
        assert!(ended.stdout.contains(words), "`{words}` is missing:\n{}", ended.stdout);
    }
    assert!(fs::read(&sheet).unwrap().starts_with(b"\x89PNG"));
}

#[test]
fn a_text_is_shown_as_text() {
    let ended = alone(&Mpi::Open.binary())
        .args(["inspect", &card("gpt-shakespeare.json"), "--samples", "1"])
        .succeed();
    for words in
        ["12,067 windows of tokens, 128", "1,341 windows", "“HAMLET, PRINCE OF DENMARK\\n\\nby "]
    {
        assert!(ended.stdout.contains(words), "`{words}` is missing:\n{}", ended.stdout);
    }
}

#[test]
fn a_prepared_folder_tells_what_was_removed() {
    let folder = tempdir().unwrap();
    let (table, out) = (folder.path().join("t.csv"), folder.path().join("out"));
    let rows: Vec<String> =
        (0..50).map(|i| format!("{},{}\n", i, if i % 2 == 0 { "cat" } else { "dog" })).collect();
    fs::write(&table, format!("a,label\n{}49,dog\n,cat\n", rows.concat())).unwrap();
    alone(&Mpi::Open.binary())
        .args(["prepare"])
        .args([&table])
        .args(["--out"])
        .args([&out])
        .succeed();
    let ended = alone(&Mpi::Open.binary()).args(["inspect"]).args([&out]).succeed();
    for words in [
        "52 found, 50 kept, 2 removed",
        "1 duplicate",
        "1 missing value",
        "class      cat: ",
        "safetensors, 2 classes",
        "sample 0 ",
    ] {
        assert!(ended.stdout.contains(words), "`{words}` is missing:\n{}", ended.stdout);
    }
}

#[test]
fn what_is_no_data_set_is_refused_with_the_place() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("data.json");
    let inspect = |code: i32, words: &str| {
        let ended = alone(&Mpi::Open.binary()).args(["inspect"]).args([&file]).run();
        assert_eq!(ended.code, code, "{}", ended.all_output());
        assert!(ended.stderr.contains(words), "{}", ended.all_output());
    };
    inspect(66, "no such file");
    fs::write(&file, "{\n \"format\": \"npy\",\n \"train\": {\"images\": \"x\",\n\"labels\": \"y\"},\n \"classes\": 2}").unwrap();
    inspect(66, "data.json, line 3: data.train: cannot read");
    fs::write(&file, "{\n \"format\": \"npz\",\n \"train\": {},\n \"classes\": 2}").unwrap();
    inspect(78, "data.format: \"npz\" is not one of");
    inspect(78, "(line 2)");
    let ended = alone(&Mpi::Open.binary()).args(["inspect"]).args([folder.path()]).run();
    assert_eq!(ended.code, 66, "{}", ended.all_output());
}

//! Bad input ends in a clear message and the right exit code within two seconds, told once, at one
//! rank and at two.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Ended, Mpi, alone, card, root, under};
use std::fs;
use std::path::Path;
use std::time::Duration;
use tempfile::{TempDir, tempdir};

/// Runs `annulus` with these arguments alone and with two ranks and checks both endings.
fn refused(args: &[&str], code: i32, words: &[&str]) {
    let check = |run: &dyn Fn() -> Ended| {
        // The best of two counts for the time: the machine may be busy with something else.
        let mut ended = run();
        if ended.took >= Duration::from_secs(2) {
            ended = run();
        }
        assert_eq!(ended.code, code, "{args:?}\n{}", ended.all_output());
        let said = ended.all_output();
        for word in words {
            assert!(said.contains(word), "`{word}` is missing:\n{said}");
        }
        assert_eq!(said.matches(words[0]).count(), 1, "told once:\n{said}");
        assert!(!said.contains("panic"), "{said}");
        assert!(ended.took < Duration::from_secs(2), "{args:?} took {:?}", ended.took);
    };
    check(&|| alone(&Mpi::Open.binary()).args(args).run());
    check(&|| under(Mpi::Open, 2).args(args).run());
}

/// A copy of the shipped quick card with other text in it.
fn edited(folder: &TempDir, from: &str, to: &str) -> String {
    let text = fs::read_to_string(root().join("configs/lenet-mnist-quick.json")).unwrap();
    let data = root().join("data");
    let text = text.replace("../data", data.to_str().unwrap());
    assert!(text.contains(from), "the card has no {from}");
    let path = folder.path().join("card.json");
    fs::write(&path, text.replace(from, to)).unwrap();
    path.display().to_string()
}

fn train(card: &str, out: &Path, sets: &[&str]) -> Vec<String> {
    let mut args = vec!["train".to_owned(), card.to_owned(), "--out".to_owned()];
    args.push(out.display().to_string());
    for set in sets {
        args.extend(["--set".to_owned(), (*set).to_owned()]);
    }
    args
}

fn refused_card(card: &str, sets: &[&str], code: i32, words: &[&str]) {
    let folder = tempdir().unwrap();
    let args = train(card, &folder.path().join("run"), sets);
    refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), code, words);
}

#[test]
fn an_error_about_data_or_model_names_the_line_of_the_card_or_the_set() {
    let folder = tempdir().unwrap();
    let card = edited(&folder, "train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz");
    let text = fs::read_to_string(&card).unwrap();
    let line = 1 + text.lines().position(|line| line.contains("\"train\"")).unwrap();
    let place = format!("card.json, line {line}: data.train: ");
    refused_card(&card, &[], 65, &[&place, "10000", "60000"]);
    let words =
        ["line 7 and --set data.train.images: data.train: cannot read", "/nowhere: no such file"];
    refused_card(&card, &["data.train.images=/nowhere"], 66, &words);
    let hidden = ["model.kind=mlp", "model.hidden=[3,0]"];
    refused_card(&card, &hidden, 78, &["model.hidden.1: ", "(--set model.hidden)"]);
}

#[test]
fn a_wrong_command_line() {
    refused(&["train"], 64, &["required arguments were not provided"]);
    refused(&["trian", "x"], 64, &["unrecognized subcommand"]);
    let quick = card("lenet-mnist-quick.json");
    refused(&["train", &quick, "--device", "gpu"], 64, &["expected cpu, cuda, or cuda:N"]);
    refused_card(&quick, &["train.epochs"], 64, &["there is no `=`"]);
}

#[test]
fn no_such_card() {
    refused_card("no/such/card.json", &[], 66, &["cannot read no/such/card.json: no such file"]);
}

#[test]
fn broken_json() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("card.json");
    fs::write(&path, "{ \"seed\": 1, }").unwrap();
    refused_card(path.to_str().unwrap(), &[], 78, &["card.json", "line 1"]);
}

#[test]
fn an_unknown_key_suggests_the_nearest_name() {
    let folder = tempdir().unwrap();
    let path = edited(&folder, "\"global_batch\"", "\"globl_batch\"");
    refused_card(&path, &[], 78, &["train.globl_batch", "global_batch`"]);
}

#[test]
fn all_problems_at_once() {
    let sets = ["train.global_batch=-5", "optimizer.lr=0", "data.classes=0"];
    let words = ["train.global_batch: -5", "optimizer.lr", "data.classes"];
    refused_card(&card("lenet-mnist-quick.json"), &sets, 78, &words);
}

#[test]
fn a_missing_data_file() {
    let sets = ["data.train.images=/nowhere/images.gz"];
    let words = ["cannot read /nowhere/images.gz: no such file"];
    refused_card(&card("lenet-mnist-quick.json"), &sets, 66, &words);
}

#[test]
fn a_truncated_gzip() {
    let folder = tempdir().unwrap();
    let whole = fs::read(root().join("data/mnist/train-labels-idx1-ubyte.gz")).unwrap();
    let cut = folder.path().join("cut.gz");
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let set = format!("data.train.labels={}", cut.display());
    refused_card(&card("lenet-mnist-quick.json"), &[&set], 65, &["cut.gz"]);
}

#[test]
fn an_idx_header_that_lies() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("lies.idx");
    // One dimension of 4,294,967,295 labels, and three bytes.
    fs::write(&path, [0, 0, 8, 1, 255, 255, 255, 255, 1, 2, 3]).unwrap();
    let set = format!("data.train.labels={}", path.display());
    refused_card(&card("lenet-mnist-quick.json"), &[&set], 65, &["lies.idx"]);
}

#[test]
fn labels_out_of_range() {
    let words = ["train-labels-idx1-ubyte.gz"];
    refused_card(&card("lenet-mnist-quick.json"), &["data.classes=5"], 65, &words);
}

#[test]
fn an_output_folder_that_cannot_be_written() {
    // A file in the way: root may write anywhere else.
    let folder = tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let args = train(&card("lenet-mnist-quick.json"), &file.join("run"), &[]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    refused(&args, 73, &["cannot create the run folder"]);
}

#[test]
#[cfg(not(feature = "cuda"))]
fn cuda_without_cuda() {
    let args = ["train", &card("lenet-mnist-quick.json"), "--device", "cuda", "--dry-run"];
    refused(&args, 78, &["built without CUDA"]);
}

#[test]
fn a_model_for_another_data_shape() {
    let folder = tempdir().unwrap();
    // Twelve images of 8×8: too small for LeNet's two stages of convolution and pooling.
    let mut images = vec![0, 0, 8, 3, 0, 0, 0, 12, 0, 0, 0, 8, 0, 0, 0, 8];
    images.extend(vec![7u8; 12 * 64]);
    let mut labels = vec![0, 0, 8, 1, 0, 0, 0, 12];
    labels.extend(vec![1u8; 12]);
    fs::write(folder.path().join("i"), images).unwrap();
    fs::write(folder.path().join("l"), labels).unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (i, l) = (path("i"), path("l"));
    let sets = [
        format!("data.train.images={i}"),
        format!("data.train.labels={l}"),
        "data.test=null".to_owned(),
        "data.train_limit=null".to_owned(),
        "data.test_limit=null".to_owned(),
    ];
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    refused_card(&card("lenet-mnist-quick.json"), &sets, 78, &["16×16", "8×8"]);
}

#[test]
fn a_model_file_of_another_model_lists_what_differs() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("run");
    let args = train(&card("lenet-mnist-quick.json"), &out, &["train.max_steps=2"]);
    under(Mpi::Open, 2).args(args).succeed();
    let mlp = card("mlp-mnist.json");
    refused(&["eval", out.to_str().unwrap(), &mlp], 65, &["does not fit the model", "conv1.bias"]);
    refused(&["eval", "/nowhere", &mlp], 66, &["cannot read /nowhere: no such file"]);
}

//! Promises about cards: what is refused, in which words, and that the shipped ones are sound.

use super::{Card, schema, schema::options_table};
use std::path::{Path, PathBuf};

const SMALL: &str = r#"{
  "data": {"format": "idx", "train": {"images": "i", "labels": "l"}, "classes": 10},
  "model": {"kind": "lenet5"},
  "train": {"global_batch": 8, "epochs": 1}
}"#;

fn load(text: &str, sets: &[&str]) -> crate::error::Result<Card> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("card.json");
    std::fs::write(&path, text).unwrap();
    Card::load(&path, &sets.iter().map(|s| (*s).to_string()).collect::<Vec<_>>())
}

/// The message of the config error that `sets` cause in the small card.
fn refusal(sets: &[&str]) -> String {
    let error = load(SMALL, sets).unwrap_err();
    assert_eq!(error.exit_code(), 78, "{error}");
    error.to_string()
}

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configs")
}

#[test]
fn a_small_card_takes_the_defaults() {
    let card = load(SMALL, &[]).unwrap();
    assert_eq!((card.seed, card.train.accumulate, card.data.prefetch), (42, 1, 4));
    assert_eq!(card.comm.deadline_s, None);
    card.validate().unwrap();
}

#[test]
fn each_wrong_value_is_named_with_its_path_and_what_is_expected() {
    for (set, expected) in [
        ("train.global_batch=-5", "train.global_batch: -5 is not a positive whole number"),
        ("train.global_batch=0", "train.global_batch: 0 is not a positive"),
        ("train.global_batch=8.0", "write it as 8"),
        ("train.global_batch=\"8\"", "remove the quotes"),
        ("train.epochs=0", "train.epochs: 0 is not a positive"),
        ("train.epochs=null", "give train.epochs, train.max_steps or both"),
        ("train.accumulate=0", "train.accumulate: 0 is not"),
        ("train.bach=3", "train.bach: unknown key; did you mean `global_batch`?"),
        ("train.batch_size=3", "train.batch_size: unknown key; did you mean `global_batch`?"),
        ("trian.epochs=3", "trian: unknown key; did you mean `train`?"),
        ("zzz=3", "zzz: unknown key; known here: `$schema`"),
        ("seed=18446744073709551616", "the largest is 18446744073709551615"),
        ("seed=-1", "seed: -1 is not a whole number, 0 or more"),
        ("optimizer.lr=0", "optimizer.lr: 0 is not a number above 0"),
        ("optimizer.lr=NaN", "optimizer.lr: \"NaN\" is not a number above 0"),
        ("optimizer.kind=adm", "`rmsprop`, `lion`, `lamb`, `lars`; did you mean `adam`"),
        (
            "optimizer.momentum=0.9",
            "optimizer.momentum: is used by `sgd`, `rmsprop` and `lars` only",
        ),
        ("optimizer.betas=[0.9]", "optimizer.betas: [0.9] is not a list of 2, each a number"),
        ("optimizer.betas=[0.9,1]", "optimizer.betas: [0.9, 1] are not two numbers"),
        ("optimizer.betas=[0.9,\"a\"]", "optimizer.betas.1: \"a\" is not a number"),
        ("comm.deadline_s=0", "comm.deadline_s: 0 is not a number above 0"),
        ("comm=null", "comm: null is not a section"),
        ("data.classes=1", "data.classes: is 1; at least 2 classes"),
        ("data.normalize.std=0", "data.normalize.std: 0 is not a number above 0"),
        ("data.normalize.std=1e-60", "data.normalize.std"),
        ("data.normalize.mean=1e39", "data.normalize.mean"),
        ("data.test_limit=3", "data.test_limit: needs samples to evaluate on"),
        ("data.train.labels=", "data.train.labels: is empty"),
        (
            "data.train={\"images\":\"i\"}",
            "data.train.labels: is missing; data.format `idx` needs it",
        ),
        ("data.train.files=[\"a\"]", "data.train.files: is not used by data.format `idx`"),
        ("model.dropout=1", "model.dropout: 1 is not a number at least 0 and below 1"),
        ("model.hidden=[3]", "model.hidden: is used by `mlp` only"),
        ("model.kind=resnet", "model.depth: is missing; `resnet` needs the number of layers"),
        ("model.depth=20", "model.depth: is used by `resnet` only"),
        ("model.norm=group", "model.norm: is used by `resnet` only"),
        (
            "model={\"kind\":\"lstm\",\"layers\":1}",
            "model.width: is missing; `lstm` and `gru` need the number of hidden values",
        ),
        ("model.steps=4", "model.steps: is used by `lstm` and `gru` only"),
        (
            "model={\"kind\":\"gru\",\"width\":4,\"layers\":1,\"tied\":true}",
            "model.tied: is for text only",
        ),
        (
            "model={\"kind\":\"resnet\",\"depth\":21}",
            "model.depth: 21 is not 6n + 2; the nearest are 20 and 26",
        ),
        (
            "model={\"kind\":\"resnet\",\"depth\":2}",
            "model.depth: 2 is not a whole number from 8 to 1202",
        ),
        (
            "model={\"kind\":\"resnet\",\"depth\":8,\"norm\":\"batch\"}",
            "model.norm: \"batch\" is not",
        ),
        ("train.early_stopping.monitor=val_loss", "train.early_stopping.patience: is missing"),
        ("checkpoint.monitor=loss", "checkpoint.monitor: \"loss\" is not"),
        (
            "checkpoint.monitor=val_top_k_accuracy",
            "checkpoint.monitor: is not counted: give metrics.top_k",
        ),
        ("checkpoint.monitor=val_perplexity", "checkpoint.monitor: is not counted: it is of text"),
        ("metrics.top_k=3", "metrics: needs samples to evaluate on"),
        (
            "train.swa={\"from_epoch\":100000}",
            "train.swa.from_epoch: 100000 is after the last epoch",
        ),
        ("schedule.kind=plateau", "schedule.kind: needs samples to evaluate on"),
        ("schedule.plateau={}", "schedule.plateau: is used by `plateau` only"),
        ("schedule.kind=step", "schedule.step_every: is missing"),
        ("schedule.kind=multistep", "schedule.milestones: is missing"),
        (
            "schedule={\"kind\":\"multistep\",\"milestones\":[5,5]}",
            "schedule.milestones: do not rise",
        ),
        ("schedule.kind=cosine-restarts", "schedule.cycle_steps: is missing"),
        (
            "schedule={\"kind\":\"one-cycle\",\"warmup_steps\":3}",
            "schedule.warmup_steps: is not for `one-cycle`",
        ),
        ("schedule.power=2", "schedule.power: is used by `polynomial` only"),
        ("optimizer.alpha=0.9", "optimizer.alpha: is used by `rmsprop` only"),
        ("optimizer.groups=[{\"parameters\":[]}]", "optimizer.groups.0.parameters: "),
        (
            "train.label_smoothing=1",
            "train.label_smoothing: 1 is not a number at least 0 and below",
        ),
        ("data.augment=[{\"kind\":\"shft\"}]", "data.augment.0.kind: \"shft\" is not one of"),
        ("data.augment=[{\"kind\":\"shift\"}]", "data.augment.0.pixels: is missing"),
        ("data.augment=[{\"kind\":\"flip\",\"fill\":0}]", "data.augment.0.fill: is used by shift"),
        (
            "data.augment=[{\"kind\":\"flip\",\"probability\":2}]",
            "data.augment.0.probability: 2 is not",
        ),
        ("data.augment=[{\"kind\":\"jitter\"}]", "data.augment.0.brightness: is missing"),
        ("data.augment=[{\"kind\":\"erase\",\"area\":[0.5,0.2]}]", "data.augment.0.area: is not a"),
        ("data.augment=[{\"kind\":\"mixup\",\"alpha\":0}]", "data.augment.0.alpha: is 0"),
        (
            "data.augment=[{\"kind\":\"cutmix\"},{\"kind\":\"flip\"}]",
            "data.augment.0.kind: mixes two",
        ),
        ("data.sampling.weights=[1]", "data.sampling.weights: is used by `weighted` only"),
        ("data.sampling.kind=weighted", "has 0 numbers; `weighted` needs one for each of the 10"),
        ("data.sampling={\"weights\":[-1]}", "data.sampling.weights.0: -1 is not a number"),
    ] {
        let message = refusal(&[set]);
        assert!(message.contains(expected), "{set}: {message}");
        assert!(message.contains("card.json: 1 problem ("), "{set}: {message}");
    }
}

#[test]
fn all_problems_are_listed_at_once_one_a_line() {
    let message = refusal(&[
        "train.global_batch=-5",
        "optimizer.kind=sgd",
        "optimizer.eps=1e-8",
        "comm.deadlin_s=3",
        "schedule.warmup_steps=9",
        "train.max_steps=5",
        "model.kind=lenet",
    ]);
    assert_eq!(message.lines().count(), 6, "{message}");
    for path in [
        "train.global_batch: ",
        "optimizer.eps: ",
        "comm.deadlin_s: ",
        "schedule.warmup_steps: 9 steps",
        "model.kind: ",
    ] {
        assert!(message.contains(&format!("\n  {path}")), "{path} in {message}");
    }
    assert!(message.contains("(--set optimizer.eps)"), "{message}");
}

#[test]
fn a_problem_is_told_with_the_line_of_its_field() {
    let text = include_str!("../../configs/mlp-mnist.json").replace("0.2", "2");
    let line = 1 + text.lines().position(|line| line.contains("\"dropout\"")).unwrap();
    let message = load(&text, &[]).unwrap_err().to_string();
    assert!(message.contains("\n  model.dropout: "), "{message}");
    assert!(message.ends_with(&format!(" (line {line})")), "{message}");
}

#[test]
fn one_file_is_not_samples_and_labels_at_once() {
    let message = refusal(&["data.train.images=/x", "data.train.labels=/x"]);
    assert!(message.contains("data.train.labels: is the same file as images"), "{message}");
}

#[test]
fn a_wrong_kind_causes_no_problems_that_would_vanish_with_it() {
    let message = refusal(&["optimizer.kind=sdg", "optimizer.momentum=0.9"]);
    assert!(
        message.contains(": 1 problem (") && message.contains("did you mean `sgd`"),
        "{message}"
    );
}

#[test]
fn an_empty_object_is_told_everything_that_is_required() {
    let message = load("{}", &[]).unwrap_err().to_string();
    for path in ["data: is missing", "model: is missing", "train: is missing"] {
        assert!(message.contains(path), "{message}");
    }
    assert!(load("[]", &[]).unwrap_err().to_string().contains("the card: [] is not a section"));
}

#[test]
fn a_later_set_wins_and_absent_sections_are_created() {
    let sets = ["train.epochs=3", "train.epochs=4", "report.out=7", "data.test.images=a"];
    let sets = [&sets[..], &["data.test.labels=b", "train.early_stopping.patience=2"]].concat();
    let card = load(SMALL, &sets).unwrap();
    assert_eq!(card.train.epochs, Some(4));
    assert_eq!(card.train.early_stopping.unwrap().patience, 2);
    assert_eq!(card.report.out.unwrap(), std::env::current_dir().unwrap().join("7"));
    assert_eq!(load(SMALL, &["train.epochs"]).unwrap_err().exit_code(), 64);
}

#[test]
fn paths_in_the_file_start_at_its_folder_and_those_of_set_at_the_current_one() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("cards")).unwrap();
    let path = folder.path().join("cards/card.json");
    std::fs::write(&path, SMALL.replace(r#""i""#, r#""./../d/i""#)).unwrap();
    let card = Card::load(&path, &["data.train.labels=sub/l".into()]).unwrap();
    let train = card.data.train;
    assert_eq!(train.images.unwrap(), folder.path().canonicalize().unwrap().join("d/i"));
    assert_eq!(train.labels.unwrap(), std::env::current_dir().unwrap().join("sub/l"));
}

#[test]
fn a_saved_card_loads_as_the_same_card_with_the_same_hash() {
    let card = Card::load(&configs().join("mlp-mnist.json"), &[]).unwrap();
    let text = card.to_json_pretty().unwrap();
    assert!(text.contains("\"mean\": 0.1307,"), "{text}");
    let again = load(&text, &[]).unwrap();
    assert_eq!(again, card);
    assert_eq!(again.hash().unwrap(), card.hash().unwrap());
}

#[test]
fn the_hash_follows_the_job_and_not_its_description() {
    let hash = |sets: &[&str]| load(SMALL, &[&["data.train.images=/i"], sets].concat());
    let hash = |sets: &[&str]| {
        let mut card = hash(sets).unwrap();
        card.data.train.labels = Some("/l".into());
        card.hash().unwrap()
    };
    assert_eq!(hash(&[]), hash(&["about=other"]));
    assert_eq!(hash(&[]), hash(&["seed=42"]));
    assert_ne!(hash(&[]), hash(&["seed=43"]));
    assert_eq!(hash(&[]).len(), 64);
}

#[test]
fn cards_made_in_code_are_held_to_the_same_rules() {
    let mut card = load(SMALL, &[]).unwrap();
    card.optimizer.lr = f64::NAN;
    card.train.global_batch = 0;
    assert_eq!(card.problems().len(), 2, "{:?}", card.problems());
    assert_eq!(card.validate().unwrap_err().exit_code(), 78);
}

#[test]
fn faults_of_messages_and_checksums_are_refused_where_they_could_not_work() {
    let refused = |sets: &[&str], field: &str| {
        let text = load(SMALL, sets).unwrap_err().to_string();
        assert!(text.contains(field), "{text}");
    };
    refused(&["comm.checksum=true", "comm.algorithm=mpi"], "comm.checksum");
    let fault = |rest: &str| format!(r#"faults=[{{"rank":1,"step":2,{rest}}}]"#);
    for rest in [r#""kind":"kill","message":1"#, r#""kind":"skip","message":1"#] {
        refused(&[&fault(rest)], "faults.0.message");
    }
    refused(&[&fault(r#""kind":"corrupt","at":"reduce""#)], "faults.0.at");
    for rest in [r#""kind":"kill","message":1,"at":"reduce""#, r#""kind":"corrupt","message":0"#] {
        load(SMALL, &[&fault(rest)]).unwrap();
    }
}

#[test]
fn files_that_are_no_card_are_refused_with_their_name() {
    let folder = tempfile::tempdir().unwrap();
    let load = |path: &Path| Card::load(path, &[]).unwrap_err();
    assert_eq!(load(&folder.path().join("absent.json")).exit_code(), 66);
    let error = load(folder.path());
    assert!(error.exit_code() == 66 && error.to_string().contains("it is a folder"), "{error}");
    let big = folder.path().join("big.json");
    std::fs::File::create(&big).unwrap().set_len(1 << 30).unwrap();
    let error = load(&big);
    assert!(error.exit_code() == 78 && error.to_string().contains("big.json: larger"), "{error}");
    std::fs::write(&big, b"{\"a\": \"\xff\"}").unwrap();
    assert!(load(&big).to_string().contains("byte 7"));
    std::fs::write(&big, "{,}").unwrap();
    let error = load(&big);
    assert!(error.exit_code() == 78 && error.to_string().contains("line 1, column 2"), "{error}");
}

#[test]
fn streams_of_text_are_refused_where_no_state_could_be_carried() {
    let lstm = include_str!("../../configs/lstm-shakespeare-quick.json");
    let text = r#"data.text={"context":64,"streams":32,"holdout":0.1}"#;
    let mut card = load(lstm, &[text]).unwrap();
    assert_eq!(card.data.text.unwrap().streams, Some(32));
    card.data.text.as_mut().unwrap().stride = Some(16);
    assert!(card.problems()[0].to_string().contains("do not overlap"), "{:?}", card.problems());
    for (set, words) in [
        ("train.global_batch=16", "is 32; train.global_batch is 16"),
        ("data.train.files=[\"a\",\"b\"]", "would carry a state from one file into the next"),
        (
            "model={\"kind\":\"gpt\",\"width\":8,\"layers\":1,\"heads\":1}",
            "is for `lstm` and `gru`",
        ),
        ("guards.spike={\"factor\":3,\"action\":\"rewind\"}", "cannot be taken back after a spike"),
    ] {
        let message = load(lstm, &[text, set]).unwrap_err().to_string();
        assert!(message.contains(&format!("data.text.streams: {words}")), "{message}");
    }
}

#[test]
fn every_shipped_card_is_sound_and_its_data_is_there() {
    let mut seen = 0;
    for entry in std::fs::read_dir(configs()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.extension().is_none_or(|e| e != "json") || name == "schema.json" {
            continue;
        }
        let card = Card::load(&path, &[]).unwrap();
        assert!(card.data.is_evaluated(), "{name}");
        let splits = [Some(card.data.train), card.data.test].into_iter().flatten();
        let files = splits.flat_map(|split| {
            [split.images, split.labels].into_iter().flatten().chain(split.files)
        });
        let files: Vec<PathBuf> = files.collect();
        assert!(!files.is_empty() && files.iter().all(|file| file.is_file()), "{files:?}");
        let readme = std::fs::read_to_string(configs().join("README.md")).unwrap();
        assert!(readme.contains(&format!("[{name}]({name}) | {}", card.about)), "{name}");
        seen += 1;
    }
    assert!(seen >= 3);
}

/// Compares a made file with the one in the repository, or writes it when asked to bless.
fn assert_current(name: &str, made: &str) {
    let path = configs().join(name);
    if std::env::var_os("ANNULUS_BLESS").is_some() {
        std::fs::write(&path, made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == made, "configs/{name} is stale: ANNULUS_BLESS=1 cargo test --lib config::");
}

#[test]
fn the_schema_file_is_what_the_structs_say() {
    assert_current("schema.json", &(serde_json::to_string_pretty(&schema()).unwrap() + "\n"));
}

#[test]
fn the_table_of_options_is_what_the_structs_say() {
    let readme = std::fs::read_to_string(configs().join("README.md")).unwrap();
    let (before, rest) = readme.split_once("cargo test --lib config:: -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- end").unwrap();
    let head = "cargo test --lib config:: -->\n";
    assert_current("README.md", &format!("{before}{head}{}<!-- end{after}", options_table()));
}

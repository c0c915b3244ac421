//! `annulus prepare` for text: what was planted is found, nothing is lost, the bytes are the same at any rank
//! count and after interruptions, and the result trains.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "readers/museum.rs"]
#[allow(dead_code)]
mod museum;

use annulus::util::rng::Rng;
use common::{Mpi, metrics, under};
use museum::{Museum, below, noise};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const END: &str = "\n<END>\n";

/// Words that were made up.
fn words(rng: &mut Rng, count: usize) -> Vec<String> {
    let mut word = || {
        let syllables = 2 + below(rng, 3);
        let syllable =
            |_| ["ka", "lo", "mi", "tu", "ren", "sa", "vo", "dei", "pu", "gor"][below(rng, 10)];
        (0..syllables).map(syllable).collect::<String>()
    };
    (0..count).map(|_| word()).collect()
}

fn document(rng: &mut Rng) -> String {
    let count = 60 + below(rng, 200);
    let words = words(rng, count);
    words.chunks(9).map(|line| line.join(" ")).collect::<Vec<_>>().join("\n")
}

fn line(text: &str) -> String {
    format!("{}\n", json!({"id": 7, "text": text, "more": [1, {"text": "no"}]}))
}

/// Sources with faults of each kind; the texts that are to be kept by name, and the start of the reason for each
/// of the others.
struct Planted {
    kept: BTreeMap<String, String>,
    removed: BTreeMap<String, &'static str>,
    repaired: BTreeMap<String, &'static str>,
}

fn plant(museum: &Museum) -> Planted {
    let mut rng = noise(3);
    let mut kept = BTreeMap::new();
    let mut removed = BTreeMap::new();
    let mut repaired = BTreeMap::new();
    // Lines of JSON: 250 documents, then faults.
    let mut lines = String::new();
    let texts: Vec<String> = (0..250).map(|_| document(&mut rng)).collect();
    for (i, text) in texts.iter().enumerate() {
        lines += &line(text);
        kept.insert(format!("raw/a.jsonl:{}", i + 1), text.clone());
    }
    let mut twin: Vec<&str> = texts[5].split_whitespace().collect();
    twin[30] = "changed";
    let mut far: Vec<&str> = texts[6].split_whitespace().collect();
    for place in (3..far.len()).step_by(7) {
        far[place] = "changed";
    }
    let far = far.join(" ");
    for (fault, why) in [
        (line(&texts[9].replace(' ', "  ")), Some("duplicate of raw/a.jsonl:10")),
        (line(&twin.join(" ")), Some("near-duplicate of raw/a.jsonl:6:")),
        (line(&far), None),
        (line("short"), Some("too short: 5 characters")),
        (line(" \n\t "), Some("empty")),
        ("\n".to_owned(), Some("empty")),
        ("{\"text\": \"cut off".to_owned() + "\n", Some("broken line: ")),
        ("{\"content\": \"some other field has the text\"}\n".to_owned(), Some("no text: ")),
        ("{\"text\": 12}\n".to_owned(), Some("no text: the field `text` is no text")),
    ] {
        lines += &fault;
        let name = format!("raw/a.jsonl:{}", lines.lines().count());
        match why {
            Some(why) => _ = removed.insert(name, why),
            None => _ = kept.insert(name, far.clone()),
        }
    }
    museum.put("raw/a.jsonl", lines.as_bytes());
    // A text of several documents, with the separator at the end, too.
    let many: Vec<String> = (0..120).map(|_| document(&mut rng)).collect();
    let mut text = many.join("\n--8<--\n");
    text += &format!("\n--8<--\n{}\n--8<--\n", texts[20].to_uppercase());
    museum.put("raw/more/many.txt", text.as_bytes());
    for (i, text) in many.into_iter().enumerate() {
        kept.insert(format!("raw/more/many.txt#{}", i + 1), text);
    }
    removed.insert("raw/more/many.txt#121".to_owned(), "near-duplicate of raw/a.jsonl:21: 100 %");
    // Encodings.
    for (name, bytes, text, what) in [
        (
            "latin.txt",
            &b"Die Stra\xdfe \x96 sie f\xfchrt weit hinaus.\n"[..],
            "Die Straße – sie führt weit hinaus.",
            "Windows-1252",
        ),
        (
            "mark.txt",
            b"\xef\xbb\xbfMit einer Marke am Anfang des Textes",
            "Mit einer Marke am Anfang des Textes",
            "byte order mark",
        ),
        (
            "nul.txt",
            b"a NUL\0 and a bell\x07 in the text",
            "a NUL and a bell in the text",
            "control characters",
        ),
        (
            "dos.txt",
            b"lines of a text\r\nthat end as in DOS\r\n",
            "lines of a text\nthat end as in DOS",
            "line ends",
        ),
    ] {
        museum.put(&format!("raw/{name}"), bytes);
        kept.insert(format!("raw/{name}#1"), text.to_owned());
        repaired.insert(format!("raw/{name}#1"), what);
    }
    let marked = |text: &str| -> Vec<u8> {
        [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect()
    };
    for (name, bytes, why) in [
        ("x-wide.txt", marked("this is a text of sixteen bits"), "encoding: is UTF-16"),
        ("x-bytes.txt", b"this is a text with \x81 in it".to_vec(), "encoding: byte 20, 0x81"),
        ("x-empty.txt", Vec::new(), "empty"),
        ("x-notes.md", b"# Something else".to_vec(), "no text: its name"),
    ] {
        museum.put(&format!("raw/{name}"), &bytes);
        let number = if why.starts_with("empty") || why.contains("0x81") { "#1" } else { "" };
        removed.insert(format!("raw/{name}{number}"), why);
    }
    let pipe = museum.path("raw/x-pipe.txt");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    removed.insert("raw/x-pipe.txt".to_owned(), "unreadable: ");
    Planted { kept, removed, repaired }
}

const OPTIONS: [&str; 6] = ["--separator", "--8<--", "--end", "\\n<END>\\n", "--shard", "100"];

fn prepare(ranks: usize, source: &Path, out: &Path, more: &[&str]) {
    under(Mpi::Open, ranks)
        .arg_paths(["prepare"], &[source])
        .arg_paths(["--out"], &[out])
        .args(OPTIONS)
        .args(more)
        .succeed();
}

/// The files in a folder.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.is_file());
    files
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect()
}

fn read(path: PathBuf) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Item, part, reason, repairs.
fn items(out: &Path) -> Vec<[String; 4]> {
    let mut csv = csv::Reader::from_path(out.join("samples.csv")).unwrap();
    let cells = [0, 3, 4, 5];
    csv.records().map(|row| cells.map(|cell| row.as_ref().unwrap()[cell].to_owned())).collect()
}

/// The documents of a part's files, in order.
fn texts(out: &Path, part: &str) -> Vec<String> {
    let files = contents(out);
    let of_part = |name: &&String| name.starts_with(part) && name.ends_with(".txt");
    let names: Vec<&String> = files.keys().filter(of_part).collect();
    let whole: String =
        names.iter().map(|name| std::str::from_utf8(&files[*name]).unwrap()).collect();
    let mut texts: Vec<String> = whole.split(END).map(str::to_owned).collect();
    assert_eq!(texts.pop().unwrap(), "", "each document is ended");
    texts
}

#[test]
fn what_was_planted_is_found_and_everything_else_is_kept_as_it_is() {
    let museum = Museum::new();
    let planted = plant(&museum);
    let out = museum.path("out");
    prepare(1, &museum.path("raw"), &out, &[]);
    let all = items(&out);
    let names: BTreeSet<&String> = all.iter().map(|item| &item[0]).collect();
    assert_eq!(names.len(), all.len(), "two items have one name");
    for [name, part, why, repaired] in &all {
        match planted.removed.get(name) {
            Some(expected) => assert!(why.starts_with(expected), "{name}: {why}"),
            None => assert!(why.is_empty() && !part.is_empty(), "{name}: {why}"),
        }
        assert_eq!(repaired, planted.repaired.get(name).unwrap_or(&""), "{name}");
    }
    assert_eq!(all.len(), planted.kept.len() + planted.removed.len());
    for part in ["train", "val", "test"] {
        let expected: Vec<&String> =
            all.iter().filter(|item| item[1] == part).map(|item| &planted.kept[&item[0]]).collect();
        let found = texts(&out, part);
        assert!(found.iter().eq(expected), "{part}");
        let share = if part == "train" { 0.8 } else { 0.1 };
        let exact = share * planted.kept.len() as f64;
        assert!((found.len() as f64 - exact).abs() <= 1.0, "{part}: {}", found.len());
    }
    let report = read(out.join("report.json"));
    let reasons = json!({
        "broken line": 1, "duplicate": 1, "empty": 3, "encoding": 2, "near-duplicate": 2,
        "no text": 3, "too short": 1, "unreadable": 1,
    });
    assert_eq!(report["items"]["reasons"], reasons);
    let repaired = json!({
        "byte order mark": 1, "Windows-1252": 1, "control characters": 1, "line ends": 1,
    });
    assert_eq!(report["repaired"], repaired);
    let listed: BTreeSet<&str> = report["removed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item[0].as_str().unwrap())
        .collect();
    assert!(listed.into_iter().eq(planted.removed.keys().map(String::as_str)));
    let html = std::fs::read_to_string(out.join("report.html")).unwrap();
    for name in planted.removed.keys().chain(planted.repaired.keys()) {
        assert!(html.contains(&format!("<td>{name}<td>")), "{name} is not in the page");
    }
}

#[test]
fn statistics_are_those_of_the_training_part_alone() {
    let museum = Museum::new();
    plant(&museum);
    let out = museum.path("out");
    prepare(2, &museum.path("raw"), &out, &["--tokens", "characters"]);
    let train = texts(&out, "train");
    let manifest = read(out.join("manifest.json"));
    let sum = |of: fn(&String) -> usize| train.iter().map(of).sum::<usize>();
    let part = json!({
        "name": "train",
        "documents": train.len(),
        "bytes": sum(String::len),
        "characters": sum(|text| text.chars().count()),
        "words": sum(|text| text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).count()),
        "tokens": sum(|text| text.chars().count() + END.len()),
        "characters_replaced": 0,
    });
    assert_eq!(manifest["parts"][0], part);
    assert_eq!(manifest["statistics"]["part"], part);
    let used: BTreeSet<char> =
        train.iter().flat_map(|text| text.chars()).chain(END.chars()).collect();
    let tokens = &manifest["statistics"]["tokens"];
    assert_eq!(tokens["vocabulary"], json!(String::from_iter(&used)));
    assert_eq!(read(out.join("data.json"))["classes"], used.len());
    let mut sizes: Vec<usize> = train.iter().map(String::len).collect();
    sizes.sort_unstable();
    let told = &manifest["statistics"]["bytes_of_a_document"];
    assert_eq!((&told[0], &told[6]), (&json!(sizes[0]), &json!(sizes.last())));
    for file in manifest["files"].as_array().unwrap() {
        let bytes = std::fs::read(out.join(file["file"].as_str().unwrap())).unwrap();
        assert_eq!(file["blake3"], blake3_of(&bytes));
    }
}

fn blake3_of(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

#[test]
fn the_bytes_are_the_same_at_any_rank_count_and_after_interruptions() {
    let museum = Museum::new();
    plant(&museum);
    let raw = museum.path("raw");
    prepare(1, &raw, &museum.path("one"), &[]);
    let one = contents(&museum.path("one"));
    assert!(one.len() > 9, "{:?}", one.keys());
    for ranks in [2, 3] {
        let out = museum.path(&format!("{ranks}"));
        prepare(ranks, &raw, &out, &[]);
        assert!(contents(&out) == one, "{ranks} ranks differ from one");
    }
    let out = museum.path("killed");
    let mut half_way = 0;
    for pause in [2, 4, 6, 8, 10, 12, 15, 18, 22, 26, 30, 40] {
        let mut child = Command::new(Mpi::Open.binary())
            .arg("prepare")
            .arg(&raw)
            .arg("--out")
            .arg(&out)
            .args(OPTIONS)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(pause));
        child.kill().unwrap();
        child.wait().unwrap();
        half_way +=
            usize::from(out.join(".prepare").exists() && !out.join("manifest.json").exists());
    }
    assert!(half_way > 0, "it was never interrupted half-way");
    prepare(2, &raw, &out, &[]);
    assert!(contents(&out) == one, "differs after interruptions");
    prepare(1, &raw, &out, &[]);
    assert!(contents(&out) == one, "differs after a second time");
}

#[test]
fn what_is_noted_and_damaged_is_done_again() {
    let museum = Museum::new();
    plant(&museum);
    let (raw, out) = (museum.path("raw"), museum.path("out"));
    prepare(1, &raw, &museum.path("one"), &[]);
    std::fs::create_dir_all(out.join(".prepare")).unwrap();
    std::fs::copy(museum.path("one/.prepare/key"), out.join(".prepare/key")).unwrap();
    // A folder in the place of the list: the first attempt ends when all documents are written.
    std::fs::create_dir(out.join("samples.csv")).unwrap();
    let ended = under(Mpi::Open, 2)
        .arg_paths(["prepare"], &[&raw])
        .arg_paths(["--out"], &[&out])
        .args(OPTIONS)
        .run();
    assert!(ended.code == 73 || ended.code == 74, "{}", ended.all_output());
    std::fs::remove_dir(out.join("samples.csv")).unwrap();
    let damage = |name: &str| {
        let mut bytes = std::fs::read(out.join(name)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(out.join(name), bytes).unwrap();
    };
    damage("train-00000.txt");
    damage(".prepare/signatures-000001");
    let cut = std::fs::read(out.join(".prepare/examined-000002.json")).unwrap();
    std::fs::write(out.join(".prepare/examined-000002.json"), &cut[..cut.len() / 2]).unwrap();
    std::fs::remove_file(out.join("test-00000.txt")).unwrap();
    prepare(2, &raw, &out, &[]);
    assert!(contents(&out) == contents(&museum.path("one")), "something damaged was kept");
}

/// Trains for a few steps; the losses.
fn trains(out: &Path, ranks: usize) -> Vec<Value> {
    let mut data = read(out.join("data.json"));
    data["text"]["context"] = json!(32);
    let card = json!({
        "data": data,
        "model": {"kind": "gpt", "width": 16, "layers": 1, "heads": 2},
        "train": {"global_batch": 16, "max_steps": 5, "eval_batch": 16},
        "report": {"every_steps": 1},
    });
    let card_path = out.join("card.json");
    std::fs::write(&card_path, card.to_string()).unwrap();
    let run = out.join(format!("run{ranks}"));
    under(Mpi::Open, ranks)
        .arg_paths(["train"], &[&card_path])
        .arg_paths(["--out"], &[&run])
        .succeed();
    let evals = metrics(&run, "eval");
    assert!(evals.last().unwrap()["perplexity"].as_f64().unwrap() > 1.0);
    metrics(&run, "step").iter().map(|step| step["loss"].clone()).collect()
}

#[test]
fn prepared_text_trains_by_bytes_and_by_characters() {
    let museum = Museum::new();
    plant(&museum);
    for tokens in ["bytes", "characters"] {
        let out = museum.path(tokens);
        prepare(2, &museum.path("raw"), &out, &["--tokens", tokens]);
        let [one, two] = [1, 2].map(|ranks| trains(&out, ranks));
        assert_eq!(one.len(), 5);
        for (a, b) in one.iter().zip(&two) {
            assert!((a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-4, "{one:?} {two:?}");
        }
    }
}

#[test]
fn characters_that_only_other_parts_have_stand_as_spaces_and_are_counted() {
    let museum = Museum::new();
    let mut rng = noise(8);
    // Each document has a character of its own.
    let own = |i: u32| char::from_u32(0x4e00 + i).unwrap();
    let lines: String =
        (0..40).map(|i| line(&format!("{} {} {0}", document(&mut rng), own(i)))).collect();
    let source = museum.put("own.jsonl", lines.as_bytes());
    let out = museum.path("out");
    prepare(2, &source, &out, &["--tokens", "characters", "--split", "0.5,0.25,0.25"]);
    let manifest = read(out.join("manifest.json"));
    for (part, replaced) in manifest["parts"].as_array().unwrap().iter().zip([0, 10, 10]) {
        assert_eq!(part["characters_replaced"], replaced, "{part}");
    }
    for part in ["val", "test"] {
        assert!(texts(&out, part).iter().all(|text| text.is_ascii() && text.contains("   ")));
    }
    trains(&out, 1);
}

/// `scripts/golden/make_data.py` wrote the tokenizers, the texts, and what Python makes of them.
#[cfg(feature = "tokenizers")]
#[test]
fn tokenizers_give_the_tokens_that_they_give_in_python() {
    let golden = common::root().join("tests/golden/data");
    let golden_tokens = read(golden.join("tokens.json"));
    let texts: Vec<&str> = golden_tokens["texts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|text| text.as_str().unwrap())
        .collect();
    let museum = Museum::new();
    let lines: String = texts.iter().map(|text| line(text)).collect();
    let source = museum.put("texts.jsonl", lines.as_bytes());
    for (name, expected) in golden_tokens["tokenizers"].as_object().unwrap() {
        let out = museum.path(name);
        let end = expected["end"].as_str().unwrap();
        under(Mpi::Open, 2)
            .arg_paths(["prepare"], &[&source])
            .arg_paths(["--out"], &[&out])
            .arg_paths(["--tokenizer"], &[&golden.join(format!("tokenizer-{name}.json"))])
            .args(["--end", end, "--split", "1,0,0"])
            .succeed();
        let bytes = std::fs::read(out.join("train-00000.bin")).unwrap();
        let found: Vec<u64> =
            bytes.chunks_exact(2).map(|b| u64::from(u16::from_le_bytes([b[0], b[1]]))).collect();
        let mut ids = Vec::new();
        for text in expected["ids"].as_array().unwrap() {
            ids.extend(text.as_array().unwrap().iter().map(|id| id.as_u64().unwrap()));
            ids.push(expected["end_id"].as_u64().unwrap());
        }
        assert_eq!(found, ids, "{name}");
        let data = json!({
            "format": "tokens",
            "train": {"files": ["train-00000.bin"]},
            "classes": expected["classes"],
            "text": {"context": 256, "ids": "u16"},
        });
        assert_eq!(read(out.join("data.json")), data, "{name}");
        let part = &read(out.join("manifest.json"))["parts"][0];
        assert_eq!((&part["tokens"], &part["documents"]), (&json!(ids.len()), &json!(texts.len())));
    }
}

#[cfg(feature = "tokenizers")]
#[test]
fn tokens_of_a_tokenizer_are_the_same_at_any_rank_count_and_train() {
    let museum = Museum::new();
    plant(&museum);
    let tokenizer = common::root().join("tests/golden/data/tokenizer-gpt.json");
    let outs = [1, 2, 3].map(|ranks| {
        let out = museum.path(&ranks.to_string());
        under(Mpi::Open, ranks)
            .arg_paths(["prepare"], &[&museum.path("raw")])
            .arg_paths(["--out"], &[&out])
            .arg_paths(["--tokenizer"], &[&tokenizer])
            .args(["--end", "<|endoftext|>", "--separator", "--8<--", "--shard", "100"])
            .succeed();
        out
    });
    let one = contents(&outs[0]);
    assert!(one.keys().filter(|name| name.ends_with(".bin")).count() > 3, "{:?}", one.keys());
    assert!(outs.iter().all(|out| contents(out) == one));
    trains(&outs[0], 2);
}

#[cfg(feature = "tokenizers")]
#[test]
fn bad_tokenizers_are_told_what_is_wrong_with_them() {
    let museum = Museum::new();
    let source = museum.put("t.txt", b"only one document, and not a long one");
    let good = common::root().join("tests/golden/data/tokenizer-gpt.json");
    let good = std::fs::read_to_string(good).unwrap();
    let refuses = |content: &str, more: &[&str], code: i32, word: &str| {
        let tokenizer = museum.put("tokenizer.json", content.as_bytes());
        let ended = under(Mpi::Open, 2)
            .arg_paths(["prepare"], &[&source])
            .arg_paths(["--out"], &[&museum.path("out")])
            .arg_paths(["--tokenizer"], &[&tokenizer])
            .args(more)
            .run();
        assert_eq!(ended.code, code, "{}", ended.all_output());
        assert!(ended.stderr.contains(word), "`{word}` is missing: {}", ended.all_output());
    };
    refuses(&good[..good.len() / 2], &[], 65, "is no tokenizer: EOF");
    refuses("{\"model\": {\"type\": \"New\"}}", &[], 65, "is no tokenizer: ");
    refuses(&good.replace("\"dropout\":null", "\"dropout\":0.1"), &[], 65, "at random");
    refuses(
        &good,
        &["--end", "</s>"],
        65,
        "no token `</s>` (--end); its special tokens: <|endoftext|>",
    );
    refuses(&good, &["--tokens", "bytes"], 64, "cannot be used with");
    let huge = good.replace("\"<|endoftext|>\":0", "\"<|endoftext|>\":99999");
    refuses(&huge, &[], 65, "tokens; a card can have 2 to 65536");
}

#[test]
fn the_order_of_the_sources_parts_nothing() {
    let museum = Museum::new();
    let mut rng = noise(4);
    let [a, b] = ["a.jsonl", "b.jsonl"].map(|name| {
        let lines: String = (0..50).map(|_| line(&document(&mut rng))).collect();
        museum.put(name, lines.as_bytes())
    });
    let parts = |out: &str, sources: [&Path; 2], seed: &str| -> BTreeMap<String, String> {
        under(Mpi::Open, 1)
            .args(["prepare", "--seed", seed])
            .args(sources)
            .arg_paths(["--out"], &[&museum.path(out)])
            .succeed();
        items(&museum.path(out)).into_iter().map(|[name, part, ..]| (name, part)).collect()
    };
    let found = parts("ab", [&a, &b], "1");
    assert_eq!(found.len(), 100);
    assert_eq!(parts("ba", [&b, &a], "1"), found);
    assert_ne!(parts("other", [&a, &b], "2"), found);
}

#[test]
fn bad_sources_and_options_are_told_what_is_wrong_with_them() {
    let museum = Museum::new();
    let refuses = |sources: &[&Path], more: &[&str], code: i32, word: &str| {
        let out = museum.path("refused");
        let ended = under(Mpi::Open, 2)
            .args(["prepare"])
            .args(sources)
            .arg_paths(["--out"], &[&out])
            .args(more)
            .run();
        assert_eq!(ended.code, code, "{}", ended.all_output());
        assert!(ended.stderr.contains(word), "`{word}` is missing: {}", ended.all_output());
        let _ = std::fs::remove_dir_all(out);
    };
    let text = museum.put("t.txt", b"only one document, and not a long one");
    let table = museum.put("t.csv", b"a,label\n1,x\n2,y\n");
    let lines = museum.put("t.jsonl", b"{\"content\": \"in another field\"}\n");
    refuses(&[&museum.path("gone.txt")], &[], 66, "no such file");
    refuses(&[&text, &table], &[], 64, "others are not");
    refuses(&[&text], &[], 65, "would be empty: 1 of 1 documents are left");
    refuses(&[&lines], &[], 65, "0 of 1 documents are left; removed: 1 no text");
    refuses(&[&text], &["--grey"], 64, "--grey");
    refuses(&[&text], &["--group", "a"], 64, "--group");
    refuses(&[&text], &["--alike", "1.5"], 64, "--alike 1.5");
    refuses(&[&text], &["--separator", " "], 64, "--separator");
    refuses(&[&text], &["--end", "\\x"], 64, "--end");
    refuses(&[&text], &["--tokens", "words"], 64, "characters");
    refuses(&[&table], &["--alike", "0.5"], 64, "--alike is for text");
    let out = museum.path("whole");
    prepare(1, &text, &out, &["--split", "1,0,0"]);
    let ended = under(Mpi::Open, 1)
        .arg_paths(["prepare"], &[&text])
        .arg_paths(["--out"], &[&out])
        .args(["--split", "1,0,0", "--min-chars", "3"])
        .run();
    assert_eq!(
        (ended.code, ended.stderr.contains("other options")),
        (73, true),
        "{}",
        ended.stderr
    );
    let shown = under(Mpi::Open, 1).arg_paths(["inspect"], &[&out]).succeed();
    assert!(shown.stdout.contains("1 documents"), "{}", shown.stdout);
}

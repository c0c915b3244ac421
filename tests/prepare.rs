//! `annulus prepare`: what was planted is found, nothing is lost, the bytes are the same at any rank count and
//! after interruptions, and the result trains.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "readers/museum.rs"]
#[allow(dead_code)]
mod museum;

use annulus::util::rng::Rng;
use common::{Mpi, under};
use museum::{Museum, below, noise};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Smooth pictures, so that a slight change keeps the look: corners of random grey.
fn picture(rng: &mut Rng) -> image::GrayImage {
    let cells: Vec<f64> = (0..81).map(|_| below(rng, 256) as f64).collect();
    image::GrayImage::from_fn(18, 18, |x, y| {
        image::Luma([cells[(x / 2 + y / 2 * 9) as usize] as u8])
    })
}

fn save(museum: &Museum, name: &str, picture: &image::GrayImage) {
    let path = museum.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    picture.save(path).unwrap();
}

/// 3 classes of 40 pictures, one class of 10, and one fault of each kind.
fn pictures(museum: &Museum) -> PathBuf {
    let mut rng = noise(7);
    for (class, count) in [("ant", 40), ("bee", 40), ("cat", 40), ("rare", 10)] {
        for i in 0..count {
            save(museum, &format!("raw/{class}/{i:02}.png"), &picture(&mut rng));
        }
    }
    let mut twin = image::open(museum.path("raw/bee/05.png")).unwrap().into_luma8();
    save(museum, "raw/bee/x-duplicate.png", &twin);
    save(
        museum,
        "raw/cat/x-contradiction.png",
        &image::open(museum.path("raw/ant/07.png")).unwrap().into_luma8(),
    );
    twin.iter_mut().for_each(|grey| *grey = grey.saturating_add(1));
    save(museum, "raw/bee/x-near.png", &twin);
    save(museum, "raw/ant/x-constant.png", &image::GrayImage::new(18, 18));
    save(
        museum,
        "raw/ant/x-size.png",
        &image::GrayImage::from_fn(9, 9, |x, y| image::Luma([(x * y) as u8])),
    );
    let whole = std::fs::read(museum.path("raw/cat/00.png")).unwrap();
    museum.put("raw/cat/x-cut.png", &whole[..whole.len() / 2]);
    museum.put("raw/cat/x-notes.txt", b"hello");
    museum.put("raw/x-beside.png", &whole);
    let pipe = museum.path("raw/cat/x-pipe.png");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    museum.path("raw")
}

fn prepare(ranks: usize, source: &Path, out: &Path, more: &[&str]) {
    under(Mpi::Open, ranks)
        .arg_paths(["prepare"], &[source])
        .arg_paths(["--out"], &[out])
        .args(["--shard", "16"])
        .args(more)
        .succeed();
}

/// All files below a folder.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.insert(
                path.display().to_string().rsplit_once('/').unwrap().1.to_owned(),
                std::fs::read(path).unwrap(),
            );
        }
    }
    found
}

fn json(path: PathBuf) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Item, part, reason.
fn items(out: &Path) -> Vec<[String; 3]> {
    let mut csv = csv::Reader::from_path(out.join("samples.csv")).unwrap();
    csv.records().map(|row| [0, 3, 4].map(|cell| row.as_ref().unwrap()[cell].to_owned())).collect()
}

#[test]
fn what_was_planted_in_a_folder_is_found_and_nothing_else() {
    let museum = Museum::new();
    let (raw, out) = (pictures(&museum), museum.path("out"));
    prepare(1, &raw, &out, &["--grey"]);
    let removed: BTreeMap<String, String> = items(&out)
        .into_iter()
        .filter(|i| !i[2].is_empty())
        .map(|[name, _, why]| (name, why))
        .collect();
    let expected = [
        ("raw/ant/07.png", "contradiction:"),
        ("raw/ant/x-constant.png", "constant:"),
        ("raw/ant/x-size.png", "wrong size:"),
        ("raw/bee/x-duplicate.png", "duplicate of raw/bee/05.png"),
        ("raw/cat/x-contradiction.png", "contradiction:"),
        ("raw/cat/x-cut.png", "unreadable:"),
        ("raw/cat/x-notes.txt", "no picture:"),
        ("raw/cat/x-pipe.png", "unreadable:"),
        ("raw/x-beside.png", "in no class:"),
    ];
    assert_eq!(removed.len(), expected.len(), "{removed:?}");
    for (name, why) in expected {
        assert!(removed[name].starts_with(why), "{name}: {}", removed[name]);
    }
    let report = json(out.join("report.json"));
    assert_eq!(
        report["look_alike_and_kept_in_one_part"],
        serde_json::json!([["raw/bee/05.png", "raw/bee/x-near.png"]])
    );
    assert_eq!(
        report["classes"][3],
        serde_json::json!({"name": "rare", "train": 8, "val": 1, "test": 1})
    );
    let all = items(&out);
    let part = |name: &str| &all.iter().find(|item| item[0] == name).unwrap()[1];
    assert_eq!(part("raw/bee/05.png"), part("raw/bee/x-near.png"));
    let count = |name: &str| report["items"][name].as_u64().unwrap();
    assert_eq!(count("found"), count("kept") + count("removed"));
    assert_eq!(
        count("found") as usize,
        all.iter().map(|item| &item[0]).collect::<BTreeSet<_>>().len()
    );

    let out = museum.path("dropped");
    prepare(1, &raw, &out, &["--grey", "--drop-near"]);
    let near = items(&out).into_iter().find(|item| item[0] == "raw/bee/x-near.png").unwrap();
    assert_eq!(near[2], "near-duplicate of raw/bee/05.png");
}

#[test]
fn the_bytes_are_the_same_at_any_rank_count_and_after_interruptions() {
    let museum = Museum::new();
    let raw = pictures(&museum);
    prepare(1, &raw, &museum.path("one"), &["--grey"]);
    let one = contents(&museum.path("one"));
    assert!(one.len() > 9, "{:?}", one.keys());
    for ranks in [2, 3] {
        let out = museum.path(&format!("{ranks}"));
        prepare(ranks, &raw, &out, &["--grey"]);
        assert!(contents(&out) == one, "{ranks} ranks differ from one");
    }
    let out = museum.path("killed");
    let mut half_way = 0;
    for pause in [2, 5, 8, 12, 16, 20, 25, 30, 40, 50] {
        let mut child = Command::new(Mpi::Open.binary())
            .arg("prepare")
            .arg(&raw)
            .arg("--out")
            .arg(&out)
            .args(["--grey", "--shard", "16"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // On a busy machine the program takes long to start: from the second on it is killed once it has begun.
        let begun = || pause == 2 || out.join(".prepare/key").exists();
        while !begun() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(pause));
        child.kill().unwrap();
        child.wait().unwrap();
        half_way +=
            usize::from(out.join(".prepare").exists() && !out.join("manifest.json").exists());
    }
    assert!(half_way > 0, "it was never interrupted half-way");
    prepare(2, &raw, &out, &["--grey"]);
    assert!(contents(&out) == one, "differs after interruptions");
    prepare(1, &raw, &out, &["--grey"]);
    assert!(contents(&out) == one, "differs after a second time");
}

#[test]
fn files_that_were_damaged_between_two_attempts_are_written_again() {
    let museum = Museum::new();
    let raw = pictures(&museum);
    prepare(1, &raw, &museum.path("one"), &["--grey"]);
    let out = museum.path("out");
    std::fs::create_dir_all(out.join(".prepare")).unwrap();
    std::fs::copy(museum.path("one/.prepare/key"), out.join(".prepare/key")).unwrap();
    // A folder in the place of the list: the first attempt ends when all samples are written.
    std::fs::create_dir(out.join("samples.csv")).unwrap();
    let ended = under(Mpi::Open, 2)
        .arg_paths(["prepare"], &[&raw])
        .arg_paths(["--out"], &[&out])
        .args(["--shard", "16", "--grey"])
        .run();
    assert!(ended.code == 73 || ended.code == 74, "{}", ended.all_output());
    assert!(out.join(".prepare/shard-000001.json").exists() && !out.join("manifest.json").exists());
    std::fs::remove_dir(out.join("samples.csv")).unwrap();
    let shard = |name: &str| (out.join(name), std::fs::read(out.join(name)).unwrap());
    let (path, mut bytes) = shard("train-00000.safetensors");
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(path, bytes).unwrap();
    let (path, bytes) = shard("train-00001.safetensors");
    std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    std::fs::remove_file(out.join("test-00000.safetensors")).unwrap();
    prepare(2, &raw, &out, &["--grey"]);
    assert!(contents(&out) == contents(&museum.path("one")), "a damaged file was kept");
}

#[test]
fn a_table_is_cleaned_standardised_and_trains() {
    let museum = Museum::new();
    let mut rng = noise(3);
    let mut text = b"id,age,colour,same,species\n".to_vec();
    for i in 0..200 {
        let (age, colour) = (below(&mut rng, 100), ["red", "blue"][i % 2]);
        text.extend(format!("{i},{age}.{i},{colour},1,{}\n", ["fox", "wolf"][i % 2]).bytes());
    }
    text.extend(
        b"200,,red,1,fox\n201,old,red,1,fox\n202,5,red,1\n203,5,red,1,\n204,5,r\xe9d,1,fox\n",
    );
    let table = museum.put("zoo.csv", &text);
    let out = museum.path("zoo");
    prepare(2, &table, &out, &["--label", "species", "--ignore", "id"]);
    let manifest = json(out.join("manifest.json"));
    let reasons =
        serde_json::json!({"encoding": 1, "missing value": 2, "not a number": 1, "row length": 1});
    assert_eq!(manifest["items"]["reasons"], reasons);
    let kinds: Vec<_> =
        manifest["statistics"]["columns"].as_array().unwrap().iter().map(|c| &c["kind"]).collect();
    assert_eq!(kinds, ["numeric", "category", "constant"]);
    trains(&museum, &out);
}

#[test]
fn a_card_says_what_the_options_say_and_errors_name_its_line() {
    let museum = Museum::new();
    let mut rng = noise(3);
    let mut text = "id,age,colour,species\n".to_owned();
    for i in 0..100 {
        let (age, colour) = (below(&mut rng, 100), ["red", "blue"][i % 2]);
        text += &format!("{i},{age}.{i},{colour},{}\n", ["fox", "wolf"][i / 2 % 2]);
    }
    let table = museum.put("zoo.csv", text.as_bytes());
    let words = ["--label", "species", "--ignore", "id", "--seed", "7", "--missing", "fill"];
    prepare(1, &table, &museum.path("options"), &words);
    let prepare = |line: &str, sets: &[&str], more: &str| {
        let text = format!(
            "{{\n\"prepare\": {{\n \"sources\": [\"zoo.csv\"],\n \"out\": \"of card\",\n \"seed\": 7, \
             \"shard\": 16,\n \"table\": {{\n  \"label\": \"species\",\n  \"ignore\": [\"id\"],\n  \
             {line}}}}}{more}}}"
        );
        let card = museum.put("card.json", text.as_bytes());
        let job = under(Mpi::Open, 2).args(["prepare"]).args([&card]);
        sets.iter().fold(job, |job, set| job.set(set)).run()
    };
    let fill = "\"missing\": \"fill\"";
    let ended = prepare(fill, &[], "");
    assert_eq!(ended.code, 0, "{}", ended.all_output());
    assert!(contents(&museum.path("of card")) == contents(&museum.path("options")));
    for (line, sets, code, words) in [
        ("\"mising\": \"fill\"", &[][..], 78, "did you mean `missing`? (line 9)"),
        ("\"missing\": \"mean\"", &[], 78, "\"mean\" is not one of `drop`, `fill`"),
        (
            fill,
            &["prepare.table.group=kind"],
            65,
            "--set prepare.table.group: prepare.table.group: ",
        ),
        (fill, &["prepare.split=[1,1,1]"], 78, "is not three shares that add up to 1"),
        (fill, &["prepare.pictures.grey=true"], 78, "remove one of the two"),
    ] {
        let ended = prepare(line, sets, "");
        assert_eq!(ended.code, code, "{}", ended.all_output());
        assert!(ended.stderr.contains(words), "`{words}` is missing: {}", ended.stderr);
    }
    let whole = ",\n\"data\": {\"format\": \"npz\"}";
    let ended = prepare(fill, &[], whole);
    assert!(ended.code == 78 && ended.stderr.contains("data.format"), "{}", ended.stderr);
}

/// A table of 400 rows with these values of a column `when`, prepared; each row's value and part.
fn parted(option: &str, value: impl Fn(usize) -> String) -> Vec<(String, String)> {
    let museum = Museum::new();
    let mut rng = noise(5);
    let rows: Vec<String> = (0..400)
        .map(|i| {
            format!("{},{},{}\n", below(&mut rng, 1_000_000), value(i), ["fox", "wolf"][i % 2])
        })
        .collect();
    let text = format!("age,when,label\n{}1000001,,fox\n", rows.concat());
    let table = museum.put("t.csv", text.as_bytes());
    let [one, two] = ["one", "two"].map(|name| museum.path(name));
    prepare(1, &table, &one, &[option, "when", "--split", "0.6,0.2,0.2"]);
    prepare(2, &table, &two, &[option, "when", "--split", "0.6,0.2,0.2"]);
    assert!(contents(&one) == contents(&two));
    let manifest = json(one.join("manifest.json"));
    assert_eq!(manifest["items"]["reasons"], serde_json::json!({"missing value": 1}));
    assert_eq!(manifest["statistics"]["columns"].as_array().unwrap().len(), 1, "it is no feature");
    let parts = items(&one).into_iter().take(400).enumerate();
    parts.map(|(i, [_, part, _])| (value(i), part)).collect()
}

#[test]
fn rows_of_one_group_are_in_one_part() {
    let rows = parted("--group", |i| format!("patient {}", i * i % 199));
    let of: BTreeMap<_, _> = rows.iter().cloned().collect();
    assert!(rows.iter().all(|(group, part)| of[group] == *part));
    for (part, share) in [("train", 0.6), ("val", 0.2), ("test", 0.2)] {
        let count = rows.iter().filter(|(_, p)| p == part).count() as f64 / 400.0;
        assert!((count - share).abs() < 0.08, "{part} {count}");
    }
}

#[test]
fn the_latest_rows_are_for_test_and_rows_of_one_time_stay_together() {
    // As numbers 9 comes before 10, as texts it would not.
    let number = |i: usize| format!("{}", i * 31 % 40);
    let date = |i: usize| format!("2026-{:02}-{:02}", 1 + i * 7 % 12, 1 + i % 28);
    for dates in [false, true] {
        let rows = if dates { parted("--time", date) } else { parted("--time", number) };
        let times = |part: &str| -> Vec<String> {
            let key = |t: &String| if dates { t.clone() } else { format!("{t:>4}") };
            let mut found: Vec<_> =
                rows.iter().filter(|(_, p)| p == part).map(|(t, _)| key(t)).collect();
            found.sort();
            found
        };
        let [train, val, test] = ["train", "val", "test"].map(times);
        assert!(
            train.last() < val.first() && val.last() < test.first(),
            "{train:?} {val:?} {test:?}"
        );
        assert!(
            (60..=80).contains(&test.len()) && (60..=80).contains(&val.len()),
            "{}",
            test.len()
        );
    }
}

#[test]
fn prepared_pictures_train() {
    let museum = Museum::new();
    let out = museum.path("out");
    prepare(2, &pictures(&museum), &out, &["--grey"]);
    trains(&museum, &out);
}

fn trains(museum: &Museum, out: &Path) {
    let card = serde_json::json!({
        "data": json(out.join("data.json")),
        "model": {"kind": "mlp", "hidden": [8]},
        "train": {"global_batch": 16, "epochs": 1},
    });
    let card_path = out.join("card.json");
    std::fs::write(&card_path, card.to_string()).unwrap();
    let run = museum.path("run");
    let ended = under(Mpi::Open, 2)
        .arg_paths(["train"], &[&card_path])
        .arg_paths(["--out"], &[&run])
        .succeed();
    let samples = |part: &str| tensors(out, part).1.len() / 8;
    let ends = |text: &str, part: &str| {
        let (_, rest) = text.split_once(&format!("{part} accuracy ")).expect(text);
        assert!(rest.contains(&format!("/{})", samples(part))), "{part}: {rest}");
    };
    ends(&ended.stdout, "val");
    let ended = under(Mpi::Open, 2).args(["eval"]).args([&run, &card_path]).succeed();
    ends(&ended.stdout, "test");
}

/// The tensors of a part's files, one after another: bytes of `images`, and `labels`.
fn tensors(out: &Path, part: &str) -> (Vec<u8>, Vec<u8>) {
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    let files = contents(out);
    for (_, bytes) in files.iter().filter(|(n, _)| n.starts_with(part) && n.ends_with("tensors")) {
        let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
        images.extend_from_slice(file.tensor("images").unwrap().data());
        labels.extend_from_slice(file.tensor("labels").unwrap().data());
    }
    (images, labels)
}

/// Mean and standard deviation.
fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n).sqrt())
}

fn near((a, b): (f64, f64), told: [&Value; 2]) {
    for (found, told) in [a, b].into_iter().zip(told) {
        let told = told.as_f64().unwrap();
        assert!((found - told).abs() < 1e-9, "{found} told as {told}");
    }
}

#[test]
fn samples_are_the_pictures_channel_by_channel_and_statistics_those_of_the_training_part_alone() {
    let museum = Museum::new();
    let mut rng = noise(11);
    let mut originals = BTreeSet::new();
    for (label, class) in ["dark", "light"].into_iter().enumerate() {
        for i in 0..30 {
            // Parts differ much, and the channels, too.
            let top = 40 + 6 * i;
            let picture = image::RgbImage::from_fn(7, 5, |_, _| {
                let mut grey = |most| below(&mut rng, most) as u8;
                image::Rgb([grey(top), grey(top / 2), grey(top / 4)])
            });
            let planes: Vec<u8> =
                (0..3).flat_map(|c| picture.pixels().map(move |p| p.0[c])).collect();
            originals.insert((planes, label as u8));
            let path = museum.path(&format!("raw/{class}/{i}.png"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            picture.save(path).unwrap();
        }
    }
    let out = museum.path("out");
    prepare(2, &museum.path("raw"), &out, &["--near", "0", "--split", "0.6,0.2,0.2"]);
    let mut found = BTreeSet::new();
    for part in ["train", "val", "test"] {
        let (images, labels) = tensors(&out, part);
        assert_eq!(images.len() / 105, labels.len() / 8);
        let samples = images.chunks(105).zip(labels.chunks(8));
        found.extend(samples.map(|(planes, label)| (planes.to_vec(), label[0])));
    }
    assert!(found == originals, "samples are other than the pictures");
    let statistics = &json(out.join("report.json"))["statistics"];
    let (images, _) = tensors(&out, "train");
    for channel in 0..3 {
        let of = images.chunks(105).flat_map(|s| &s[35 * channel..35 * (channel + 1)]);
        let values: Vec<f64> = of.map(|&v| f64::from(v) / 255.0).collect();
        let told = &statistics["channels"];
        near(moments(&values), [&told["mean"][channel], &told["std"][channel]]);
    }
    let all: Vec<f64> = images.iter().map(|&v| f64::from(v) / 255.0).collect();
    near(moments(&all), [&statistics["all"]["mean"], &statistics["all"]["std"]]);
}

#[test]
fn columns_are_standardised_by_the_training_part_alone() {
    let museum = Museum::new();
    let mut rng = noise(5);
    let mut text = "height,label\n".to_owned();
    for i in 0..300 {
        text += &format!("{}.{i:03},{}\n", 1000 + below(&mut rng, 500), ["a", "b"][i % 2]);
    }
    let out = museum.path("out");
    let table = museum.put("t.csv", text.as_bytes());
    prepare(1, &table, &out, &["--split", "0.5,0,0.5"]);
    let read = |part: &str| -> Vec<f64> {
        let (bytes, _) = tensors(&out, part);
        bytes.chunks(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect()
    };
    let (train, test) = (read("train"), read("test"));
    assert_eq!((train.len(), test.len()), (150, 150));
    let (mean, std) = moments(&train);
    assert!(mean.abs() < 1e-6 && (std - 1.0).abs() < 1e-6, "{mean} {std}");
    let (mean, std) = moments(&test);
    assert!(mean.abs() > 1e-6 && (std - 1.0).abs() > 1e-6, "the test part was looked at");
}

#[test]
fn pictures_that_look_alike_are_never_parted_and_the_order_of_sources_parts_nothing() {
    let museum = Museum::new();
    let mut rng = noise(17);
    for i in 0..60 {
        let mut one = picture(&mut rng);
        let class = ["a", "b"][i % 2];
        save(&museum, &format!("raw/{class}/{i}.png"), &one);
        one.iter_mut().for_each(|grey| *grey = grey.saturating_add(1));
        save(&museum, &format!("more/{class}/{i}-again.png"), &one);
    }
    let parts = |out: &str, sources: [&str; 2], seed: &str| -> BTreeMap<String, String> {
        under(Mpi::Open, 1)
            .args(["prepare", "--grey", "--split", "0.5,0.25,0.25", "--seed", seed])
            .args(sources.map(|source| museum.path(source)))
            .arg_paths(["--out"], &[&museum.path(out)])
            .succeed();
        items(&museum.path(out)).into_iter().map(|[name, part, _]| (name, part)).collect()
    };
    let found = parts("out", ["raw", "more"], "1");
    assert_eq!(found.len(), 120);
    for (name, part) in found.iter().filter(|(name, _)| name.starts_with("raw")) {
        let again = name.replace("raw/", "more/").replace(".png", "-again.png");
        assert_eq!(part, &found[&again], "{name}");
    }
    assert_eq!(parts("turned", ["more", "raw"], "1"), found);
    assert_ne!(parts("other", ["raw", "more"], "2"), found);
}

#[test]
fn bad_sources_are_told_what_is_wrong_with_them() {
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
    let table = museum.put("t.csv", b"a,label\n1,x\n2,y\n");
    let one_class = museum.put("c.csv", b"a,label\n1,x\n2,x\n");
    let empty = museum.put("e.csv", b"");
    let twice = museum.put("d.csv", b"a,a,label\n1,2,x\n");
    std::fs::create_dir(museum.path("empty")).unwrap();
    refuses(&[&museum.path("gone")], &[], 66, "no such file");
    refuses(&[&museum.path("empty")], &[], 65, "holds no files");
    refuses(&[&museum.path("empty"), &table], &[], 64, "not both");
    refuses(&[&empty], &[], 65, "is empty");
    refuses(&[&twice], &[], 65, "each once");
    refuses(&[&one_class], &[], 65, "at least two classes");
    refuses(&[&table], &["--label", "kind"], 65, "no column `kind`");
    refuses(&[&table], &[], 65, "would be empty");
    refuses(&[&table], &["--split", "0.8,0.1"], 64, "three shares");
    refuses(&[&table], &["--resize", "28"], 64, "28x28");
    refuses(&[&table], &["--resize", "28x28"], 64, "--resize is for pictures");
    refuses(&[&museum.path("empty")], &["--ignore", "a"], 64, "--ignore is for tables");
    museum.put("other/mine.txt", b"precious");
    let ended = under(Mpi::Open, 1)
        .args(["prepare"])
        .args([&table])
        .arg_paths(["--out"], &[&museum.path("other")])
        .args(["--split", "1,0,0"])
        .run();
    assert_eq!((ended.code, ended.stderr.contains("other files")), (73, true), "{}", ended.stderr);
    let out = museum.path("whole");
    prepare(1, &table, &out, &["--split", "1,0,0"]);
    let ended = under(Mpi::Open, 1)
        .args(["prepare"])
        .args([&table])
        .arg_paths(["--out"], &[&out])
        .args(["--split", "1,0,0", "--seed", "2"])
        .run();
    assert_eq!(
        (ended.code, ended.stderr.contains("other options")),
        (73, true),
        "{}",
        ended.stderr
    );
}

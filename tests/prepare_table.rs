//! `annulus prepare` on tables: statistics are exact, faults are counted, declared kinds are held to, and a file of
//! many blocks gives the same bytes at any rank count and after interruptions.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "readers/museum.rs"]
#[allow(dead_code)]
mod museum;

use common::{Ended, Mpi, under};
use museum::{Museum, below, noise};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

fn prepare(mpi: Mpi, ranks: usize, source: &Path, out: &Path, more: &[&str]) -> Ended {
    let job = under(mpi, ranks).args(["prepare"]).args([source]);
    job.arg_paths(["--out"], &[out]).args(more).run()
}

/// Prepares at one rank and expects success; gives the manifest.
fn prepared(source: &Path, out: &Path, more: &[&str]) -> Value {
    let ended = prepare(Mpi::Open, 1, source, out, more);
    assert_eq!(ended.code, 0, "{}", ended.all_output());
    serde_json::from_slice(&std::fs::read(out.join("manifest.json")).unwrap()).unwrap()
}

/// All files of a folder.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let file = |path: std::path::PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, std::fs::read(&path).unwrap())
    };
    files.filter(|path| path.is_file()).map(file).collect()
}

/// Part and reason of each row, in the order of the file.
fn fates(out: &Path) -> Vec<[String; 2]> {
    let mut csv = csv::Reader::from_path(out.join("samples.csv")).unwrap();
    csv.records().map(|row| [3, 4].map(|cell| row.as_ref().unwrap()[cell].to_owned())).collect()
}

fn column<'a>(manifest: &'a Value, name: &str) -> &'a Value {
    let columns = manifest["statistics"]["columns"].as_array().unwrap();
    columns.iter().find(|column| column["name"] == name).unwrap_or_else(|| panic!("{manifest:#}"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn near(found: f64, told: &Value) {
    assert!((found - number(told)).abs() < 1e-9 * found.abs().max(1.0), "{found} told as {told}");
}

/// Of sorted values, as NumPy does it.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[place as usize], sorted[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

/// 500 rows: a number with outliers and missing values, a colour with missing values.
fn zoo(museum: &Museum) -> (std::path::PathBuf, Vec<Option<f64>>) {
    let mut rng = noise(23);
    let mut text = "serial,weight,colour,label\n".to_owned();
    let mut weights = Vec::new();
    for i in 0..500 {
        let weight =
            below(&mut rng, 100_000) as f64 / 100.0 * if i % 50 == 0 { 100.0 } else { 1.0 };
        let weight = (i % 17 != 0).then_some(weight);
        let shown = weight.map(|w| w.to_string()).unwrap_or_default();
        let colour = ["red", "red", "blue", ""][i % 4];
        text += &format!("{i},{shown},{colour},{}\n", ["fox", "wolf"][i / 4 % 2]);
        weights.push(weight);
    }
    (museum.put("zoo.csv", text.as_bytes()), weights)
}

#[test]
fn quantiles_bounds_and_fills_are_exact_and_of_the_training_part_alone() {
    let museum = Museum::new();
    let (table, weights) = zoo(&museum);
    for (missing, clip) in [
        ("fill", "quantiles=0.05,0.95"),
        ("median", "deviations=1"),
        ("most-frequent", "bounds=10,500"),
    ] {
        let out = museum.path(missing);
        let more = ["--missing", missing, "--clip", clip, "--split", "0.6,0.2,0.2"];
        let manifest = prepared(&table, &out, &more);
        let fates = fates(&out);
        let of_part = |part: &str| -> Vec<Option<f64>> {
            let rows = fates.iter().zip(&weights).filter(|([p, _], _)| p == part);
            rows.map(|(_, weight)| *weight).collect()
        };
        let parts = ["train", "val", "test"].map(of_part);
        let mut train: Vec<f64> = parts[0].iter().flatten().copied().collect();
        train.sort_by(f64::total_cmp);
        let told = column(&manifest, "weight");
        let shares = manifest["statistics"]["quantiles_at"].as_array().unwrap();
        for (share, told) in shares.iter().zip(told["quantiles"].as_array().unwrap()) {
            near(quantile(&train, number(share)), told);
        }
        let moments = |values: &[f64]| {
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt())
        };
        let (mean, std) = moments(&train);
        let [low, high] = match missing {
            "fill" => [quantile(&train, 0.05), quantile(&train, 0.95)],
            "median" => [mean - std, mean + std],
            _ => [10.0, 500.0],
        };
        near(low, &told["clip"][0]);
        near(high, &told["clip"][1]);
        for (i, part) in parts.iter().enumerate() {
            let beyond = part.iter().flatten().filter(|w| **w < low || **w > high).count();
            let absent = part.iter().filter(|w| w.is_none()).count();
            assert_eq!(
                (&told["clipped"][i], &told["missing"][i]),
                (&json!(beyond), &json!(absent))
            );
        }
        assert!(number(&told["clipped"][0]) > 0.0 && number(&told["missing"][1]) > 0.0);
        let clipped: Vec<f64> = train.iter().map(|w| w.clamp(low, high)).collect();
        let (mean, std) = moments(&clipped);
        near(mean, &told["mean"]);
        near(std, &told["std"]);
        match missing {
            "fill" => near(mean, &told["fill"]),
            "median" => near(quantile(&clipped, 0.5), &told["fill"]),
            _ => near(if number(&told["fill"]) < 250.0 { low } else { high }, &told["fill"]),
        }
        let colour = column(&manifest, "colour");
        let values = if missing == "most-frequent" {
            json!(["blue", "red"])
        } else {
            json!(["", "blue", "red"])
        };
        assert_eq!(colour["values"], values);
        if missing == "most-frequent" {
            assert_eq!(colour["fill"], "red");
        }
        let counts = colour["counts"].as_array().unwrap().iter().map(number).sum::<f64>();
        assert_eq!(counts as usize, parts[0].len(), "each row of the training part has a colour");
    }
}

#[test]
fn a_column_that_is_declared_is_held_to_its_kind_and_the_error_names_line_and_column() {
    let museum = Museum::new();
    let mut text = "age,code,when,note,label\n".to_owned();
    for i in 0..60 {
        text += &format!(
            "{i}.5,{},2026-11-{:02},\"n{i},\n\",{}\n",
            i % 3,
            1 + i % 28,
            ["a", "b"][i % 2]
        );
    }
    let table = museum.put("t.csv", text.as_bytes());
    let declared = ["--column", "code=category", "--column", "when=time", "--column", "note=text"];
    let manifest = prepared(&table, &museum.path("out"), &declared);
    let kind = |name: &str| column(&manifest, name)["kind"].clone();
    assert_eq!([kind("age"), kind("code"), kind("when")], ["numeric", "category", "numeric"]);
    assert_eq!(column(&manifest, "code")["values"], json!(["0", "1", "2"]));
    near(1_793_491_200.0, &column(&manifest, "when")["quantiles"][0]);
    assert!(!manifest["statistics"].to_string().contains("note"), "it is left out");

    let bad = museum.put("bad.csv", (text.clone() + "old,1,2026-11-01,n,a\n").as_bytes());
    for (row, option, words) in [
        ("old,1,2026-11-01,n,a", "age=numeric", "column `age` holds `old`, which is no number"),
        ("1,1,2026-13-01,n,a", "when=time", "column `when` holds `2026-13-01`, which is no time"),
    ] {
        std::fs::write(&bad, format!("{text}{row}\n")).unwrap();
        let note = ["--column", "note=text", "--column"];
        let ended =
            prepare(Mpi::Open, 2, &bad, &museum.path("no"), &[&note[..], &[option]].concat());
        assert_eq!(ended.code, 65, "{}", ended.all_output());
        let place = "bad.csv: line 122: ";
        assert!(ended.stderr.contains(place) && ended.stderr.contains(words), "{}", ended.stderr);
        std::fs::remove_dir_all(museum.path("no")).unwrap();
    }
    // Where nothing is declared the row is removed, and told.
    let manifest = prepared(&bad, &museum.path("found out"), &["--column", "note=text"]);
    assert_eq!(manifest["items"]["found"], 61);
}

#[test]
fn windows_1252_is_read_and_counted_or_its_rows_are_removed() {
    let museum = Museum::new();
    let mut text = b"town,label\n".to_vec();
    for i in 0..80 {
        let town: &[u8] = [&b"Koln"[..], b"K\xf6ln", "Köln".as_bytes(), b"\x80uro"][i % 4];
        text.extend([town, format!("{i},{}\n", ["a", "b"][i / 4 % 2]).as_bytes()].concat());
    }
    text.extend(b"\x81,a\n");
    let table = museum.put("t.csv", &text);
    let manifest = prepared(&table, &museum.path("refused"), &[]);
    assert_eq!(manifest["items"]["reasons"], json!({"encoding": 41}));
    let out = museum.path("repaired");
    let manifest = prepared(&table, &out, &["--encoding", "repair", "--split", "1,0,0"]);
    assert_eq!(manifest["items"]["reasons"], json!({"encoding": 1}));
    let values = column(&manifest, "town")["values"].as_array().unwrap();
    assert!(values.contains(&json!("Köln1")) && values.contains(&json!("€uro3")), "{values:?}");
    let report: Value =
        serde_json::from_slice(&std::fs::read(out.join("report.json")).unwrap()).unwrap();
    assert_eq!(report["repaired"], json!({"town": 40}));
}

/// A file of several blocks, with line breaks and quotes in cells, and faults; what is wrong with which row.
fn large(museum: &Museum) -> (std::path::PathBuf, BTreeMap<usize, &'static str>) {
    let mut rng = noise(9);
    let mut planted = BTreeMap::new();
    let mut text = "id,a,b,c,word,note,label\n".to_owned();
    let mut rows: Vec<String> = Vec::new();
    for i in 0..60_000 {
        let cells = [0; 2].map(|_| below(&mut rng, 1_000_000_000));
        let mut row = format!(
            "{},{}.25,{},{},{}",
            cells[0],
            cells[1],
            ["red", "\"green, light\"", "blue"][i % 3],
            "\"he said: \"\"no\"\",\r\nand left\n\n\"",
            ["common", "common", "common", "rare"][i % 4]
        );
        let fault = if i > 100 { below(&mut rng, 1000) } else { 1000 };
        match fault {
            0..10 => {
                row.clone_from(&rows[i / 2]);
                planted.insert(i, planted.get(&(i / 2)).copied().unwrap_or("duplicate of "));
            }
            10..14 => {
                row = row.replacen(',', ",,", 1);
                planted.insert(i, "row length: ");
            }
            14..18 => {
                row = row.rsplit_once(',').unwrap().0.to_owned() + ",";
                planted.insert(i, "missing value: it has no label");
            }
            18..21 => {
                row = format!("x{row}");
                planted.insert(i, "not a number: column `b` holds `x");
            }
            _ => {}
        }
        text += &format!("{i},{},{row}\n", i % 7);
        rows.push(row);
    }
    (museum.put("large.csv", text.as_bytes()), planted)
}

const LARGE: [&str; 8] =
    ["--ignore", "id", "--ignore", "a", "--column", "note=text", "--shard", "4096"];

#[test]
fn what_was_planted_in_a_file_of_many_blocks_is_found_and_the_bytes_are_the_same_at_any_rank_count()
{
    let museum = Museum::new();
    let (table, planted) = large(&museum);
    assert!(std::fs::metadata(&table).unwrap().len() > 4 << 20, "it is one block");
    let one = museum.path("one");
    prepared(&table, &one, &LARGE);
    let found: BTreeMap<usize, String> = fates(&one)
        .into_iter()
        .enumerate()
        .filter(|(_, [_, why])| !why.is_empty())
        .map(|(row, [_, why])| (row, why))
        .collect();
    let all: BTreeSet<usize> = planted.keys().copied().collect();
    let told: BTreeSet<usize> = found.keys().copied().collect();
    if let Some(row) = all.symmetric_difference(&told).next() {
        panic!("row {row}: planted {:?}, found {:?}", planted.get(row), found.get(row));
    }
    for (row, why) in &planted {
        assert!(found[row].starts_with(why), "row {row}: {} instead of {why}", found[row]);
    }
    for ranks in [2, 3] {
        let out = museum.path(&ranks.to_string());
        let ended = prepare(Mpi::Open, ranks, &table, &out, &LARGE);
        assert_eq!(ended.code, 0, "{}", ended.all_output());
        assert!(contents(&out) == contents(&one), "{ranks} ranks differ from one");
    }
}

/// Kills two ranks at ten random moments, then lets them finish; the files are those of one rank.
fn killed(mpi: Mpi) {
    let museum = Museum::new();
    let (table, _) = large(&museum);
    let (one, out) = (museum.path("one"), museum.path("killed"));
    prepared(&table, &one, &LARGE);
    let mut rng = noise(31);
    let mut stages = BTreeSet::new();
    // Shorter as long as it has finished by then: machines differ, and so does how much else they do.
    let mut longest = 400;
    for _ in 0..10 {
        let job = under(mpi, 2).args(["prepare"]).args([&table]);
        let running = job.arg_paths(["--out"], &[&out]).args(LARGE).start();
        let start = Instant::now();
        while !out.join(".prepare/key").exists() && start.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(below(&mut rng, longest) as u64));
        running.kill();
        match stage(&out) {
            "finished" => {
                std::fs::remove_dir_all(&out).unwrap();
                longest = (longest / 2).max(10);
            }
            stage => {
                stages.insert(stage);
            }
        }
    }
    assert!(!stages.is_empty(), "it was never interrupted half-way");
    let ended = prepare(mpi, 2, &table, &out, &LARGE);
    assert_eq!(ended.code, 0, "{}", ended.all_output());
    assert!(contents(&out) == contents(&one), "differs after it was interrupted at {stages:?}");
}

#[test]
fn two_ranks_that_are_killed_at_any_moment_go_on_where_they_were_under_open_mpi() {
    killed(Mpi::Open);
}

#[test]
fn two_ranks_that_are_killed_at_any_moment_go_on_where_they_were_under_mpich() {
    killed(Mpi::Mpich);
}

/// How far a preparation has come.
fn stage(out: &Path) -> &'static str {
    let notes = contents(&out.join(".prepare"));
    let noted = |word: &str| notes.keys().any(|name| name.starts_with(word));
    match () {
        () if out.join("manifest.json").exists() => "finished",
        () if noted("shard-") => "samples",
        () if noted("rows-") => "rows",
        () if noted("survey") => "survey",
        () => "nothing",
    }
}

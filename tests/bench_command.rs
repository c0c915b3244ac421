//! `annulus bench` writes what scripts rely on, alone and with two ranks, and refuses what cannot be
//! measured. No speeds are expected: that is what it is there to find out.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Ended, Mpi, alone, under};
use serde_json::Value;
use std::path::Path;
use tempfile::tempdir;

/// Runs `annulus bench` on `ranks` ranks and gives what it wrote and printed.
fn bench(ranks: usize, args: &str) -> (Value, Ended) {
    let folder = tempdir().unwrap();
    let file = folder.path().join("figures.json");
    let job = match ranks {
        1 => alone(&Mpi::Open.binary()),
        ranks => under(Mpi::Open, ranks),
    };
    let words = std::iter::once("bench").chain(args.split(' '));
    let ended = job.args(words).args(["--json".as_ref(), file.as_os_str()]).succeed();
    let figures: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(figures["ranks"], ranks);
    assert_eq!(figures["hosts"].as_array().unwrap().len(), 1);
    assert_eq!(figures["mpi"].is_string(), ranks > 1);
    assert!(figures["core_to_core_ns"].is_number() || figures["core_to_core_ns"].is_null());
    (figures, ended)
}

/// A figure that was measured.
#[track_caller]
fn positive(value: &Value) -> f64 {
    let number = value.as_f64().unwrap_or_else(|| panic!("{value} is no number"));
    assert!(number > 0.0 && number.is_finite(), "{number}");
    number
}

#[test]
fn all_reduce_rows_hold_bytes_ours_and_mpi_with_two_ranks() {
    let sizes = "--sizes 1M,8,64K --seconds 0.2";
    let (figures, ended) = bench(2, &format!("allreduce {sizes}"));
    let rows = figures["rows"].as_array().unwrap();
    let bytes: Vec<u64> = rows.iter().map(|row| row["bytes"].as_u64().unwrap()).collect();
    assert_eq!(bytes, [8, 65_536, 1 << 20]);
    for row in rows {
        let ours = positive(&row["ours_us"]);
        positive(&row["mpi_us"]);
        positive(&row["limit_us"]);
        positive(&row["limit_share"]);
        for name in ["ours", "ring", "doubling", "mpi"] {
            let figures = &row["algorithms"][name];
            assert!(positive(&figures["p50_us"]) <= positive(&figures["p99_us"]), "{figures}");
            assert!(positive(&figures["best_us"]) <= positive(&figures["p50_us"]), "{figures}");
            assert!(figures["batches"].as_u64().unwrap() >= 3, "{figures}");
        }
        // Two ranks: 2(P−1)/P is 1.
        let figures = &row["algorithms"]["ours"];
        let alg = positive(&figures["algbw_gb_s"]);
        assert!((alg - row["bytes"].as_f64().unwrap() / ours / 1e3).abs() < 1e-6 * alg);
        assert_eq!(figures["algbw_gb_s"], figures["busbw_gb_s"]);
    }
    let table = &ended.stdout;
    assert!(table.contains("mpi/ours") && table.contains("64 KiB"), "{table}");
    assert_eq!(table.matches("1 MiB ").count(), 1, "one rank prints:\n{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
}

#[test]
fn reproducible_mode_is_measured_beside_fast_mode_round_by_round() {
    let (figures, ended) = bench(2, "leaves --leaves 3 --batch 8 --steps 4 --rounds 2");
    let rows = figures["rows"].as_array().unwrap();
    let models: Vec<&Value> = rows.iter().map(|row| &row["model"]).collect();
    assert_eq!(models, ["lenet", "mlp"]);
    for row in rows {
        positive(&row["ratio"]);
        for way in ["fast_ms", "reproducible_ms"] {
            let rounds = row[way].as_array().unwrap();
            assert_eq!(rounds.len(), 2);
            assert!(rounds.iter().all(|ms| positive(ms) > 0.0));
        }
    }
    assert!(ended.stdout.contains("reproducible"), "{}", ended.stdout);
}

#[test]
fn a_single_rank_measures_what_it_has_and_says_what_is_missing() {
    let (figures, ended) = bench(1, "allreduce --sizes 8,64K --seconds 0.1");
    let row = &figures["rows"][1];
    positive(&row["ours_us"]);
    assert_eq!((row["bytes"].as_u64(), &row["mpi_us"]), (Some(65_536), &Value::Null));
    assert!(ended.stdout.contains("mpirun -n 2"), "{}", ended.stdout);
}

#[test]
fn the_budget_ends_a_measurement_and_what_is_left_out_is_said() {
    let (figures, ended) = bench(2, "allreduce --sizes 8,1K,1M,4M --budget 0.001");
    assert!(figures["rows"].as_array().unwrap().len() < 4, "{figures}");
    assert!(ended.stdout.contains("left out, --budget is spent"), "{}", ended.stdout);
}

#[test]
fn small_tensors_are_measured_one_by_one_and_in_buckets() {
    let args = "allreduce --tensors 160 --algorithms ours,mpi --seconds 0.3";
    let (figures, _) = bench(2, args);
    assert_eq!(figures["tensors"]["count"], 160);
    let names: Vec<&Value> =
        figures["rows"].as_array().unwrap().iter().map(|row| &row["algorithm"]).collect();
    assert_eq!(names, ["ours", "mpi"]);
    for row in figures["rows"].as_array().unwrap() {
        positive(&row["each_p50_us"]);
        positive(&row["buckets_p50_us"]);
    }
}

#[test]
fn optimizer_rows_hold_every_rule_beside_candles() {
    for ranks in [1, 2] {
        let (figures, _) = bench(ranks, "optimizer --params 35K,100K --seconds 0.2");
        let rows = figures["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 2);
        for row in rows {
            for rule in ["sgd", "adam", "adamw", "candle_adamw"] {
                positive(&row["optimizers"][rule]["ns_per_parameter"]);
            }
            positive(&row["optimizers"]["adamw"]["limit_share"]);
        }
        assert_eq!(rows[0]["parameters"], 35_000);
    }
}

#[test]
fn step_rows_hold_every_phase_of_each_model() {
    let models = [("lenet", 8, 34_622), ("mlp", 8, 535_818), ("gpt", 1, 10_750_080)];
    for (model, batch, parameters) in models {
        let (figures, _) = bench(2, &format!("step --model {model} --steps 4 --batch {batch}"));
        positive(&figures["gemm_peak_gflop_s"]);
        let rows = figures["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 1);
        let row = &rows[0];
        assert_eq!((&row["model"], &row["parameters"]), (&model.into(), &parameters.into()));
        assert_eq!((row["steps"].as_u64(), row["batch_per_rank"].as_u64()), (Some(4), Some(batch)));
        for key in ["per_s", "gflop_s_per_rank", "peak_share"] {
            positive(&row[key]);
        }
        let phases = &row["phases"];
        for phase in ["forward", "backward", "exposed_comm", "optimizer", "step"] {
            positive(&phases[phase]["p50_ms"]);
        }
        let parts = ["forward", "backward", "exposed_comm", "optimizer", "input_wait"];
        let sum: f64 = parts.iter().map(|phase| phases[phase]["share"].as_f64().unwrap()).sum();
        assert!((0.5..1.001).contains(&sum), "{phases}");
    }
}

#[test]
fn the_step_of_any_card_can_be_measured() {
    for (name, unit, batch) in [
        ("lstm-shakespeare-quick.json", "tokens", 16),
        ("gru-mnist-quick.json", "samples", 32),
        ("gpt-shakespeare-quick.json", "tokens", 32),
        ("resnet8-mnist-quick.json", "samples", 32),
    ] {
        let (figures, _) = bench(2, &format!("step --steps 2 --card {}", common::card(name)));
        let row = &figures["rows"][0];
        assert_eq!((&row["unit"], &row["batch_per_rank"]), (&unit.into(), &batch.into()), "{row}");
        assert!(name.starts_with(row["model"].as_str().unwrap()), "{row}");
        assert!(row["gflop_s_per_rank"].is_null() && row["parameters"].as_u64() > Some(9_000));
        positive(&row["per_s"]);
    }
}

#[test]
fn one_model_alone_can_be_measured_without_a_launcher() {
    let (figures, _) = bench(1, "step --model lenet --seconds 0.2");
    assert_eq!(figures["rows"].as_array().unwrap().len(), 1);
    assert_eq!(figures["rows"][0]["overlap"], false);
}

#[test]
fn what_cannot_be_measured_is_refused_with_the_reason() {
    let refused = |args: &str, code: i32, words: &[&str]| {
        // One after the other: each job waits for the one before to be over.
        for ranks in [1, 2] {
            let job = if ranks == 1 { alone(&Mpi::Open.binary()) } else { under(Mpi::Open, ranks) };
            let ended = job.args(std::iter::once("bench").chain(args.split(' '))).run();
            assert_eq!(ended.code, code, "{args}: {}", ended.all_output());
            for word in words {
                assert!(ended.stderr.contains(word), "`{word}` is missing: {}", ended.stderr);
            }
            assert_eq!(ended.stderr.matches(words[0]).count(), 1, "told once: {}", ended.stderr);
        }
    };
    refused("allreduce --sizes 64X", 64, &["such as 64K"]);
    refused("allreduce --sizes 6", 64, &["multiple of 4"]);
    refused("allreduce --sizes 1024G", 64, &["Ask for smaller sizes", "free for each"]);
    refused("allreduce --algorithms tree", 64, &["ours, shared, ring"]);
    refused("optimizer --params 0", 64, &["such as 20M"]);
    refused("step --card /does/not/exist.json", 66, &["/does/not/exist.json"]);
    refused("step --data /does/not/exist", 66, &["/does/not/exist"]);
    refused("allreduce --json /does/not/exist.json", 73, &["cannot write /does/not/exist.json"]);
    let ended =
        alone(&Mpi::Open.binary()).args(["bench", "allreduce", "--algorithms", "mpi"]).run();
    assert_eq!(ended.code, 64, "{}", ended.all_output());
    assert!(ended.stderr.contains("without mpirun or srun"), "{}", ended.stderr);
    assert!(!Path::new("/does/not").exists());
}

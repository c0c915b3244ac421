//! A user's own `candle-nn` model, made data-parallel by the public API, is the same at any rank
//! count.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Mpi, alone, launched};
use std::path::PathBuf;

fn example() -> PathBuf {
    // Cargo builds examples beside the binaries before it runs the tests.
    let binary = Mpi::Open.binary();
    binary.parent().unwrap().join("examples/custom_model")
}

#[test]
fn a_candle_model_learns_at_1_2_and_3_ranks_alike() {
    let mut alone_right = None;
    for ranks in 1..=3 {
        let ended = match ranks {
            1 => alone(&example()).succeed(),
            n => launched(Mpi::Open, n, &example()).succeed(),
        };
        let line = ended.stdout.lines().find(|l| l.contains("right")).unwrap();
        assert!(line.starts_with(&format!("{ranks} ranks: ")), "{line}");
        let right: f64 = line.split([' ', '/']).nth(2).unwrap().parse().unwrap();
        assert!(right / 1003.0 > 0.95, "{line}");
        let first: f64 = *alone_right.get_or_insert(right);
        assert!((right - first).abs() <= 3.0, "{line} but {first} with one rank");
        assert!(line.contains("/1003 right"), "each sample once: {line}");
    }
}

#[test]
fn under_ten_lines_of_the_example_are_about_distribution() {
    let text = std::fs::read_to_string(common::root().join("examples/custom_model.rs")).unwrap();
    let marked = text.lines().filter(|l| l.contains('◄') && !l.starts_with("//!")).count();
    assert!((5..10).contains(&marked), "{marked}");
}

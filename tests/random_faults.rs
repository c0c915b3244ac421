//! Faults drawn at random: whatever goes wrong with one rank, and wherever, nobody hangs and the job says
//! what it was. A draw is its number: `ANNULUS_RANDOM_FAULTS=FIRST..LAST` runs others than usual.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "random_faults/jobs.rs"]
mod jobs;
#[path = "random_faults/twin.rs"]
mod twin;

use std::ops::Range;

/// Numbers that follow from a draw (SplitMix64: Steele, Lea and Flood, 2014).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// The draws to run: those of the environment, or the first `usual`.
fn draws(usual: u64) -> Range<u64> {
    let Ok(text) = std::env::var("ANNULUS_RANDOM_FAULTS") else { return 0..usual };
    let (first, last) = text.split_once("..").expect("FIRST..LAST");
    first.parse().unwrap()..last.parse().unwrap()
}

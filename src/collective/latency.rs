//! How far apart the cores of two ranks are.
//!
//! A virtual machine may move its cores between one L3 cache and two; that alone changes a mid-size
//! all-reduce several times, so each measurement is printed beside this number.

use super::{Group, Op};
use crate::error::Result;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Journeys of one measurement; the median of [`REPEATS`] counts.
const ROUNDS: u64 = 2000;
const REPEATS: usize = 9;
/// Ranks that share a core would take a scheduler's time slice per journey.
const AT_MOST: Duration = Duration::from_millis(500);

impl Group {
    /// Nanoseconds for one cache line from the first to the second rank of rank 0's host, one way;
    /// `None` where they share no memory. All ranks call it alike and get the same number.
    ///
    /// # Errors
    /// When a rank is late.
    pub fn core_to_core_ns(&mut self) -> Result<Option<f64>> {
        if let Some(node) = &self.node {
            node.ping(node.me).store(0, Ordering::Release);
        }
        self.barrier()?;
        let mut nanos = [0.0f64];
        if let Some(node) = self.node.as_ref().filter(|node| node.ranks[0] == 0 && node.me < 2) {
            let (mine, theirs) = (node.ping(node.me), node.ping(1 - node.me));
            let (start, serves) = (Instant::now(), node.me == 0);
            let mut times = Vec::with_capacity(REPEATS);
            let mut ball = 0;
            while times.len() < REPEATS && start.elapsed() < AT_MOST {
                let began = Instant::now();
                for _ in 0..ROUNDS {
                    ball += 1;
                    if serves {
                        mine.store(ball, Ordering::Release);
                    }
                    while theirs.load(Ordering::Acquire) < ball {
                        std::hint::spin_loop();
                    }
                    if !serves {
                        mine.store(ball, Ordering::Release);
                    }
                }
                times.push(began.elapsed().as_nanos() as f64 / (2 * ROUNDS) as f64);
            }
            // The other side may stop earlier by its own clock: never leave it waiting.
            mine.store(u64::MAX, Ordering::Release);
            times.sort_by(f64::total_cmp);
            if serves {
                nanos[0] = times[times.len() / 2];
            }
        }
        self.all_reduce(&mut nanos, Op::Max)?;
        Ok((nanos[0] > 0.0).then_some(nanos[0]))
    }
}

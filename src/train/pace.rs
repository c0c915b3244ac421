//! How fast the steps go: the deadline that follows from it, and ranks that are slower than the others.
//!
//! Every [`WINDOW`] steps the ranks share, in one all-reduce of two numbers a rank, how long a step took
//! and how long this rank itself was busy in it. All ranks draw the same conclusions.

use super::step::StepReport;
use crate::collective::{Group, Op};
use crate::comm::DEFAULT_DEADLINE;
use crate::config::Card;
use crate::error::Result;
use crate::report::heartbeat::{self, Sign};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Steps between two looks.
const WINDOW: usize = 20;
/// A learned deadline is so many times the median step of the slowest rank.
const STEPS: f64 = 20.0;
/// A learned deadline is at least this long.
pub const SHORTEST: Duration = Duration::from_secs(10);
/// A rank is a straggler when it is busy for so many times what the others are (their median).
const SLOWER: f64 = 1.5;
/// And for so many seconds a step longer: below that it is noise of the machine.
const LONGER_S: f64 = 0.005;
/// With fewer samples a rank than this, unequal shares make ranks unequal by themselves.
const FEW_SAMPLES: usize = 4;

/// Watches the pace of a run.
pub struct Pace {
    /// Whether the deadline follows from the steps; else the card gives it.
    learns: bool,
    /// The run folder, where every rank sees it.
    folder: Option<PathBuf>,
    /// Whether ranks that are slow can be told from ranks that are given less: too few samples each, or
    /// fewer cores than ranks.
    judges: bool,
    walls: Vec<f64>,
    busy: Vec<f64>,
    /// How often each rank was found slow.
    slow: Vec<u32>,
}

impl Pace {
    /// Begins to watch. `folder` is the run folder if all ranks write their signs of life there: these
    /// tell a rank that saves or evaluates from one that is gone.
    pub fn new(card: &Card, folder: Option<&Path>, group: &Group) -> Pace {
        let size = group.size();
        let enough = card.train.global_batch / card.train.accumulate / size >= FEW_SAMPLES;
        Pace {
            learns: card.comm.deadline_s.is_none() && size > 1,
            folder: folder.map(Path::to_owned),
            judges: enough && group.local_ranks() <= group.local_cores(),
            walls: Vec::with_capacity(WINDOW),
            busy: Vec::with_capacity(WINDOW),
            slow: vec![0; size],
        }
    }

    /// Takes note of a step; gives what there is to tell the user, the same on all ranks.
    ///
    /// # Errors
    /// When a rank is late or dead.
    pub fn see(&mut self, step: &StepReport, group: &mut Group) -> Result<Vec<String>> {
        if group.size() == 1 {
            return Ok(Vec::new());
        }
        self.walls.push(step.wall.as_secs_f64());
        self.busy.push((step.wall.saturating_sub(step.comm)).as_secs_f64());
        if self.walls.len() < WINDOW {
            return Ok(Vec::new());
        }
        let (rank, size) = (group.rank(), group.size());
        let mut times = vec![0.0; 2 * size + 1];
        times[rank] = median(&mut self.walls);
        times[size + rank] = self.busy.iter().sum::<f64>() / WINDOW as f64;
        times[2 * size] = f64::from(u8::from(!self.judges));
        group.all_reduce(&mut times, Op::Sum)?;
        self.walls.clear();
        self.busy.clear();
        let unjudged = times.pop().unwrap_or_default();
        let (walls, busy) = times.split_at(size);
        if self.learns {
            let shortest = if self.folder.is_some() { SHORTEST } else { DEFAULT_DEADLINE };
            let deadline = learned(walls, shortest);
            let patience = |folder: &Path| patience(folder, size, rank, deadline);
            group.be_patient(self.folder.as_deref().map(patience));
            group.set_deadline(deadline);
        }
        let found = if unjudged > 0.0 { Vec::new() } else { stragglers(busy) };
        Ok(self.tell(&found, group))
    }

    /// Says it the first, second, fourth, eighth … time that a rank is slow.
    fn tell(&mut self, found: &[(usize, f64)], group: &Group) -> Vec<String> {
        let mut news = Vec::new();
        for &(rank, factor) in found {
            self.slow[rank] += 1;
            if self.slow[rank].is_power_of_two() {
                news.push(format!(
                    "rank {rank} ({}) is slow: over the last {WINDOW} steps it was busy for \
                     {factor:.1} times as long as the others, who wait for it",
                    group.hosts()[rank]
                ));
            }
        }
        news
    }
}

/// The deadline that follows from each rank's median step, in seconds.
fn learned(walls: &[f64], shortest: Duration) -> Duration {
    let slowest = walls.iter().copied().fold(0.0, f64::max);
    Duration::try_from_secs_f64(STEPS * slowest).map_or(DEFAULT_DEADLINE, |d| d.max(shortest))
}

/// The ranks that are slower than the others, with their factor.
fn stragglers(busy: &[f64]) -> Vec<(usize, f64)> {
    let of = |rank: usize| {
        let mut others: Vec<f64> = busy.to_vec();
        let mine = others.remove(rank);
        let usual = median(&mut others);
        let slow = mine >= SLOWER * usual && mine - usual >= LONGER_S && usual > 0.0;
        slow.then_some((rank, mine / usual))
    };
    (0..busy.len()).filter_map(of).collect()
}

/// Whether to wait on after the deadline: a rank is at something that may take long (start-up,
/// saving, evaluation) or has moved on within the deadline (it may have been at that until a moment ago),
/// and every other heart beats. Up to [`DEFAULT_DEADLINE`].
fn patience(folder: &Path, size: usize, me: usize, deadline: Duration) -> crate::comm::Patience {
    let folder = folder.to_owned();
    Box::new(move |waited| {
        let signs = heartbeat::signs(&folder, size);
        let mut others = (0..size).filter(|&rank| rank != me).map(|rank| signs[rank].as_ref());
        let is_on_its_way =
            |sign: &Sign| sign.is_at_length() || sign.progress_age_s() < deadline.as_secs_f64();
        waited < DEFAULT_DEADLINE
            && others.clone().any(|sign| sign.is_some_and(is_on_its_way))
            && others.all(|sign| sign.is_some_and(|sign| sign.beats()))
    })
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::heartbeat::Heartbeat;
    use crate::util::whereabouts::{Phase, enter};

    #[test]
    fn the_deadline_is_twenty_steps_of_the_slowest_rank_and_never_short() {
        let walls = |walls: &[f64]| learned(walls, SHORTEST).as_secs_f64();
        assert_eq!(walls(&[0.001, 0.002]), 10.0);
        assert_eq!(walls(&[1.0, 3.0, 2.0]), 60.0);
        assert_eq!(walls(&[f64::NAN, f64::INFINITY]), 60.0);
        assert_eq!(learned(&[0.1], DEFAULT_DEADLINE), DEFAULT_DEADLINE);
    }

    #[test]
    fn the_slow_rank_is_named_with_its_factor_and_noise_is_not() {
        assert_eq!(stragglers(&[0.1, 0.25, 0.1, 0.1]), [(1, 2.5)]);
        assert_eq!(stragglers(&[0.3, 0.1]), [(0, 3.0)].map(|(r, _)| (r, 0.3 / 0.1)));
        assert!(stragglers(&[0.1, 0.12, 0.11]).is_empty());
        assert!(stragglers(&[0.001, 0.004]).is_empty(), "3 ms");
        assert!(stragglers(&[0.0, 0.1]).is_empty(), "nothing to compare with");
    }

    #[test]
    fn one_waits_for_a_rank_that_saves_as_long_as_its_heart_beats() {
        let folder = tempfile::tempdir().unwrap();
        heartbeat::prepare(folder.path()).unwrap();
        let waits =
            |seconds| patience(folder.path(), 2, 0, Duration::ZERO)(Duration::from_secs(seconds));
        assert!(!waits(11), "no sign of it");
        enter(Phase::Saving);
        let heart = Heartbeat::start(folder.path(), 1).unwrap();
        assert!(waits(11) && !waits(60));
        drop(heart);
        assert!(!waits(11), "its last word was that it failed");
    }

    #[test]
    fn a_rank_that_has_moved_on_within_the_deadline_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        heartbeat::prepare(folder.path()).unwrap();
        enter(Phase::Forward);
        let heart = Heartbeat::start(folder.path(), 1).unwrap();
        let waits = |deadline| {
            patience(folder.path(), 2, 0, Duration::from_secs(deadline))(Duration::from_secs(11))
        };
        assert!(waits(10), "it was elsewhere less than ten seconds ago");
        assert!(!waits(0), "it has not moved for longer than that");
        drop(heart);
    }
}

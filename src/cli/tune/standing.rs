//! Where a search stands: a function of the results that are there, and of nothing else. So it does not matter in
//! which order, on which machine and after how many interruptions they came.

use super::trial::Ended;
use crate::config::{Card, Goal, Halving, Tune, Unit};
use std::cmp::Ordering;

/// A comparison of trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rung {
    /// How many trials come to it.
    pub trials: usize,
    /// How many epochs or steps they have had by then; `None`: all of the card's.
    pub budget: Option<u64>,
}

/// The comparisons of a search of `trials` trials: one at the end, or those of successive halving. In each rung
/// one of `factor` trials of the rung before, rounded up.
#[must_use]
pub fn rungs(tune: &Tune, card: &Card, trials: usize) -> Vec<Rung> {
    let mut rungs = Vec::new();
    let mut left = trials;
    if let Some(Halving { by, first, factor }) = tune.halving {
        let total = match by {
            Unit::Epochs => card.train.epochs,
            Unit::Steps => card.train.max_steps,
        };
        let mut budget = first;
        while left > 1 && total.is_some_and(|total| budget < total) {
            rungs.push(Rung { trials: left, budget: Some(budget) });
            left = left.div_ceil(usize::try_from(factor).unwrap_or(usize::MAX));
            budget = budget.saturating_mul(factor);
        }
    }
    rungs.push(Rung { trials: left, budget: None });
    rungs
}

/// Where a search stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The rung that is going on, and its trials without a result; none: the search is over.
    pub open: Vec<usize>,
    /// The rung of `open`, or the last one.
    pub rung: usize,
    /// For each trial the last rung that it comes to.
    pub reached: Vec<usize>,
    /// Trials with a result, the best first: those of later rungs before those of earlier ones, then those that
    /// failed.
    pub ranking: Vec<usize>,
}

/// The result of a trial in a rung. What ended before, in whatever way, stays so in all later rungs.
#[must_use]
pub fn result(ended: &[Ended], rung: usize) -> Option<&Ended> {
    ended.get(rung).or_else(|| ended.last().filter(|last| last.completed || last.metric.is_none()))
}

/// Where the search stands that has these results; `ended` has the rungs that each trial has behind it.
#[must_use]
pub fn stand(rungs: &[Rung], ended: &[&[Ended]], goal: Goal) -> Standing {
    let mut going: Vec<usize> = (0..ended.len()).collect();
    let mut standing =
        Standing { open: Vec::new(), rung: 0, reached: vec![0; ended.len()], ranking: Vec::new() };
    for (number, rung) in rungs.iter().enumerate() {
        going.iter().for_each(|&trial| standing.reached[trial] = number);
        standing.rung = number;
        standing.open =
            going.iter().copied().filter(|&t| result(ended[t], number).is_none()).collect();
        let more = rungs.get(number + 1).filter(|_| standing.open.is_empty());
        let Some(next) = more else { break };
        let of = |trial: usize| result(ended[trial], number).and_then(|ended| ended.metric);
        going.retain(|&trial| of(trial).is_some());
        going.sort_by(|&a, &b| better(of(a), of(b), goal).then(a.cmp(&b)));
        going.truncate(next.trials.min(rung.trials));
        going.sort_unstable();
        if going.is_empty() {
            break;
        }
    }
    let metric =
        |trial: usize| result(ended[trial], standing.reached[trial]).map(|ended| ended.metric);
    let mut ranking: Vec<usize> = (0..ended.len()).filter(|&t| metric(t).is_some()).collect();
    let rank = |trial: usize| (metric(trial).flatten(), standing.reached[trial]);
    ranking.sort_by(|&a, &b| {
        let ((x, p), (y, q)) = (rank(a), rank(b));
        let failed = x.is_none().cmp(&y.is_none());
        let later = if x.is_some() { q.cmp(&p) } else { Ordering::Equal };
        failed.then(later).then(better(x, y, goal)).then(a.cmp(&b))
    });
    standing.ranking = ranking;
    standing
}

/// The better of two metrics first; none is the worst.
fn better(a: Option<f64>, b: Option<f64>, goal: Goal) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) if goal == Goal::Max => b.total_cmp(&a),
        (Some(a), Some(b)) => a.total_cmp(&b),
        _ => a.is_none().cmp(&b.is_none()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn good(metric: f64, completed: bool) -> Ended {
        Ended { metric: Some(metric), completed, ..Ended::default() }
    }

    fn failed() -> Ended {
        Ended { exit_code: 77, ..Ended::default() }
    }

    fn halving(first: u64, factor: u64) -> Tune {
        let halving = json!({"first": first, "factor": factor});
        let tune = json!({"method": "halving", "trials": 1, "halving": halving, "space": {}});
        serde_json::from_value(tune).unwrap()
    }

    fn card(epochs: u64) -> Card {
        let text = include_str!("../../../configs/lenet-mnist.json");
        let mut card: Card = serde_json::from_str(text).unwrap();
        card.train.epochs = Some(epochs);
        card
    }

    #[test]
    fn rungs_grow_by_the_factor_until_the_card_ends_or_one_trial_is_left() {
        let of = |first, factor, epochs, trials| {
            let rungs = rungs(&halving(first, factor), &card(epochs), trials);
            rungs.iter().map(|rung| (rung.trials, rung.budget)).collect::<Vec<_>>()
        };
        assert_eq!(of(1, 3, 9, 9), [(9, Some(1)), (3, Some(3)), (1, None)]);
        assert_eq!(of(1, 3, 30, 4), [(4, Some(1)), (2, Some(3)), (1, None)]);
        assert_eq!(of(2, 2, 6, 16), [(16, Some(2)), (8, Some(4)), (4, None)]);
        assert_eq!(of(1, 3, 9, 1), [(1, None)]);
        let random: Tune = serde_json::from_value(json!({"trials": 5, "space": {}})).unwrap();
        assert_eq!(super::rungs(&random, &card(9), 5), [Rung { trials: 5, budget: None }]);
    }

    #[test]
    fn the_better_ones_go_on_and_a_failure_never_does() {
        let rungs = rungs(&halving(1, 2), &card(2), 4);
        let first = [vec![good(0.5, false)], vec![failed()], vec![good(0.9, false)], vec![]];
        let of = |all: &[Vec<Ended>]| {
            stand(&rungs, &all.iter().map(Vec::as_slice).collect::<Vec<_>>(), Goal::Max)
        };
        assert_eq!((of(&first).open, of(&first).rung), (vec![3], 0));
        let mut all = first.clone();
        all[3] = vec![good(0.6, false)];
        assert_eq!((of(&all).open, of(&all).rung), (vec![2, 3], 1));
        all[3].push(good(0.7, true));
        assert_eq!(of(&all).open, [2]);
        all[2].push(good(0.65, true));
        let end = of(&all);
        assert_eq!((end.open.len(), end.ranking), (0, vec![3, 2, 0, 1]));
        assert_eq!(end.reached, [0, 0, 1, 1]);
    }

    #[test]
    fn equal_metrics_go_by_number_and_one_that_ended_early_takes_no_more_training() {
        let rungs = rungs(&halving(1, 2), &card(9), 2);
        let ended = [vec![good(0.5, true)], vec![good(0.5, false)]];
        let all: Vec<&[Ended]> = ended.iter().map(Vec::as_slice).collect();
        let end = stand(&rungs, &all, Goal::Min);
        assert_eq!((end.open, end.ranking), (vec![], vec![0, 1]));
    }

    #[test]
    fn where_all_fail_the_search_is_over() {
        let rungs = rungs(&halving(1, 2), &card(9), 3);
        let ended = [vec![failed()], vec![failed()], vec![failed()]];
        let all: Vec<&[Ended]> = ended.iter().map(Vec::as_slice).collect();
        let end = stand(&rungs, &all, Goal::Min);
        assert_eq!((end.open, end.ranking), (vec![], vec![0, 1, 2]));
    }

    proptest! {
        /// Whichever open trial is run next, and however often the search begins again in between.
        #[test]
        fn the_ranking_does_not_depend_on_the_order_of_the_trials(
            metrics in prop::collection::vec((0u8..6, 0u8..6, 0u8..6), 1..12),
            choices in prop::collection::vec(any::<usize>(), 60),
            max in any::<bool>(),
        ) {
            let rungs = rungs(&halving(1, 2), &card(5), metrics.len());
            let goal = if max { Goal::Max } else { Goal::Min };
            let outcome = |trial: usize, rung: usize| {
                let (a, b, c) = metrics[trial];
                match [a, b, c][rung.min(2)] {
                    0 => failed(),
                    metric => good(f64::from(metric), rungs[rung].budget.is_none()),
                }
            };
            let search = |pick: &dyn Fn(usize, usize) -> usize| {
                let mut ended: Vec<Vec<Ended>> = vec![Vec::new(); metrics.len()];
                for turn in 0.. {
                    let all: Vec<&[Ended]> = ended.iter().map(Vec::as_slice).collect();
                    let standing = stand(&rungs, &all, goal);
                    let Some(&trial) = standing.open.get(pick(turn, standing.open.len())) else {
                        return standing;
                    };
                    ended[trial].push(outcome(trial, standing.rung));
                }
                unreachable!()
            };
            let first = search(&|_, _| 0);
            let other = search(&|turn, open| choices[turn % 60] % open.max(1));
            prop_assert_eq!(first, other);
        }
    }
}

//! `annulus bench leaves`: what reproducible mode costs, beside fast mode with micro-batches as small
//! as the leaves, measured in turn.

use super::args::LeavesArgs;
use super::heading::{self, Heading};
use super::mnist::Images;
use super::step::{Phases, Trainee};
use super::table::{Table, column, digits, time};
use crate::collective::{Group, Op};
use crate::config::{ModelKind, Reproducible};
use crate::error::Result;
use crate::train;
use serde_json::{Value, json};

/// Steps before a measurement: they fault memory in and fill queues.
const COLD: u64 = 10;

/// One model's figures: the median step of each round in seconds, on the slowest rank.
struct Row {
    name: &'static str,
    fast: Vec<f64>,
    leaves: Vec<f64>,
}

/// Measures, prints, and writes what was asked for.
///
/// # Errors
/// When data is missing, an operation fails, or a rank is late.
pub fn run(args: &LeavesArgs, group: &mut Group) -> Result<()> {
    heading::check_writable(args.json.as_deref(), group)?;
    let heading = Heading::find(group)?;
    train::use_threads(Some(1), group)?;
    let budget = format!("{} rounds of {} steps each way", args.rounds, args.steps);
    heading.print(group, "leaves", &budget);
    let columns = vec![
        column("model", 6),
        column("leaves", 7),
        column("batch", 7),
        column("fast", 9),
        column("reproducible", 13),
        column("ratio", 6),
        column("least", 6),
        column("most", 6),
    ];
    let table = Table::begin(group.rank() == 0, columns);
    let mut rows = Vec::new();
    for (name, kind) in [("lenet", ModelKind::LeNet5), ("mlp", ModelKind::Mlp)] {
        let row = measure(name, kind, args, group)?;
        row.print(&table, args, group.size());
        rows.push(row.to_json(args, group.size()));
    }
    table.note("");
    table.note("fast: the same card with as many micro-batches on each rank as it has leaves");
    table.note("times: median step, the slowest rank's, median of the rounds   ratio: likewise");
    let mut figures = heading.to_json("leaves");
    figures.insert("rows".to_owned(), Value::Array(rows));
    heading::write_json(args.json.as_deref(), figures, group)
}

fn measure(
    name: &'static str,
    kind: ModelKind,
    args: &LeavesArgs,
    group: &mut Group,
) -> Result<Row> {
    let leaves = usize::from(args.leaves);
    let images =
        |group: &mut Group| Images::new(kind, args.batch as usize, args.data.as_deref(), group);
    let mut ways = [images(group)?, images(group)?];
    ways[0].card_mut().train.accumulate = leaves.div_ceil(group.size());
    ways[1].card_mut().reproducible = Some(Reproducible { leaves, threads: 1 });
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..usize::from(args.rounds) {
        for turn in 0..2 {
            // The one that begins changes from round to round.
            let way = (round + turn) % 2;
            let taken = ways[way].take(COLD + u64::from(args.steps), false, group)?;
            times[way].push(slowest_median(&taken[COLD as usize..], group)?);
        }
    }
    let [fast, leaves] = times;
    Ok(Row { name, fast, leaves })
}

/// The median wall time of some steps, on the slowest rank.
fn slowest_median(taken: &[Phases], group: &mut Group) -> Result<f64> {
    let mut median = [median(taken.iter().map(|step| step.wall.as_secs_f64()).collect())];
    group.all_reduce(&mut median, Op::Max)?;
    Ok(median[0])
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Row {
    /// Reproducible over fast, of each round, ascending.
    fn ratios(&self) -> Vec<f64> {
        let mut ratios: Vec<f64> = self.leaves.iter().zip(&self.fast).map(|(l, f)| l / f).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    }

    fn print(&self, table: &Table, args: &LeavesArgs, ranks: usize) {
        let ratios = self.ratios();
        let end = |ratio: Option<&f64>| digits(ratio.copied().unwrap_or(f64::NAN));
        table.row(&[
            self.name.to_owned(),
            args.leaves.to_string(),
            (args.batch as usize * ranks).to_string(),
            time(median(self.fast.clone())),
            time(median(self.leaves.clone())),
            digits(median(ratios.clone())),
            end(ratios.first()),
            end(ratios.last()),
        ]);
    }

    fn to_json(&self, args: &LeavesArgs, ranks: usize) -> Value {
        let ms = |seconds: &[f64]| seconds.iter().map(|s| s * 1e3).collect::<Vec<f64>>();
        json!({
            "model": self.name,
            "leaves": args.leaves,
            "global_batch": args.batch as usize * ranks,
            "fast_ms": ms(&self.fast),
            "reproducible_ms": ms(&self.leaves),
            "ratio": median(self.ratios()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_the_median_over_rounds_of_neighbours() {
        let row = Row { name: "x", fast: vec![1.0, 2.0, 4.0], leaves: vec![1.1, 2.0, 8.0] };
        assert_eq!(row.ratios(), [1.0, 1.1, 2.0]);
        assert_eq!(median(row.ratios()), 1.1);
    }
}

//! `annulus bench step`: training steps of the shipped models or of a card, by phase.

use super::args::{ModelChoice, StepArgs};
use super::card::OfCard;
use super::gpt::Tokens;
use super::heading::{self, Heading};
use super::limits;
use super::mnist::Images;
use super::table::{Table, column, digits, percent, time};
use crate::collective::{Group, Op};
use crate::config::ModelKind;
use crate::error::Result;
use crate::train;
use crate::util::human;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Steps before a measurement: they fault memory in and fill queues.
const COLD: u64 = 10;
/// Steps that tell how long a step takes, with and without overlap.
const TRIAL: u64 = 12;
/// More are not needed for a median.
const MAX_STEPS: f64 = 100_000.0;

/// Where the time of one step went on this rank.
#[derive(Debug, Clone, Copy, Default)]
pub struct Phases {
    /// Waiting for the batch.
    pub input: Duration,
    /// Forward pass and loss.
    pub forward: Duration,
    /// Backward pass.
    pub backward: Duration,
    /// Gradient reduction that nothing else hides.
    pub comm: Duration,
    /// Parameter update.
    pub optimizer: Duration,
    /// All of the step.
    pub wall: Duration,
}

/// A model that takes training steps.
pub trait Trainee {
    /// Takes steps together with the other ranks, from the beginning; `overlap`: gradients are reduced
    /// while the backward pass goes on.
    ///
    /// # Errors
    /// When data, an operation or another rank fails.
    fn take(&mut self, steps: u64, overlap: bool, group: &mut Group) -> Result<Vec<Phases>>;

    /// Trainable values.
    fn parameters(&self) -> usize;

    /// Samples of each rank and step.
    fn batch(&self) -> usize;

    /// What is counted: `samples` or `tokens`.
    fn unit(&self) -> &'static str;

    /// How many of them each rank and step has.
    fn units(&self) -> f64;

    /// Floating-point operations of the matrix products for one of them, if they are counted.
    fn flops(&self) -> Option<f64>;
}

/// Measures, prints, and writes what was asked for.
///
/// # Errors
/// When data is missing, an operation fails, or a rank is late.
pub fn run(args: &StepArgs, group: &mut Group) -> Result<()> {
    heading::check_writable(args.json.as_deref(), group)?;
    let heading = Heading::find(group)?;
    let budget = match args.steps {
        Some(steps) => format!("{} steps of each model", human::count(steps)),
        None => format!("{} s for each model", digits(args.seconds)),
    };
    let threads = train::use_threads(args.threads.map(usize::from), group)?;
    let mut trainees = trainees(args, group)?;
    heading.print(group, "step", &budget);
    let (table, mut peak, mut rows) = (begin(group), None, Vec::new());
    for (name, trainee) in &mut trainees {
        // Before and after each model: one measurement may fall into a bad moment.
        peak = higher_peak(peak, args, group)?;
        let row = measure(name, &mut **trainee, args, group)?;
        peak = higher_peak(peak, args, group)?;
        row.print(&table, peak);
        rows.push(row.to_json(peak));
    }
    footer(&table, peak, threads);
    let mut figures = heading.to_json("step");
    figures.insert("threads_per_rank".to_owned(), json!(threads));
    figures.insert("gemm_peak_gflop_s".to_owned(), json!(peak.map(|peak| peak / 1e9)));
    figures.insert("rows".to_owned(), Value::Array(rows));
    heading::write_json(args.json.as_deref(), figures, group)
}

/// The highest speed of matrix products so far; of the processor, so none where another device works.
fn higher_peak(before: Option<f64>, args: &StepArgs, group: &mut Group) -> Result<Option<f64>> {
    if args.device != train::Device::Cpu {
        return Ok(None);
    }
    let now = limits::gemm_peak(group)?;
    Ok(Some(before.map_or(now, |before| before.max(now))))
}

/// The models that were asked for, by name.
fn trainees(args: &StepArgs, group: &mut Group) -> Result<Vec<(String, Box<dyn Trainee>)>> {
    if let Some(path) = &args.card {
        let batch = args.batch.map(|n| n as usize);
        let of_card = OfCard::load(path, batch, args.device, group)?;
        return Ok(vec![(of_card.name(), Box::new(of_card))]);
    }
    let mut found: Vec<(String, Box<dyn Trainee>)> = Vec::new();
    let wanted = |choice| args.model == ModelChoice::All || args.model == choice;
    let images = [
        ("lenet", ModelChoice::Lenet, ModelKind::LeNet5),
        ("mlp", ModelChoice::Mlp, ModelKind::Mlp),
    ];
    for (name, choice, kind) in images {
        if wanted(choice) {
            let batch = args.batch.map_or(64, |n| n as usize);
            let images = Images::new(kind, batch, args.data.as_deref(), group)?;
            found.push((name.to_owned(), Box::new(images.on(args.device))));
        }
    }
    if wanted(ModelChoice::Gpt) {
        let batch = args.batch.map_or(4, |n| n as usize);
        found.push(("gpt".to_owned(), Box::new(Tokens::new(batch, args.device, group)?)));
    }
    Ok(found)
}

/// Takes as many steps of one model as were asked for, or fit into the time.
fn measure(
    name: &str,
    trainee: &mut dyn Trainee,
    args: &StepArgs,
    group: &mut Group,
) -> Result<Row> {
    let (trial, overlap) = faster_way(trainee, group)?;
    let fit = (args.seconds / trial).clamp(3.0, MAX_STEPS) as u64;
    let steps = args.steps.unwrap_or(fit);
    let taken = trainee.take(COLD + steps, overlap, group)?;
    let summary = Summary::of(&taken[COLD as usize..], group)?;
    let per_s = trainee.units() * group.size() as f64 * steps as f64 / summary.total;
    Ok(Row {
        name: name.to_owned(),
        unit: trainee.unit(),
        parameters: trainee.parameters(),
        batch: trainee.batch(),
        steps,
        overlap,
        per_s,
        flops_per_rank: trainee.flops().map(|flops| flops * per_s / group.size() as f64),
        summary,
    })
}

/// Tries reduction after the backward pass and during it, as training does; gives the faster way's
/// seconds for a step and whether that is during. The same on all ranks.
fn faster_way(trainee: &mut dyn Trainee, group: &mut Group) -> Result<(f64, bool)> {
    let mut ways = [f64::INFINITY; 2];
    let tries = if group.size() > 1 { 2 } else { 1 };
    for (during, way) in ways.iter_mut().enumerate().take(tries) {
        let taken = trainee.take(COLD + TRIAL, during == 1, group)?;
        *way = Summary::of(&taken[COLD as usize..], group)?.p50[PHASES.len() - 1];
    }
    let during = ways[1] < ways[0];
    Ok((ways[usize::from(during)], during))
}

/// The phases in the order in which tables show them.
const PHASES: [&str; 6] =
    ["forward", "backward", "exposed_comm", "optimizer", "input_wait", "step"];

impl Phases {
    fn seconds(&self) -> [f64; PHASES.len()] {
        [self.forward, self.backward, self.comm, self.optimizer, self.input, self.wall]
            .map(|d| d.as_secs_f64())
    }
}

/// Many steps in a few numbers.
#[derive(Debug, Clone, Copy)]
struct Summary {
    /// Median of each phase in seconds, mean over the ranks.
    p50: [f64; PHASES.len()],
    /// Each phase's part of all time, over all ranks.
    share: [f64; PHASES.len()],
    /// Seconds that all steps took on the slowest rank.
    total: f64,
}

impl Summary {
    fn of(taken: &[Phases], group: &mut Group) -> Result<Summary> {
        let (mut medians, mut sums) = ([0.0; PHASES.len()], [0.0; PHASES.len()]);
        for (phase, (median, sum)) in medians.iter_mut().zip(&mut sums).enumerate() {
            let mut all: Vec<f64> = taken.iter().map(|step| step.seconds()[phase]).collect();
            all.sort_by(f64::total_cmp);
            *median = all.get(all.len() / 2).copied().unwrap_or(f64::NAN);
            *sum = all.iter().sum();
        }
        let mut slowest = [sums[PHASES.len() - 1]];
        group.all_reduce(&mut slowest, Op::Max)?;
        group.all_reduce(&mut medians, Op::Sum)?;
        group.all_reduce(&mut sums, Op::Sum)?;
        let wall = sums[PHASES.len() - 1];
        Ok(Summary {
            p50: medians.map(|s| s / group.size() as f64),
            share: sums.map(|s| s / wall),
            total: slowest[0],
        })
    }
}

/// One model's figures.
struct Row {
    name: String,
    unit: &'static str,
    parameters: usize,
    batch: usize,
    steps: u64,
    overlap: bool,
    per_s: f64,
    flops_per_rank: Option<f64>,
    summary: Summary,
}

impl Row {
    /// The share of the peak, where both are known.
    fn of_peak(&self, peak: Option<f64>) -> Option<f64> {
        Some(self.flops_per_rank? / peak?)
    }

    fn print(&self, table: &Table, peak: Option<f64>) {
        let mut times = vec![self.name.clone()];
        times.extend(self.summary.p50.map(time));
        times.extend([
            human::count(self.per_s as u64),
            self.flops_per_rank.map_or_else(|| "–".to_owned(), |flops| digits(flops / 1e9)),
            percent(self.of_peak(peak)),
        ]);
        table.row(&times);
        let mut shares = vec![String::new()];
        shares.extend(self.summary.share.map(|share| percent(Some(share))));
        table.row(&shares);
    }

    fn to_json(&self, peak: Option<f64>) -> Value {
        let mut phases = Map::new();
        for (i, name) in PHASES.iter().enumerate() {
            let (p50, share) = (self.summary.p50[i], self.summary.share[i]);
            phases.insert((*name).to_owned(), json!({"p50_ms": p50 * 1e3, "share": share}));
        }
        json!({
            "model": self.name,
            "parameters": self.parameters,
            "batch_per_rank": self.batch,
            "steps": self.steps,
            "overlap": self.overlap,
            "phases": phases,
            "unit": self.unit,
            "per_s": self.per_s,
            "gflop_s_per_rank": self.flops_per_rank.map(|flops| flops / 1e9),
            "peak_share": self.of_peak(peak),
        })
    }
}

fn begin(group: &Group) -> Table {
    let columns = vec![
        column("model", 6),
        column("forward", 8),
        column("backward", 8),
        column("comm", 8),
        column("optimizer", 9),
        column("input", 8),
        column("step", 8),
        column("samples/s", 11),
        column("GFLOP/s", 8),
        column("of peak", 7),
    ];
    Table::begin(group.rank() == 0, columns)
}

fn footer(table: &Table, peak: Option<f64>, threads: usize) {
    table.note("");
    table.note(
        "times: median of the steps, mean over the ranks; below them each phase's part of all time",
    );
    table.note(
        "comm: gradient reduction that nothing else hides, waiting for slower ranks included",
    );
    table.note(
        "input: waiting for the batch   samples/s: all ranks, tokens of text   GFLOP/s: each rank, products, \
         not counted for cards",
    );
    let Some(peak) = peak else {
        return table
            .note("peak: not measured here; forward and backward end when their results are read");
    };
    table.note(&format!(
        "peak: {} GFLOP/s, the best of several products of 1024×1024 matrices; {threads} thread{} in each rank",
        digits(peak / 1e9),
        if threads == 1 { "" } else { "s" }
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads;

    #[test]
    fn a_summary_holds_medians_and_parts_of_all_time() {
        let mut group = Group::meet(Box::new(threads::alone())).unwrap();
        let ms = Duration::from_millis;
        let step = |n| Phases {
            forward: ms(n),
            backward: ms(2 * n),
            comm: ms(n),
            wall: ms(4 * n),
            ..Phases::default()
        };
        let summary = Summary::of(&[step(10), step(30), step(20)], &mut group).unwrap();
        let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(close(summary.p50[0], 0.02) && close(summary.p50[5], 0.08), "{summary:?}");
        assert!(close(summary.share[1], 0.5) && close(summary.share[2], 0.25), "{summary:?}");
        assert!(close(summary.total, 0.24), "{summary:?}");
    }
}

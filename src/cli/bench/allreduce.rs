//! `annulus bench allreduce`: sizes × algorithms, ours beside MPI's own and the memory limit.

use super::args::AllreduceArgs;
use super::buffers::Buffers;
use super::entrant::{self, Entrant, MPI, OURS};
use super::heading::{self, Heading};
use super::race::{Times, race};
use super::table::{Table, column, digits, percent, size, time};
use super::{limits, sizes, tensors};
use crate::collective::{Group, Op};
use crate::error::Result;
use serde_json::{Map, Value, json};
use std::time::Instant;

/// Measures, prints, and writes what was asked for.
///
/// # Errors
/// When memory is short, a sum is wrong, or a rank is late.
pub fn run(args: &AllreduceArgs, group: &mut Group) -> Result<()> {
    heading::check_writable(args.json.as_deref(), group)?;
    let heading = Heading::find(group)?;
    let entrants = entrant::available(args.algorithms.as_deref(), group)?;
    if let Some(count) = args.tensors {
        return tensors::run(args, count as usize, &entrants, &heading, group);
    }
    let sizes = plan(args.sizes.as_deref(), group)?;
    let budget = format!("{} s for {} sizes", digits(args.budget), sizes.len());
    heading.print(group, "allreduce", &budget);
    let table = begin(group, &entrants);

    let (start, limited) = (Instant::now(), heading.one_host());
    let len = sizes.last().map_or(0, |bytes| bytes / size_of::<f32>());
    let mut buffers = Buffers::new(len, group)?;
    let mut rows = Vec::new();
    for (i, &bytes) in sizes.iter().enumerate() {
        // The fullest clock decides, so that all ranks stop before the same size.
        let left = least(args.budget - start.elapsed().as_secs_f64(), group)?;
        if left <= 0.0 {
            table.note(&format!("{} and more: left out, --budget is spent", size(bytes)));
            break;
        }
        let seconds = args.seconds.unwrap_or(f64::INFINITY).min(share(left, &sizes[i..]));
        let row = measure(bytes, seconds, &entrants, limited, &mut buffers, group)?;
        table.row(&cells(&row, &entrants));
        rows.push(row.to_json());
    }
    footer(&table, group, heading.one_host());
    let mut figures = heading.to_json("allreduce");
    figures.insert("rows".to_owned(), Value::Array(rows));
    heading::write_json(args.json.as_deref(), figures, group)
}

/// The first size's part of the time that is left for all of them. Calls of large sizes take longer
/// than the time that small ones need for a good median.
fn share(left: f64, sizes: &[usize]) -> f64 {
    let weight = |bytes: &usize| if *bytes > 1 << 20 { 4.0 } else { 1.0 };
    left * sizes.first().map_or(1.0, weight) / sizes.iter().map(weight).sum::<f64>()
}

/// The least of a number over all ranks.
///
/// # Errors
/// When a rank is late.
pub(super) fn least(mine: f64, group: &mut Group) -> Result<f64> {
    let mut negative = [-mine];
    group.all_reduce(&mut negative, Op::Max)?;
    Ok(-negative[0])
}

/// The sizes to measure in rising order: those asked for, which must fit into memory, or those of the
/// default that do.
fn plan(asked: Option<&[usize]>, group: &mut Group) -> Result<Vec<usize>> {
    let need = |bytes: usize| Buffers::COUNT * bytes as u64;
    let Some(asked) = asked else {
        let free = limits::memory_per_rank(group)?;
        let mut sizes = sizes::default_bytes();
        sizes.retain(|&bytes| need(bytes) <= free);
        return Ok(sizes);
    };
    let mut sizes = asked.to_vec();
    sizes.sort_unstable();
    sizes.dedup();
    let top = sizes.last().copied().unwrap_or(0);
    let what = format!("--sizes {}", size(top));
    limits::require_memory(group, need(top), &what, "Ask for smaller sizes")?;
    Ok(sizes)
}

/// One size's figures.
struct Row {
    bytes: usize,
    ranks: usize,
    /// By entrant; `None` where it cannot do this size.
    times: Vec<(Entrant, Option<Times>)>,
    /// Seconds that the least memory traffic takes.
    limit: Option<f64>,
}

/// Checks the sums of one size, then times all entrants and the memory pass in turn.
fn measure(
    bytes: usize,
    seconds: f64,
    entrants: &[Entrant],
    limited: bool,
    buffers: &mut Buffers,
    group: &mut Group,
) -> Result<Row> {
    let start = Instant::now();
    let len = bytes / size_of::<f32>();
    let (mut able, whole) = (Vec::new(), 0..len);
    for &entrant in entrants {
        if buffers.check(entrant, std::slice::from_ref(&whole), &size(bytes), group)? {
            able.push(entrant);
        }
    }
    buffers.settle(len);
    let left = least(seconds - start.elapsed().as_secs_f64(), group)?;
    let contenders = able.len() + usize::from(limited);
    let mut times = race(group, contenders, left, |group, which| {
        match able.get(which) {
            Some(&entrant) => drop(buffers.reduce(entrant, whole.clone(), group)?),
            None => buffers.pass(len),
        }
        Ok(())
    })?;
    // The pass moves three times the buffer, an in-place all-reduce at the least two times.
    let limit = if limited { times.pop().map(|t| t.p50() * 2.0 / 3.0) } else { None };
    let mut times = times.into_iter();
    let by_entrant =
        entrants.iter().map(|e| (*e, able.contains(e).then(|| times.next()).flatten()));
    Ok(Row { bytes, ranks: group.size(), times: by_entrant.collect(), limit })
}

impl Row {
    fn times(&self, entrant: Entrant) -> Option<&Times> {
        self.times.iter().find(|(e, _)| *e == entrant).and_then(|(_, times)| times.as_ref())
    }

    fn p50(&self, entrant: Entrant) -> Option<f64> {
        self.times(entrant).map(Times::p50)
    }

    /// Bytes reduced in a second, in GB/s.
    fn algbw(&self, times: &Times) -> f64 {
        self.bytes as f64 / times.p50() / 1e9
    }

    /// What each rank's link carries in each direction if the algorithm is bandwidth-optimal, in GB/s.
    fn busbw(&self, times: &Times) -> f64 {
        self.algbw(times) * 2.0 * (self.ranks - 1) as f64 / self.ranks as f64
    }

    fn limit_share(&self, times: &Times) -> Option<f64> {
        (self.ranks > 1).then_some(self.limit)?.map(|limit| limit / times.p50())
    }

    fn to_json(&self) -> Value {
        let us = |seconds: Option<f64>| seconds.map(|s| s * 1e6);
        let mut algorithms = Map::new();
        for (entrant, times) in &self.times {
            let figures = times.as_ref().map(|times| {
                json!({
                    "p50_us": times.p50() * 1e6,
                    "p99_us": times.p99() * 1e6,
                    "best_us": times.best() * 1e6,
                    "batches": times.batches(),
                    "calls_per_batch": times.batch,
                    "algbw_gb_s": self.algbw(times),
                    "busbw_gb_s": self.busbw(times),
                    "limit_share": self.limit_share(times),
                })
            });
            algorithms.insert(entrant.name().to_owned(), figures.unwrap_or(Value::Null));
        }
        json!({
            "bytes": self.bytes,
            "ours_us": us(self.p50(OURS)),
            "mpi_us": us(self.p50(MPI)),
            "limit_us": us(self.limit),
            "limit_share": self.times(OURS).and_then(|times| self.limit_share(times)),
            "algorithms": algorithms,
        })
    }
}

/// The table's head: ours in full, the others by their median.
fn begin(group: &Group, entrants: &[Entrant]) -> Table {
    let mut columns = vec![
        column("size", 8),
        column("ours p50", 8),
        column("p99", 8),
        column("alg GB/s", 8),
        column("bus GB/s", 8),
        column("limit", 6),
    ];
    let others = ["shared", "ring", "doubling", "mpi"];
    for name in others {
        if entrants.iter().any(|e| e.name() == name) {
            columns.push(column(name, 8));
        }
    }
    if entrants.contains(&MPI) {
        columns.push(column("mpi/ours", 8));
    }
    Table::begin(group.rank() == 0, columns)
}

fn cells(row: &Row, entrants: &[Entrant]) -> Vec<String> {
    let dash = || "–".to_owned();
    let mut cells = vec![size(row.bytes)];
    match row.times(OURS) {
        Some(t) => cells.extend([
            time(t.p50()),
            time(t.p99()),
            digits(row.algbw(t)),
            digits(row.busbw(t)),
            percent(row.limit_share(t)),
        ]),
        None => cells.extend((0..5).map(|_| dash())),
    }
    for &entrant in entrants.iter().filter(|e| **e != OURS) {
        cells.push(row.p50(entrant).map_or_else(dash, time));
    }
    if entrants.contains(&MPI) {
        let ratio = row.p50(MPI).zip(row.p50(OURS)).map(|(mpi, ours)| mpi / ours);
        cells.push(ratio.map_or_else(dash, |r| format!("{}×", digits(r))));
    }
    cells
}

fn footer(table: &Table, group: &Group, one_host: bool) {
    table.note("");
    if group.size() == 1 {
        table.note("one rank: there is nothing to sum. Start it with mpirun -n 2 or more");
        return;
    }
    table.note("all algorithms in turn, batch by batch; a batch is as many calls as take 200 µs; the slowest");
    table.note("rank counts; p50 and p99 are over batches; every sum was checked at every size");
    table.note("ours in place on shared memory where gradients live; mpi: MPI_Allreduce between two buffers");
    table.note("alg = size/time   bus = alg · 2(P−1)/P   mpi/ours: above 1 ours is faster");
    if one_host {
        table.note("limit: the least time over the time of ours. Least: each rank reads the size once and writes");
        table.note("it once, as fast as a[i] += b[i] runs on all ranks at once over buffers of this size. In the");
        table.note("caches the way between the cores counts instead; where the pass's two buffers no longer fit");
        table.note("into them and the one of ours does, it is above 100 %");
    } else {
        table.note("limit: not shown, the link between the hosts is not measured here");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_shared_out_among_the_sizes_that_are_left() {
        let sizes = [8, 64, 2 << 20];
        assert_eq!(share(60.0, &sizes), 10.0);
        assert_eq!(share(50.0, &sizes[1..]), 10.0);
        assert_eq!(share(40.0, &sizes[2..]), 40.0);
    }
}

//! `annulus bench allreduce --tensors N`: many small tensors, one call each or one call per bucket.

use super::allreduce::least;
use super::args::AllreduceArgs;
use super::buffers::Buffers;
use super::entrant::Entrant;
use super::heading::{self, Heading};
use super::limits;
use super::race::race;
use super::table::{Table, column, digits, time};
use crate::collective::Group;
use crate::config::Comm;
use crate::error::Result;
use crate::util::human;
use serde_json::{Value, json};
use std::ops::Range;
use std::time::Instant;

/// Channels of the stages that the tensors come from, in turn: as in a ResNet for CIFAR-10 (He et al.,
/// 2016) each 3×3 convolution has a scale and a shift.
const CHANNELS: [usize; 3] = [16, 32, 64];

/// Measures, prints, and writes what was asked for.
///
/// # Errors
/// When memory is short, a sum is wrong, or a rank is late.
pub fn run(
    args: &AllreduceArgs,
    count: usize,
    entrants: &[Entrant],
    heading: &Heading,
    group: &mut Group,
) -> Result<()> {
    let start = Instant::now();
    let tensors = layout(&lengths(count));
    let len = tensors.last().map_or(0, |last| last.end);
    let comm = Comm::default();
    let cap = |mb: f64| (mb * 1e6) as usize / size_of::<f32>();
    let cuts = buckets(&tensors, cap(comm.first_bucket_mb), cap(comm.bucket_mb));
    let seconds = args.seconds.unwrap_or(args.budget).min(args.budget);
    let bytes = len * size_of::<f32>();
    let what = format!("--tensors {count}");
    limits::require_memory(group, Buffers::COUNT * bytes as u64, &what, "Ask for fewer")?;

    heading.print(group, "allreduce", &format!("{} s", digits(seconds)));
    let mut buffers = Buffers::new(len, group)?;
    for &entrant in entrants {
        for (pieces, how) in [(&tensors, "one by one"), (&cuts, "in buckets")] {
            buffers.check(entrant, pieces, &format!("{count} tensors {how}"), group)?;
        }
    }
    buffers.settle(len);
    let left = least(seconds - start.elapsed().as_secs_f64(), group)?;
    let times = race(group, 2 * entrants.len(), left, |group, which| {
        let pieces = if which % 2 == 0 { &tensors } else { &cuts };
        pieces.iter().try_for_each(|piece| {
            buffers.reduce(entrants[which / 2], piece.clone(), group).map(|_| ())
        })
    })?;

    let table = begin(group);
    let mut rows = Vec::new();
    for (entrant, pair) in entrants.iter().zip(times.chunks(2)) {
        let (each, bucket) = (&pair[0], &pair[1]);
        table.row(&[
            entrant.name().to_owned(),
            time(each.p50()),
            time(each.p99()),
            time(each.p50() / count as f64),
            time(bucket.p50()),
            time(bucket.p99()),
            digits(bytes as f64 / bucket.p50() / 1e9),
            format!("{}×", digits(each.p50() / bucket.p50())),
        ]);
        rows.push(json!({
            "algorithm": entrant.name(),
            "each_p50_us": each.p50() * 1e6,
            "each_p99_us": each.p99() * 1e6,
            "buckets_p50_us": bucket.p50() * 1e6,
            "buckets_p99_us": bucket.p99() * 1e6,
        }));
    }
    footer(&table, group, &tensors, cuts.len());
    let mut figures = heading.to_json("allreduce");
    let about = json!({"count": count, "bytes": bytes, "buckets": cuts.len()});
    figures.insert("tensors".to_owned(), about);
    figures.insert("rows".to_owned(), Value::Array(rows));
    heading::write_json(args.json.as_deref(), figures, group)
}

fn begin(group: &Group) -> Table {
    let columns = vec![
        column("", 9),
        column("one by one p50", 15),
        column("p99", 9),
        column("per call", 9),
        column("in buckets p50", 15),
        column("p99", 9),
        column("alg GB/s", 9),
        column("gain", 7),
    ];
    Table::begin(group.rank() == 0, columns)
}

fn footer(table: &Table, group: &Group, tensors: &[Range<usize>], buckets: usize) {
    let bytes = tensors.last().map_or(0, |last| last.end) * size_of::<f32>();
    table.note("");
    table.note(&format!(
        "{} tensors of 64 B to 144 KiB, {} in all, as in a ResNet for CIFAR-10; {buckets} bucket{}",
        tensors.len(),
        human::bytes(bytes as u64),
        if buckets == 1 { "" } else { "s" }
    ));
    table.note(
        "gradients are written straight into buckets in training, so nothing is copied for them",
    );
    table.note(
        "the slowest rank counts; p50 and p99 are over batches of calls; every sum was checked",
    );
    if group.size() == 1 {
        table.note("one rank: there is nothing to sum. Start it with mpirun -n 2 or more");
    }
}

/// Elements of each tensor.
fn lengths(count: usize) -> Vec<usize> {
    (0..count)
        .map(|i| {
            let channels = CHANNELS[3 * i / count.max(1)];
            if i % 3 == 0 { 9 * channels * channels } else { channels }
        })
        .collect()
}

/// The place of each tensor in one block.
fn layout(lengths: &[usize]) -> Vec<Range<usize>> {
    let mut end = 0;
    let mut place = |&len: &usize| {
        let start = end;
        end += len;
        start..end
    };
    lengths.iter().map(&mut place).collect()
}

/// The block cut between tensors: a first bucket of about `first` elements, others of about `cap`.
fn buckets(tensors: &[Range<usize>], first: usize, cap: usize) -> Vec<Range<usize>> {
    let mut cut: Vec<Range<usize>> = Vec::new();
    for tensor in tensors {
        let cap = if cut.len() == 1 { first } else { cap };
        match cut.last_mut() {
            Some(bucket) if tensor.end - bucket.start <= cap => bucket.end = tensor.end,
            _ => cut.push(tensor.clone()),
        }
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_and_buckets_cover_the_block_without_gap_or_overlap() {
        for count in [1, 2, 3, 160, 1000] {
            let tensors = layout(&lengths(count));
            assert_eq!(tensors.len(), count);
            for pieces in [tensors.clone(), buckets(&tensors, 1000, 50_000)] {
                assert_eq!(pieces[0].start, 0);
                assert!(pieces.windows(2).all(|pair| pair[0].end == pair[1].start));
                assert_eq!(pieces.last().unwrap().end, tensors.last().unwrap().end);
            }
        }
        let tensors = layout(&lengths(160));
        let one = buckets(&tensors, usize::MAX, 1);
        assert_eq!((one.len(), &one[0]), (1, &(0..tensors[159].end)));
        assert_eq!(buckets(&tensors, 0, 0).len(), 160);
    }
}

//! A test of the collectives on the ranks at hand: `mpirun -n 4 annulus doctor` runs it on a user's
//! own cluster, and the tests run it over threads and over both MPIs.
//!
//! Inputs are small integers, so that every order of summation gives the same exact result.

use super::tree::Joiner;
use super::{Element, Group, Leaves, Op};
use crate::error::{Error, Result};
use crate::util::rng::{Purpose, Rng};

/// Checks every collective at lengths around each boundary, for each type; returns how many checks
/// were made.
///
/// # Errors
/// [`Error::Internal`] naming the collective, type, length and element that came out wrong.
pub fn run(group: &mut Group, segment: usize) -> Result<u64> {
    let mut checks = 0;
    for len in lengths(group.size(), segment) {
        for op in [Op::Sum, Op::Max] {
            all_reduce::<f32>(group, len, op, |v| v as f32)?;
            all_reduce::<f64>(group, len, op, |v| v as f64)?;
            all_reduce::<u64>(group, len, op, |v| v)?;
            checks += 3;
        }
    }
    checks += in_shared_memory(group, segment)?;
    for len in [0, 1, group.size() + 1, segment + 3] {
        tree_sum(group, len)?;
        checks += 1;
    }
    for root in 0..group.size() {
        broadcast(group, root, segment + 1)?;
        checks += 1;
    }
    for dissent in 0..=group.size() {
        let yes = group.rank() != dissent;
        if group.agree(yes)? != (dissent == group.size()) {
            return Err(Error::Internal(format!("agree is wrong when rank {dissent} says no")));
        }
        checks += 1;
    }
    gather(group)?;
    group.barrier()?;
    Ok(checks + 2)
}

/// 0, 1, around the rank count, around one and several segments of 4-byte elements per chunk.
fn lengths(size: usize, segment: usize) -> Vec<usize> {
    let elements = segment / 4;
    let mut lengths = vec![0, 1, 2, 3];
    for edge in [size, 2 * size, elements, elements * size, 2 * elements * size, 1000] {
        lengths.extend([edge.saturating_sub(1), edge, edge + 1]);
    }
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}

/// What rank `rank` puts at position `i`: 0..1000, different for each rank and length.
fn value(rank: usize, len: usize, i: usize) -> u64 {
    let draw = Rng::new(len as u64, Purpose::Synthetic, 0, rank as u64, i as u64).next_u32();
    u64::from(draw) % 1000
}

fn all_reduce<T: Element + PartialEq>(
    group: &mut Group,
    len: usize,
    op: Op,
    convert: fn(u64) -> T,
) -> Result<()> {
    fill_and_reduce(group, &mut vec![T::zeroed(); len], op, convert)
}

fn fill_and_reduce<T: Element + PartialEq>(
    group: &mut Group,
    data: &mut [T],
    op: Op,
    convert: fn(u64) -> T,
) -> Result<()> {
    let (rank, size, len) = (group.rank(), group.size(), data.len());
    for (i, place) in data.iter_mut().enumerate() {
        *place = convert(value(rank, len, i));
    }
    group.all_reduce(data, op)?;
    // All of a short buffer, and 1,000 places spread over a long one.
    for i in (0..len).step_by((len / 1000).max(1)).chain(len.checked_sub(1)) {
        let all = (0..size).map(|r| value(r, len, i));
        let expected = if op == Op::Sum { all.sum() } else { all.max().unwrap_or(0) };
        if data[i] != convert(expected) {
            return Err(Error::Internal(format!(
                "all_reduce({op:?}) of {len} {} over {size} ranks is wrong at element {i} on rank {rank}",
                std::any::type_name::<T>()
            )));
        }
    }
    Ok(())
}

/// The same on parts of a buffer in shared memory, at offsets on and off cache lines.
fn in_shared_memory(group: &mut Group, segment: usize) -> Result<u64> {
    let lengths = lengths(group.size(), segment);
    let longest = lengths.iter().max().copied().unwrap_or(0).max(5000);
    let mut buffer = group.shared_buffer(longest + 20)?;
    let mut checks = 0;
    for len in lengths.into_iter().chain([2500, 5000]) {
        for offset in [0, 3, 16] {
            let part = &mut buffer[offset..offset + len];
            fill_and_reduce(group, part, Op::Sum, |v| v as f32)?;
            checks += 1;
        }
    }
    Ok(checks)
}

/// The sum of five leaves, dealt to the ranks in turn: some have several, some none.
fn tree_sum(group: &mut Group, len: usize) -> Result<()> {
    const LEAVES: usize = 5;
    let size = group.size();
    let run = |rank: usize| rank * LEAVES / size..(rank + 1) * LEAVES / size;
    let runs: Vec<_> = (0..size).map(run).collect();
    let mut own = Joiner::new(LEAVES);
    for leaf in runs[group.rank()].clone() {
        let values: Vec<f32> = (0..len).map(|i| value(leaf, len, i) as f32).collect();
        own.push(leaf..leaf + 1, values, |left, right| f32::reduce(Op::Sum, left, &right));
    }
    let mine: Vec<&[f32]> = own.nodes().map(|(_, sum)| &sum[..]).collect();
    let mut sum = vec![f32::NAN; len];
    group.tree_sum(&Leaves::new(LEAVES, &runs), &mine, &mut sum)?;
    let expected = |i| (0..LEAVES).map(|leaf| value(leaf, len, i)).sum::<u64>() as f32;
    match (0..len).find(|&i| sum[i] != expected(i)) {
        None => Ok(()),
        Some(i) => Err(Error::Internal(format!(
            "tree_sum of {len} f32 over {size} ranks is wrong at element {i} on rank {}",
            group.rank()
        ))),
    }
}

fn broadcast(group: &mut Group, root: usize, len: usize) -> Result<()> {
    let mut data: Vec<u64> = (0..len).map(|i| value(group.rank(), len, i)).collect();
    group.broadcast(&mut data, root)?;
    match data.iter().enumerate().find(|&(i, &v)| v != value(root, len, i)) {
        None => Ok(()),
        Some((i, _)) => Err(Error::Internal(format!(
            "broadcast of {len} u64 from rank {root} is wrong at element {i} on rank {}",
            group.rank()
        ))),
    }
}

fn gather(group: &mut Group) -> Result<()> {
    let text = |rank: usize| vec![rank as u8; 3 * rank];
    let all = group.all_gather(&text(group.rank()))?;
    if (0..group.size()).all(|rank| all[rank] == text(rank)) {
        return Ok(());
    }
    Err(Error::Internal(format!("all_gather is wrong on rank {}", group.rank())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collective::{Algorithm, Tuning, Wire};
    use crate::comm::threads;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn every_collective_is_exact_for_1_to_16_ranks() {
        for size in 1..=16 {
            std::thread::scope(|scope| {
                for peer in threads::world(size) {
                    scope.spawn(move || {
                        let mut group = Group::meet(Box::new(peer)).unwrap();
                        for (i, (algorithm, _)) in Algorithm::ALL.into_iter().take(4).enumerate() {
                            // Every way is gone with checksums at every second size.
                            let checksum = (size + i) % 2 == 0;
                            let tuning = Tuning { algorithm, checksum, ..tuning(DEADLINE, 64) };
                            group.configure(tuning).unwrap();
                            assert!(run(&mut group, 64).unwrap() > 60);
                        }
                    });
                }
            });
        }
    }

    #[test]
    fn ranks_on_hosts_of_any_size_and_order_get_the_same_exact_sums() {
        for hosts in ["aab", "abab", "abcabc", "aaabc", "cabbbaa", "abcdefgh"] {
            std::thread::scope(|scope| {
                for (peer, host) in threads::world(hosts.len()).into_iter().zip(hosts.chars()) {
                    scope.spawn(move || {
                        let mut group = Group::meet_on(Box::new(peer), host.to_string()).unwrap();
                        assert_eq!(group.shared_memory(), Ok(()));
                        for algorithm in [Algorithm::Auto, Algorithm::Shared] {
                            group.configure(Tuning { algorithm, ..tuning(DEADLINE, 64) }).unwrap();
                            assert!(run(&mut group, 64).unwrap() > 60);
                        }
                    });
                }
            });
        }
    }

    #[test]
    fn sixteen_bits_on_the_wire_give_every_rank_the_same_nearly_exact_sums() {
        for (wire, error) in [(Wire::Bf16, 3e-2), (Wire::F16, 4e-3)] {
            let sums: Vec<Vec<f32>> = std::thread::scope(|scope| {
                let ranks: Vec<_> = threads::world(5)
                    .into_iter()
                    .zip("abbca".chars())
                    .map(|(peer, host)| {
                        scope.spawn(move || {
                            let mut group =
                                Group::meet_on(Box::new(peer), host.to_string()).unwrap();
                            group.configure(Tuning { wire, ..tuning(DEADLINE, 64) }).unwrap();
                            let mine = |i: usize| value(group.rank(), 9001, i) as f32 / 999.0 + 0.5;
                            let mut data: Vec<f32> = (0..9001).map(mine).collect();
                            group.all_reduce(&mut data, Op::Sum).unwrap();
                            data
                        })
                    })
                    .collect();
                ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
            });
            assert!(sums.iter().all(|s| s == &sums[0]));
            for (i, &sum) in sums[0].iter().enumerate() {
                let exact: f32 = (0..5).map(|r| value(r, 9001, i) as f32 / 999.0 + 0.5).sum();
                assert!((sum - exact).abs() <= error * exact, "{sum} instead of {exact}");
            }
            assert!(sums[0].iter().any(|&s| s != s.round()), "nothing was rounded away");
        }
    }

    #[test]
    fn the_latency_between_two_ranks_is_measured_and_told_to_all() {
        let told: Vec<Option<f64>> = std::thread::scope(|scope| {
            let ranks: Vec<_> = threads::world(3)
                .into_iter()
                .map(|peer| {
                    scope.spawn(|| Group::meet(Box::new(peer)).unwrap().core_to_core_ns().unwrap())
                })
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        });
        assert!(told[0].is_some_and(|ns| ns > 0.0));
        assert!(told.iter().all(|t| *t == told[0]));
    }

    const DEADLINE: Duration = Duration::from_secs(20);

    fn tuning(deadline: Duration, segment: usize) -> Tuning {
        Tuning { deadline, segment, ..Tuning::default() }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn a_ring_of_any_size_reduces_any_length_in_segments_of_any_size(
            size in 1usize..=16, len in 0usize..400, segment in 1usize..300,
        ) {
            let right: Vec<bool> = std::thread::scope(|scope| {
                let ranks: Vec<_> = threads::world(size)
                    .into_iter()
                    .map(|peer| {
                        scope.spawn(move || {
                            let mut group = Group::meet(Box::new(peer)).unwrap();
                            group.configure(tuning(Duration::from_secs(20), segment)).unwrap();
                            let sum = all_reduce::<f64>(&mut group, len, Op::Sum, |v| v as f64);
                            sum.and(all_reduce::<u64>(&mut group, len, Op::Max, |v| v)).is_ok()
                        })
                    })
                    .collect();
                ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
            });
            prop_assert!(right.iter().all(|&ok| ok));
        }
    }

    #[test]
    fn ranks_in_different_collectives_get_an_error_instead_of_a_hang() {
        let texts: Vec<String> = std::thread::scope(|scope| {
            let ranks: Vec<_> = threads::world(3)
                .into_iter()
                .map(|peer| {
                    scope.spawn(move || {
                        let mut group = Group::meet(Box::new(peer)).unwrap();
                        group.configure(tuning(Duration::from_millis(300), 64)).unwrap();
                        let outcome = match group.rank() {
                            0 => group.barrier(),
                            1 => group.all_reduce(&mut [1.0f32; 10], Op::Sum),
                            _ => group.all_reduce(&mut [1.0f32; 11], Op::Sum),
                        };
                        outcome.unwrap_err().to_string()
                    })
                })
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        });
        assert!(texts[1].contains("rank 0 is in #1 barrier"), "{}", texts[1]);
        assert!(texts[1].contains("rank 1 in #1 all_reduce(sum of 10 f32)"), "{}", texts[1]);
        assert!(texts[2].contains("sum of 10 f32), rank 2 in #1"), "{}", texts[2]);
    }
}

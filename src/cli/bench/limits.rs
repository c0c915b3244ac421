//! What the machine can do at best, measured in the same run: memory passes and matrix products.

use crate::collective::Group;
use crate::error::{Error, Result};
use crate::nn::{Mat, Write, matmul};
use std::hint::black_box;
use std::time::Instant;

/// Rows and columns of the matrices whose product gives the peak: 3 × 4 MiB.
const EDGE: usize = 1024;
/// Products of which the best counts.
const PRODUCTS: usize = 12;

/// `a[i] += b[i]`: two reads and one write of the buffer's size.
pub fn add(a: &mut [f32], b: &[f32]) {
    for (a, b) in a.iter_mut().zip(b) {
        *a += *b;
    }
    black_box(a);
}

/// The streams of an optimizer with its arithmetic left out: every one of `state` is read and
/// written, `grad` is read. One addition each, or there would be nothing to write.
///
/// # Panics
/// When there are more than two moments.
pub fn streams(theta: &mut [f32], grad: &[f32], moments: &mut [&mut [f32]]) {
    match moments {
        [] => add(theta, grad),
        [m] => {
            for ((p, g), m) in theta.iter_mut().zip(grad).zip(m.iter_mut()) {
                *p += *g;
                *m += *g;
            }
        }
        [m, v] => {
            for (((p, g), m), v) in theta.iter_mut().zip(grad).zip(m.iter_mut()).zip(v.iter_mut()) {
                *p += *g;
                *m += *g;
                *v += *g;
            }
        }
        _ => panic!("optimizers here have at most two moments"),
    }
    black_box(theta);
}

/// Floating-point operations per second of a large matrix product, the best of several; on the slowest
/// rank, all ranks at once, with the threads that are set.
///
/// # Errors
/// When a rank is late.
pub fn gemm_peak(group: &mut Group) -> Result<f64> {
    let values = |k: usize| (0..EDGE * EDGE).map(|i| ((i * k) % 17) as f32).collect::<Vec<_>>();
    let (a, b, mut c) = (values(3), values(5), vec![0.0; EDGE * EDGE]);
    let mut best = f64::INFINITY;
    group.barrier()?;
    for _ in 0..PRODUCTS {
        let start = Instant::now();
        matmul(&mut c, Mat::new(&a, EDGE, EDGE), Mat::new(&b, EDGE, EDGE), Write::Set);
        black_box(&mut c);
        best = best.min(start.elapsed().as_secs_f64());
    }
    let mut slowest = [best];
    group.all_reduce(&mut slowest, crate::collective::Op::Max)?;
    Ok(2.0 * (EDGE as f64).powi(3) / slowest[0])
}

/// Bytes that every rank of this job can still take, at the rank where that is least. `u64::MAX`
/// where the system does not tell.
///
/// # Errors
/// When a rank is late.
pub fn memory_per_rank(group: &mut Group) -> Result<u64> {
    // A fifth stays for MPI, for the launcher and for everybody else.
    let mine = available().map_or(u64::MAX, |bytes| bytes / 5 * 4 / group.local_ranks() as u64);
    let all = group.all_gather(&mine.to_le_bytes())?;
    let least = all.iter().filter_map(|bytes| Some(u64::from_le_bytes(bytes[..].try_into().ok()?)));
    Ok(least.min().unwrap_or(u64::MAX))
}

/// Refuses, on all ranks alike, what needs more memory than there is.
///
/// # Errors
/// [`Error::Usage`] with both figures and what to change.
pub fn require_memory(group: &mut Group, needed: u64, what: &str, instead: &str) -> Result<()> {
    let free = memory_per_rank(group)?;
    if needed <= free {
        return Ok(());
    }
    let human = crate::util::human::bytes;
    let text = format!(
        "{what} needs {} on each rank; {} are free for each of the ranks of a host. {instead}",
        human(needed),
        human(free)
    );
    Err(group.common_failure(Error::Usage(text)))
}

/// Bytes that new programs on this host can take, inside the limits of this process's control group.
fn available() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let host = meminfo(&read("/proc/meminfo")?)?;
    let limit = |limit: &str, used: &str| {
        let (limit, used) = (read(limit)?, read(used)?);
        Some(limit.trim().parse::<u64>().ok()?.saturating_sub(used.trim().parse().ok()?))
    };
    let folder = "/sys/fs/cgroup";
    let v2 = limit(&format!("{folder}/memory.max"), &format!("{folder}/memory.current"));
    let old = format!("{folder}/memory/memory");
    let v1 = limit(&format!("{old}.limit_in_bytes"), &format!("{old}.usage_in_bytes"));
    [Some(host), v2, v1].into_iter().flatten().min()
}

fn meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_over_the_streams_touches_every_number_of_each() {
        for moments in 0..=2 {
            let (mut theta, grad) = (vec![1.0; 37], vec![0.5; 37]);
            let mut kept = vec![vec![2.0; 37]; moments];
            let mut borrowed: Vec<&mut [f32]> = kept.iter_mut().map(Vec::as_mut_slice).collect();
            streams(&mut theta, &grad, &mut borrowed);
            assert_eq!(theta, [1.5; 37]);
            assert!(kept.iter().all(|m| *m == [2.5; 37]), "{kept:?}");
        }
    }

    #[test]
    fn the_free_memory_is_read_where_the_system_tells_it() {
        assert_eq!(meminfo("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
        assert_eq!(meminfo("MemTotal: 9 kB\n"), None);
        assert!(available().is_none_or(|bytes| bytes > 1 << 20));
    }
}

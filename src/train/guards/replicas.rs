//! Are all replicas still the same bits?
//!
//! Every n steps each rank hashes its parameters and moments (`util/bits_hash.rs`) and the ranks compare
//! one number. Only where it differs do they compare tensor by tensor, find the odd rank, the tensor and
//! the value, and leave both versions of that tensor in the run folder.

use crate::checkpoint::model_file::{self, Named};
use crate::collective::Group;
use crate::error::{Error, Result};
use crate::train::replica::Replica;
use crate::util::bits_hash;
use std::path::Path;

/// Folder of a run folder with what was found out about a fault.
pub const FAULTS: &str = "faults";
/// More tensors than this are counted, not named.
const NAMED: usize = 4;

/// The watch over replicas.
pub struct Replicas {
    every: u64,
    total: u64,
    /// Steps after which they were last known to be the same.
    same_after: u64,
    /// Whether rank 0, which writes checkpoints, may be the one that is wrong.
    rank_0_in_doubt: bool,
}

impl Replicas {
    /// Compares after every `every` steps (0: never) and after step `total`; they are the same after
    /// `done` steps, where the run begins.
    #[must_use]
    pub fn new(every: u64, done: u64, total: u64) -> Replicas {
        Replicas { every, total, same_after: done, rank_0_in_doubt: false }
    }

    /// Steps after which the replicas are known, or by the card taken, to be the same; `done` have been
    /// done.
    #[must_use]
    pub fn same_after(&self, done: u64, ranks: usize) -> u64 {
        if self.every == 0 || ranks == 1 { done } else { self.same_after }
    }

    /// When they were found to differ: the step after which a checkpoint may hold what is wrong.
    #[must_use]
    pub fn in_doubt_after(&self) -> Option<u64> {
        self.rank_0_in_doubt.then_some(self.same_after)
    }

    /// Compares the replicas of all ranks, if it is time to.
    ///
    /// # Errors
    /// [`Error::ReplicasDiffer`] on all ranks.
    pub fn check(
        &mut self,
        done: u64,
        replica: &Replica,
        folder: Option<&Path>,
        group: &mut Group,
    ) -> Result<()> {
        let due = done.is_multiple_of(self.every) || done == self.total;
        if self.every == 0 || group.size() == 1 || !due {
            return Ok(());
        }
        let hashes = hashes(replica)?;
        let all = group.all_gather(&bits_hash::of_hashes(&hashes).to_le_bytes())?;
        if all.iter().all(|hash| *hash == all[0]) {
            self.same_after = done;
            return Ok(());
        }
        let text = self.find_out(done, replica, &hashes, folder, group)?;
        Err(group.common_failure(Error::ReplicasDiffer(text)))
    }

    /// What differs, where, and since when, in words.
    fn find_out(
        &mut self,
        done: u64,
        replica: &Replica,
        hashes: &[u64],
        folder: Option<&Path>,
        group: &mut Group,
    ) -> Result<String> {
        let all = group.all_gather(bytemuck::cast_slice(hashes))?;
        let camps = camps(&all);
        self.rank_0_in_doubt = !(camps[0].contains(&0) && 2 * camps[0].len() > group.size());
        let differs = |k: &usize| all.iter().any(|hashes| of(hashes, *k) != of(&all[0], *k));
        let tensors: Vec<usize> = (0..hashes.len()).filter(differs).collect();
        let first = tensors.first().copied().ok_or_else(|| {
            Error::Internal(format!("step {done}: hashes of replicas differ, but of no tensor"))
        })?;
        let versions = versions(replica, first, &all, group)?;
        let value = value_that_differs(&versions);
        let kept = folder.map_or(String::new(), |run| keep(run, done, &versions));
        let more = more_names(replica, &tensors)?;
        Ok(format!(
            "step {done}: {}: {}{value}{more}. They were the same after step {}. That is faulty \
             memory, a faulty processor or network: run annulus doctor, test that machine, and go on \
             from a checkpoint of that step or before (--resume DIR){kept}",
            who(&camps, group),
            versions[0].1.name,
            self.same_after,
        ))
    }
}

/// The hash of each tensor of the replica, in [`Replica::visit`]'s order.
///
/// # Errors
/// When parameters cannot be copied from their device.
pub fn hashes(replica: &Replica) -> Result<Vec<u64>> {
    let mut all = Vec::new();
    replica.visit(&mut |_, values| all.push(bits_hash::of_values(values)))?;
    Ok(all)
}

/// The bytes of hash `k` in what a rank sent.
fn of(hashes: &[u8], k: usize) -> &[u8] {
    &hashes[8 * k..8 * k + 8]
}

/// The ranks in camps of equal hashes, the largest first, else by rank.
fn camps(all: &[Vec<u8>]) -> Vec<Vec<usize>> {
    let mut camps: Vec<Vec<usize>> = Vec::new();
    for rank in 0..all.len() {
        match camps.iter_mut().find(|camp| all[camp[0]] == all[rank]) {
            Some(camp) => camp.push(rank),
            None => camps.push(vec![rank]),
        }
    }
    camps.sort_by_key(|camp| std::cmp::Reverse(camp.len()));
    camps
}

/// Who is odd, if a majority says so.
fn who(camps: &[Vec<usize>], group: &Group) -> String {
    let name = |r: &usize| format!("rank {r} ({})", group.hosts()[*r]);
    let list = |ranks: &[usize]| ranks.iter().map(name).collect::<Vec<_>>().join(", ");
    let most = camps[0].len();
    if 2 * most > group.size() {
        let odd = camps[1..].concat();
        let (verb, rest) = if odd.len() == 1 { ("differs", "") } else { ("differ", "each ") };
        return format!("{} {verb} {rest}from the {most} other ranks", list(&odd));
    }
    let sides: Vec<String> = camps.iter().map(|camp| list(camp)).collect();
    format!("the ranks differ and no majority tells which is right ({})", sides.join(" / "))
}

/// Each version of tensor `k` with the first rank that has it, the version of most ranks first. Every
/// rank gets them all.
fn versions(
    replica: &Replica,
    k: usize,
    all: &[Vec<u8>],
    group: &mut Group,
) -> Result<Vec<(usize, Named)>> {
    let mine = tensor(replica, k)?;
    let of_tensor: Vec<Vec<u8>> = all.iter().map(|hashes| of(hashes, k).to_vec()).collect();
    let mut versions = Vec::new();
    for camp in camps(&of_tensor) {
        let mut version = mine.clone();
        group.broadcast(&mut version.values, camp[0])?;
        versions.push((camp[0], version));
    }
    Ok(versions)
}

/// A copy of tensor `k` of the replica.
fn tensor(replica: &Replica, k: usize) -> Result<Named> {
    let (mut at, mut found) = (0, Named { name: String::new(), shape: vec![], values: vec![] });
    replica.visit(&mut |name, values| {
        if at == k {
            found = Named { name: name.to_string(), shape: name.shape(), values: values.to_vec() };
        }
        at += 1;
    })?;
    Ok(found)
}

/// The first value in which two versions differ, with both bits.
fn value_that_differs(versions: &[(usize, Named)]) -> String {
    let [(_, right), (rank, other), ..] = versions else { return String::new() };
    let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
    let at = right.values.iter().zip(&other.values).position(differs);
    let Some(at) = at else { return String::new() };
    let show = |x: f32| format!("{x:e} (bits {:08x})", x.to_bits());
    format!(
        ", value {at} of {} is {} on rank {} and {} on rank {rank}",
        right.values.len(),
        show(right.values[at]),
        versions[0].0,
        show(other.values[at]),
    )
}

/// The names of the other tensors that differ.
fn more_names(replica: &Replica, tensors: &[usize]) -> Result<String> {
    let more = &tensors[1..];
    let mut names = Vec::new();
    for &k in more.iter().take(NAMED) {
        names.push(tensor(replica, k)?.name);
    }
    let rest = more.len() - names.len();
    let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    Ok(if names.is_empty() { rest } else { format!("; also {}{rest}", names.join(", ")) })
}

/// Leaves each version in the run folder; what comes of it, in words. The error that ends the run is
/// another: a disk that refuses does not replace it.
fn keep(run: &Path, done: u64, versions: &[(usize, Named)]) -> String {
    let folder = run.join(FAULTS);
    let write = || {
        std::fs::create_dir_all(&folder).map_err(|e| Error::writing(&folder, &e))?;
        for (rank, tensor) in versions {
            let path = folder.join(format!("step-{done:08}-rank-{rank}.safetensors"));
            model_file::save(&path, std::slice::from_ref(tensor))?;
        }
        Ok::<_, Error>(())
    };
    match write() {
        Ok(()) => format!(". The versions of the tensor are in {}", folder.display()),
        Err(e) => format!(". The versions of the tensor could not be kept: {e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_camp_comes_first_and_equal_ones_by_rank() {
        let all = |hashes: &[u8]| hashes.iter().map(|&h| vec![h]).collect::<Vec<_>>();
        assert_eq!(camps(&all(&[1, 2, 2])), [vec![1, 2], vec![0]]);
        assert_eq!(camps(&all(&[1, 2])), [[0], [1]]);
        assert_eq!(camps(&all(&[3, 1, 3, 2, 3])), [vec![0, 2, 4], vec![1], vec![3]]);
    }

    #[test]
    fn the_first_value_that_differs_is_told_with_both_bits() {
        let named =
            |values: &[f32]| Named { name: "w".into(), shape: vec![3], values: values.into() };
        let text =
            value_that_differs(&[(0, named(&[1.0, 2.0, 3.0])), (2, named(&[1.0, -2.0, 4.0]))]);
        assert!(text.contains("value 1 of 3 is 2e0 (bits 40000000) on rank 0"), "{text}");
        assert!(text.ends_with("-2e0 (bits c0000000) on rank 2"), "{text}");
    }
}

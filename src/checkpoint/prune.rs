//! Which checkpoints stay, and what is cleared away.

use super::disk::{Disk, Real, remove_tree};
use super::load::{has_its_files, read_manifest};
use super::store::Store;
use super::{find, names};
use crate::error::{Error, Result};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Which checkpoints stay when a new one has been written. The new one and the one that `latest`
/// names always do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// The newest ones; 0 counts as 1. With 2, one bad disk block does not end a run.
    pub last: usize,
    /// The one of the highest score; of several, the earliest.
    pub best: bool,
}

impl Default for Keep {
    fn default() -> Keep {
        Keep { last: 2, best: true }
    }
}

/// A checkpoint as pruning sees it.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    step: u64,
    /// The manifest is sound and the files have their sizes.
    sound: bool,
    score: Option<f64>,
}

impl Store {
    /// Removes what is not kept, the oldest first; the newest one of step `proven` or before is kept as
    /// well. Gives the steps removed and what went wrong:
    /// a checkpoint too many is no reason to stop a run.
    pub(super) fn prune(&self, written: u64, proven: u64) -> (Vec<u64>, Vec<String>) {
        let (mut removed, mut warnings) = (Vec::new(), Vec::new());
        let steps = match find::steps(&self.dir) {
            Ok(steps) => steps,
            Err(e) => return (removed, vec![format!("cannot list {}: {e}", self.dir.display())]),
        };
        let look = |step: u64| {
            let folder = self.dir.join(names::folder(step));
            let manifest = read_manifest(&folder).ok().filter(|m| has_its_files(&folder, m));
            let score = manifest.as_ref().and_then(|m| m.score).map(|s| s.0);
            Candidate { step, sound: manifest.is_some(), score }
        };
        let candidates: Vec<Candidate> = steps.into_iter().map(look).collect();
        let latest = fs::read_to_string(self.dir.join(names::LATEST)).unwrap_or_default();
        let proven = candidates.iter().find(|c| c.sound && c.step <= proven).map(|c| c.step);
        let protected = [Some(written), names::step_of(latest.trim_end()), proven];
        for step in doomed(&candidates, self.keep, &protected) {
            match self.remove(step) {
                Ok(()) => removed.push(step),
                Err(e) => warnings.push(format!(
                    "the old checkpoint {} could not be removed: {e}",
                    self.dir.join(names::folder(step)).display()
                )),
            }
        }
        (removed, warnings)
    }

    /// First takes the name away, so that a half-removed checkpoint never passes for one.
    fn remove(&self, step: u64) -> io::Result<()> {
        let aside = self.dir.join(names::temporary(&format!("old-{}", names::folder(step))));
        self.disk.rename(&self.dir.join(names::folder(step)), &aside)?;
        // Else a power cut could undo the renaming alone and bring back a folder without its files.
        self.disk.sync_dir(&self.dir)?;
        remove_tree(&*self.disk, &aside)
    }
}

/// The steps to remove, oldest first. `all` is newest first. A damaged checkpoint counts for nothing;
/// it goes once it is older than all that are kept as the newest, and stays for inspection before.
fn doomed(all: &[Candidate], keep: Keep, protected: &[Option<u64>]) -> Vec<u64> {
    let sound = || all.iter().filter(|c| c.sound);
    let last: Vec<u64> = sound().take(keep.last.max(1)).map(|c| c.step).collect();
    let mut best: Option<(f64, u64)> = None;
    for candidate in sound().filter(|_| keep.best) {
        // Newest first: an equal score that is older takes over.
        if let Some(score) = candidate.score
            && best.is_none_or(|(highest, _)| score >= highest)
        {
            best = Some((score, candidate.step));
        }
    }
    let Some(oldest) = last.last() else { return Vec::new() };
    let mut doomed: Vec<u64> = all
        .iter()
        .filter(|c| c.step < *oldest)
        .map(|c| c.step)
        .filter(|step| !protected.contains(&Some(*step)) && best.is_none_or(|b| b.1 != *step))
        .collect();
    doomed.reverse();
    doomed
}

/// What [`sweep`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Left-overs that were removed.
    pub removed: Vec<PathBuf>,
    /// Left-overs that stay: perhaps another process is writing them, or they cannot be removed.
    pub warnings: Vec<String>,
}

/// Clears away what writers that died left in `dir`, the run's `checkpoints` folder. To be called
/// once, at the start, before anything is written. `alone` says that this process holds the run's
/// lock for sure ([`super::RunLock::is_exclusive`]); otherwise only left-overs of dead processes of
/// this host go.
#[must_use]
pub fn sweep(dir: &Path, alone: bool) -> Swept {
    let mut swept = Swept::default();
    // No folder, no left-overs; a folder that cannot be read fails with a reason when it is used.
    let Ok(entries) = fs::read_dir(dir) else { return swept };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| names::is_temporary(name)) else { continue };
        let path = entry.path();
        if !alone && !names::is_orphan(name) {
            swept.warnings.push(format!(
                "{} stays: the run folder could not be locked, and another process may be writing it",
                path.display()
            ));
            continue;
        }
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let gone = if is_dir { remove_tree(&Real, &path) } else { Real.remove_file(&path) };
        match gone {
            Ok(()) => swept.removed.push(path),
            Err(e) => swept.warnings.push(format!("cannot remove {}: {e}", path.display())),
        }
    }
    swept.removed.sort();
    swept.warnings.sort();
    swept
}

/// Takes checkpoints newer than `step` out of the row, after a run went on from `step`: damaged ones,
/// or those of a future that the user has given up. Otherwise a later resume would take one of them
/// for the newest of this run. They are kept as `retired-step-…` for the user to look at or remove.
///
/// # Errors
/// [`Error::CannotCreate`] or [`Error::Io`] when one cannot be renamed.
pub fn retire_newer(dir: &Path, step: u64) -> Result<Vec<PathBuf>> {
    let steps = match find::steps(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other.map_err(|e| Error::reading(dir, &e))?,
    };
    let mut retired = Vec::new();
    for newer in steps.into_iter().filter(|s| *s > step) {
        let path = dir.join(names::folder(newer));
        let to = free_name(dir, &format!("retired-{}", names::folder(newer)));
        Real.rename(&path, &to).map_err(|e| Error::writing(&path, &e))?;
        retired.push(to);
    }
    if !retired.is_empty() {
        Real.sync_dir(dir).map_err(|e| Error::writing(dir, &e))?;
    }
    Ok(retired)
}

/// Moves the whole `checkpoints` folder of an earlier run to `checkpoints.old-1` (or the next number
/// that is free), for a run from the start in the same run folder. `None` when it holds none.
///
/// # Errors
/// [`Error::CannotCreate`] or [`Error::Io`] when it cannot be renamed.
pub fn set_aside(dir: &Path) -> Result<Option<PathBuf>> {
    if find::steps(dir).unwrap_or_default().is_empty() && !dir.join(names::LATEST).exists() {
        return Ok(None);
    }
    let above = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let to = free_name(above, &format!("{name}.old"));
    Real.rename(dir, &to)
        .and_then(|()| Real.sync_dir(above))
        .map_err(|e| Error::writing(dir, &e))?;
    Ok(Some(to))
}

/// `name-1` in `dir`, or with the first number that is free.
fn free_name(dir: &Path, name: &str) -> PathBuf {
    let mut number = 1u64;
    loop {
        let path = dir.join(format!("{name}-{number}"));
        if path.symlink_metadata().is_err() {
            return path;
        }
        number += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidate(step: u64, sound: bool, score: Option<f64>) -> Candidate {
        Candidate { step, sound, score }
    }

    #[test]
    fn the_last_ones_and_the_best_stay_and_a_damaged_one_counts_for_nothing() {
        let all = [
            candidate(6, true, Some(0.1)),
            candidate(5, false, None),
            candidate(4, true, Some(0.3)),
            candidate(3, true, Some(0.9)),
            candidate(2, false, Some(2.0)),
            candidate(1, true, Some(0.9)),
        ];
        let keep = |last, best| Keep { last, best };
        assert_eq!(doomed(&all, keep(2, true), &[Some(6), None]), [2, 3]);
        assert_eq!(doomed(&all, keep(2, false), &[Some(6), None]), [1, 2, 3]);
        assert_eq!(doomed(&all, keep(0, false), &[Some(6), Some(3)]), [1, 2, 4, 5]);
        assert!(doomed(&all, keep(9, false), &[Some(6), None]).is_empty());
        assert!(doomed(&all[1..2], keep(1, true), &[None, None]).is_empty());
    }

    proptest! {
        #[test]
        fn pruning_keeps_what_it_promises(
            list in prop::collection::vec((any::<bool>(), prop::option::of(0..5u8)), 1..12),
            last in 0..6usize,
            best in any::<bool>(),
            latest in 0..14u64,
        ) {
            let mut all: Vec<Candidate> = list
                .iter()
                .enumerate()
                .map(|(i, (sound, score))| candidate(i as u64, *sound, score.map(f64::from)))
                .collect();
            all.reverse();
            let written = all[0].step;
            let gone = doomed(&all, Keep { last, best }, &[Some(written), Some(latest)]);
            prop_assert!(!gone.contains(&written) && !gone.contains(&latest));
            prop_assert!(gone.is_sorted());
            let sound: Vec<_> = all.iter().filter(|c| c.sound).collect();
            for c in sound.iter().take(last.max(1)) {
                prop_assert!(!gone.contains(&c.step));
            }
            let top = sound.iter().filter_map(|c| c.score).fold(f64::MIN, f64::max);
            if best && top > f64::MIN {
                let stays = |c: &&&Candidate| c.score == Some(top) && !gone.contains(&c.step);
                prop_assert!(sound.iter().any(|c| stays(&c)));
            }
            // Nothing sound stays without one of the reasons.
            let stay = sound.iter().filter(|c| !gone.contains(&c.step)).count();
            prop_assert!(stay <= last.max(1) + usize::from(best) + 2, "{stay} stay");
        }
    }
}

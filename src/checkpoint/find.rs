//! Which checkpoint a run goes on from.

use super::load::load;
use super::names;
use super::snapshot::Snapshot;
use crate::error::{Error, Result};
use std::fmt;
use std::path::{Path, PathBuf};

/// What to go on from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Resume {
    /// The newest sound checkpoint of the run folder; from the start when it has none.
    #[default]
    Auto,
    /// Nothing: from the start.
    Never,
    /// This checkpoint and no other.
    Path(PathBuf),
}

impl Resume {
    /// `auto`, `never`, or the path of a checkpoint's folder.
    #[must_use]
    pub fn parse(text: &str) -> Resume {
        match text {
            "auto" => Resume::Auto,
            "never" => Resume::Never,
            path => Resume::Path(path.into()),
        }
    }
}

/// A sound checkpoint, read whole.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its folder.
    pub path: PathBuf,
    /// The program that wrote it, `annulus 0.1.0`.
    pub program: String,
    /// When, `2026-03-04T05:06:07Z`.
    pub written: String,
    /// What it holds.
    pub snapshot: Snapshot,
    /// Newer checkpoints that are damaged, newest first: to be told to the user.
    pub refused: Vec<Refusal>,
}

/// A checkpoint that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its folder.
    pub path: PathBuf,
    /// The file, what was found in it and what was expected.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

/// Reads the checkpoint that `resume` asks for; `dir` is the run's `checkpoints` folder.
///
/// `None` means that there is nothing to go on from: the user wants none, or none was ever written.
///
/// # Errors
/// [`Error::Data`] when there are checkpoints and not one is sound, or the one asked for is not, or
/// `latest` names one and none is there; [`Error::NoInput`] when the path asked for is no folder or
/// `dir` cannot be read.
pub fn find(dir: &Path, resume: &Resume) -> Result<Option<Found>> {
    match resume {
        Resume::Never => Ok(None),
        Resume::Path(path) => find_this(path).map(Some),
        Resume::Auto => find_newest(dir),
    }
}

fn find_this(path: &Path) -> Result<Found> {
    let about = std::fs::metadata(path).map_err(|e| Error::reading(path, &e))?;
    if !about.is_dir() {
        return Err(Error::NoInput(format!(
            "cannot resume from {}: a checkpoint is a folder, this is a file",
            path.display()
        )));
    }
    if !path.join(super::manifest::NAME).exists() {
        for dir in [path.to_owned(), path.join("checkpoints")] {
            if let Some(step) = steps(&dir).unwrap_or_default().first() {
                return Err(Error::NoInput(format!(
                    "cannot resume from {}: it holds checkpoints and is none itself; the newest is {}",
                    path.display(),
                    dir.join(names::folder(*step)).display()
                )));
            }
        }
    }
    attempt(path).map_err(|refusal| {
        Error::Data(format!(
            "cannot resume from {refusal}. Give another checkpoint, or `auto` for the newest sound one"
        ))
    })
}

fn find_newest(dir: &Path) -> Result<Option<Found>> {
    let steps = match steps(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| Error::reading(dir, &e))?,
    };
    let mut refused = Vec::new();
    for step in &steps {
        match attempt(&dir.join(names::folder(*step))) {
            Ok(found) => return Ok(Some(Found { refused, ..found })),
            Err(refusal) => refused.push(refusal),
        }
    }
    let remedy = "To train from the start all the same, resume `never` or take another run folder";
    if !refused.is_empty() {
        let reasons: Vec<String> = refused.iter().map(ToString::to_string).collect();
        return Err(Error::Data(format!(
            "no checkpoint in {} is sound: {}. {remedy}",
            dir.display(),
            reasons.join("; ")
        )));
    }
    let latest = dir.join(names::LATEST);
    if latest.exists() {
        return Err(Error::Data(format!(
            "{} says that a checkpoint was written, but {} holds none: were they moved? {remedy}",
            latest.display(),
            dir.display()
        )));
    }
    Ok(None)
}

fn attempt(path: &Path) -> std::result::Result<Found, Refusal> {
    let path = path.to_owned();
    match load(&path) {
        Err(reason) => Err(Refusal { path, reason }),
        Ok((snapshot, manifest)) => {
            let (program, written) = (manifest.program, manifest.written);
            Ok(Found { path, program, written, snapshot, refused: Vec::new() })
        }
    }
}

/// The steps that `dir` has checkpoints of, newest first.
pub(super) fn steps(dir: &Path) -> std::io::Result<Vec<u64>> {
    let mut steps = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        steps.extend(entry?.file_name().to_str().and_then(names::step_of));
    }
    steps.sort_unstable_by(|a, b| b.cmp(a));
    Ok(steps)
}
/// The step of the checkpoint last written into `dir`, as the file `latest` has it.
#[must_use]
pub fn last_step(dir: &Path) -> Option<u64> {
    let latest = std::fs::read_to_string(dir.join(names::LATEST)).ok()?;
    names::step_of(latest.trim_end())
}

//! Work that may be interrupted: who does which piece, and notes of what is done, in the output folder.

use crate::collective::Group;
use crate::config::Prepare;
use crate::data::prepare;
use crate::error::{Error, Result};
use crate::report::console::say;
use crate::report::prepared::MANIFEST;
use crate::util::files::{write_unsynced, write_whole};
use rayon::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// Of the notes on work that is not finished.
pub const WORK: &str = ".prepare";

/// Whether another start of the same work has done all of it; if not, the output folder is now ours.
///
/// # Errors
/// When ranks see other sources, or the folder holds something else.
pub fn is_done(out: &Path, key: &str, group: &mut Group) -> Result<bool> {
    group.require_equal("the sources that each rank sees", key)?;
    let done = group.from_rank_0(|| claim(out, key).map(|done| vec![u8::from(done)]))?;
    if done == [1] && group.rank() == 0 {
        say(&format!("{} is prepared already", out.display()));
    }
    Ok(done == [1])
}

/// The beginning of a hash of what is done: the wishes.
///
/// # Errors
/// When they cannot be written as JSON.
pub fn hash_of(wishes: &Prepare) -> Result<blake3::Hasher> {
    let options = serde_json::to_vec(&prepare::options(wishes))
        .map_err(|e| Error::Internal(format!("options as JSON: {e}")))?;
    let mut hash = blake3::Hasher::new();
    hash.update(&options);
    Ok(hash)
}

/// What each rank has, in the order of the ranks.
///
/// # Errors
/// When a rank does not answer.
pub fn all<T: Serialize + DeserializeOwned>(mine: &T, group: &mut Group) -> Result<Vec<T>> {
    let broken = |e: serde_json::Error| Error::Internal(format!("what a rank found: {e}"));
    let bytes = group.together(serde_json::to_vec(mine).map_err(broken))?;
    let all = group.all_gather(&bytes)?;
    group.together(all.iter().map(|bytes| serde_json::from_slice(bytes).map_err(broken)).collect())
}

/// Does pieces 0, 1, … and gives what came of each. In each round every rank takes the same number of pieces that
/// follow one another, and shares them among its threads; so the first error is that of the first piece.
///
/// # Errors
/// That of the first piece that fails, on all ranks.
pub fn in_rounds<T: Serialize + DeserializeOwned + Send>(
    pieces: usize,
    group: &mut Group,
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    // The same on all ranks, whose threads may differ.
    let each = all(&(2 * rayon::current_num_threads()), group)?.into_iter().min().unwrap_or(1);
    let mut done = Vec::with_capacity(pieces);
    for first in (0..pieces).step_by(each * group.size()) {
        let start = pieces.min(first + each * group.rank());
        let mine: Vec<Result<T>> =
            (start..pieces.min(start + each)).into_par_iter().map(&work).collect();
        let mine: Result<Vec<T>> = mine.into_iter().collect();
        let mine = group.together(mine)?;
        done.extend(all(&mine, group)?.into_iter().flatten());
    }
    Ok(done)
}

/// Makes the output folder ours; whether all is done already.
fn claim(out: &Path, key: &str) -> Result<bool> {
    let work = out.join(WORK);
    let file = work.join("key");
    match std::fs::read_to_string(&file) {
        Ok(found) if found == key => {
            let done = out.join(MANIFEST).exists();
            if done {
                clean(out)?;
            }
            return Ok(done);
        }
        Ok(_) => {
            return Err(Error::CannotCreate(format!(
                "{} holds what was prepared from other sources or with other options; name another \
                 --out, or remove it",
                out.display()
            )));
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::reading(&file, &e)),
    }
    std::fs::create_dir_all(out).map_err(|e| Error::writing(out, &e))?;
    let entries = std::fs::read_dir(out).map_err(|e| Error::reading(out, &e))?;
    if entries.flatten().any(|entry| entry.file_name() != WORK) {
        return Err(Error::CannotCreate(format!(
            "{} holds other files; name an empty or new folder with --out",
            out.display()
        )));
    }
    std::fs::create_dir_all(&work).map_err(|e| Error::writing(&work, &e))?;
    write_whole(&file, key.as_bytes())?;
    Ok(false)
}

pub fn is_whole(path: &Path, blake3: &str) -> bool {
    std::fs::read(path).is_ok_and(|bytes| blake3::hash(&bytes).to_hex().as_str() == blake3)
}

/// Does pieces 0, 1, …: each rank one, then all wait for each other, and again.
pub fn in_turns(
    pieces: usize,
    group: &mut Group,
    work: impl Fn(usize) -> Result<()>,
) -> Result<()> {
    for first in (0..pieces).step_by(group.size()) {
        let mine = first + group.rank();
        let outcome = if mine < pieces { work(mine) } else { Ok(()) };
        group.together(outcome)?;
    }
    Ok(())
}

/// A note that is missing or was cut off is work that was not done.
pub fn read_note<T: DeserializeOwned>(path: &Path) -> Option<T> {
    std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok())
}

pub fn write_note(path: &Path, note: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(note).map_err(|e| Error::Internal(format!("a note: {e}")))?;
    write_unsynced(path, &bytes)
}

pub fn lost(path: &Path) -> Error {
    Error::Io(format!(
        "{}: was written by another rank and cannot be read here; is --out on a file system that all \
         hosts share?",
        path.display()
    ))
}

/// Removes notes and what interrupted writers left behind; the key stays, so that the folder is known.
pub fn clean(out: &Path) -> Result<()> {
    let work = out.join(WORK);
    for folder in [out, &work] {
        let entries = std::fs::read_dir(folder).map_err(|e| Error::reading(folder, &e))?;
        let paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with(".tmp") || (folder == work && name != "key") {
                std::fs::remove_file(&path).map_err(|e| Error::writing(&path, &e))?;
            }
        }
    }
    Ok(())
}

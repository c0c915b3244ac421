//! `annulus prepare`: the ranks share the work; what is done is noted in the output folder, so that the
//! same command goes on after an interruption.

use super::args::PrepareArgs;
use super::prepare_text;
use crate::collective::Group;
use crate::data::prepare::plan::{self, Plan};
use crate::data::prepare::shard::{self, Written};
use crate::data::prepare::table::Column;
use crate::data::prepare::text;
use crate::data::prepare::{CHUNK, Material, Options, Record};
use crate::error::{Error, Result};
use crate::report::console::say;
use crate::report::preparation::{MANIFEST, Outcome};
use crate::util::files::write_whole;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Of the notes on work that is not finished.
pub(super) const WORK: &str = ".prepare";

/// So long a rank may take for a chunk or a file on a slow disk.
const PATIENCE: Duration = Duration::from_secs(600);

/// Prepares what the arguments name.
///
/// # Errors
/// When sources, options or output folder are not what they should be; all ranks get the same error.
pub fn run(args: &PrepareArgs, group: &mut Group) -> Result<()> {
    group.set_deadline(PATIENCE);
    if group.together(text::is_text(&args.sources))? {
        return prepare_text::run(args, group);
    }
    group.together(args.text.refuse())?;
    let options = group.together(args.options())?;
    let material = group.together(Material::open(&args.sources, &options))?;
    let key = group.together(material.key(&options))?;
    group.require_equal("the sources that each rank sees", &key)?;
    let done = group.from_rank_0(|| claim(&args.out, &key).map(|done| vec![u8::from(done)]))?;
    if done == [1] {
        say_prepared(&args.out, group);
        return Ok(());
    }
    let records = examine(&material, &args.out, group)?;
    let plan = group.together(plan::make(&records, |i| material.name(i), &options))?;
    let columns = group.together(fit(&material, &plan))?;
    let written =
        write(&Job { material: &material, plan: &plan, columns: &columns }, args, &options, group)?;
    group.from_rank_0(|| {
        let outcome = Outcome {
            material: &material,
            records: &records,
            plan: &plan,
            columns: &columns,
            written: &written,
            options: &options,
        };
        let summary = outcome.write(&args.out)?;
        clean(&args.out)?;
        say(&summary);
        Ok(Vec::new())
    })?;
    Ok(())
}

/// Says that there was nothing to do.
pub(super) fn say_prepared(out: &Path, group: &Group) {
    if group.rank() == 0 {
        say(&format!("{} is prepared already", out.display()));
    }
}

/// Makes the output folder ours; whether all is done already.
pub(super) fn claim(out: &Path, key: &str) -> Result<bool> {
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

/// Looks at every item, each rank at every n-th chunk; chunks that are noted are not looked at again.
fn examine(material: &Material, out: &Path, group: &mut Group) -> Result<Vec<Record>> {
    let chunks = material.len().div_ceil(CHUNK);
    let range = |chunk: usize| chunk * CHUNK..material.len().min((chunk + 1) * CHUNK);
    let note = |chunk: usize| out.join(WORK).join(format!("examined-{chunk:06}.json"));
    in_turns(chunks, group, |chunk| {
        let there = read_note::<Vec<Record>>(&note(chunk));
        if there.is_some_and(|records| records.len() == range(chunk).len()) {
            return Ok(());
        }
        let records: Vec<Record> = range(chunk).map(|i| material.examine(i)).collect();
        write_note(&note(chunk), &records)
    })?;
    let mut records = Vec::with_capacity(material.len());
    let mut outcome = Ok(());
    for chunk in 0..chunks {
        match read_note::<Vec<Record>>(&note(chunk)) {
            Some(found) if found.len() == range(chunk).len() => records.extend(found),
            _ => outcome = Err(lost(&note(chunk))),
        }
    }
    group.together(outcome)?;
    Ok(records)
}

fn fit(material: &Material, plan: &Plan) -> Result<Vec<Column>> {
    let Material::Table(table) = material else { return Ok(Vec::new()) };
    let rows: Vec<usize> = plan.parts[0].iter().map(|&(item, _)| item).collect();
    table.fit(&rows)
}

/// What the files are made from.
struct Job<'a> {
    material: &'a Material,
    plan: &'a Plan,
    columns: &'a [Column],
}

/// Writes every file that is not there whole.
fn write(
    job: &Job,
    args: &PrepareArgs,
    options: &Options,
    group: &mut Group,
) -> Result<Vec<Written>> {
    let shards = shard::list(job.plan, options);
    let note = |i: usize| args.out.join(WORK).join(format!("shard-{i:06}.json"));
    in_turns(shards.len(), group, |i| {
        let (part, range) = &shards[i];
        let name = shard::name(*part, range.start, options);
        let path = args.out.join(&name);
        let noted = read_note::<Written>(&note(i));
        if noted.is_some_and(|noted| noted.file == name && is_whole(&path, &noted.blake3)) {
            return Ok(());
        }
        let samples = &job.plan.parts[*part][range.clone()];
        let (bytes, written) = shard::make(job.material, job.plan, job.columns, name, samples)?;
        write_whole(&path, &bytes)?;
        write_note(&note(i), &written)
    })?;
    let written: Option<Vec<_>> = (0..shards.len()).map(|i| read_note(&note(i))).collect();
    group.together(written.ok_or_else(|| lost(&args.out.join(WORK))))
}

/// Whether the file is there with this hash.
pub(super) fn is_whole(path: &Path, blake3: &str) -> bool {
    std::fs::read(path).is_ok_and(|bytes| blake3::hash(&bytes).to_hex().as_str() == blake3)
}

/// Does pieces 0, 1, …: each rank one, then all wait for each other, and again.
pub(super) fn in_turns(
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
pub(super) fn read_note<T: DeserializeOwned>(path: &Path) -> Option<T> {
    std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok())
}

pub(super) fn write_note(path: &Path, note: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(note).map_err(|e| Error::Internal(format!("a note: {e}")))?;
    write_whole(path, &bytes)
}

pub(super) fn lost(path: &Path) -> Error {
    Error::Io(format!(
        "{}: was written by another rank and cannot be read here; is --out on a file system that all \
         hosts share?",
        path.display()
    ))
}

/// Removes notes and what interrupted writers left behind; the key stays, so that the folder is known.
pub(super) fn clean(out: &Path) -> Result<()> {
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

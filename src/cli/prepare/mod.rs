//! `annulus prepare`: the ranks share the work; what is done is noted in the output folder, so that the
//! same command goes on after an interruption.

pub mod args;
mod table;
pub mod work;

use super::prepare_text;
use crate::collective::Group;
use crate::config::Prepare;
use crate::data::prepare::plan::{self, Plan};
use crate::data::prepare::shard::{self, Written};
use crate::data::prepare::text;
use crate::data::prepare::{self, CHUNK, Material, Record};
use crate::error::Result;
use crate::report::console::say;
use crate::report::preparation::Outcome;
use crate::util::files::write_whole;
use args::PrepareArgs;
use std::path::Path;
use std::time::Duration;
use work::{WORK, clean, in_turns, is_done, is_whole, lost, read_note, write_note};

/// So long a rank may take for a chunk or a file on a slow disk.
const PATIENCE: Duration = Duration::from_secs(600);

/// Prepares what the arguments name.
///
/// # Errors
/// When sources, options or output folder are not what they should be; all ranks get the same error.
pub fn run(args: &PrepareArgs, group: &mut Group) -> Result<()> {
    group.set_deadline(PATIENCE);
    let (wishes, written) = group.together(args.wishes())?;
    let out = wishes.out.clone().unwrap_or_default();
    if group.together(written.point(text::is_text(&wishes.sources)))? {
        group.together(args.options.suit_text())?;
        group.together(written.point(prepare::suit_text(&wishes)))?;
        return prepare_text::run(&wishes, &args.text, &out, group);
    }
    group.together(args.text.refuse())?;
    let pictures = group.together(written.point(prepare::are_pictures(&wishes.sources)))?;
    group.together(args.options.suit(pictures))?;
    group.together(written.point(prepare::suit(&wishes, pictures)))?;
    let outcome = match pictures {
        true => make(&wishes, &out, group),
        false => table::make(&wishes, &out, group),
    };
    written.point(outcome)
}

fn make(wishes: &Prepare, out: &Path, group: &mut Group) -> Result<()> {
    let material = group.together(Material::open(wishes))?;
    let key = group.together(material.key(wishes))?;
    if is_done(out, &key, group)? {
        return Ok(());
    }
    let records = examine(&material, out, group)?;
    let plan = group.together(plan::make(&records, |i| material.name(i), wishes))?;
    let job = Job { material: &material, plan: &plan, out };
    let written = write(&job, wishes, group)?;
    group.from_rank_0(|| {
        let outcome = Outcome {
            material: &material,
            records: &records,
            plan: &plan,
            written: &written,
            options: wishes,
        };
        let summary = outcome.write(out)?;
        clean(out)?;
        say(&summary);
        Ok(Vec::new())
    })?;
    Ok(())
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

/// What the files are made from.
struct Job<'a> {
    out: &'a Path,
    material: &'a Material,
    plan: &'a Plan,
}

/// Writes every file that is not there whole.
fn write(job: &Job, options: &Prepare, group: &mut Group) -> Result<Vec<Written>> {
    let shards = shard::list(job.plan, options);
    let note = |i: usize| job.out.join(WORK).join(format!("shard-{i:06}.json"));
    in_turns(shards.len(), group, |i| {
        let (part, range) = &shards[i];
        let name = shard::name(*part, range.start, options);
        let path = job.out.join(&name);
        let noted = read_note::<Written>(&note(i));
        if noted.is_some_and(|noted| noted.file == name && is_whole(&path, &noted.blake3)) {
            return Ok(());
        }
        let samples = &job.plan.parts[*part][range.clone()];
        let (bytes, written) = shard::make(job.material, job.plan, name, samples)?;
        write_whole(&path, &bytes)?;
        write_note(&note(i), &written)
    })?;
    let written: Option<Vec<_>> = (0..shards.len()).map(|i| read_note(&note(i))).collect();
    group.together(written.ok_or_else(|| lost(&job.out.join(WORK))))
}

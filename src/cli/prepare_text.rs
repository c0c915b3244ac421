//! `annulus prepare` for text; see [`super::prepare`] for how the work is shared and noted.

use super::prepare::work::{WORK, clean, in_turns, is_done, is_whole, lost, read_note, write_note};
use super::text_args::TextArgs;
use crate::collective::Group;
use crate::config::Prepare;
use crate::data::prepare::text::minhash::{LANES, Signature};
use crate::data::prepare::text::plan::{self, Near};
use crate::data::prepare::text::shard::{self, Job, Note, Vocabulary};
use crate::data::prepare::text::sources::Sources;
use crate::data::prepare::text::{self, Options, Record, Tokens};
use crate::error::{Error, Result};
use crate::report::console::say;
use crate::report::preparation_text::Outcome;
use crate::util::files::write_whole;
use std::path::{Path, PathBuf};

/// Prepares the documents of the sources.
///
/// # Errors
/// As [`super::prepare::run`].
pub fn run(wishes: &Prepare, args: &TextArgs, out: &Path, group: &mut Group) -> Result<()> {
    let options = args.options(wishes.seed, wishes.split, wishes.shard);
    let mut options = group.together(options)?;
    let tokenizer = group.together(args.tokenizer(&options))?;
    options.tokenizer = tokenizer.as_ref().map(|tokenizer| tokenizer.blake3().to_owned());
    let sources = Sources::open(&wishes.sources, options.separator.as_deref());
    let sources = group.together(sources)?;
    let key = group.together(key(&sources, &options))?;
    if is_done(out, &key, group)? {
        return Ok(());
    }
    let records = examine(&sources, &options, out, group)?;
    let removed = plan::refused_and_equal(&records);
    let near = group.from_rank_0(|| {
        let near = near(&sources, &records, &removed, &options, out)?;
        Ok(near.as_flattened().iter().flat_map(|n| n.to_le_bytes()).collect())
    })?;
    let near: Vec<[u32; 3]> = near
        .chunks_exact(12)
        .map(|n| [0, 4, 8].map(|at| u32::from_le_bytes([n[at], n[at + 1], n[at + 2], n[at + 3]])))
        .collect();
    let plan = group.together(plan::make(&records, removed, &near, &options))?;
    let tokenizer = tokenizer.as_ref();
    let job =
        Job { sources: &sources, records: &records, plan: &plan, options: &options, tokenizer };
    let notes = write(&job, out, group)?;
    group.from_rank_0(|| {
        let outcome = Outcome { job: &job, notes: &notes };
        let summary = outcome.write(out)?;
        clean(out)?;
        say(&summary);
        Ok(Vec::new())
    })?;
    Ok(())
}

fn key(sources: &Sources, options: &Options) -> Result<String> {
    let options = serde_json::to_vec(options)
        .map_err(|e| Error::Internal(format!("options as JSON: {e}")))?;
    let mut hash = blake3::Hasher::new();
    sources.sign(hash.update(b"text").update(&options));
    Ok(hash.finalize().to_hex().to_string())
}

/// The notes of a piece: records, and signatures.
fn notes_of(piece: usize, out: &Path) -> [PathBuf; 2] {
    [format!("examined-{piece:06}.json"), format!("signatures-{piece:06}")]
        .map(|name| out.join(WORK).join(name))
}

/// Looks at every document, each rank at every n-th piece.
fn examine(
    sources: &Sources,
    options: &Options,
    out: &Path,
    group: &mut Group,
) -> Result<Vec<Record>> {
    in_turns(sources.pieces(), group, |piece| {
        let [about, signed] = notes_of(piece, out);
        let noted = read_note::<Vec<Record>>(&about);
        if noted.is_some_and(|records| read_signatures(&signed, records.len()).is_some()) {
            return Ok(());
        }
        let (mut records, mut signatures) = (Vec::new(), Vec::new());
        sources.documents(piece, |kind, place, bytes| {
            let (record, signature) = text::examine(kind, place, bytes, options);
            records.push(record);
            write_signature(&mut signatures, signature.as_ref());
        })?;
        let sum = blake3::hash(&signatures);
        signatures.extend_from_slice(sum.as_bytes());
        write_whole(&signed, &signatures)?;
        write_note(&about, &records)
    })?;
    let mut records = Vec::new();
    let mut outcome = Ok(());
    for piece in 0..sources.pieces() {
        let [about, _] = notes_of(piece, out);
        match read_note::<Vec<Record>>(&about) {
            Some(found) => records.extend(found),
            None => outcome = Err(lost(&about)),
        }
    }
    group.together(outcome)?;
    if records.len() >= u32::MAX as usize {
        return Err(Error::Data(
            "the sources have more documents than 32 bits can count".to_owned(),
        ));
    }
    Ok(records)
}

/// Bytes of a signature in its file: whether there is one, and its numbers.
const SIGNED: usize = 1 + 2 * LANES;

fn write_signature(out: &mut Vec<u8>, signature: Option<&Signature>) {
    out.push(u8::from(signature.is_some()));
    let numbers = signature.unwrap_or(&[0; LANES]);
    out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

/// The signatures of so many documents, if all are there.
fn read_signatures(path: &Path, count: usize) -> Option<Vec<u8>> {
    let mut bytes = std::fs::read(path).ok()?;
    let whole = bytes.len().checked_sub(32)?;
    let sound = blake3::hash(&bytes[..whole]).as_bytes() == &bytes[whole..];
    bytes.truncate(whole);
    (sound && whole == count * SIGNED).then_some(bytes)
}

/// The near-duplicates, piece by piece.
fn near(
    sources: &Sources,
    records: &[Record],
    removed: &[(u32, plan::Removed)],
    options: &Options,
    out: &Path,
) -> Result<Vec<[u32; 3]>> {
    if options.alike == 0.0 {
        return Ok(Vec::new());
    }
    let mut near = Near::new(records.len(), removed, options);
    for piece in 0..sources.pieces() {
        let [about, signed] = notes_of(piece, out);
        let count = read_note::<Vec<Record>>(&about).ok_or_else(|| lost(&about))?.len();
        let bytes = read_signatures(&signed, count).ok_or_else(|| lost(&signed))?;
        for bytes in bytes.chunks_exact(SIGNED) {
            let mut signature = [0; LANES];
            for (number, pair) in signature.iter_mut().zip(bytes[1..].chunks_exact(2)) {
                *number = u16::from_le_bytes([pair[0], pair[1]]);
            }
            near.see((bytes[0] == 1).then_some(&signature));
        }
    }
    Ok(near.found())
}

/// Writes every file that is not there whole: those of the training part, whose characters are the vocabulary,
/// then all others.
fn write(job: &Job, out: &Path, group: &mut Group) -> Result<Vec<Note>> {
    let files = plan::files(job.plan, job.records, job.options);
    let training = files.iter().filter(|(part, ..)| *part == 0).count();
    let note = |i: usize| out.join(WORK).join(format!("file-{i:06}.json"));
    let one = |i: usize, vocabulary: Option<&Vocabulary>| {
        let (part, number, range) = &files[i];
        let name = shard::name(*part, *number, job.options.tokens);
        let path = out.join(&name);
        let noted = read_note::<Note>(&note(i)).map(|note| note.written);
        if noted.is_some_and(|noted| noted.file == name && is_whole(&path, &noted.blake3)) {
            return Ok(());
        }
        let documents = &job.plan.parts[*part][range.clone()];
        let (bytes, written) = job.make(name, documents, vocabulary)?;
        write_whole(&path, &bytes)?;
        write_note(&note(i), &written)
    };
    let read = |range: std::ops::Range<usize>| -> Result<Vec<Note>> {
        range.map(|i| read_note(&note(i)).ok_or_else(|| lost(&note(i)))).collect()
    };
    in_turns(training, group, |i| one(i, None))?;
    let mut notes = group.together(read(0..training))?;
    let vocabulary = Vocabulary::of(&notes);
    group.together(job.classes(&vocabulary))?;
    let known = (job.options.tokens == Tokens::Characters).then_some(&vocabulary);
    in_turns(files.len() - training, group, |i| one(training + i, known))?;
    notes.extend(group.together(read(training..files.len()))?);
    Ok(notes)
}

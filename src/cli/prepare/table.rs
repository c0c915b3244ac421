//! `annulus prepare` for tables: two passes over the files, a decision over all rows, statistics, samples.

use super::work::{self, WORK, clean, in_rounds, is_whole, lost, read_note, write_note};
use crate::collective::Group;
use crate::config::Prepare;
use crate::data::prepare::plan::PARTS;
use crate::data::prepare::shard::{self, Written};
use crate::data::prepare::table::encode::{self, Encoder};
use crate::data::prepare::table::fit::{self, Column};
use crate::data::prepare::table::layout::{self, Found, Layout};
use crate::data::prepare::table::parts::Parts;
use crate::data::prepare::table::rows::{self, Rows};
use crate::data::prepare::table::source::{Sources, Span};
use crate::data::prepare::table::{self, Survey, chunk};
use crate::error::Result;
use crate::report::console::say;
use crate::report::prepared_table::TableOutcome;
use crate::train;
use crate::util::files::{sync, write_unsynced};
use std::path::{Path, PathBuf};

/// Prepares CSV files.
///
/// # Errors
/// The same on all ranks: when sources, wishes or output folder are not what they should be.
pub fn make(wishes: &Prepare, out: &Path, group: &mut Group) -> Result<()> {
    let threads = train::use_threads(None, group);
    group.together(threads)?;
    let sources = group.together(table::open(wishes))?;
    let key = group.together(key(&sources, wishes))?;
    if work::is_done(out, &key, group)? {
        return Ok(());
    }
    let survey = survey(&sources, wishes, out, group)?;
    let layout = group.together(Layout::of(&sources, wishes, &survey.found))?;
    let files = examine(&sources, &survey.spans, &layout, out, group)?;
    let rows = group.together(Rows::read(&layout, &survey.spans, &files))?;
    let parts = group.together(Parts::of(&rows, wishes))?;
    let columns = fit(&layout, &rows, &parts, group)?;
    let encoder = group.together(Encoder::of(&layout, &rows, &columns))?;
    let job = Job { rows: &rows, parts: &parts, encoder: &encoder, out };
    let written = write(&job, wishes, group)?;
    group.from_rank_0(|| {
        let outcome = TableOutcome {
            sources: &sources,
            files: &survey.files,
            rows: &rows,
            parts: &parts,
            columns: &columns,
            written: &written,
            wishes,
        };
        let summary = outcome.write(out)?;
        clean(out)?;
        say(&summary);
        Ok(Vec::new())
    })?;
    Ok(())
}

/// What the sources and the wishes are: work of another key is not gone on with.
fn key(sources: &Sources, wishes: &Prepare) -> Result<String> {
    let mut hash = work::hash_of(wishes)?;
    sources.sign(&mut hash)?;
    Ok(hash.finalize().to_hex().to_string())
}

/// The first pass: where rows begin, and what the columns hold of which nothing was said.
fn survey(sources: &Sources, wishes: &Prepare, out: &Path, group: &mut Group) -> Result<Survey> {
    let note = out.join(WORK).join("survey.json");
    let noted = group.from_rank_0(|| Ok(std::fs::read(&note).unwrap_or_default()))?;
    if let Ok(survey) = serde_json::from_slice(&noted) {
        return Ok(survey);
    }
    let blocks = sources.blocks();
    let scans = in_rounds(blocks.len(), group, |i| sources.scan(&blocks[i]))?;
    let spans = group.together(sources.spans(&blocks, &scans))?;
    let table = wishes.table.clone().unwrap_or_default();
    let unknown = layout::unknown(&sources.header, &table);
    let mut found = vec![Found::default(); unknown.len()];
    if !unknown.is_empty() {
        let of_spans =
            in_rounds(spans.len(), group, |i| table::survey(sources, &spans[i], &unknown))?;
        for of_span in of_spans {
            found.iter_mut().zip(&of_span).for_each(|(all, found)| all.add(found));
        }
    }
    let survey = Survey { spans, found, files: sources.facts(&blocks, &scans) };
    group.from_rank_0(|| write_note(&note, &survey).map(|()| Vec::new()))?;
    Ok(survey)
}

/// The second pass: looks at every row and writes its numbers down; spans that are written are not read again.
fn examine(
    sources: &Sources,
    spans: &[Span],
    layout: &Layout,
    out: &Path,
    group: &mut Group,
) -> Result<Vec<PathBuf>> {
    let file = |i: usize| out.join(WORK).join(format!("rows-{i:06}.bin"));
    in_rounds(spans.len(), group, |i| {
        if std::fs::read(file(i)).is_ok_and(|bytes| rows::is_whole(&bytes)) {
            return Ok(());
        }
        write_unsynced(&file(i), &chunk::examine(sources, &spans[i], layout)?)
    })?;
    if spans.is_empty() {
        return Err(group.common_failure(sources.wrong("has no rows below its header")));
    }
    Ok((0..spans.len()).map(file).collect())
}

/// What each column becomes, in the order of the header; ranks share the columns.
fn fit(layout: &Layout, rows: &Rows, parts: &Parts, group: &mut Group) -> Result<Vec<Column>> {
    let units = fit::units(layout, parts, group.size());
    let mut columns: Vec<Column> = Vec::new();
    for first in (0..units.len()).step_by(group.size()) {
        let mine = units.get(first + group.rank());
        let fitted =
            mine.map_or(Ok(Vec::new()), |unit| fit::fit(layout, rows, parts, unit.clone()));
        let fitted = group.together(fitted)?;
        columns.extend(work::all(&fitted, group)?.into_iter().flatten());
    }
    Ok(encode::in_order(layout, columns))
}

/// What the files are made from.
struct Job<'a> {
    rows: &'a Rows,
    parts: &'a Parts,
    encoder: &'a Encoder,
    out: &'a Path,
}

impl Job<'_> {
    /// Makes a file and notes it.
    fn make(&self, path: &Path, samples: &[u32]) -> Result<Written> {
        let (values, labels) = self.encoder.samples(self.rows, self.parts, samples)?;
        let shape = vec![samples.len(), self.encoder.width];
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (bytes, written) = shard::pack_numbers(file, shape, &values, &labels)?;
        write_unsynced(path, &bytes)?;
        Ok(written)
    }
}

/// Writes every file that is not there whole.
fn write(job: &Job, wishes: &Prepare, group: &mut Group) -> Result<Vec<Written>> {
    let mut shards = Vec::new();
    for (part, rows) in job.parts.rows.iter().enumerate() {
        shards.extend(rows.chunks(wishes.shard).enumerate().map(|(i, rows)| (part, i, rows)));
    }
    let note = |i: usize| job.out.join(WORK).join(format!("shard-{i:06}.json"));
    let path =
        |i: usize| job.out.join(format!("{}-{:05}.safetensors", PARTS[shards[i].0], shards[i].1));
    in_rounds(shards.len(), group, |i| {
        let (path, noted) = (path(i), read_note::<Written>(&note(i)));
        if noted.is_some_and(|noted| path.ends_with(&noted.file) && is_whole(&path, &noted.blake3))
        {
            return Ok(());
        }
        write_note(&note(i), &job.make(&path, shards[i].2)?)
    })?;
    let mine = (0..shards.len()).filter(|i| i % group.size() == group.rank());
    let synced = mine.map(path).try_for_each(|path| sync(&path)).and_then(|()| sync(job.out));
    group.together(synced)?;
    let written: Option<Vec<_>> = (0..shards.len()).map(|i| read_note(&note(i))).collect();
    group.together(written.ok_or_else(|| lost(&job.out.join(WORK))))
}

//! What `annulus prepare` leaves beside prepared text: manifest, list of all documents, report, card section.

use super::prepared::{LISTED, MANIFEST, STYLE, escaped, pretty};
use crate::data::prepare::plan::{PARTS, counts};
use crate::data::prepare::text::clean::REPAIRS;
use crate::data::prepare::text::minhash::{LANES, bands};
use crate::data::prepare::text::plan::Removed;
use crate::data::prepare::text::shard::{Job, Note, Vocabulary, Written};
use crate::data::prepare::text::words::RUN;
use crate::data::prepare::text::{Options, Tokens, sources::Reading, text};
use crate::error::{Error, Result};
use crate::util::files::write_whole;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;

/// Everything that was decided and written.
pub struct Outcome<'a> {
    /// Sources, what was found in them, and its fate.
    pub job: &'a Job<'a>,
    /// The files.
    pub notes: &'a [Note],
}

/// Shares of the documents for which their sizes are told.
const QUANTILES: [f64; 7] = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0];

/// Documents of which the report shows the beginning, and characters of it.
const SHOWN: [usize; 2] = [5, 300];

impl Outcome<'_> {
    /// Writes all files but the documents; gives a summary.
    ///
    /// # Errors
    /// [`Error::Internal`] if the documents do not add up; as [`write_whole`].
    pub fn write(&self, out: &Path) -> Result<String> {
        let names = self.names();
        let samples = self.samples(&names)?;
        let report = self.report(&names);
        write_whole(&out.join("samples.csv"), &samples)?;
        write_whole(&out.join("data.json"), &pretty(&self.card()?)?)?;
        write_whole(&out.join("report.json"), &pretty(&report)?)?;
        write_whole(&out.join("report.html"), self.html(&report)?.as_bytes())?;
        let files: Vec<&Written> = self.notes.iter().map(|note| &note.written).collect();
        let options = self.job.options;
        let manifest = json!({
            "annulus": "prepare",
            "version": 1,
            "options": options,
            "near_duplicates": near_duplicates(options),
            "sources": self.sources(),
            "items": report["items"],
            "parts": report["parts"],
            "repaired": report["repaired"],
            "samples_csv_blake3": blake3::hash(&samples).to_hex().as_str(),
            "statistics": report["statistics"],
            "files": files,
        });
        write_whole(&out.join(MANIFEST), &pretty(&manifest)?)?;
        let [train, val, test] = self.job.plan.parts.each_ref().map(Vec::len);
        Ok(format!(
            "{} documents: {} kept ({train} train, {val} val, {test} test), {} removed; see {}",
            names.len(),
            train + val + test,
            self.job.plan.removed.len(),
            out.join("report.html").display()
        ))
    }

    /// For each document its number in its file, from 1 on.
    fn names(&self) -> Vec<u32> {
        let mut last = (u32::MAX, 0);
        let records = self.job.records.iter();
        records
            .map(|record| {
                let file = record.place.file;
                last = (file, if last.0 == file { last.1 + 1 } else { 1 });
                last.1
            })
            .collect()
    }

    fn name(&self, names: &[u32], document: u32) -> String {
        let place = self.job.records[document as usize].place;
        self.job.sources.name(place, names[document as usize] as usize)
    }

    /// Name, bytes and documents of each file of the sources.
    fn sources(&self) -> Vec<Value> {
        let files = self.job.sources.files();
        let mut counts = vec![0; files.len()];
        self.job.records.iter().for_each(|record| counts[record.place.file as usize] += 1);
        let files = files.zip(counts);
        files
            .map(|((name, bytes), count)| json!({"file": name, "bytes": bytes, "documents": count}))
            .collect()
    }

    /// A line for each document, in the order of the sources; proof that none was lost or used twice.
    fn samples(&self, names: &[u32]) -> Result<Vec<u8>> {
        let failed = |e: csv::Error| Error::Internal(format!("samples.csv: {e}"));
        let (plan, records) = (self.job.plan, self.job.records);
        let mut fates: Vec<Option<std::result::Result<usize, Removed>>> = vec![None; records.len()];
        let mut twice = 0;
        let mut set =
            |i: u32, fate| twice += usize::from(fates[i as usize].replace(fate).is_some());
        plan.removed.iter().for_each(|&(i, why)| set(i, Err(why)));
        for (part, documents) in plan.parts.iter().enumerate() {
            documents.iter().for_each(|&i| set(i, Ok(part)));
        }
        let kept: usize = plan.parts.iter().map(Vec::len).sum();
        let written: usize = self.notes.iter().map(|note| note.written.documents).sum();
        let lost = fates.iter().filter(|fate| fate.is_none()).count();
        if lost + twice > 0 || written != kept {
            return Err(Error::Internal(format!(
                "{} documents, but {lost} lost, {twice} of two fates, {kept} kept, {written} written",
                records.len()
            )));
        }
        let mut csv = csv::Writer::from_writer(Vec::new());
        csv.write_record(["item", "blake3", "bytes", "part", "removed", "repaired"])
            .map_err(failed)?;
        for (i, (record, fate)) in records.iter().zip(fates).enumerate() {
            let hash = blake3::Hash::from_bytes(record.hash).to_hex();
            let (part, why) = match fate {
                Some(Err(why)) => ("", why.told(record, |of| self.name(names, of))),
                part => {
                    (part.and_then(|part| part.ok()).map_or("", |part| PARTS[part]), String::new())
                }
            };
            let hash = if record.refused.is_some() { "" } else { &hash };
            let (name, repairs) = (self.name(names, i as u32), repairs(record.repaired).join(", "));
            let bytes = record.size[0].to_string();
            csv.write_record([&name, hash, &bytes, part, &why, &repairs]).map_err(failed)?;
        }
        csv.into_inner().map_err(|e| Error::Internal(format!("samples.csv: {e}")))
    }

    fn report(&self, names: &[u32]) -> Value {
        let (plan, records) = (self.job.plan, self.job.records);
        let reasons = counts(plan.removed.iter().map(|(i, why)| why.kind(&records[*i as usize])));
        let removed = plan.removed.iter().map(|&(i, why)| {
            json!([self.name(names, i), why.told(&records[i as usize], |of| self.name(names, of))])
        });
        let mended = (0..records.len()).filter(|&i| records[i].repaired > 0);
        let mended: Vec<Value> = mended
            .map(|i| json!([self.name(names, i as u32), repairs(records[i].repaired)]))
            .collect();
        let count = |bit: usize| records.iter().filter(|r| r.repaired >> bit & 1 == 1).count();
        let repaired: serde_json::Map<String, Value> = REPAIRS
            .iter()
            .enumerate()
            .map(|(bit, name)| ((*name).to_owned(), json!(count(bit))))
            .filter(|(_, count)| *count != json!(0))
            .collect();
        let kept: usize = plan.parts.iter().map(Vec::len).sum();
        json!({
            "items": {
                "found": records.len(), "kept": kept, "removed": plan.removed.len(), "reasons": reasons,
            },
            "parts": (0..3).map(|part| self.part(part)).collect::<Vec<_>>(),
            "repaired": repaired,
            "statistics": self.statistics(),
            "removed": removed.collect::<Vec<_>>(),
            "repaired_documents": mended,
        })
    }

    /// Documents, bytes, characters, words and tokens of a part.
    fn part(&self, part: usize) -> Value {
        let begin = format!("{}-", PARTS[part]);
        let written = || {
            let all = self.notes.iter().map(|note| &note.written);
            all.filter(|written| written.file.starts_with(&begin))
        };
        let sum = |of: fn(&Written) -> u64| written().map(of).sum::<u64>();
        json!({
            "name": PARTS[part],
            "documents": written().map(|w| w.documents).sum::<usize>(),
            "bytes": sum(|w| w.bytes),
            "characters": sum(|w| w.characters),
            "words": sum(|w| w.words),
            "tokens": sum(|w| w.tokens),
            "characters_replaced": sum(|w| w.replaced),
        })
    }

    /// Of the training part alone.
    fn statistics(&self) -> Value {
        let train = &self.job.plan.parts[0];
        let quantiles = |of: usize| {
            let mut sizes: Vec<u32> =
                train.iter().map(|&i| self.job.records[i as usize].size[of]).collect();
            sizes.sort_unstable();
            let at = |share: f64| (share * sizes.len().saturating_sub(1) as f64).round() as usize;
            QUANTILES.map(|share| sizes.get(at(share)).copied().unwrap_or(0))
        };
        let vocabulary = Vocabulary::of(self.notes);
        let mut tokens = json!({"kind": self.job.options.tokens, "different": vocabulary.count()});
        if self.job.options.tokens == Tokens::Characters {
            tokens["vocabulary"] = json!(vocabulary.characters());
        }
        if let Some(tokenizer) = self.job.tokenizer {
            tokens["tokenizer_blake3"] = json!(tokenizer.blake3());
            tokens["vocabulary"] = json!(tokenizer.classes());
        }
        json!({
            "part": self.part(0),
            "tokens": tokens,
            "quantiles": QUANTILES,
            "bytes_of_a_document": quantiles(0),
            "characters_of_a_document": quantiles(1),
            "words_of_a_document": quantiles(2),
        })
    }

    /// The `data` section of a card that trains on the files.
    fn card(&self) -> Result<Value> {
        let files = |part: usize| -> Vec<&str> {
            let begin = format!("{}-", PARTS[part]);
            let all = self.notes.iter().map(|note| &*note.written.file);
            all.filter(|file| file.starts_with(&begin)).collect()
        };
        let options = self.job.options;
        let of_tokenizer = options.tokens == Tokens::Tokenizer;
        let format = if of_tokenizer { "tokens" } else { "text" };
        let mut card = json!({"format": format, "train": {"files": files(0)}});
        let test = if self.job.plan.parts[2].is_empty() { 1 } else { 2 };
        if !self.job.plan.parts[test].is_empty() {
            card["test"] = json!({"files": files(test)});
        }
        card["classes"] = json!(self.job.classes(&Vocabulary::of(self.notes))?);
        card["text"] = if of_tokenizer {
            json!({"context": options.context, "ids": "u16"})
        } else {
            json!({"context": options.context, "vocabulary": options.tokens})
        };
        Ok(card)
    }

    fn html(&self, report: &Value) -> Result<String> {
        let mut html = STYLE.to_owned();
        let items = &report["items"];
        // Writing to a string cannot fail.
        let _ = writeln!(
            html,
            "<h1>Prepared text</h1><p>{} documents found = {} kept + {} removed</p><h2>Parts</h2><table>\
             <tr><th>part<th>documents<th>bytes<th>characters<th>words<th>tokens</tr>",
            items["found"], items["kept"], items["removed"]
        );
        for part in report["parts"].as_array().into_iter().flatten() {
            let _ = write!(html, "<tr><td>{}", part["name"].as_str().unwrap_or_default());
            for count in ["documents", "bytes", "characters", "words", "tokens"] {
                let _ = write!(html, "<td>{}", part[count]);
            }
            html.push_str("</tr>\n");
        }
        html.push_str("</table>\n");
        table(&mut html, "Removed", &items["reasons"]);
        table(&mut html, "Repaired and kept", &report["repaired"]);
        list(&mut html, "Each removed document", &report["removed"]);
        list(&mut html, "Each repaired document", &report["repaired_documents"]);
        html.push_str("<h2>First training documents</h2>\n");
        let mut reading = Reading::of(self.job.sources);
        for &i in self.job.plan.parts[0].iter().take(SHOWN[0]) {
            let record = &self.job.records[i as usize];
            let text = text(&mut reading, record, self.job.options)?;
            let start: String = text.chars().take(SHOWN[1]).collect();
            let _ =
                writeln!(html, "<pre style=\"white-space:pre-wrap\">{}</pre><hr>", escaped(&start));
        }
        let statistics = serde_json::to_string_pretty(&report["statistics"]).unwrap_or_default();
        let statistics = escaped(&statistics);
        let _ = writeln!(html, "<h2>Statistics of the training part</h2><pre>{statistics}</pre>");
        Ok(html)
    }
}

/// How near-duplicates were looked for.
fn near_duplicates(options: &Options) -> Value {
    if options.alike == 0.0 {
        return Value::Null;
    }
    let [bands, rows] = bands(options.alike);
    json!({
        "method": "MinHash",
        "words_of_a_run": RUN,
        "permutations": LANES,
        "bands": bands,
        "rows": rows,
        "threshold": options.alike,
    })
}

/// The names of these repairs.
fn repairs(bits: u8) -> Vec<&'static str> {
    REPAIRS
        .iter()
        .enumerate()
        .filter(|(bit, _)| bits >> bit & 1 == 1)
        .map(|(_, name)| *name)
        .collect()
}

/// Names and counts.
fn table(html: &mut String, title: &str, counts: &Value) {
    let _ = writeln!(html, "<h2>{title}</h2><table>");
    for (name, count) in counts.as_object().into_iter().flatten() {
        let _ = writeln!(html, "<tr><td>{}<td>{count}</tr>", escaped(name));
    }
    html.push_str("</table>\n");
}

/// Names and what became of them.
fn list(html: &mut String, title: &str, items: &Value) {
    let items = items.as_array().map_or(&[][..], Vec::as_slice);
    let _ = writeln!(html, "<h2>{title}</h2><table>");
    for item in items.iter().take(LISTED) {
        let name = escaped(item[0].as_str().unwrap_or_default());
        let why = match &item[1] {
            Value::Array(names) => {
                names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
            }
            why => why.as_str().unwrap_or_default().to_owned(),
        };
        let _ = writeln!(html, "<tr><td>{name}<td>{}</tr>", escaped(&why));
    }
    html.push_str("</table>\n");
    if items.len() > LISTED {
        let _ = writeln!(html, "<p>The first {LISTED}; report.json lists all.</p>");
    }
}

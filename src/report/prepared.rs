//! What `annulus prepare` leaves beside the samples, whatever they were made from: manifest, report, card section.

use crate::config::Prepare;
use crate::data::prepare::plan::PARTS;
use crate::data::prepare::shard::Written;
use crate::data::prepare::{self};
use crate::error::{Error, Result};
use crate::util::files::write_whole;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// Written last: a folder with it is finished.
pub const MANIFEST: &str = "manifest.json";

/// Everything that was decided.
pub struct Prepared<'a> {
    /// The wishes.
    pub wishes: &'a Prepare,
    /// How many items were found.
    pub found: usize,
    /// How many of them are in no part.
    pub removed: usize,
    /// How many were removed for what.
    pub reasons: BTreeMap<String, u64>,
    /// Removed items, or the first of them, each with the reason.
    pub listed: Vec<(String, String)>,
    /// Names of the classes.
    pub classes: &'a [String],
    /// Of each class the samples of training, validation and test.
    pub counts: Vec<[u64; 3]>,
    /// Of the training part.
    pub statistics: Value,
    /// What else there is to report.
    pub more: Map<String, Value>,
    /// The files.
    pub written: &'a [Written],
    /// The constants of a card that reads the files, if it needs any.
    pub normalize: Option<Value>,
    /// Hash of the list of all items.
    pub list_hash: String,
}

impl Prepared<'_> {
    /// Writes all files but samples and list; gives a summary.
    ///
    /// # Errors
    /// [`Error::Internal`] if the items do not add up; as [`write_whole`].
    pub fn write(&self, out: &Path) -> Result<String> {
        let written: usize = self.written.iter().map(|w| w.samples).sum();
        let parts = [0, 1, 2].map(|part| self.counts.iter().map(|c| c[part]).sum::<u64>());
        let kept: u64 = parts.iter().sum();
        if kept as usize + self.removed != self.found || written as u64 != kept {
            return Err(Error::Internal(format!(
                "{} items, but {kept} kept, {written} written, {} removed",
                self.found, self.removed
            )));
        }
        let report = self.report(kept);
        write_whole(&out.join("data.json"), &pretty(&self.card())?)?;
        write_whole(&out.join("report.json"), &pretty(&report)?)?;
        write_whole(&out.join("report.html"), self.html(&report).as_bytes())?;
        let files: Vec<Value> = self.written.iter().map(|w| json!(w)).collect();
        let mut manifest = json!({
            "annulus": "prepare",
            "version": 1,
            "options": prepare::options(self.wishes),
            "items": report["items"],
            "classes": report["classes"],
            "class_weights": self.class_weights(parts[0]),
            "samples_csv_blake3": self.list_hash,
            "statistics": self.statistics,
        });
        if let Some(sources) = self.more.get("sources") {
            manifest["sources"] = sources.clone();
        }
        manifest["files"] = json!(files);
        write_whole(&out.join(MANIFEST), &pretty(&manifest)?)?;
        let [train, val, test] = parts;
        Ok(format!(
            "{} items: {kept} kept ({train} train, {val} val, {test} test), {} removed; see {}",
            self.found,
            self.removed,
            out.join("report.html").display()
        ))
    }

    /// The weight of each class with which all weigh the same in training: n / (classes · n of the class).
    fn class_weights(&self, train: u64) -> Vec<f64> {
        let of = |c: &[u64; 3]| train as f64 / (self.counts.len() as f64 * c[0].max(1) as f64);
        self.counts.iter().map(of).collect()
    }

    fn report(&self, kept: u64) -> Value {
        let classes: Vec<Value> = self
            .classes
            .iter()
            .zip(&self.counts)
            .map(|(name, [train, val, test])| {
                json!({"name": name, "train": train, "val": val, "test": test})
            })
            .collect();
        let items = json!({
            "found": self.found, "kept": kept, "removed": self.removed, "reasons": self.reasons,
        });
        let mut report = json!({
            "items": items,
            "classes": classes,
            "statistics": self.statistics,
            "removed": self.listed,
        });
        self.more.iter().for_each(|(name, value)| report[name] = value.clone());
        report
    }

    /// The `data` section of a card that trains on the files.
    fn card(&self) -> Value {
        let mut card = json!({"format": "safetensors"});
        for part in PARTS {
            let begin = format!("{part}-");
            let these = self.written.iter().filter(|w| w.file.starts_with(&begin));
            let files: Vec<&str> = these.map(|w| &*w.file).collect();
            if !files.is_empty() {
                card[part] = json!({"files": files});
            }
        }
        card["classes"] = json!(self.classes.len());
        if let Some(normalize) = &self.normalize {
            card["normalize"] = normalize.clone();
        }
        card
    }

    fn html(&self, report: &Value) -> String {
        let mut html = STYLE.to_owned();
        let items = &report["items"];
        // Writing to a string cannot fail.
        let _ = writeln!(
            html,
            "<h1>Prepared data</h1><p>{} items found = {} kept + {} removed</p><h2>Classes</h2><table>\
             <tr><th>class<th>train<th>val<th>test<th></tr>",
            items["found"], items["kept"], items["removed"]
        );
        let most = self.counts.iter().map(|c| c[0]).max().unwrap_or(1).max(1);
        for (name, [train, val, test]) in self.classes.iter().zip(&self.counts) {
            let (name, width) = (escaped(name), train * 300 / most);
            let _ = writeln!(
                html,
                "<tr><td>{name}<td>{train}<td>{val}<td>{test}<td><i style=\"width:{width}px\"></i></tr>"
            );
        }
        html.push_str("</table><h2>Removed</h2><table>\n");
        for (reason, count) in &self.reasons {
            let _ = writeln!(html, "<tr><td>{}<td>{count}</tr>", escaped(reason));
        }
        html.push_str("</table><h2>Each removed item</h2><table>\n");
        for (name, why) in self.listed.iter().take(LISTED) {
            let _ = writeln!(html, "<tr><td>{}<td>{}</tr>", escaped(name), escaped(why));
        }
        html.push_str("</table>\n");
        if self.removed > LISTED {
            let _ = writeln!(html, "<p>The first {LISTED}; samples.csv lists all.</p>");
        }
        let statistics = serde_json::to_string_pretty(&report["statistics"]).unwrap_or_default();
        let statistics = escaped(&statistics);
        let _ = writeln!(html, "<h2>Statistics of the training part</h2><pre>{statistics}</pre>");
        html
    }
}

/// How a report begins.
pub(super) const STYLE: &str = "<!doctype html><meta charset=\"utf-8\"><title>annulus prepare</title>\
    <style>body{font:15px sans-serif;max-width:60em;margin:2em auto}table{border-collapse:collapse}\
    td,th{padding:2px 10px;text-align:left;border-bottom:1px solid #ddd}i{display:inline-block;\
    height:.8em;background:#47c}</style>\n";

/// Removed items that the page shows.
pub(super) const LISTED: usize = 1000;

pub(super) fn pretty(value: &Value) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|e| Error::Internal(format!("a report as JSON: {e}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

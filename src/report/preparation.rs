//! What `annulus prepare` leaves beside the samples: manifest, list of all items, report, card section.

use crate::data::prepare::plan::{PARTS, Plan, counts};
use crate::data::prepare::shard::Written;
use crate::data::prepare::table::Column;
use crate::data::prepare::{Material, Options, Record};
use crate::error::{Error, Result};
use crate::util::files::write_whole;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;

/// Written last: a folder with it is finished.
pub const MANIFEST: &str = "manifest.json";

/// Everything that was decided.
pub struct Outcome<'a> {
    /// The sources.
    pub material: &'a Material,
    /// What was found in them.
    pub records: &'a [Record],
    /// What became of it.
    pub plan: &'a Plan,
    /// Columns of a table.
    pub columns: &'a [Column],
    /// The files.
    pub written: &'a [Written],
    /// The wishes.
    pub options: &'a Options,
}

impl Outcome<'_> {
    /// Writes all files but the samples; gives a summary.
    ///
    /// # Errors
    /// [`Error::Internal`] if the items do not add up; as [`write_whole`].
    pub fn write(&self, out: &Path) -> Result<String> {
        let items = self.items();
        let (samples, ways) = self.samples(&items)?;
        let report = self.report(&ways);
        write_whole(&out.join("samples.csv"), &samples)?;
        write_whole(&out.join("data.json"), &pretty(&self.card())?)?;
        write_whole(&out.join("report.json"), &pretty(&report)?)?;
        write_whole(&out.join("report.html"), self.html(&report).as_bytes())?;
        let files: Vec<Value> = self.written.iter().map(|w| json!(w)).collect();
        let manifest = json!({
            "annulus": "prepare",
            "version": 1,
            "options": self.options,
            "items": report["items"],
            "classes": report["classes"],
            "samples_csv_blake3": blake3::hash(&samples).to_hex().as_str(),
            "statistics": self.statistics(),
            "files": files,
        });
        write_whole(&out.join(MANIFEST), &pretty(&manifest)?)?;
        let [train, val, test] = self.plan.parts.each_ref().map(Vec::len);
        Ok(format!(
            "{} items: {} kept ({train} train, {val} val, {test} test), {} removed; see {}",
            items.len(),
            train + val + test,
            self.plan.removed.len(),
            out.join("report.html").display()
        ))
    }

    /// For each item its part, or why it was removed.
    fn items(&self) -> Vec<[&str; 2]> {
        let mut items = vec![["", ""]; self.records.len()];
        for (part, samples) in self.plan.parts.iter().enumerate() {
            samples.iter().for_each(|&(item, _)| items[item][0] = PARTS[part]);
        }
        self.plan.removed.iter().for_each(|(item, why)| items[*item][1] = why);
        items
    }

    /// A line for each item, in the order of the sources; proof that none was lost or used twice.
    fn samples(&self, items: &[[&str; 2]]) -> Result<(Vec<u8>, [usize; 2])> {
        let failed = |e: csv::Error| Error::Internal(format!("samples.csv: {e}"));
        let mut csv = csv::Writer::from_writer(Vec::new());
        csv.write_record(["item", "blake3", "class", "part", "removed"]).map_err(failed)?;
        for (i, [part, why]) in items.iter().enumerate() {
            let record = &self.records[i];
            let cells = [&self.material.name(i), &record.hash, &record.class, *part, *why];
            csv.write_record(cells).map_err(failed)?;
        }
        let bytes = csv.into_inner().map_err(|e| Error::Internal(format!("samples.csv: {e}")))?;
        let kept: usize = self.plan.parts.iter().map(Vec::len).sum();
        let written: usize = self.written.iter().map(|w| w.samples).sum();
        let removed = self.plan.removed.len();
        let both = items.iter().filter(|[part, why]| part.is_empty() == why.is_empty()).count();
        if kept + removed != items.len() || written != kept || both > 0 {
            return Err(Error::Internal(format!(
                "{} items, but {kept} kept, {written} written, {removed} removed, {both} of unclear \
                 fate",
                items.len()
            )));
        }
        Ok((bytes, [kept, removed]))
    }

    fn report(&self, &[kept, removed]: &[usize; 2]) -> Value {
        let mut classes = Vec::new();
        for (label, name) in self.plan.classes.iter().enumerate() {
            let [train, val, test] = self
                .plan
                .parts
                .each_ref()
                .map(|samples| samples.iter().filter(|&&(_, l)| l as usize == label).count());
            classes.push(json!({"name": name, "train": train, "val": val, "test": test}));
        }
        let reasons = counts(self.plan.removed.iter().map(|(_, why)| &**why));
        let list = |&(item, ref why): &(usize, String)| json!([self.material.name(item), why]);
        let names = |group: &Vec<usize>| -> Value {
            group.iter().map(|&item| self.material.name(item)).collect()
        };
        json!({
            "items": {"found": self.records.len(), "kept": kept, "removed": removed, "reasons": reasons},
            "classes": classes,
            "statistics": self.statistics(),
            "removed": self.plan.removed.iter().map(list).collect::<Vec<_>>(),
            "look_alike_and_kept_in_one_part": self.plan.alike.iter().map(names).collect::<Vec<_>>(),
        })
    }

    /// Of the training part alone. For pictures mean and standard deviation of each channel and of all,
    /// bytes as 0..1, from exact sums; for tables what the columns became.
    fn statistics(&self) -> Value {
        match self.material {
            Material::Table(_) => json!({"columns": self.columns}),
            Material::Pictures(pictures) => {
                let (n, sums) = self.sums(pictures.channels());
                let of: Vec<_> = sums.iter().map(|&sums| moments(n, sums)).collect();
                let all = sums.iter().fold([0; 2], |a, b| [a[0] + b[0], a[1] + b[1]]);
                let (mean, std) = moments(n * sums.len() as u128, all);
                json!({
                    "shape": [sums.len(), self.plan.size[0], self.plan.size[1]],
                    "channels": {
                        "mean": of.iter().map(|m| m.0).collect::<Vec<_>>(),
                        "std": of.iter().map(|m| m.1).collect::<Vec<_>>(),
                    },
                    "all": {"mean": mean, "std": std},
                })
            }
        }
    }

    /// Pixels of a channel, and the exact sums of each channel, over the training part.
    fn sums(&self, channels: usize) -> (u128, Vec<[u128; 2]>) {
        let mut sums = vec![[0; 2]; channels];
        for written in self.written.iter().filter(|w| w.file.starts_with(PARTS[0])) {
            for (all, these) in sums.iter_mut().zip(&written.sums) {
                *all = [all[0] + u128::from(these[0]), all[1] + u128::from(these[1])];
            }
        }
        let [rows, columns] = self.plan.size;
        ((self.plan.parts[0].len() * rows * columns) as u128, sums)
    }

    /// The `data` section of a card that trains on the files.
    fn card(&self) -> Value {
        let files = |part: usize| -> Vec<&str> {
            let begin = format!("{}-", PARTS[part]);
            let these = self.written.iter().filter(|w| w.file.starts_with(&begin));
            these.map(|w| &*w.file).collect()
        };
        let mut card = json!({"format": "safetensors", "train": {"files": files(0)}});
        let test = if self.plan.parts[2].is_empty() { 1 } else { 2 };
        if !self.plan.parts[test].is_empty() {
            card["test"] = json!({"files": files(test)});
        }
        card["classes"] = json!(self.plan.classes.len());
        if let Material::Pictures(_) = self.material {
            card["normalize"] = self.statistics()["all"].clone();
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
        let classes = report["classes"].as_array().map_or(&[][..], Vec::as_slice);
        let most = classes.iter().filter_map(|c| c["train"].as_u64()).max().unwrap_or(1).max(1);
        for class in classes {
            let width = class["train"].as_u64().unwrap_or(0) * 300 / most;
            let _ = writeln!(
                html,
                "<tr><td>{}<td>{}<td>{}<td>{}<td><i style=\"width:{width}px\"></i></tr>",
                escaped(class["name"].as_str().unwrap_or_default()),
                class["train"],
                class["val"],
                class["test"]
            );
        }
        html.push_str("</table><h2>Removed</h2><table>\n");
        for (reason, count) in items["reasons"].as_object().into_iter().flatten() {
            let _ = writeln!(html, "<tr><td>{}<td>{count}</tr>", escaped(reason));
        }
        html.push_str("</table><h2>Each removed item</h2><table>\n");
        for (item, why) in self.plan.removed.iter().take(LISTED) {
            let name = escaped(&self.material.name(*item));
            let _ = writeln!(html, "<tr><td>{name}<td>{}</tr>", escaped(why));
        }
        html.push_str("</table>\n");
        if self.plan.removed.len() > LISTED {
            let _ = writeln!(html, "<p>The first {LISTED}; report.json lists all.</p>");
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

/// Mean and standard deviation of `n` bytes as 0..1, from their sum and the sum of their squares.
fn moments(n: u128, [sum, squares]: [u128; 2]) -> (f64, f64) {
    if n == 0 {
        return (0.0, 0.0);
    }
    let variance = (n * squares - sum * sum) as f64 / (n * n) as f64;
    (sum as f64 / n as f64 / 255.0, variance.sqrt() / 255.0)
}

pub(super) fn pretty(value: &Value) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|e| Error::Internal(format!("a report as JSON: {e}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

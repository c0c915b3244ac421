//! The report of pictures that were prepared.

use super::prepared::Prepared;
use crate::config::Prepare;
use crate::data::prepare::plan::{PARTS, Plan, counts};
use crate::data::prepare::shard::Written;
use crate::data::prepare::{Material, Record};
use crate::error::{Error, Result};
use crate::util::files::write_whole;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Everything that was decided.
pub struct Outcome<'a> {
    /// The sources.
    pub material: &'a Material,
    /// What was found in them.
    pub records: &'a [Record],
    /// What became of it.
    pub plan: &'a Plan,
    /// The files.
    pub written: &'a [Written],
    /// The wishes.
    pub options: &'a Prepare,
}

impl Outcome<'_> {
    /// Writes all files but the samples; gives a summary.
    ///
    /// # Errors
    /// [`Error::Internal`] if the items do not add up; as [`write_whole`].
    pub fn write(&self, out: &Path) -> Result<String> {
        let items = self.items();
        let list = self.samples(&items)?;
        write_whole(&out.join("samples.csv"), &list)?;
        let mut more = Map::new();
        let names = |group: &Vec<usize>| -> Value {
            group.iter().map(|&item| self.material.name(item)).collect()
        };
        let alike: Value = self.plan.alike.iter().map(names).collect();
        more.insert("look_alike_and_kept_in_one_part".to_owned(), alike);
        let reasons = counts(self.plan.removed.iter().map(|(_, why)| &**why));
        let statistics = self.statistics();
        let prepared = Prepared {
            wishes: self.options,
            found: self.records.len(),
            removed: self.plan.removed.len(),
            reasons: reasons.into_iter().map(|(reason, n)| (reason, n as u64)).collect(),
            listed: self
                .plan
                .removed
                .iter()
                .map(|(item, why)| (self.material.name(*item), why.clone()))
                .collect(),
            classes: &self.plan.classes,
            counts: self.counts(),
            normalize: Some(statistics["all"].clone()),
            statistics,
            more,
            written: self.written,
            list_hash: blake3::hash(&list).to_hex().to_string(),
        };
        prepared.write(out)
    }

    /// Of each class the samples of each part.
    fn counts(&self) -> Vec<[u64; 3]> {
        let mut counts = vec![[0; 3]; self.plan.classes.len()];
        for (part, samples) in self.plan.parts.iter().enumerate() {
            samples.iter().for_each(|&(_, label)| counts[label as usize][part] += 1);
        }
        counts
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
    fn samples(&self, items: &[[&str; 2]]) -> Result<Vec<u8>> {
        let failed = |e: csv::Error| Error::Internal(format!("samples.csv: {e}"));
        let mut csv = csv::Writer::from_writer(Vec::new());
        csv.write_record(["item", "blake3", "class", "part", "removed"]).map_err(failed)?;
        for (i, [part, why]) in items.iter().enumerate() {
            let record = &self.records[i];
            let cells = [&self.material.name(i), &record.hash, &record.class, *part, *why];
            csv.write_record(cells).map_err(failed)?;
        }
        let bytes = csv.into_inner().map_err(|e| Error::Internal(format!("samples.csv: {e}")))?;
        match items.iter().filter(|[part, why]| part.is_empty() == why.is_empty()).count() {
            0 => Ok(bytes),
            n => Err(Error::Internal(format!("{n} of {} items of unclear fate", items.len()))),
        }
    }

    /// Of the training part alone: mean and standard deviation of each channel and of all, bytes as 0..1, from
    /// exact sums.
    fn statistics(&self) -> Value {
        let Material::Pictures(pictures) = self.material;
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
}

/// Mean and standard deviation of `n` bytes as 0..1, from their sum and the sum of their squares.
fn moments(n: u128, [sum, squares]: [u128; 2]) -> (f64, f64) {
    if n == 0 {
        return (0.0, 0.0);
    }
    let variance = (n * squares - sum * sum) as f64 / (n * n) as f64;
    (sum as f64 / n as f64 / 255.0, variance.sqrt() / 255.0)
}

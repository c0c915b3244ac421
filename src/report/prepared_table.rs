//! The report of a table that was prepared.

use super::prepared::Prepared;
use crate::config::Prepare;
use crate::data::prepare::shard::Written;
use crate::data::prepare::table::fit::{Column, QUANTILES};
use crate::data::prepare::table::list;
use crate::data::prepare::table::parts::Parts;
use crate::data::prepare::table::rows::Rows;
use crate::data::prepare::table::source::Sources;
use crate::error::{Error, Result};
use crate::util::files::write_streamed;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::Path;

/// Removed rows that the report lists; `samples.csv` lists all.
const LISTED: usize = 10_000;

/// Everything that was decided over a table.
pub struct TableOutcome<'a> {
    /// The files.
    pub sources: &'a Sources,
    /// Of each its name, its length and the hash of the hashes of its blocks.
    pub files: &'a [(String, u64, String)],
    /// All rows.
    pub rows: &'a Rows,
    /// What became of them.
    pub parts: &'a Parts,
    /// What the columns became.
    pub columns: &'a [Column],
    /// The files of samples.
    pub written: &'a [Written],
    /// The wishes.
    pub wishes: &'a Prepare,
}

impl TableOutcome<'_> {
    /// Writes all files but the samples; gives a summary.
    ///
    /// # Errors
    /// [`Error::Internal`] if the rows do not add up; when a file cannot be written.
    pub fn write(&self, out: &Path) -> Result<String> {
        let (rows, parts) = (self.rows, self.parts);
        let list_hash = self.list(out)?;
        let why = |row: usize| list::why(self.sources, rows, parts, row);
        let removed = (0..rows.len()).filter(|&row| parts.part(row).is_none());
        let listed = removed
            .take(LISTED)
            .map(|row| (rows.name(self.sources, row), why(row).unwrap_or_default()));
        let mut more = Map::new();
        more.insert("repaired".to_owned(), json!(rows.repaired));
        more.insert("sources".to_owned(), self.sources());
        let prepared = Prepared {
            wishes: self.wishes,
            found: rows.len(),
            removed: rows.len() - parts.kept(),
            reasons: parts.reasons.clone(),
            listed: listed.collect(),
            classes: &parts.classes,
            counts: parts.counts.clone(),
            statistics: json!({"quantiles_at": QUANTILES, "columns": self.columns}),
            more,
            written: self.written,
            normalize: None,
            list_hash,
        };
        prepared.write(out)
    }

    /// Writes the list of all rows; gives its hash.
    fn list(&self, out: &Path) -> Result<String> {
        let mut hash = blake3::Hasher::new();
        let mut counts = [0; 2];
        write_streamed(&out.join("samples.csv"), |file| {
            let mut both = Both { file, hash: &mut hash };
            counts = list::write(self.sources, self.rows, self.parts, &mut both)?;
            Ok(())
        })?;
        let [kept, removed] = counts;
        if kept != self.parts.kept() || kept + removed != self.rows.len() {
            let all = self.rows.len();
            return Err(Error::Internal(format!("{all} rows, but {kept} kept, {removed} removed")));
        }
        Ok(hash.finalize().to_hex().to_string())
    }

    fn sources(&self) -> Value {
        let file = |(name, bytes, hash): &(String, u64, String)| json!({"file": name, "bytes": bytes, "blake3_of_blocks": hash});
        self.files.iter().map(file).collect()
    }
}

/// Writes to a file and hashes what it writes.
struct Both<'a> {
    file: &'a mut dyn Write,
    hash: &'a mut blake3::Hasher,
}

impl Write for Both<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hash.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

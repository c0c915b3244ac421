//! CSV files with a header: a column of labels, columns of numbers, times and categories. Larger than memory.
//!
//! A file is read three times, in pieces that ranks and threads share: to find where rows begin, to find out what
//! the columns hold, to look at each row and to write its numbers down. From then on about 60 bytes a row are in memory
//! while it is decided which rows stay, and in which part, and 8 more for each column that is being measured.
//!
//! | file | holds |
//! |---|---|
//! | [`borders`] | where rows begin, if only a block of a file is seen |
//! | [`source`] | the files, and the spans of them that are read one by one |
//! | [`cells`] | what the text of a cell says |
//! | [`layout`] | what the columns are: declared, or found out |
//! | [`chunk`] | the rows of a span, looked at and written down |
//! | [`rows`] | all rows, as far as a decision over them needs it |
//! | [`parts`] | what is kept, what is removed and why, which row is in which part |
//! | [`fit`] | statistics of the training part: what each column becomes |
//! | [`encode`] | a row as the numbers of a sample |
//! | [`list`] | the list of all rows |

pub mod borders;
pub mod cells;
pub mod chunk;
pub mod encode;
pub mod fit;
pub mod layout;
pub mod list;
pub mod parts;
pub mod rows;
pub mod source;

use crate::config::Prepare;
use crate::error::Result;
use layout::{Found, Layout};
use serde::{Deserialize, Serialize};
use source::{Sources, Span};

/// What the first pass over the files found.
#[derive(Debug, Serialize, Deserialize)]
pub struct Survey {
    /// The rows that begin in each block.
    pub spans: Vec<Span>,
    /// What each column holds of which nothing was said.
    pub found: Vec<Found>,
    /// Of each file its name, its length and the hash of the hashes of its blocks.
    pub files: Vec<(String, u64, String)>,
}

/// Opens the sources and refuses columns that are not there.
///
/// # Errors
/// As [`Sources::open`] and [`Layout::check`].
pub fn open(wishes: &Prepare) -> Result<Sources> {
    let sources = Sources::open(&wishes.sources)?;
    Layout::check(&sources, &wishes.table.clone().unwrap_or_default())?;
    Ok(sources)
}

/// What the columns hold of which nothing was said, in the rows of a span.
///
/// # Errors
/// As [`Sources::rows`].
pub fn survey(sources: &Sources, span: &Span, unknown: &[usize]) -> Result<Vec<Found>> {
    let mut found = vec![Found::default(); unknown.len()];
    sources.rows(span, |_, row| {
        layout::survey(row, unknown, &mut found);
        Ok(())
    })?;
    Ok(found)
}

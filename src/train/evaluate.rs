//! Evaluation, spread over all ranks: each test sample counts exactly once.

use super::replica::Replica;
use super::tally::Tally;
use crate::collective::Group;
use crate::collective::chunks::chunk;
use crate::data::{Batch, Dataset};
use crate::error::Result;
use crate::util::whereabouts::{Phase, enter};

/// Loss and accuracy over all of `data`; every rank gets the same exact sums.
///
/// # Errors
/// When an operation or another rank fails.
pub fn run(
    replica: &Replica,
    data: &dyn Dataset,
    batch_size: usize,
    group: &mut Group,
) -> Result<Tally> {
    enter(Phase::Evaluation);
    let mine = chunk(data.len(), group.size(), group.rank());
    let (mut tally, mut batch) = (Tally::default(), Batch::default());
    let mut at = mine.start;
    while at < mine.end {
        let end = mine.end.min(at + batch_size);
        batch.fill(data, at as u64..end as u64)?;
        tally += replica.evaluate(&batch)?;
        at = end;
    }
    tally.reduce(group)
}

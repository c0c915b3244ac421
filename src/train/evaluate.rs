//! Evaluation, spread over all ranks: each test sample counts exactly once.
//!
//! The samples are cut into batches first and the batches dealt to ranks, so that loss and accuracy
//! are the same bits at any number of ranks (if the parameters are).

use super::metrics::{Counts, Evaluation, Outputs, Wanted};
use super::replica::Replica;
use super::tally::Tally;
use crate::collective::Group;
use crate::collective::chunks::chunk;
use crate::data::{Batch, Dataset, Draw};
use crate::error::{Error, Result};
use crate::util::whereabouts::{Phase, enter};

/// More numbers are not kept for statistics over all samples: 1 GB.
const MOST_NUMBERS: usize = 1 << 28;

/// What `wanted` says over all of `data`; every rank gets the same numbers.
///
/// # Errors
/// When an operation or another rank fails.
pub fn run(
    replica: &Replica,
    data: &dyn Dataset,
    batch_size: usize,
    wanted: Wanted,
    group: &mut Group,
) -> Result<Evaluation> {
    enter(Phase::Evaluation);
    let numbers = data.len().saturating_mul(wanted.numbers_kept());
    if numbers > MOST_NUMBERS {
        return Err(group.common_failure(Error::Config(format!(
            "metrics.auc: {} test samples of {} classes are too many scores to keep; use fewer with \
             data.test_limit, or remove it",
            data.len(),
            data.classes()
        ))));
    }
    let mut tallies = vec![Tally::default(); data.len().div_ceil(batch_size)];
    let mine = chunk(tallies.len(), group.size(), group.rank());
    let mut batch = Batch::default();
    let first = if data.is_empty() { 0 } else { data.label(0)? };
    let mut counts = Counts::new(wanted, tallies.len(), first);
    for (i, tally) in tallies.iter_mut().enumerate().take(mine.end).skip(mine.start) {
        let start = i * batch_size;
        let end = data.len().min(start + batch_size);
        batch.fill(data, (start as u64..end as u64).map(Draw::of))?;
        let mut see = |outputs: &Outputs| counts.see(i, outputs, &batch.labels);
        let see: Option<&mut dyn FnMut(&Outputs)> =
            if wanted.looks_at_outputs() { Some(&mut see) } else { None };
        *tally = replica.evaluate(&batch, see)?;
    }
    Evaluation::of(Tally::reduce(&tallies, group)?, counts, group)
}

//! How many threads a rank computes with.

use crate::collective::Group;
use crate::error::{Error, Result};
use crate::nn;

/// Lets this rank compute with `wanted` threads, or with its share of the cores of its host; returns
/// how many. Candle would take all cores of the machine in every rank. Call it before the first
/// computation.
///
/// # Errors
/// When the threads cannot be started.
pub fn use_threads(wanted: Option<usize>, group: &Group) -> Result<usize> {
    let threads = wanted.unwrap_or(group.local_cores() / group.local_ranks()).max(1);
    nn::set_threads(threads);
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .map_err(|e| Error::Internal(format!("cannot start {threads} computing threads: {e}")))?;
    Ok(threads)
}

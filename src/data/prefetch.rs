//! A thread that prepares this rank's batches ahead of the training loop.
//!
//! ```text
//!   reading thread ──(ready: at most `ahead` batches, in order)──▶ training loop
//!                  ◀──(used: the same memory, to be filled again)──
//! ```
//!
//! An error or a panic of the thread ends the queue; the loop then gets it as an `Err`, after the
//! batches that were still good. In the steady state nothing is allocated.

use super::{Batch, Dataset, sampler, sampler::Sampler};
use crate::error::{Error, Result};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Which batches a [`Loader`] hands out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The order of the samples.
    pub sampler: Sampler,
    /// This rank, below `world`.
    pub rank: usize,
    /// Number of ranks.
    pub world: usize,
    /// Micro-batches in each step, at least 1.
    pub accumulate: usize,
    /// The steps of the run to hand out, counted from 0 at the beginning of the run: a run starts
    /// at 0, a resumed one at the first step that is not done.
    pub steps: Range<u64>,
    /// Micro-batches prepared ahead, at least 1 (`data.prefetch`).
    pub ahead: usize,
}

/// Hands out, in order, `accumulate` micro-batches (some may be empty) for each step of a [`Plan`].
pub struct Loader {
    /// `None` only while the loader is being dropped.
    ready: Option<Receiver<Batch>>,
    used: SyncSender<Batch>,
    thread: Option<JoinHandle<Result<()>>>,
    end: Option<Result<()>>,
    waited: Duration,
}

impl Loader {
    /// Starts the reading thread.
    ///
    /// # Errors
    /// [`Error::Internal`] if the plan does not fit the data set or the thread cannot start.
    pub fn start(dataset: Arc<dyn Dataset>, plan: Plan) -> Result<Loader> {
        let (n, samples) = (plan.sampler.n, dataset.len() as u64);
        if n != samples || plan.rank >= plan.world {
            return Err(Error::Internal(format!(
                "the loader's plan is for {n} samples and rank {} of {}; the data set has {samples}",
                plan.rank, plan.world
            )));
        }
        let ahead = plan.ahead.max(1);
        let (to_loop, ready) = sync_channel(ahead);
        // Room for every batch there is: `ahead` ready, two in hands, the rest on their way back.
        let (used, from_loop) = sync_channel(ahead + 2 + plan.accumulate);
        let thread = std::thread::Builder::new()
            .name("annulus-data".into())
            .spawn(move || produce(&*dataset, &plan, &to_loop, &from_loop))
            .map_err(|e| Error::Internal(format!("cannot start the reading thread: {e}")))?;
        let waited = Duration::ZERO;
        Ok(Loader { ready: Some(ready), used, thread: Some(thread), end: None, waited })
    }

    /// The next micro-batch; `None` after the last one of the plan.
    ///
    /// # Errors
    /// What went wrong in the reading thread; the same again on each later call.
    pub fn next_batch(&mut self) -> Result<Option<Batch>> {
        if let Some(end) = &self.end {
            return end.clone().map(|()| None);
        }
        let Some(ready) = &self.ready else { return Ok(None) };
        let batch = match ready.try_recv() {
            Ok(batch) => Some(batch),
            Err(TryRecvError::Disconnected) => None,
            Err(TryRecvError::Empty) => {
                let start = Instant::now();
                let batch = ready.recv().ok();
                self.waited += start.elapsed();
                batch
            }
        };
        if batch.is_none() {
            // The sender is gone, so the thread has ended or is about to: this cannot block.
            let end = self.thread.take().map_or(Ok(()), outcome);
            self.end = Some(end.clone());
            end?;
        }
        Ok(batch)
    }

    /// Gives the memory of a used batch back, to be filled again. Optional, and a batch from which
    /// a vector was taken is welcome too.
    pub fn recycle(&self, batch: Batch) {
        // Full or closed: then the memory is simply freed.
        let _ = self.used.try_send(batch);
    }

    /// How long the training loop has waited for batches so far.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Closing the queue makes the thread's next send fail, which ends it.
        self.ready = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How the thread ended, its panic as an error.
fn outcome(thread: JoinHandle<Result<()>>) -> Result<()> {
    thread.join().unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        let text = text.unwrap_or_else(|| "no message".into());
        Err(Error::Internal(format!("the reading thread panicked: {text}")))
    })
}

/// The reading thread: fills batch after batch until the plan or the training loop ends.
fn produce(
    dataset: &dyn Dataset,
    plan: &Plan,
    ready: &SyncSender<Batch>,
    used: &Receiver<Batch>,
) -> Result<()> {
    let sampler = plan.sampler;
    let mut order = sampler.order(sampler.locate(plan.steps.start).0);
    for step in plan.steps.clone() {
        let (epoch, step_in_epoch) = sampler.locate(step);
        if step_in_epoch == 0 {
            order = sampler.order(epoch);
        }
        let global = sampler.global_batch(step_in_epoch);
        let mine = sampler::part(&global, plan.rank, plan.world);
        for micro in 0..plan.accumulate.max(1) {
            let positions = sampler::part(&mine, micro, plan.accumulate);
            let mut batch = used.try_recv().unwrap_or_default();
            let place = || format!("epoch {epoch}, step {step}");
            batch.fill(dataset, positions.map(|p| order.at(p))).map_err(|e| e.context(place()))?;
            batch.global_weight = (global.end - global.start) as f64;
            (batch.epoch, batch.step, batch.micro) = (epoch, step, micro);
            if ready.send(batch).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

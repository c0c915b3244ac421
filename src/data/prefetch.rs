//! A thread that prepares this rank's batches ahead of the training loop.
//!
//! ```text
//!   reading thread ──(ready: at most `ahead` batches, in order)──▶ training loop
//!                  ◀──(used: the same memory, to be filled again)──
//! ```
//!
//! An error or a panic of the thread ends the queue; the loop then gets it as an `Err`, after the
//! batches that were still good. In the steady state nothing is allocated.

use super::augment::{Augment, Worker};
use super::handing::Handing;
use super::sampling::{Draws, Sampling};
use super::{Batch, Cut, Dataset, sampler::Sampler};
use crate::error::{Error, Result};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Which batches a [`Loader`] hands out.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The steps and their positions.
    pub sampler: Sampler,
    /// The sample at each position.
    pub sampling: Sampling,
    /// How the images are changed.
    pub augment: Arc<Augment>,
    /// This rank, below `world`.
    pub rank: usize,
    /// Number of ranks.
    pub world: usize,
    /// The micro-batches of each step.
    pub cut: Cut,
    /// The steps of the run to hand out, counted from 0 at the beginning of the run: a run starts
    /// at 0, a resumed one at the first step that is not done.
    pub steps: Range<u64>,
    /// Micro-batches prepared ahead, at least 1 (`data.prefetch`).
    pub ahead: usize,
}

impl Plan {
    /// Micro-batches of this rank in each step.
    #[must_use]
    pub fn micro_batches(&self) -> usize {
        self.cut.micro_batches(self.rank, self.world)
    }
}

/// Hands out, in order, the micro-batches (some may be empty) of each step of a [`Plan`].
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
        let (used, from_loop) = sync_channel(ahead + 2 + plan.micro_batches());
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
    let mut worker = Worker::new(&plan.augment);
    let mut handing = Handing::new(plan.ahead);
    let mut draws = plan.sampling.draws(&sampler, sampler.locate(plan.steps.start).0);
    for step in plan.steps.clone() {
        let (epoch, step_in_epoch) = sampler.locate(step);
        if step_in_epoch == 0 {
            draws = plan.sampling.draws(&sampler, epoch);
        }
        let global = sampler.global_batch(step_in_epoch);
        let weight = global_weight(dataset, global.clone(), &draws);
        for micro in 0..plan.micro_batches() {
            let positions = plan.cut.positions(&global, plan.rank, plan.world, micro);
            let mut batch = used.try_recv().unwrap_or_default();
            let place = || format!("epoch {epoch}, step {step}");
            batch.global_weight = weight;
            (batch.epoch, batch.step, batch.micro) = (epoch, step, micro);
            batch
                .fill(dataset, positions.map(|p| draws.at(p)))
                .and_then(|()| worker.change(&mut batch, dataset, &draws))
                .map_err(|e| e.context(place()))?;
            if !handing.over(ready, batch) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The labels that count in a whole global batch. A sum of whole numbers, the same in any order.
fn global_weight(dataset: &dyn Dataset, positions: Range<u64>, draws: &Draws) -> f64 {
    if dataset.labels_per_sample() == 1 {
        return (positions.end - positions.start) as f64;
    }
    positions.map(|p| dataset.weight(draws.at(p).sample as usize)).sum::<u64>() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sample i is the number i, its label i % 3; some indices fail or panic.
    struct Numbers {
        n: usize,
        fails_at: Option<usize>,
        panics_at: Option<usize>,
    }

    impl Dataset for Numbers {
        fn len(&self) -> usize {
            self.n
        }
        fn sample_shape(&self) -> &[usize] {
            &[2]
        }
        fn classes(&self) -> usize {
            3
        }
        fn read(&self, index: usize, out: &mut [f32]) -> Result<u32> {
            assert!(self.panics_at != Some(index), "no sample {index}");
            if self.fails_at == Some(index) {
                return Err(Error::Data(format!("sample {index} is unreadable")));
            }
            out.fill(index as f32);
            Ok((index % 3) as u32)
        }
        fn fingerprint(&self) -> String {
            String::new()
        }
    }

    /// Sample i has two labels, of which i % 3 count.
    struct Pairs;

    impl Dataset for Pairs {
        fn len(&self) -> usize {
            10
        }
        fn sample_shape(&self) -> &[usize] {
            &[1]
        }
        fn classes(&self) -> usize {
            3
        }
        fn labels_per_sample(&self) -> usize {
            2
        }
        fn weight(&self, index: usize) -> u64 {
            (index % 3) as u64
        }
        fn read(&self, index: usize, out: &mut [f32]) -> Result<u32> {
            out.fill(index as f32);
            Ok(0)
        }
        fn fingerprint(&self) -> String {
            String::new()
        }
    }

    #[test]
    fn a_global_batch_weighs_what_its_samples_weigh_on_every_rank() {
        for rank in 0..3 {
            let mut plan = plan(10, 4, rank, 3, 1);
            plan.steps = 0..3;
            let whole = plan.sampling.draws(&plan.sampler, 0);
            let mut loader = Loader::start(Arc::new(Pairs), plan).unwrap();
            for positions in [0..4, 4..8, 8..10] {
                let weights = positions.map(|p| whole.at(p).sample % 3).sum::<u64>();
                let batch = loader.next_batch().unwrap().unwrap();
                assert_eq!(batch.global_weight, weights as f64);
                assert_eq!(batch.labels.len(), 2 * batch.len());
            }
        }
    }

    fn numbers(n: usize) -> Numbers {
        Numbers { n, fails_at: None, panics_at: None }
    }

    fn plan(n: usize, batch: u64, rank: usize, world: usize, accumulate: usize) -> Plan {
        let sampler = Sampler::new(n as u64, batch, 7);
        let steps = 0..2 * sampler.steps_per_epoch();
        let (sampling, augment) = (Sampling::default(), Arc::default());
        let cut = Cut::Ranks(accumulate);
        Plan { sampler, sampling, augment, rank, world, cut, steps, ahead: 3 }
    }

    fn collect(dataset: Numbers, plan: Plan) -> Result<Vec<Batch>> {
        let mut loader = Loader::start(Arc::new(dataset), plan)?;
        let mut all = vec![];
        while let Some(batch) = loader.next_batch()? {
            all.push(batch.clone());
            loader.recycle(batch);
        }
        assert!(loader.next_batch()?.is_none());
        Ok(all)
    }

    #[test]
    fn every_rank_count_sees_the_same_steps_and_each_sample_once_an_epoch() {
        let samples = |world: usize, accumulate: usize| {
            let mut steps = vec![vec![]; 6];
            for rank in 0..world {
                let batches = collect(numbers(23), plan(23, 9, rank, world, accumulate)).unwrap();
                assert_eq!(batches.len(), 6 * accumulate);
                for (i, batch) in batches.iter().enumerate() {
                    assert_eq!(
                        (batch.step, batch.micro),
                        ((i / accumulate) as u64, i % accumulate)
                    );
                    assert_eq!(batch.epoch, batch.step / 3);
                    assert_eq!(batch.global_weight, [9.0, 9.0, 5.0][batch.step as usize % 3]);
                    assert_eq!(batch.images.len(), 2 * batch.len());
                    for (k, &sample) in batch.samples.iter().enumerate() {
                        assert_eq!(batch.images[2 * k..2 * k + 2], [sample as f32; 2]);
                        assert_eq!(batch.labels[k], sample as u32 % 3);
                    }
                    steps[batch.step as usize].extend(&batch.samples);
                }
            }
            steps
        };
        let one = samples(1, 1);
        let mut epoch: Vec<u64> = one[..3].concat();
        epoch.sort_unstable();
        assert_eq!(epoch, (0..23).collect::<Vec<_>>());
        assert_ne!(one[..3], one[3..]);
        // 16 ranks for 9 samples: some get none.
        for (world, accumulate) in [(2, 1), (3, 2), (16, 1), (5, 4)] {
            assert_eq!(samples(world, accumulate), one);
        }
    }

    #[test]
    fn a_run_that_starts_in_the_middle_continues_the_whole_one() {
        let whole = collect(numbers(23), plan(23, 9, 1, 2, 2)).unwrap();
        for start in 0..=6 {
            let mut plan = plan(23, 9, 1, 2, 2);
            plan.steps.start = start;
            assert_eq!(collect(numbers(23), plan).unwrap(), whole[start as usize * 2..]);
        }
    }

    #[test]
    fn an_error_of_the_reading_thread_reaches_the_loop_again_and_again() {
        let broken = Numbers { fails_at: Some(5), ..numbers(23) };
        let mut loader = Loader::start(Arc::new(broken), plan(23, 9, 0, 1, 1)).unwrap();
        let error = std::iter::repeat_with(|| loader.next_batch()).find_map(Result::err).unwrap();
        assert_eq!(error.exit_code(), 65);
        assert!(error.to_string().ends_with(": sample 5 is unreadable"), "{error}");
        assert!(loader.next_batch().is_err());
    }

    #[test]
    fn a_panic_of_the_reading_thread_becomes_an_error() {
        let broken = Numbers { panics_at: Some(5), ..numbers(23) };
        let error = collect(broken, plan(23, 9, 0, 1, 1)).unwrap_err();
        assert_eq!(error.exit_code(), 70);
        assert!(error.to_string().contains("panicked: no sample 5"), "{error}");
    }

    #[test]
    fn a_plan_for_another_data_set_is_refused() {
        assert!(Loader::start(Arc::new(numbers(22)), plan(23, 9, 0, 1, 1)).is_err());
        assert!(Loader::start(Arc::new(numbers(23)), plan(23, 9, 2, 2, 1)).is_err());
    }

    #[test]
    fn dropping_a_loader_in_the_middle_ends_its_thread() {
        let dataset = Arc::new(numbers(1000));
        let mut loader = Loader::start(dataset.clone(), plan(1000, 2, 0, 1, 1)).unwrap();
        assert!(loader.next_batch().unwrap().is_some());
        drop(loader);
        assert_eq!(Arc::strong_count(&dataset), 1);
    }

    #[test]
    fn recycled_batches_use_the_same_memory_again() {
        let mut plan = plan(64, 8, 0, 1, 1);
        (plan.steps, plan.ahead) = (0..400, 2);
        let mut loader = Loader::start(Arc::new(numbers(64)), plan).unwrap();
        let mut places = std::collections::BTreeSet::new();
        while let Some(batch) = loader.next_batch().unwrap() {
            places.insert(batch.images.as_ptr() as usize);
            loader.recycle(batch);
        }
        assert!(places.len() <= 5, "{} buffers for a queue of 2", places.len());
    }
}

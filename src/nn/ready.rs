//! Which buckets are final: how a backward pass tells whoever reduces its gradients.
//!
//! A parameter's gradient is final when it has been written as often as in the probe batch; a bucket
//! is final when all its gradients are. At the end of the pass everything is, written or not.

use super::grads::Course;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Watches the writes of a backward pass.
pub struct Ready {
    bucket_of: Vec<usize>,
    /// Writes of each parameter per pass; empty while unknown.
    writes: Vec<u32>,
    /// Whether anybody listens: else a write costs one load.
    watched: AtomicBool,
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Default)]
struct Progress {
    seen: Vec<u32>,
    /// Parameters of each bucket that are not final.
    open: Vec<usize>,
    /// The order of the last writes, while a probe batch is watched.
    last_writes: Option<Vec<usize>>,
    over: bool,
    abandoned: bool,
    late: Option<usize>,
}

impl Ready {
    pub(super) fn new(bucket_of: Vec<usize>, buckets: usize, writes: Vec<u32>) -> Ready {
        let progress = Progress { open: vec![0; buckets], ..Progress::default() };
        Ready {
            bucket_of,
            writes,
            watched: AtomicBool::new(false),
            progress: Mutex::new(progress),
            changed: Condvar::new(),
        }
    }

    /// Whether it is known how often each parameter is written, so that buckets can be final early.
    #[must_use]
    pub fn knows_the_course(&self) -> bool {
        !self.writes.is_empty()
    }

    /// How often parameter `i` is written in a pass, if that is known.
    pub(super) fn writes_of(&self, i: usize) -> Option<u32> {
        self.writes.get(i).copied()
    }

    /// Begins to watch a pass in order to learn its course.
    pub fn learn(&self) {
        let mut progress = self.lock();
        progress.seen = vec![0; self.bucket_of.len()];
        progress.last_writes = Some(Vec::new());
        self.watched.store(true, Relaxed);
    }

    /// What was learned; `None` when some parameter was never written.
    pub fn learned(&self) -> Option<Course> {
        self.watched.store(false, Relaxed);
        let mut progress = self.lock();
        let order = progress.last_writes.take()?;
        let writes = std::mem::take(&mut progress.seen);
        (order.len() == writes.len()).then_some(Course { order, writes })
    }

    /// Begins to watch the last backward pass of a step; buckets are not final from here on.
    pub fn begin(&self) {
        let mut progress = self.lock();
        let buckets = progress.open.len();
        *progress = Progress::default();
        progress.seen = vec![0; self.bucket_of.len()];
        progress.open = vec![0; buckets];
        for &bucket in &self.bucket_of {
            progress.open[bucket] += 1;
        }
        self.watched.store(self.knows_the_course(), Relaxed);
    }

    pub(super) fn wrote(&self, i: usize) {
        if !self.watched.load(Relaxed) {
            return;
        }
        let mut progress = self.lock();
        progress.seen[i] += 1;
        if let Some(order) = &mut progress.last_writes {
            order.retain(|&earlier| earlier != i);
            order.push(i);
            return;
        }
        if progress.seen[i] > self.writes[i] {
            progress.late = Some(i);
        }
        if progress.seen[i] == self.writes[i] {
            let bucket = self.bucket_of[i];
            progress.open[bucket] -= 1;
            if progress.open[bucket] == 0 {
                self.changed.notify_all();
            }
        }
    }

    /// Ends the pass: all buckets are final. With `abandoned` nobody shall use them.
    ///
    /// # Errors
    /// The parameter that was written after its bucket was final: what was reduced is wrong.
    pub fn end(&self, abandoned: bool) -> Result<(), usize> {
        self.watched.store(false, Relaxed);
        let mut progress = self.lock();
        (progress.over, progress.abandoned) = (true, abandoned);
        self.changed.notify_all();
        progress.late.map_or(Ok(()), Err)
    }

    /// Waits until bucket `k` is final; false when the pass was abandoned.
    #[must_use]
    pub fn wait_for(&self, k: usize) -> bool {
        let mut progress = self.lock();
        while progress.open[k] > 0 && !progress.over {
            progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
        !progress.abandoned
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parameters 0 and 1 in bucket 1, parameter 2 (written twice) in bucket 0.
    fn ready() -> Ready {
        Ready::new(vec![1, 1, 0], 2, vec![1, 1, 2])
    }

    #[test]
    fn a_bucket_is_final_when_each_of_its_gradients_was_written_as_often_as_in_the_probe() {
        let ready = ready();
        ready.begin();
        let open = |k: usize| ready.lock().open[k];
        ready.wrote(2);
        assert_eq!(open(0), 1);
        ready.wrote(2);
        assert_eq!((open(0), open(1)), (0, 2));
        assert!(ready.wait_for(0));
        ready.wrote(0);
        ready.wrote(1);
        assert!(ready.wait_for(1));
        assert_eq!(ready.end(false), Ok(()));
    }

    #[test]
    fn who_waits_goes_on_at_the_end_of_the_pass_and_learns_if_it_was_abandoned() {
        for abandoned in [false, true] {
            let ready = ready();
            ready.begin();
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| ready.wait_for(1));
                ready.end(abandoned).unwrap();
                assert_eq!(waiting.join().unwrap(), !abandoned);
            });
        }
    }

    #[test]
    fn a_gradient_that_is_written_once_more_than_in_the_probe_is_named() {
        let ready = ready();
        ready.begin();
        ready.wrote(0);
        ready.wrote(0);
        assert_eq!(ready.end(false), Err(0));
    }

    #[test]
    fn a_pass_is_learned_by_the_last_write_of_each_gradient() {
        let ready = Ready::new(vec![0, 0, 0], 1, Vec::new());
        ready.learn();
        for i in [2, 0, 2, 1] {
            ready.wrote(i);
        }
        let course = Course { order: vec![0, 2, 1], writes: vec![1, 1, 2] };
        assert_eq!(ready.learned(), Some(course));
        ready.learn();
        ready.wrote(1);
        assert_eq!(ready.learned(), None);
    }
}

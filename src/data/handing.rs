//! From the reading thread to the training loop: batches through a bounded queue.

use super::Batch;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant};

/// Hands batches over to the training loop.
///
/// A thread that is parked in a full queue has to be woken by the one that takes a batch out: on a virtual
/// machine 40 to 90 µs of the training loop's time, in each step. This one looks again after a while instead, and the
/// loop, which has the other batches of the queue by then, never pays.
pub(super) struct Handing {
    /// Without a second batch in the queue there is no time to look away.
    parks: bool,
    /// When the last batch was handed over.
    last: Instant,
    /// Mean time from one to the next.
    between: Duration,
}

/// Bounds of the time between two looks.
const PAUSES: [Duration; 2] = [Duration::from_micros(50), Duration::from_millis(5)];

impl Handing {
    /// For a queue of `ahead` batches.
    pub(super) fn new(ahead: usize) -> Handing {
        Handing { parks: ahead < 3, last: Instant::now(), between: Duration::ZERO }
    }

    /// Whether there was somebody to take the batch.
    pub(super) fn over(&mut self, ready: &SyncSender<Batch>, mut batch: Batch) -> bool {
        if self.parks {
            return ready.send(batch).is_ok();
        }
        loop {
            match ready.try_send(batch) {
                Ok(()) => break,
                Err(TrySendError::Disconnected(_)) => return false,
                Err(TrySendError::Full(back)) => batch = back,
            }
            std::thread::sleep(self.between.clamp(PAUSES[0], PAUSES[1]));
        }
        let since = self.last.elapsed();
        self.last += since;
        self.between = (7 * self.between + since) / 8;
        true
    }
}

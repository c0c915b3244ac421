//! The flight recorder: where this rank has been lately, kept in memory and read when something goes
//! wrong. An entry costs a lock that nobody else wants and a look at the clock: about 50 ns, some ten
//! times a step.

use super::whereabouts::{Phase, Place};
use rustix::time::{ClockId, clock_gettime};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::Duration;

/// Events that are kept.
pub const KEPT: usize = 64;

/// Something that this rank began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// When, by [`monotonic`].
    pub at: Duration,
    /// Where it then was.
    pub place: Place,
}

/// The last events, the oldest first from `next` on once it is full.
struct Ring {
    events: [Event; KEPT],
    written: usize,
}

static RING: Mutex<Ring> = Mutex::new(Ring { events: [NEVER; KEPT], written: 0 });
static PROGRESS: AtomicU64 = AtomicU64::new(0);

const NEVER: Event = Event {
    at: Duration::ZERO,
    place: Place { step: 0, phase: Phase::Startup, collective: 0, bucket: None },
};

/// Time since the machine started; equal in all processes of a host, never set back.
#[must_use]
pub fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    // The kernel gives no negative time here.
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Notes that this rank has come to `place`.
pub fn note(place: Place) {
    let at = monotonic();
    PROGRESS.store(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    RING.lock().unwrap_or_else(PoisonError::into_inner).push(Event { at, place });
}

/// When [`note`] was last called, by [`monotonic`]; zero before the first time.
#[must_use]
pub fn last_progress() -> Duration {
    Duration::from_nanos(PROGRESS.load(Relaxed))
}

/// The last events, the oldest first. Empty when the thread that fails holds the recorder itself.
#[must_use]
pub fn events() -> Vec<Event> {
    match RING.try_lock() {
        Ok(ring) => ring.in_order(),
        Err(TryLockError::Poisoned(ring)) => ring.into_inner().in_order(),
        Err(TryLockError::WouldBlock) => Vec::new(),
    }
}

impl Ring {
    fn push(&mut self, event: Event) {
        self.events[self.written % KEPT] = event;
        self.written += 1;
    }

    fn in_order(&self) -> Vec<Event> {
        let first = self.written.saturating_sub(KEPT);
        (first..self.written).map(|i| self.events[i % KEPT]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_events_are_kept_in_order() {
        let mut ring = Ring { events: [NEVER; KEPT], written: 0 };
        assert!(ring.in_order().is_empty());
        for step in 0..KEPT as u64 + 6 {
            let place = Place { step, ..NEVER.place };
            ring.push(Event { at: Duration::from_secs(step), place });
        }
        let steps: Vec<u64> = ring.in_order().iter().map(|event| event.place.step).collect();
        assert_eq!(steps, (6..KEPT as u64 + 6).collect::<Vec<_>>());
    }

    #[test]
    fn progress_is_the_time_of_the_last_note() {
        let before = monotonic();
        note(NEVER.place);
        assert!(last_progress() >= before && last_progress() <= monotonic());
        assert_eq!(events().last().map(|event| event.place.phase), Some(Phase::Startup));
    }
}

//! A message in segments, some of them on their way at once.

use super::raw::{self, Request, test};
use crate::error::Result;
use std::ops::Range;

/// Segments of one message that are on their way at once.
pub const IN_FLIGHT: usize = 2;

/// The segments of one message, of which at most [`IN_FLIGHT`] are on their way.
pub struct Window {
    len: usize,
    segment: usize,
    posted: usize,
    done: usize,
    pub requests: [Request; IN_FLIGHT],
}

impl Window {
    pub fn new(len: usize, segment: usize) -> Window {
        Window { len, segment, posted: 0, done: 0, requests: [raw::no_request(); IN_FLIGHT] }
    }

    pub fn is_done(&self) -> bool {
        self.done * self.segment >= self.len
    }

    fn range(&self, i: usize) -> Range<usize> {
        i * self.segment..self.len.min((i + 1) * self.segment)
    }

    /// Slot and bytes of the next segment that may start now.
    pub fn next_to_post(&mut self) -> Option<(usize, Range<usize>)> {
        let i = self.posted;
        if i * self.segment >= self.len || i - self.done == IN_FLIGHT {
            return None;
        }
        self.posted += 1;
        Some((i % IN_FLIGHT, self.range(i)))
    }

    /// Slot and bytes of the oldest segment if it has arrived; `check` sees (got, expected) bytes.
    pub fn oldest_done(
        &mut self,
        check: impl Fn((usize, usize)) -> Result<()>,
    ) -> Result<Option<(usize, Range<usize>)>> {
        if self.done == self.posted {
            return Ok(None);
        }
        let (slot, range) = (self.done % IN_FLIGHT, self.range(self.done));
        let Some(bytes) = test(&mut self.requests[slot])? else { return Ok(None) };
        check((bytes, range.len()))?;
        self.done += 1;
        Ok(Some((slot, range)))
    }
}

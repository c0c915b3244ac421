//! The memory that all-reduces are measured on.
//!
//! Ours work in place on memory that the ranks of a host share, because that is where gradients live.
//! MPI's own gets private memory on huge pages and two buffers, as its users call it: it may read the
//! one and write the other without a copy of ours in between.

use super::entrant::{Entrant, MPI};
use super::{limits, sums};
use crate::collective::{Group, Op};
use crate::error::Result;
use crate::util::aligned::FlatBuf;
use std::ops::Range;

/// MPI counts elements in 32-bit integers.
const MPI_ELEMENTS: usize = (1 << 31) - 1;

/// Buffers of one length.
pub struct Buffers {
    shared: FlatBuf,
    from: FlatBuf,
    into: FlatBuf,
}

impl Buffers {
    /// How many buffers of the length there are, for those who count memory: MPI takes another one.
    pub const COUNT: u64 = 4;

    /// Buffers of `len` numbers.
    ///
    /// # Errors
    /// When there is no memory, on all ranks alike.
    pub fn new(len: usize, group: &mut Group) -> Result<Buffers> {
        let shared = group.shared_buffer(len)?;
        let private = FlatBuf::zeroed(len).and_then(|from| Ok((from, FlatBuf::zeroed(len)?)));
        let (from, into) = group.together(private)?;
        Ok(Buffers { shared, from, into })
    }

    /// Sums the numbers in `range` over all ranks; `Ok(false)` where the entrant cannot.
    ///
    /// # Errors
    /// When a rank is late, or MPI fails.
    pub fn reduce(
        &mut self,
        entrant: Entrant,
        range: Range<usize>,
        group: &mut Group,
    ) -> Result<bool> {
        if entrant != MPI {
            return group.all_reduce_by(entrant.0, &mut self.shared[range], Op::Sum);
        }
        if range.len() > MPI_ELEMENTS {
            return Ok(false);
        }
        group.mpi_sum(&self.from[range.clone()], &mut self.into[range])
    }

    /// Sums numbers whose sum is known, piece by piece, and checks it; `Ok(false)` where the entrant
    /// cannot. The pieces follow each other from 0.
    ///
    /// # Errors
    /// On all ranks alike, when a sum is wrong anywhere.
    pub fn check(
        &mut self,
        entrant: Entrant,
        pieces: &[Range<usize>],
        what: &str,
        group: &mut Group,
    ) -> Result<bool> {
        let end = pieces.last().map_or(0, |piece| piece.end);
        let source = if entrant == MPI { &mut self.from } else { &mut self.shared };
        sums::fill(&mut source[..end], group.rank(), group.size());
        if entrant == MPI {
            // So that a call that does nothing is noticed.
            self.into[..end].fill(f32::NAN);
        }
        for piece in pieces {
            if !self.reduce(entrant, piece.clone(), group)? {
                return Ok(false);
            }
        }
        let summed = if entrant == MPI { &self.into } else { &self.shared };
        let what = format!("{what} by {}", entrant.name());
        let outcome = sums::check(&summed[..end], group.size(), &what);
        group.together(outcome)?;
        Ok(true)
    }

    /// Puts numbers that may be summed for ever into the first `len` places. All pages are then there:
    /// reading pages that were never written would read one page of zeros, from the cache.
    pub fn settle(&mut self, len: usize) {
        self.shared[..len].fill(sums::STEADY);
        self.from[..len].fill(1.0);
        self.into[..len].fill(1.0);
    }

    /// One pass `a[i] += b[i]` over private memory: reads `len` numbers twice and writes them once.
    pub fn pass(&mut self, len: usize) {
        limits::add(&mut self.into[..len], &self.from[..len]);
    }
}

//! The connection over MPI: the only file that names `mpi::`.
//!
//! The safe calls of the `mpi` crate drop MPI's return codes and block for ever when a rank stops, and
//! its request scopes cannot keep several segments of one buffer in flight. So this file speaks to
//! the C interface: every return code is checked, every wait is `MPI_Test` against a deadline, and a
//! waiting rank answers roll calls ([`super::waiting`]) so that the silent one can be named. The C
//! calls themselves are in [`raw`].
//!
//! One thread at a time talks to MPI (`MPI_THREAD_SERIALIZED`): whoever holds the [`MpiPeer`].

mod raw;
mod window;

use super::roll_call;
use super::waiting::{Line, Wait, Waiting, Word};
use super::{DEFAULT_SEGMENT, Patience, Peer, Reducible, right_length};
use crate::error::{Error, Result};
use mpi::environment::Universe;
use mpi::topology::Communicator;
use mpi::traits::AsRaw;
use raw::{Comm, Number, probe, receive, send, send_eagerly, start_all_reduce, take_now, test};
use std::time::Duration;
use window::{IN_FLIGHT, Window};

pub use raw::{abort, end_within, leave_now, library_version};

/// Fruitless tests before a waiting rank looks at the clock and gives way to others.
const SPINS: u32 = 512;
/// How long a rank that others have given up on waits for its end: launchers take up to 1 s.
const GIVEN_UP: Duration = Duration::from_secs(2);

const TAG_DATA: i32 = 1;
const TAG_CALL: i32 = 2;
const TAG_HERE: i32 = 3;

/// This process's connection to all ranks of `MPI_COMM_WORLD`.
pub struct MpiPeer {
    universe: Universe,
    data: Comm,
    control: Control,
    rank: usize,
    size: usize,
    waiting: Waiting,
    segment: usize,
    staging: Vec<u8>,
    scratch: Vec<u64>,
    shared_cores: bool,
    broken: bool,
}

/// A communicator for [`Word`]s alone.
struct Control(Comm);

/// Where arriving bytes go.
enum Landing<'a> {
    InPlace(&'a mut [u8]),
    Staged(usize, &'a mut dyn FnMut(usize, &[u8])),
}

impl MpiPeer {
    /// Starts MPI.
    ///
    /// # Errors
    /// When MPI is up already, grants no thread support, or refuses a communicator.
    pub fn init() -> Result<MpiPeer> {
        let (universe, granted) = mpi::initialize_with_threading(mpi::Threading::Serialized)
            .ok_or_else(|| {
                Error::Internal("MPI was initialised before in this process".to_owned())
            })?;
        if granted < mpi::Threading::Serialized {
            return Err(Error::Internal(
                "this MPI does not grant MPI_THREAD_SERIALIZED, which is needed to reduce \
                 gradients while the backward pass goes on"
                    .to_owned(),
            ));
        }
        let world = universe.world();
        let (rank, size) = (world.rank() as usize, world.size() as usize);
        let world = world.as_raw();
        raw::return_errors(world)?;
        let (data, control) = (raw::duplicate(world)?, raw::duplicate(world)?);
        Ok(MpiPeer {
            universe,
            data,
            control: Control(control),
            rank,
            size,
            waiting: Waiting::new(rank, size, GIVEN_UP),
            segment: DEFAULT_SEGMENT,
            staging: Vec::new(),
            scratch: Vec::new(),
            shared_cores: false,
            broken: false,
        })
    }

    /// Moves `out` and `landing` by segments, at most [`IN_FLIGHT`] of each on their way.
    fn fly(&mut self, to: usize, out: &[u8], from: usize, landing: Landing) -> Result<()> {
        if self.broken {
            return Err(Error::Internal("the connection failed before".to_owned()));
        }
        let mut staging = std::mem::take(&mut self.staging);
        staging.resize(IN_FLIGHT * self.segment, 0);
        let flown = self.fly_staged(to, out, from, landing, &mut staging);
        if flown.is_err() {
            // Receives may still be posted into these bytes: leave them to MPI for good.
            self.broken = true;
            std::mem::forget(staging);
        } else {
            self.staging = staging;
        }
        flown
    }

    fn fly_staged(
        &mut self,
        to: usize,
        out: &[u8],
        from: usize,
        mut landing: Landing,
        staging: &mut [u8],
    ) -> Result<()> {
        let mut sends = Window::new(out.len(), self.segment);
        let mut recvs = Window::new(landing.len(), self.segment);
        let mut wait = Wait::start();
        while !(sends.is_done() && recvs.is_done()) {
            while let Some((slot, range)) = recvs.next_to_post() {
                let target = match &mut landing {
                    Landing::InPlace(into) => &mut into[range],
                    Landing::Staged(..) => &mut staging[slot * self.segment..][..range.len()],
                };
                recvs.requests[slot] = receive(self.data, from, TAG_DATA, target)?;
            }
            while let Some((slot, range)) = sends.next_to_post() {
                sends.requests[slot] = send(self.data, to, TAG_DATA, &out[range])?;
            }
            let mut moved = sends.oldest_done(|_| Ok(()))?.is_some();
            let name = self.waiting.name(from);
            if let Some((slot, range)) = recvs.oldest_done(|n| right_length(n, name))? {
                if let Landing::Staged(_, take) = &mut landing {
                    take(range.start, &staging[slot * self.segment..][..range.len()]);
                }
                moved = true;
            }
            if moved {
                wait = Wait::start();
            } else {
                self.idle(&mut wait, if recvs.is_done() { to } else { from })?;
            }
        }
        Ok(())
    }

    /// One fruitless turn of a waiting loop: give way, answer roll calls, mind the deadline.
    fn idle(&mut self, wait: &mut Wait, whom: usize) -> Result<()> {
        wait.spins += 1;
        if !wait.spins.is_multiple_of(SPINS) && !self.shared_cores {
            std::hint::spin_loop();
            return Ok(());
        }
        std::thread::yield_now();
        if !wait.spins.is_multiple_of(SPINS) {
            return Ok(());
        }
        self.waiting.look(&mut self.control, wait, whom)
    }
}

impl Line for Control {
    fn say(&mut self, to: usize, word: Word) -> Result<()> {
        match word {
            Word::Where => send_eagerly(self.0, to, TAG_CALL, &[]),
            Word::Here(place) => send_eagerly(self.0, to, TAG_HERE, &roll_call::to_bytes(place)),
        }
    }

    fn hear(&mut self) -> Result<Option<(usize, Word)>> {
        let Some((from, tag)) = probe(self.0)? else { return Ok(None) };
        if tag == TAG_CALL {
            take_now(self.0, from, tag, &mut [])?;
            return Ok(Some((from, Word::Where)));
        }
        let mut bytes = [0; roll_call::BYTES];
        take_now(self.0, from, tag, &mut bytes)?;
        Ok(Some((from, Word::Here(roll_call::from_bytes(bytes)))))
    }
}

impl Peer for MpiPeer {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn name(&self, rank: usize) -> &str {
        self.waiting.name(rank)
    }

    fn exchange(&mut self, to: usize, out: &[u8], from: usize, into: &mut [u8]) -> Result<()> {
        self.fly(to, out, from, Landing::InPlace(into))
    }

    fn exchange_with(
        &mut self,
        to: usize,
        out: &[u8],
        from: usize,
        len: usize,
        take: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<()> {
        self.fly(to, out, from, Landing::Staged(len, take))
    }

    fn wait_for(&mut self, whom: usize, ready: &mut dyn FnMut() -> bool) -> Result<()> {
        let mut wait = Wait::start();
        while !ready() {
            self.idle(&mut wait, whom)?;
        }
        Ok(())
    }

    fn native_all_reduce(&mut self, data: Reducible<'_>, max: bool) -> Result<bool> {
        let (number, width, bytes): (_, _, &mut [u8]) = match data {
            Reducible::F32(x) => (Number::F32, 4, bytemuck::cast_slice_mut(x)),
            Reducible::F64(x) => (Number::F64, 8, bytemuck::cast_slice_mut(x)),
            Reducible::U64(x) => (Number::U64, 8, bytemuck::cast_slice_mut(x)),
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        // 2²⁸ elements a call: MPI counts in 32-bit integers.
        for piece in bytes.chunks_mut(width << 28) {
            scratch.resize(scratch.len().max(piece.len().div_ceil(8)), 0);
            let source: &mut [u8] = &mut bytemuck::cast_slice_mut(&mut scratch)[..piece.len()];
            source.copy_from_slice(piece);
            let mut request = start_all_reduce(self.data, source, piece, number, max)?;
            let mut wait = Wait::start();
            while test(&mut request)?.is_none() {
                let left = (self.rank + self.size - 1) % self.size;
                if let Err(late) = self.idle(&mut wait, left) {
                    self.broken = true;
                    std::mem::forget(scratch);
                    return Err(late);
                }
            }
        }
        self.scratch = scratch;
        Ok(true)
    }

    fn native_sum(&mut self, from: &[f32], into: &mut [f32]) -> Result<bool> {
        raw::all_reduce_blocking(self.data, from, into).map(|()| true)
    }

    fn configure(&mut self, deadline: Duration, segment: usize) {
        self.waiting.until(deadline);
        self.segment = segment;
    }

    fn be_patient(&mut self, patience: Option<Patience>) {
        self.waiting.be_patient(patience);
    }

    fn introduce(&mut self, names: Vec<String>, shared_cores: bool) {
        self.waiting.introduce(names);
        self.shared_cores = shared_cores;
    }

    fn announce(&mut self, collective: u64) {
        self.waiting.announce(collective);
    }

    fn finish(self: Box<Self>) {
        // Dropping the universe finalises MPI.
        drop(self.universe);
    }
}

impl Landing<'_> {
    fn len(&self) -> usize {
        match self {
            Landing::InPlace(into) => into.len(),
            Landing::Staged(len, _) => *len,
        }
    }
}

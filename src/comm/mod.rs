//! Bytes between ranks: who is there, and how a message gets across before its deadline.
//!
//! [`Peer`] is all that the collectives know of the world. It has two implementations: [`mpi`] for
//! real jobs, and [`threads`], its twin inside one process, so that every collective is tested at
//! any rank count without a launcher; [`Checked`] goes round either. [`launcher`] reads what `mpirun` or `srun` promised.

mod checked;
pub mod launcher;
mod mpi;
pub mod roll_call;
mod roster;
pub mod threads;
pub mod waiting;

pub use checked::{Checked, Damage, Tamper};
pub use mpi::library_version;
pub use roster::START_TIMEOUT;

use crate::error::{Error, Result};
use std::time::Duration;

/// How long a rank waits for another before it gives up, unless the card says otherwise.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(60);

/// Messages are cut into segments of this many bytes, unless the card says otherwise. Between two
/// ranks of one host 512 KiB–1 MiB with two in flight was fastest (64 KiB: a handshake each).
pub const DEFAULT_SEGMENT: usize = 512 << 10;

/// Asked when a wait has passed its deadline, and each second from then on, with the time waited so
/// far: whether to wait on.
pub type Patience = Box<dyn Fn(Duration) -> bool + Send>;

/// One rank's connection to all others.
///
/// Every call blocks until its bytes have moved, and every wait ends at the deadline with an error
/// that names the rank waited for. After an error the connection is of no more use: the job ends.
/// Lengths must agree on both sides; a message of another length is an error, never a short read.
pub trait Peer: Send {
    /// This rank, 0..size.
    fn rank(&self) -> usize;

    /// Number of ranks.
    fn size(&self) -> usize;

    /// How to call a rank in messages.
    fn name(&self, rank: usize) -> &str;

    /// Sends `out` to rank `to` while receiving `into.len()` bytes from rank `from`.
    ///
    /// # Errors
    /// [`Error::PeerLost`] at the deadline, or when the transport fails.
    fn exchange(&mut self, to: usize, out: &[u8], from: usize, into: &mut [u8]) -> Result<()>;

    /// Sends `out` to rank `to` while `len` bytes from rank `from` come in by segments: `take` gets
    /// each segment with its offset, in order, while later ones are still on their way.
    ///
    /// # Errors
    /// As [`Peer::exchange`].
    fn exchange_with(
        &mut self,
        to: usize,
        out: &[u8],
        from: usize,
        len: usize,
        take: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<()>;

    /// Sends `out` to rank `to`.
    ///
    /// # Errors
    /// As [`Peer::exchange`].
    fn send(&mut self, to: usize, out: &[u8]) -> Result<()> {
        self.exchange(to, out, to, &mut [])
    }

    /// Receives `into.len()` bytes from rank `from`.
    ///
    /// # Errors
    /// As [`Peer::exchange`].
    fn recv(&mut self, from: usize, into: &mut [u8]) -> Result<()> {
        self.exchange(from, &[], from, into)
    }

    /// Waits until `ready`, which something that rank `whom` does in shared memory makes true.
    ///
    /// # Errors
    /// As [`Peer::exchange`].
    fn wait_for(&mut self, whom: usize, ready: &mut dyn FnMut() -> bool) -> Result<()>;

    /// The transport's own all-reduce, for comparison. `Ok(false)` when it has none.
    ///
    /// # Errors
    /// As [`Peer::exchange`].
    fn native_all_reduce(&mut self, _data: Reducible<'_>, _max: bool) -> Result<bool> {
        Ok(false)
    }

    /// The transport's own all-reduce as its users call it, blocking, from one buffer into another:
    /// what ours is measured against. `Ok(false)` when it has none.
    ///
    /// # Errors
    /// When the transport fails. A missing rank is waited for without a deadline.
    fn native_sum(&mut self, _from: &[f32], _into: &mut [f32]) -> Result<bool> {
        Ok(false)
    }

    /// Sets how long a wait may last and into how many bytes messages are cut; equal on all ranks.
    fn configure(&mut self, deadline: Duration, segment: usize);

    /// Sets what decides whether to wait on after the deadline; without it no wait is longer.
    fn be_patient(&mut self, _patience: Option<Patience>) {}

    /// Tells how to call each rank in messages (`rank 1 (node16, pid 4242)`), and whether ranks
    /// share cores, so that a waiting rank should give way rather than spin.
    fn introduce(&mut self, names: Vec<String>, shared_cores: bool);

    /// Tells what the caller is doing, for messages of this and the other ranks.
    fn announce(&mut self, collective: u64);

    /// Leaves the job in good order. All ranks must call it.
    fn finish(self: Box<Self>);
}

/// An error that names the sender when a message of `got` bytes has come where `expected` were;
/// `usize::MAX` stands for too many to fit.
fn right_length((got, expected): (usize, usize), sender: &str) -> Result<()> {
    if got == expected {
        return Ok(());
    }
    let got = if got == usize::MAX { format!("more than {expected}") } else { got.to_string() };
    Err(Error::Internal(format!(
        "{sender} sent a message of {got} bytes where {expected} were expected: the ranks do not make the \
         same calls, or the MPI library lost bytes"
    )))
}

/// Numbers that a transport can reduce itself.
pub enum Reducible<'a> {
    /// 32-bit floats.
    F32(&'a mut [f32]),
    /// 64-bit floats.
    F64(&'a mut [f64]),
    /// 64-bit unsigned integers.
    U64(&'a mut [u64]),
}

/// Connects this process to the others of its job.
///
/// Without a launcher it is a job of one rank and MPI is not touched. With one, MPI must see as many
/// ranks as the launcher started: a binary built against one MPI and launched by another gives many
/// jobs of one rank each, which would train side by side and never meet.
///
/// MPI comes up only when all ranks have come. If that takes longer than [`START_TIMEOUT`] seconds (60
/// where the environment does not say), this process says who is missing and ends with 69.
///
/// # Errors
/// [`Error::Config`] when MPI and the launcher disagree, [`Error::Internal`] when MPI does not start.
pub fn connect() -> Result<Box<dyn Peer>> {
    let Some(launch) = launcher::from_env() else {
        return Ok(Box::new(threads::alone()));
    };
    let all_came = roster::expect_all(&launch);
    let peer = mpi::MpiPeer::init()?;
    drop(all_came);
    if launch.size == peer.size() {
        return Ok(Box::new(peer));
    }
    Err(Error::Config(format!(
        "{} started {} ranks, but MPI sees {}: the launcher and the MPI library of this binary do \
         not belong together. The binary is linked to {}. Launch it with that MPI's mpirun, or \
         build it again with MPICC set to the other's mpicc (docs/CLUSTER.md)",
        launch.name,
        launch.size,
        peer.size(),
        library_version(),
    )))
}

/// Ends the whole job at once with this exit code: the other ranks, too. Callable from any thread.
pub fn abort(code: u8) -> ! {
    mpi::abort(code)
}

/// Ends this process with `code` when so much time is over, whatever it then does. To be called before
/// anything on the way to [`abort`] that could hang.
pub fn end_within(limit: Duration, code: u8) {
    mpi::end_within(limit, code);
}

//! Collectives over [`Peer`]: what all ranks do together, in the same order.
//!
//! A [`Group`] numbers its collectives. Each begins with a 32-byte header that is compared with the
//! other ranks', so that ranks which disagree on what comes next learn it at once, by name, instead
//! of hanging or adding the wrong numbers.
//!
//! | file | holds |
//! |---|---|
//! | [`reduce`] | the all-reduce: which way for which size |
//! | [`ring`], [`doubling`], [`wire`] | ways over messages: for large data, small data, 16-bit floats |
//! | [`tree`], [`canonical`] | the sum whose bits do not depend on the number of ranks |
//! | [`node`], [`in_node`] | the ranks of a host in shared memory |
//! | [`calls`], [`together`] | broadcast, barrier, gather; errors that all ranks share |
//! | [`meeting`] | who is there, on which hosts, with which shared memory |

mod calls;
mod canonical;
mod canonical_in_node;
pub mod chunks;
mod circle;
mod doubling;
mod element;
mod header;
mod identity;
mod in_node;
mod latency;
mod meeting;
mod node;
mod reduce;
mod ring;
pub mod self_test;
mod together;
pub mod tree;
mod wire;

pub use crate::config::{Algorithm, Wire};
pub use canonical::Leaves;
pub use element::{Element, Op};

use crate::comm::{Checked, DEFAULT_DEADLINE, DEFAULT_SEGMENT, Patience, Peer, Tamper};
use crate::error::{Error, Result};
use crate::util::whereabouts;
use circle::Circle;
use header::{Header, Kind};
use node::Node;
use std::time::Duration;

/// All ranks of the job, as seen by one of them.
pub struct Group {
    peer: Checked,
    hosts: Vec<String>,
    local_cores: usize,
    /// All ranks, the ranks of a host side by side.
    everyone: Circle,
    /// The first rank of each host, where this is one of them.
    leaders: Option<Circle>,
    host_count: usize,
    /// The ranks of this host in shared memory; none where it has one rank only.
    node: Option<Node>,
    /// Whether all hosts have their ranks in shared memory, or why not.
    shared: std::result::Result<(), String>,
    tuning: Tuning,
    scratch: Vec<u16>,
    tree_scratch: Vec<f32>,
    collectives: u64,
    sent: u64,
    slip: Option<Slip>,
    failed_together: bool,
}

/// How the ranks talk; equal on all of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tuning {
    /// How long a rank waits for another before it gives up and names it.
    pub deadline: Duration,
    /// Messages are cut into segments of this many bytes.
    pub segment: usize,
    /// The way of an all-reduce.
    pub algorithm: Algorithm,
    /// What sums of `f32` look like between hosts.
    pub wire: Wire,
    /// Whether a CRC-32 follows each message.
    pub checksum: bool,
}

/// Ways to get a collective wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slip {
    /// One is left out: this rank is one ahead of the others.
    Skip,
    /// It is given one element more than on the other ranks.
    Length,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            deadline: DEFAULT_DEADLINE,
            segment: DEFAULT_SEGMENT,
            algorithm: Algorithm::Auto,
            wire: Wire::F32,
            checksum: false,
        }
    }
}

impl Group {
    /// This rank, 0..size.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.peer.rank()
    }

    /// Number of ranks.
    #[must_use]
    pub fn size(&self) -> usize {
        self.peer.size()
    }

    /// The host of each rank.
    #[must_use]
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// Number of ranks on this rank's host.
    #[must_use]
    pub fn local_ranks(&self) -> usize {
        let here = &self.hosts[self.rank()];
        self.hosts.iter().filter(|h| *h == here).count()
    }

    /// Processor cores that the ranks of this host may use together. Launchers bind each rank to a
    /// part of them, so one rank's own share does not tell.
    #[must_use]
    pub fn local_cores(&self) -> usize {
        self.local_cores
    }

    /// This rank's place among the ranks of its host, 0..local_ranks.
    #[must_use]
    pub fn local_rank(&self) -> usize {
        let here = &self.hosts[self.rank()];
        self.hosts[..self.rank()].iter().filter(|h| *h == here).count()
    }

    /// Bytes that this rank has sent in all-reduces.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.sent
    }

    /// Number of hosts.
    #[must_use]
    pub fn host_count(&self) -> usize {
        self.host_count
    }

    /// Whether the ranks of each host meet in shared memory.
    ///
    /// # Errors
    /// Why they do not.
    pub fn shared_memory(&self) -> std::result::Result<(), &str> {
        match &self.shared {
            Ok(()) => Ok(()),
            Err(why) => Err(why),
        }
    }

    /// Sets how the ranks talk. Equal on all ranks. A segment holds whole elements of every type: it
    /// is rounded up to 8 bytes.
    ///
    /// # Errors
    /// [`Error::Config`] when the algorithm does not work on these ranks.
    pub fn configure(&mut self, tuning: Tuning) -> Result<()> {
        let segment = tuning.segment.max(1).next_multiple_of(8);
        self.peer.configure(tuning.deadline, segment);
        self.peer.with_checksum(tuning.checksum);
        if let (Algorithm::Shared, Err(why)) = (tuning.algorithm, &self.shared) {
            let text =
                format!("comm.algorithm is \"shared\", but there is no shared memory: {why}");
            return Err(self.common_failure(Error::Config(text)));
        }
        self.tuning = Tuning { segment, ..tuning };
        Ok(())
    }

    /// Sets how long a rank waits for another from now on. Equal on all ranks.
    pub fn set_deadline(&mut self, deadline: Duration) {
        self.tuning.deadline = deadline;
        self.peer.configure(deadline, self.tuning.segment);
    }

    /// Sets what is asked when a wait passes the deadline.
    pub fn be_patient(&mut self, patience: Option<Patience>) {
        self.peer.be_patient(patience);
    }

    /// Lets this rank get its next collective wrong: a rehearsal of the bugs that hang other trainers.
    pub fn slip(&mut self, slip: Slip) {
        self.slip = Some(slip);
    }

    /// Lets `tamper` get at this rank's messages: a rehearsal.
    pub fn tamper(&mut self, tamper: Tamper) {
        self.peer.tamper(tamper);
    }

    /// Marks an error that every rank has come to alike, from reduced numbers: the job can end in good
    /// order instead of being torn down.
    #[must_use]
    pub fn common_failure(&mut self, error: Error) -> Error {
        self.failed_together = true;
        error
    }

    /// Whether the last error was the same on all ranks.
    #[must_use]
    pub fn failed_together(&self) -> bool {
        self.failed_together
    }

    /// Leaves the job in good order. All ranks must call it.
    pub fn finish(self) {
        Box::new(self.peer).finish();
    }

    /// The header of the collective that begins now.
    fn next_header(&mut self, kind: Kind, dtype: u8, op: u8, len: usize, root: u64) -> Header {
        let slip = self.slip.take();
        self.collectives += if slip == Some(Slip::Skip) { 2 } else { 1 };
        let len = if slip == Some(Slip::Length) { len + 1 } else { len };
        self.peer.announce(self.collectives);
        whereabouts::at_collective(self.collectives);
        Header::new(self.collectives, kind, dtype, op, len, root)
    }

    /// Compares the header with the other ranks': in shared memory on each host, and round a ring
    /// over the hosts, or over all ranks where there is no shared memory.
    fn begin(&mut self, header: &Header) -> Result<()> {
        if let Some(node) = &mut self.node {
            node.turn(&mut self.peer, header)?;
        }
        self.begin_across(header)
    }

    /// The part of [`Group::begin`] that is done with messages.
    fn begin_across(&mut self, header: &Header) -> Result<()> {
        let circle = match &self.shared {
            Ok(()) => self.leaders.as_ref(),
            Err(_) => Some(&self.everyone),
        };
        let Some(circle) = circle.filter(|circle| circle.size() > 1) else { return Ok(()) };
        let mut theirs = [0; Header::BYTES];
        self.peer.exchange(circle.right(), &header.to_bytes(), circle.left(), &mut theirs)?;
        Header::from_bytes(theirs).compare(header, circle.left(), self.peer.rank())
    }
}

//! Collectives over [`Peer`]: what all ranks do together, in the same order.
//!
//! A [`Group`] numbers its collectives. Each begins with a 32-byte header that goes once round the
//! ring, so that ranks which disagree on what comes next learn it at once, by name, instead of
//! hanging or adding the wrong numbers. [`ring`] holds the all-reduce itself.

pub mod chunks;
mod element;
mod header;
mod identity;
pub mod ring;
pub mod self_test;
mod together;

pub use element::{Element, Op};

use crate::comm::Peer;
use crate::error::{Error, Result};
use crate::util::whereabouts;
use header::{Header, Kind};
use identity::Identity;
use std::time::Duration;

/// All ranks of the job, as seen by one of them.
pub struct Group {
    peer: Box<dyn Peer>,
    hosts: Vec<String>,
    local_cores: usize,
    collectives: u64,
    native: bool,
    sent: u64,
    skip_next: bool,
    failed_together: bool,
}

impl Group {
    /// Meets the other ranks and learns their hosts. All ranks must call it first of all.
    ///
    /// # Errors
    /// When a rank does not come within the deadline.
    pub fn meet(peer: Box<dyn Peer>) -> Result<Group> {
        whereabouts::identify(peer.rank(), peer.size());
        let mut group = Group {
            peer,
            hosts: Vec::new(),
            local_cores: 1,
            collectives: 0,
            native: false,
            sent: 0,
            skip_next: false,
            failed_together: false,
        };
        let all = group.all_gather(&Identity::of_this_process().to_bytes())?;
        let all: Vec<Identity> = all.iter().map(|bytes| Identity::from_bytes(bytes)).collect();
        let name =
            |(rank, id): (usize, &Identity)| format!("rank {rank} ({}, pid {})", id.host, id.pid);
        let names = all.iter().enumerate().map(name).collect();
        group.hosts = all.iter().map(|id| id.host.clone()).collect();
        let here = &group.hosts[group.rank()];
        let mut cores: Vec<u32> =
            all.iter().filter(|id| id.host == *here).flat_map(|id| id.cores.clone()).collect();
        cores.sort_unstable();
        cores.dedup();
        group.local_cores = cores.len();
        let shared_cores = group.local_ranks() > group.local_cores;
        group.peer.introduce(names, shared_cores);
        Ok(group)
    }

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

    /// Sets deadline, segment size and whether MPI's own all-reduce is used instead of the ring.
    /// Equal on all ranks. A segment holds whole elements of every type: it is rounded up to 8 bytes.
    pub fn configure(&mut self, deadline: Duration, segment: usize, native: bool) {
        self.peer.configure(deadline, segment.max(1).next_multiple_of(8));
        self.native = native;
    }

    /// Reduces `data` element by element over all ranks, in place. Afterwards all ranks hold the
    /// same bits. Works for any length that is equal on all ranks.
    ///
    /// # Errors
    /// When a rank is late, dead, or in another collective.
    pub fn all_reduce<T: Element>(&mut self, data: &mut [T], op: Op) -> Result<()> {
        self.begin(Kind::AllReduce, T::TYPE, op as u8, data.len(), 0)?;
        if self.size() == 1 || data.is_empty() {
            return Ok(());
        }
        if self.native {
            let max = op == Op::Max;
            if self.peer.native_all_reduce(T::reducible(data), max)? {
                self.sent += size_of_val(data) as u64;
                return Ok(());
            }
        }
        self.sent += ring::all_reduce(&mut *self.peer, data, op)?;
        Ok(())
    }

    /// Gives every rank the bytes that `root` holds.
    ///
    /// # Errors
    /// As [`Group::all_reduce`].
    pub fn broadcast<T: bytemuck::Pod>(&mut self, data: &mut [T], root: usize) -> Result<()> {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(data);
        self.begin(Kind::Broadcast, 0, 0, bytes.len(), root)?;
        // A binomial tree (MPI_Bcast's usual shape): ⌈log₂ P⌉ rounds, ranks counted from the root.
        let (size, root) = (self.size(), root % self.size());
        let place = (self.rank() + size - root) % size;
        let rank_of = |place: usize| (place + root) % size;
        let mut reach = 1;
        while reach < size {
            if place < reach && place + reach < size {
                self.peer.send(rank_of(place + reach), bytes)?;
            } else if (reach..2 * reach).contains(&place) {
                self.peer.recv(rank_of(place - reach), bytes)?;
            }
            reach *= 2;
        }
        Ok(())
    }

    /// Returns when all ranks have come. Dissemination: ⌈log₂ P⌉ rounds of one byte.
    ///
    /// # Errors
    /// As [`Group::all_reduce`].
    pub fn barrier(&mut self) -> Result<()> {
        self.begin(Kind::Barrier, 0, 0, 0, 0)?;
        let (rank, size) = (self.rank(), self.size());
        let mut distance = 1;
        while distance < size {
            let (to, from) = ((rank + distance) % size, (rank + size - distance) % size);
            self.peer.exchange(to, &[1], from, &mut [0])?;
            distance *= 2;
        }
        Ok(())
    }

    /// Gives every rank the bytes of every rank, in rank order. For small things of any length.
    ///
    /// # Errors
    /// As [`Group::all_reduce`].
    pub fn all_gather(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.begin(Kind::AllGather, 0, 0, 0, 0)?;
        let (rank, size) = (self.rank(), self.size());
        let mut all = vec![Vec::new(); size];
        all[rank] = mine.to_vec();
        let (right, left) = ((rank + 1) % size, (rank + size - 1) % size);
        for step in 0..size - 1 {
            let (give, get) = ((rank + size - step) % size, (rank + 2 * size - step - 1) % size);
            let mut len = [0; 8];
            self.peer.exchange(right, &(all[give].len() as u64).to_le_bytes(), left, &mut len)?;
            let len = usize::try_from(u64::from_le_bytes(len)).unwrap_or(usize::MAX);
            if len > MAX_GATHER {
                return Err(Error::Internal(format!("all_gather is not for {len} bytes")));
            }
            let mut theirs = vec![0; len];
            self.peer.exchange(right, &all[give], left, &mut theirs)?;
            all[get] = theirs;
        }
        Ok(all)
    }

    /// True where every rank says yes.
    ///
    /// # Errors
    /// As [`Group::all_reduce`].
    pub fn agree(&mut self, yes: bool) -> Result<bool> {
        let mut nays = [u64::from(!yes)];
        self.all_reduce(&mut nays, Op::Sum)?;
        Ok(nays[0] == 0)
    }

    /// Lets this rank skip its next collective: a rehearsal of the bug that hangs other trainers.
    pub fn skip_next_collective(&mut self) {
        self.skip_next = true;
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
        self.peer.finish();
    }

    /// Numbers the collective and compares its header with the left neighbour's.
    fn begin(&mut self, kind: Kind, dtype: u8, op: u8, len: usize, root: usize) -> Result<()> {
        self.collectives += 1 + u64::from(std::mem::take(&mut self.skip_next));
        self.peer.announce(self.collectives);
        let (rank, size) = (self.rank(), self.size());
        if size == 1 {
            return Ok(());
        }
        let mine = Header::new(self.collectives, kind, dtype, op, len, root);
        let (right, left) = ((rank + 1) % size, (rank + size - 1) % size);
        let mut theirs = [0; Header::BYTES];
        self.peer.exchange(right, &mine.to_bytes(), left, &mut theirs)?;
        Header::from_bytes(theirs).compare(&mine, left, rank)
    }
}

/// `all_gather` is for names, hashes and messages; its cap keeps a wrong length from taking memory.
const MAX_GATHER: usize = 16 << 20;

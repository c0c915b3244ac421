//! Broadcast, barrier, gather: for a job's beginning and end, not for its steps.

use super::header::Kind;
use super::{Group, Op};
use crate::comm::Peer;
use crate::error::{Error, Result};

/// `all_gather` is for names, hashes and messages; its cap keeps a wrong length from taking memory.
const MAX_GATHER: usize = 16 << 20;

impl Group {
    /// Gives every rank the bytes that `root` holds.
    ///
    /// # Errors
    /// As [`Group::all_reduce`].
    pub fn broadcast<T: bytemuck::Pod>(&mut self, data: &mut [T], root: usize) -> Result<()> {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(data);
        let header = self.next_header(Kind::Broadcast, 0, 0, bytes.len(), root as u64);
        self.begin(&header)?;
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
        let header = self.next_header(Kind::Barrier, 0, 0, 0, 0);
        self.begin(&header)?;
        if self.host_count() == 1 && self.shared_memory().is_ok() {
            // All have come: the turn in shared memory was the barrier.
            return Ok(());
        }
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
        let header = self.next_header(Kind::AllGather, 0, 0, 0, 0);
        self.begin(&header)?;
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
}

//! The twin of MPI inside one process: ranks are threads, messages go through channels.
//!
//! For tests of everything that stands on [`Peer`], and for jobs of a single rank.

use super::{DEFAULT_DEADLINE, DEFAULT_SEGMENT, Peer};
use crate::error::{Error, Result};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// A rank that is a thread of this process.
pub struct ThreadPeer {
    rank: usize,
    deadline: Duration,
    segment: usize,
    names: Vec<String>,
    outbox: Vec<Sender<Vec<u8>>>,
    inbox: Vec<Receiver<Vec<u8>>>,
}

/// A job of one rank.
#[must_use]
pub fn alone() -> ThreadPeer {
    world(1).remove(0)
}

/// `size` ranks that can talk to each other, to be moved to one thread each.
#[must_use]
pub fn world(size: usize) -> Vec<ThreadPeer> {
    let mut peers: Vec<ThreadPeer> = (0..size).map(ThreadPeer::unconnected).collect();
    for from in 0..size {
        for to in 0..size {
            let (sender, receiver) = channel();
            peers[from].outbox.push(sender);
            peers[to].inbox.push(receiver);
        }
    }
    peers
}

impl ThreadPeer {
    fn unconnected(rank: usize) -> ThreadPeer {
        ThreadPeer {
            rank,
            deadline: DEFAULT_DEADLINE,
            segment: DEFAULT_SEGMENT,
            names: Vec::new(),
            outbox: Vec::new(),
            inbox: Vec::new(),
        }
    }

    fn name(&self, rank: usize) -> String {
        self.names.get(rank).cloned().unwrap_or_else(|| format!("rank {rank}"))
    }

    fn post(&self, to: usize, out: &[u8]) -> Result<()> {
        for segment in out.chunks(self.segment) {
            self.outbox[to]
                .send(segment.to_vec())
                .map_err(|_| Error::PeerLost(format!("{} has left", self.name(to))))?;
        }
        Ok(())
    }

    fn next(&self, from: usize, expected: usize) -> Result<Vec<u8>> {
        let got = self.inbox[from].recv_timeout(self.deadline).map_err(|e| match e {
            RecvTimeoutError::Timeout => Error::PeerLost(format!(
                "nothing from {} for {:.1} s",
                self.name(from),
                self.deadline.as_secs_f64()
            )),
            RecvTimeoutError::Disconnected => {
                Error::PeerLost(format!("{} has left", self.name(from)))
            }
        })?;
        if got.len() == expected {
            return Ok(got);
        }
        Err(Error::Internal(format!(
            "{} sent a message of {} bytes where {expected} were expected",
            self.name(from),
            got.len()
        )))
    }
}

impl Peer for ThreadPeer {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.outbox.len()
    }

    fn exchange(&mut self, to: usize, out: &[u8], from: usize, into: &mut [u8]) -> Result<()> {
        let len = into.len();
        self.exchange_with(to, out, from, len, &mut |at, segment| {
            into[at..at + segment.len()].copy_from_slice(segment);
        })
    }

    fn exchange_with(
        &mut self,
        to: usize,
        out: &[u8],
        from: usize,
        len: usize,
        take: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<()> {
        self.post(to, out)?;
        for at in (0..len).step_by(self.segment) {
            let segment = self.next(from, self.segment.min(len - at))?;
            take(at, &segment);
        }
        Ok(())
    }

    fn wait_for(&mut self, whom: usize, ready: &mut dyn FnMut() -> bool) -> Result<()> {
        let start = Instant::now();
        while !ready() {
            std::thread::yield_now();
            if start.elapsed() >= self.deadline {
                return Err(Error::PeerLost(format!(
                    "nothing from {} for {:.1} s",
                    self.name(whom),
                    self.deadline.as_secs_f64()
                )));
            }
        }
        Ok(())
    }

    fn configure(&mut self, deadline: Duration, segment: usize) {
        self.deadline = deadline;
        self.segment = segment;
    }

    fn introduce(&mut self, names: Vec<String>, _shared_cores: bool) {
        self.names = names;
    }

    fn announce(&mut self, _collective: u64) {}

    fn finish(self: Box<Self>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_another_length_is_an_error_and_silence_ends_at_the_deadline() {
        let mut peers = world(2);
        let mut b = peers.remove(1);
        let mut a = peers.remove(0);
        b.configure(Duration::from_millis(20), 1024);
        a.send(1, &[1, 2, 3]).unwrap();
        let mut four = [0; 4];
        assert!(b.recv(0, &mut four).unwrap_err().to_string().contains("3 bytes where 4"));
        let late = b.recv(0, &mut four).unwrap_err();
        assert_eq!(late.exit_code(), 69);
        assert!(late.to_string().contains("nothing from rank 0"), "{late}");
    }
}

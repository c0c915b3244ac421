//! The twin of MPI inside one process: ranks are threads, messages go through channels.
//!
//! For tests of everything that stands on [`Peer`], and for jobs of a single rank. A rank that waits does
//! what it does over MPI ([`super::waiting`]); here a rank can also be known to be gone.

use super::waiting::{Line, Wait, Waiting, Word};
use super::{DEFAULT_SEGMENT, Patience, Peer, right_length};
use crate::error::Result;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// A waiting rank looks about at least this often; whatever comes wakes it at once.
const TICK: Duration = Duration::from_millis(5);

/// A rank that is a thread of this process.
pub struct ThreadPeer {
    rank: usize,
    segment: usize,
    waiting: Waiting,
    mail: Mail,
}

/// What goes from one rank to another.
enum Letter {
    Data(Vec<u8>),
    Word(Word),
    /// The sender is gone: dead, or its part is done.
    Gone,
}

/// All letters of one rank, to and from the others.
struct Mail {
    rank: usize,
    outbox: Vec<Sender<(usize, Letter)>>,
    inbox: Receiver<(usize, Letter)>,
    /// Data that has come, by sender.
    data: Vec<VecDeque<Vec<u8>>>,
    words: VecDeque<(usize, Word)>,
    gone: Vec<bool>,
}

/// A job of one rank.
#[must_use]
pub fn alone() -> ThreadPeer {
    world(1).remove(0)
}

/// `size` ranks that can talk to each other, to be moved to one thread each.
#[must_use]
pub fn world(size: usize) -> Vec<ThreadPeer> {
    let (outbox, inboxes): (Vec<_>, Vec<_>) = (0..size).map(|_| channel()).unzip();
    let mail = |(rank, inbox)| Mail {
        rank,
        outbox: outbox.clone(),
        inbox,
        data: (0..size).map(|_| VecDeque::new()).collect(),
        words: VecDeque::new(),
        gone: vec![false; size],
    };
    let peer = |mail: Mail| ThreadPeer {
        rank: mail.rank,
        segment: DEFAULT_SEGMENT,
        waiting: Waiting::new(mail.rank, size, Duration::ZERO),
        mail,
    };
    inboxes.into_iter().enumerate().map(mail).map(peer).collect()
}

impl Mail {
    fn send(&self, to: usize, letter: Letter) {
        // A rank that is gone takes no letters, and has said so.
        let _ = self.outbox[to].send((self.rank, letter));
    }

    /// Sorts what has come.
    fn sort(&mut self) {
        while let Ok((from, letter)) = self.inbox.try_recv() {
            self.file(from, letter);
        }
    }

    fn file(&mut self, from: usize, letter: Letter) {
        match letter {
            Letter::Data(bytes) => self.data[from].push_back(bytes),
            Letter::Word(word) => self.words.push_back((from, word)),
            Letter::Gone => self.gone[from] = true,
        }
    }

    /// Sleeps until something comes, for one [`TICK`] at most.
    fn doze(&mut self) {
        if let Ok((from, letter)) = self.inbox.recv_timeout(TICK) {
            self.file(from, letter);
        }
    }
}

impl Drop for Mail {
    fn drop(&mut self) {
        for to in 0..self.outbox.len() {
            self.send(to, Letter::Gone);
        }
    }
}

impl Line for Mail {
    fn say(&mut self, to: usize, word: Word) -> Result<()> {
        self.send(to, Letter::Word(word));
        Ok(())
    }

    fn hear(&mut self) -> Result<Option<(usize, Word)>> {
        self.sort();
        Ok(self.words.pop_front())
    }

    fn is_gone(&self, rank: usize) -> bool {
        self.gone[rank]
    }
}

impl ThreadPeer {
    fn next(&mut self, from: usize, expected: usize) -> Result<Vec<u8>> {
        let mut wait = Wait::start();
        loop {
            if let Some(got) = self.mail.data[from].pop_front() {
                right_length((got.len(), expected), self.waiting.name(from))?;
                return Ok(got);
            }
            self.waiting.look(&mut self.mail, &mut wait, from)?;
            if self.mail.data[from].is_empty() && !self.mail.is_gone(from) {
                self.mail.doze();
            }
        }
    }
}

impl Peer for ThreadPeer {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.mail.outbox.len()
    }

    fn name(&self, rank: usize) -> &str {
        self.waiting.name(rank)
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
        for segment in out.chunks(self.segment) {
            self.mail.send(to, Letter::Data(segment.to_vec()));
        }
        for at in (0..len).step_by(self.segment) {
            let segment = self.next(from, self.segment.min(len - at))?;
            take(at, &segment);
        }
        Ok(())
    }

    fn wait_for(&mut self, whom: usize, ready: &mut dyn FnMut() -> bool) -> Result<()> {
        let mut wait = Wait::start();
        while !ready() {
            std::thread::yield_now();
            self.waiting.look(&mut self.mail, &mut wait, whom)?;
        }
        Ok(())
    }

    fn configure(&mut self, deadline: Duration, segment: usize) {
        self.waiting.until(deadline);
        self.segment = segment;
    }

    fn be_patient(&mut self, patience: Option<Patience>) {
        self.waiting.be_patient(patience);
    }

    fn introduce(&mut self, names: Vec<String>, _shared_cores: bool) {
        self.waiting.introduce(names);
    }

    fn announce(&mut self, collective: u64) {
        self.waiting.announce(collective);
    }

    fn finish(self: Box<Self>) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

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

    /// What each rank says when all but `culprit` pass bytes round a ring and that one does `instead`.
    fn without(
        culprit: usize,
        deadline: Duration,
        instead: impl Fn(ThreadPeer) + Sync,
    ) -> Vec<(String, Duration)> {
        let survivor = |mut peer: ThreadPeer| {
            let (rank, start) = (peer.rank(), Instant::now());
            peer.configure(deadline, 1024);
            peer.announce(7);
            let error =
                peer.exchange((rank + 1) % 4, &[1], (rank + 3) % 4, &mut [0]).and_then(|()| {
                    // The right neighbour of the culprit is not the only one to wait.
                    peer.exchange((rank + 3) % 4, &[1], (rank + 1) % 4, &mut [0])?;
                    peer.exchange((rank + 2) % 4, &[1], (rank + 2) % 4, &mut [0])
                });
            let text = error.unwrap_err().to_string();
            let took = start.elapsed();
            // As a process does: some time passes between the word and the end.
            std::thread::sleep(deadline.min(Duration::from_millis(200)));
            (text, took)
        };
        std::thread::scope(|scope| {
            let (survivor, instead) = (&survivor, &instead);
            let mut survivors = Vec::new();
            for peer in world(4) {
                if peer.rank() == culprit {
                    scope.spawn(move || instead(peer));
                } else {
                    survivors.push(scope.spawn(move || survivor(peer)));
                }
            }
            survivors.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    #[test]
    fn every_survivor_names_the_frozen_rank_and_no_other() {
        let deadline = Duration::from_millis(150);
        let freeze = |_peer: ThreadPeer| std::thread::sleep(Duration::from_secs(2));
        for (text, took) in without(2, deadline, freeze) {
            assert!(text.starts_with("nothing from rank 2 for 0."), "{text}");
            assert!(took >= deadline && took < Duration::from_secs(1), "{took:?}");
        }
    }

    #[test]
    fn every_survivor_names_the_dead_rank_without_waiting_for_the_deadline() {
        for (text, took) in without(1, Duration::from_secs(30), drop) {
            assert!(text.starts_with("nothing from rank 1 for 0."), "{text}");
            assert!(text.contains("no sign of life") && text.contains("answered"), "{text}");
            assert!(took < Duration::from_secs(3), "{took:?}");
        }
    }

    #[test]
    fn ranks_that_wait_for_each_other_in_other_collectives_say_which() {
        let wait = |mut peer: ThreadPeer| {
            peer.configure(Duration::from_millis(100), 1024);
            peer.announce(812);
            let error = peer.recv(2, &mut [0]).unwrap_err().to_string();
            assert!(
                error.contains("rank 2 is at collective 7") && error.contains("this rank at 812")
            );
        };
        for (text, _) in without(1, Duration::from_millis(100), wait) {
            assert!(text.contains("rank 1 is at collective 812"), "{text}");
            assert!(text.contains("this rank at 7: a rank skipped or repeated"), "{text}");
        }
    }

    #[test]
    fn a_rank_waits_on_after_the_deadline_as_long_as_its_patience_lasts() {
        let mut peers = world(2);
        let _silent = peers.remove(1);
        let mut peer = peers.remove(0);
        peer.configure(Duration::from_millis(20), 1024);
        peer.be_patient(Some(Box::new(|waited| waited < Duration::from_millis(500))));
        let start = Instant::now();
        assert!(peer.recv(1, &mut [0]).is_err());
        assert!(start.elapsed() >= Duration::from_secs(1), "a second is granted at a time");
    }
}

//! A [`Peer`] whose messages are followed by their CRC-32, where the card asks for it
//! (`comm.checksum`), and the one place where rehearsed faults get at messages.
//!
//! TCP's own 16-bit sum lets one damaged packet in 65,536 pass, and memory on the way has none; what
//! arrives damaged in a reduce-scatter makes the same wrong sum on all ranks, which no comparison of
//! replicas can find.

use super::{Patience, Peer, Reducible};
use crate::error::{Error, Result};
use std::time::Duration;

/// Asked before each message of a collective, with its number there (0 is the header, where there is
/// more than one host or no shared memory); what to do to it, if anything.
pub type Tamper = Box<dyn FnMut(u64) -> Option<Damage> + Send>;

/// What can happen to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Its middle bit flips after its checksum was taken.
    Flip,
    /// Its last 8 bytes are missing.
    Short,
    /// It has 8 bytes more.
    Long,
}

/// A connection that checks what arrives.
pub struct Checked {
    inner: Box<dyn Peer>,
    checksum: bool,
    tamper: Option<Tamper>,
    /// Messages since the collective began.
    messages: u64,
}

impl Checked {
    /// Passes everything on to `inner`, without checksums.
    #[must_use]
    pub fn new(inner: Box<dyn Peer>) -> Checked {
        Checked { inner, checksum: false, tamper: None, messages: 0 }
    }

    /// Whether a checksum follows each message from now on. Equal on all ranks.
    pub fn with_checksum(&mut self, on: bool) {
        self.checksum = on;
    }

    /// Lets `tamper` see each message that this rank is about to send or wait for.
    pub fn tamper(&mut self, tamper: Tamper) {
        self.tamper = Some(tamper);
    }

    /// What is to be sent in place of `out`, if not `out`.
    fn damaged(&mut self, out: &[u8]) -> Option<Vec<u8>> {
        let tamper = self.tamper.as_mut()?;
        let number = self.messages;
        self.messages += 1;
        let damage = tamper(number)?;
        let mut bytes = out.to_vec();
        match damage {
            Damage::Flip => {
                let middle = bytes.len() / 2;
                bytes.get_mut(middle).into_iter().for_each(|byte| *byte ^= 0x10);
            }
            Damage::Short => bytes.truncate(bytes.len().saturating_sub(8)),
            Damage::Long => bytes.extend([0; 8]),
        }
        Some(bytes)
    }

    /// Exchanges the sums of what has just been exchanged, where there was something.
    fn compare(&mut self, (to, sent): (usize, Sum), (from, got): (usize, Sum)) -> Result<()> {
        let mut theirs = [0; 4];
        let out = sent.hasher.finalize().to_le_bytes();
        let into = if got.len == 0 { &mut theirs[..0] } else { &mut theirs[..] };
        self.inner.exchange(to, if sent.len == 0 { &[] } else { &out }, from, into)?;
        let (expected, found) = (u32::from_le_bytes(theirs), got.hasher.finalize());
        if got.len == 0 || expected == found {
            return Ok(());
        }
        Err(Error::ReplicasDiffer(format!(
            "a message of {} bytes from {} to {} was damaged on its way: its CRC-32 is {found:08x} \
             where the sender had {expected:08x}. Suspect the network or the memory of these two \
             hosts (`annulus doctor`); the newest checkpoint is not touched by it",
            got.len,
            self.name(from),
            self.name(self.rank()),
        )))
    }
}

/// The checksum of a message, while it goes by.
#[derive(Default)]
struct Sum {
    hasher: crc32fast::Hasher,
    len: usize,
}

impl Sum {
    fn of(bytes: &[u8]) -> Sum {
        let mut sum = Sum::default();
        sum.add(bytes);
        sum
    }

    fn add(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.len += bytes.len();
    }
}

impl Peer for Checked {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn name(&self, rank: usize) -> &str {
        self.inner.name(rank)
    }

    fn exchange(&mut self, to: usize, out: &[u8], from: usize, into: &mut [u8]) -> Result<()> {
        let damaged = self.damaged(out);
        self.inner.exchange(to, damaged.as_deref().unwrap_or(out), from, into)?;
        if self.checksum { self.compare((to, Sum::of(out)), (from, Sum::of(into))) } else { Ok(()) }
    }

    fn exchange_with(
        &mut self,
        to: usize,
        out: &[u8],
        from: usize,
        len: usize,
        take: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<()> {
        let damaged = self.damaged(out);
        let on_its_way = damaged.as_deref().unwrap_or(out);
        if !self.checksum {
            return self.inner.exchange_with(to, on_its_way, from, len, take);
        }
        let mut got = Sum::default();
        self.inner.exchange_with(to, on_its_way, from, len, &mut |at, segment| {
            got.add(segment);
            take(at, segment);
        })?;
        self.compare((to, Sum::of(out)), (from, got))
    }

    fn wait_for(&mut self, whom: usize, ready: &mut dyn FnMut() -> bool) -> Result<()> {
        self.inner.wait_for(whom, ready)
    }

    fn native_all_reduce(&mut self, data: Reducible<'_>, max: bool) -> Result<bool> {
        self.inner.native_all_reduce(data, max)
    }

    fn native_sum(&mut self, from: &[f32], into: &mut [f32]) -> Result<bool> {
        self.inner.native_sum(from, into)
    }

    fn configure(&mut self, deadline: Duration, segment: usize) {
        self.inner.configure(deadline, segment);
    }

    fn be_patient(&mut self, patience: Option<Patience>) {
        self.inner.be_patient(patience);
    }

    fn introduce(&mut self, names: Vec<String>, shared_cores: bool) {
        self.inner.introduce(names, shared_cores);
    }

    fn announce(&mut self, collective: u64) {
        self.messages = 0;
        self.inner.announce(collective);
    }

    fn finish(self: Box<Self>) {
        self.inner.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads;

    /// What rank 1 says when rank 0 sends it 1,000 bytes to which `damage` happens.
    fn second_rank(checksum: bool, damage: Option<Damage>) -> Result<Vec<u8>> {
        let mut peers = threads::world(2).into_iter().map(|peer| Checked::new(Box::new(peer)));
        let (mut a, mut b) = (peers.next().unwrap(), peers.next().unwrap());
        a.tamper(Box::new(move |number| damage.filter(|_| number == 1)));
        for peer in [&mut a, &mut b] {
            peer.with_checksum(checksum);
            peer.configure(Duration::from_secs(1), 64);
        }
        std::thread::scope(|scope| {
            scope.spawn(move || {
                a.send(1, &[7; 10])?;
                a.exchange_with(1, &[9; 1000], 1, 3, &mut |_, _| {})
            });
            b.recv(0, &mut [0; 10])?;
            let mut got = vec![0; 1000];
            b.exchange_with(0, &[1, 2, 3], 0, 1000, &mut |at, segment| {
                got[at..at + segment.len()].copy_from_slice(segment);
            })?;
            Ok(got)
        })
    }

    #[test]
    fn a_damaged_message_is_found_by_its_checksum_and_names_both_ends() {
        assert_eq!(second_rank(true, None).unwrap(), [9; 1000]);
        let error = second_rank(true, Some(Damage::Flip)).unwrap_err();
        assert_eq!(error.exit_code(), 76);
        let text = error.to_string();
        assert!(text.contains("1000 bytes from rank 0 to rank 1 was damaged"), "{text}");
        let unseen = second_rank(false, Some(Damage::Flip)).unwrap();
        assert_eq!(unseen.iter().filter(|byte| **byte != 9).count(), 1);
    }

    #[test]
    fn a_message_of_another_length_is_an_error_with_and_without_checksums() {
        for checksum in [false, true] {
            for damage in [Damage::Short, Damage::Long] {
                let text = second_rank(checksum, Some(damage)).unwrap_err().to_string();
                assert!(text.contains("rank 0 sent a message of"), "{text}");
            }
        }
    }
}

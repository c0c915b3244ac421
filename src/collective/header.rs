//! The header of a collective: what a rank is about to do, compared with its neighbour.
//!
//! 32 bytes, little-endian: magic u32, kind u8, type u8, operation u8, 0, number u64, length u64,
//! root u64 (for an all-reduce: the algorithm and where the buffer lies).

use super::element::type_name;
use crate::error::{Error, Result};

const MAGIC: u32 = 0x414e_4e55;

/// What is done together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    AllReduce = 1,
    Broadcast = 2,
    Barrier = 3,
    AllGather = 4,
    /// Sum in the order of a tree over leaves.
    TreeSum = 5,
}

/// One rank's view of the collective that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    magic: u32,
    kind: u8,
    dtype: u8,
    op: u8,
    number: u64,
    len: u64,
    root: u64,
}

impl Header {
    pub const BYTES: usize = 32;

    pub fn new(number: u64, kind: Kind, dtype: u8, op: u8, len: usize, root: u64) -> Header {
        let len = len as u64;
        Header { magic: MAGIC, kind: kind as u8, dtype, op, number, len, root }
    }

    /// The same header with another root.
    pub fn with_root(self, root: u64) -> Header {
        Header { root, ..self }
    }

    pub fn to_bytes(self) -> [u8; Header::BYTES] {
        let mut bytes = [0; Header::BYTES];
        bytes[..4].copy_from_slice(&self.magic.to_le_bytes());
        bytes[4..7].copy_from_slice(&[self.kind, self.dtype, self.op]);
        for (i, word) in [self.number, self.len, self.root].into_iter().enumerate() {
            bytes[8 + 8 * i..16 + 8 * i].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    pub fn from_bytes(bytes: [u8; Header::BYTES]) -> Header {
        let words: [[u8; 8]; 4] = bytemuck::cast(bytes);
        let [_, number, len, root] = words.map(u64::from_le_bytes);
        let [m0, m1, m2, m3, kind, dtype, op, _] = words[0];
        let magic = u32::from_le_bytes([m0, m1, m2, m3]);
        Header { magic, kind, dtype, op, number, len, root }
    }

    pub fn to_words(self) -> [u64; 4] {
        let words: [[u8; 8]; 4] = bytemuck::cast(self.to_bytes());
        words.map(u64::from_le_bytes)
    }

    pub fn from_words(words: [u64; 4]) -> Header {
        Header::from_bytes(bytemuck::cast(words.map(u64::to_le_bytes)))
    }

    /// An error that shows both sides when `self`, of rank `left`, differs from `mine`.
    pub fn compare(&self, mine: &Header, left: usize, rank: usize) -> Result<()> {
        if self == mine {
            return Ok(());
        }
        Err(Error::Internal(format!(
            "the ranks are not in the same collective: rank {left} is in {}, rank {rank} in {}. \
             A rank skipped or repeated a collective, or gave it other data; every rank must make \
             the same calls in the same order",
            self.describe(),
            mine.describe(),
        )))
    }

    fn describe(&self) -> String {
        let (number, len, dtype) = (self.number, self.len, type_name(self.dtype));
        if self.magic != MAGIC {
            return "something that is no collective of annulus (the middle of a message?)".into();
        }
        match self.kind {
            1 => {
                let op = if self.op == 1 { "max" } else { "sum" };
                format!("#{number} all_reduce({op} of {len} {dtype}{})", way(self.root))
            }
            2 => format!("#{number} broadcast({len} bytes from rank {})", self.root),
            3 => format!("#{number} barrier"),
            4 => format!("#{number} all_gather"),
            5 => format!("#{number} tree_sum({len} {dtype} of {} leaves)", self.root),
            kind => format!("#{number} of unknown kind {kind}"),
        }
    }
}

/// How an all-reduce goes, where it is not as usual.
fn way(root: u64) -> String {
    match root {
        0 => String::new(),
        r if r < 16 => format!(", algorithm {r}"),
        r => format!(", buffer {:x} in shared memory", r & !super::node::IN_PLACE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_journey_and_a_difference_names_both_sides() {
        let mine = Header::new(7, Kind::AllReduce, 1, 0, 1000, 0);
        assert_eq!(Header::from_bytes(mine.to_bytes()), mine);
        assert_eq!(Header::from_words(mine.to_words()), mine);
        let theirs = Header::new(8, Kind::Barrier, 0, 0, 0, 0);
        let text = theirs.compare(&mine, 1, 2).unwrap_err().to_string();
        assert!(text.contains("rank 1 is in #8 barrier"), "{text}");
        assert!(text.contains("rank 2 in #7 all_reduce(sum of 1000 f32)"), "{text}");
    }
}

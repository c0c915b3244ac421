//! The ranks of one host, who meet in shared memory: bytes are read where they lie.
//!
//! Each rank owns a *board* that the others can read. To take a *turn* a rank puts its header (and
//! up to [`STAGE`] bytes) on its board and waits until all others have taken the same turn:
//!
//! ```text
//!   my board   ┌ turn n, even ─────────────────┐┌ turn n+1, odd ────────────────┐
//!              │ number │ header │ staged data ││ number │ header │ staged data │
//!              └────────┴────────┴─────────────┘└────────┴────────┴─────────────┘
//! ```
//!
//! A turn is the barrier, the comparison of headers and the delivery of small data in one: with two
//! ranks it costs the journey of one cache line. Boards have two sides because a rank that has seen
//! all others in turn n may go on and write turn n+1 while they still read turn n; it cannot reach
//! turn n+2 before they have left turn n.
#![allow(unsafe_code)]

use super::header::Header;
use crate::comm::Peer;
use crate::error::{Error, Result};
use crate::util::aligned::FlatBuf;
use crate::util::shared::{Address, SharedBlock};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that fit on one side of a board. Data goes through in pieces of this size, which stay in a
/// core's own cache: measured 16 KiB to 256 KiB, 64 KiB was best or equal at every length.
pub(super) const STAGE: usize = 64 << 10;

/// Looks at a board before the waiting rank begins to mind deadlines and other ranks' questions.
const GLANCES: u32 = 200;

/// Number and header of a turn. Staged data begins right after it: 24 bytes share its cache line.
#[repr(C)]
struct Side {
    turn: AtomicU64,
    header: [AtomicU64; 4],
}

const SIDE: usize = size_of::<Side>();
const SIDE_STRIDE: usize = SIDE + STAGE + 64 - (SIDE + STAGE) % 64;
const PING: usize = 2 * SIDE_STRIDE;
const BOARD: usize = PING + 128;

/// This rank's view of the ranks of its host.
pub(super) struct Node {
    /// The ranks of this host, ascending. The first is the one that talks to other hosts.
    pub ranks: Vec<usize>,
    /// This rank's place among them.
    pub me: usize,
    boards: Vec<SharedBlock>,
    turn: u64,
    patient: bool,
    blocks: Vec<Vec<Arc<SharedBlock>>>,
}

/// Where a buffer lies: number of the shared block, first byte in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub block: usize,
    pub byte: usize,
}

/// Marks the tag of a place: no other header has this bit in its root.
pub(super) const IN_PLACE: u64 = 1 << 63;

impl Place {
    /// The place as one number for a header.
    pub fn tag(self) -> u64 {
        IN_PLACE | (self.block as u64) << 48 | self.byte as u64
    }

    /// The place with this tag.
    pub fn of_tag(tag: u64) -> Place {
        let (block, byte) = ((tag & !IN_PLACE) >> 48, tag & ((1 << 48) - 1));
        Place { block: block as usize, byte: byte as usize }
    }
}

impl Node {
    /// Makes this rank's board.
    pub fn own_board() -> Result<SharedBlock> {
        SharedBlock::create(BOARD)
    }

    /// Opens the boards of all ranks of this host. `nonce` proves that they are what they seem.
    pub fn open(
        ranks: Vec<usize>,
        rank: usize,
        board: SharedBlock,
        addresses: &[Address],
        crowded: bool,
    ) -> Result<Node> {
        let mut boards = Vec::with_capacity(ranks.len());
        let mut own = Some(board);
        for (i, &other) in ranks.iter().enumerate() {
            boards.push(match own.take_if(|_| other == rank) {
                Some(own) => own,
                None => SharedBlock::open(addresses[i], BOARD)?,
            });
        }
        let me = ranks.iter().position(|&r| r == rank).unwrap_or(0);
        Ok(Node { ranks, me, boards, turn: 0, patient: !crowded, blocks: Vec::new() })
    }

    /// Writes a number on this rank's board, for others to recognise it by.
    pub fn sign(board: &SharedBlock, signature: u64) {
        // SAFETY: a board has room for the number there, aligned; atomics may be shared.
        let ping = unsafe { AtomicU64::from_ptr(board.as_ptr().add(PING).cast()) };
        ping.store(signature, Ordering::Release);
    }

    /// The number that [`Node::sign`] left on the board of the local rank `i`.
    pub fn signature(&self, i: usize) -> u64 {
        self.ping(i).load(Ordering::Acquire)
    }

    /// A cell on the board of local rank `i`, for signatures and for measuring latency.
    pub fn ping(&self, i: usize) -> &AtomicU64 {
        // SAFETY: the cell lies inside the board, aligned to 64 bytes, and is only used atomically.
        unsafe { AtomicU64::from_ptr(self.boards[i].as_ptr().add(PING).cast()) }
    }

    fn side(&self, i: usize, turn: u64) -> &Side {
        let start = (turn % 2) as usize * SIDE_STRIDE;
        // SAFETY: inside the board, aligned to 64 bytes; zeroed memory is a valid `Side`; its fields
        // are atomics, so processes may share it.
        unsafe { &*self.boards[i].as_ptr().add(start).cast::<Side>() }
    }

    /// The staged bytes of local rank `i` in a turn.
    fn stage(&self, i: usize, turn: u64) -> *mut u8 {
        // SAFETY: inside the board.
        unsafe { self.boards[i].as_ptr().add((turn % 2) as usize * SIDE_STRIDE + SIDE) }
    }

    /// Puts bytes on this rank's board for the next turn.
    ///
    /// # Panics
    /// When there are more than [`STAGE`].
    pub fn put(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= STAGE, "{} bytes do not fit on a board", bytes.len());
        // SAFETY: the side has room; nobody reads it before this rank publishes the next turn, and
        // those who read it two turns ago have all taken the turn in between.
        unsafe {
            let to = self.stage(self.me, self.turn + 1);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
    }

    /// The first bytes that local rank `i` put on its board for the turn just taken, as numbers.
    ///
    /// # Panics
    /// When they are more than [`STAGE`].
    pub fn staged<T: bytemuck::Pod>(&self, i: usize, len: usize) -> &[T] {
        assert!(len * size_of::<T>() <= STAGE && align_of::<T>() <= 8);
        // SAFETY: inside the board, aligned to 8; written before that rank published the turn (which
        // this rank has seen) and not again before this rank has taken its next turn, which borrows
        // `self` mutably.
        unsafe { std::slice::from_raw_parts(self.stage(i, self.turn).cast::<T>(), len) }
    }

    /// Takes a turn: returns when all ranks of the host have come, with the same header.
    ///
    /// # Errors
    /// When one is late, or is about to do something else.
    pub fn turn(&mut self, peer: &mut dyn Peer, header: &Header) -> Result<()> {
        self.turn += 1;
        let (turn, mine) = (self.turn, self.side(self.me, self.turn));
        for (cell, word) in mine.header.iter().zip(header.to_words()) {
            cell.store(word, Ordering::Relaxed);
        }
        mine.turn.store(turn, Ordering::Release);
        let size = self.ranks.len();
        for distance in 1..size {
            let other = (self.me + size - distance) % size;
            let side = self.side(other, turn);
            self.wait(peer, other, || side.turn.load(Ordering::Acquire) >= turn)?;
            let words = [0, 1, 2, 3].map(|i: usize| side.header[i].load(Ordering::Relaxed));
            let theirs = Header::from_words(words);
            theirs.compare(header, self.ranks[other], self.ranks[self.me])?;
        }
        Ok(())
    }

    /// Waits for something that local rank `other` will do.
    pub fn wait(
        &self,
        peer: &mut dyn Peer,
        other: usize,
        mut ready: impl FnMut() -> bool,
    ) -> Result<()> {
        if self.patient {
            for _ in 0..GLANCES {
                if ready() {
                    return Ok(());
                }
                std::hint::spin_loop();
            }
        }
        peer.wait_for(self.ranks[other], &mut ready)
    }

    /// Adds a block that all ranks of the host have mapped; `views` by local rank.
    pub fn register(&mut self, views: Vec<Arc<SharedBlock>>, len: usize) -> Result<FlatBuf> {
        let mine = views[self.me].clone();
        self.blocks.push(views);
        FlatBuf::on(mine, len)
    }

    /// Where `data` lies, if it is in a shared block.
    pub fn place<T>(&self, data: &[T]) -> Option<Place> {
        let at = data.as_ptr() as usize;
        self.blocks.iter().enumerate().find_map(|(block, views)| {
            let mine = &views[self.me];
            let byte = at.checked_sub(mine.as_ptr() as usize)?;
            (byte + size_of_val(data) <= mine.len()).then_some(Place { block, byte })
        })
    }

    /// The first number of the buffer at `place`, as local rank `i` has it.
    ///
    /// # Errors
    /// When its block is smaller than this rank's.
    pub fn view<T>(&self, i: usize, place: Place, len: usize) -> Result<*mut T> {
        let Some(block) = self.blocks.get(place.block).map(|views| &views[i]) else {
            return Err(Error::Internal(
                "a rank names a shared block that is not there".to_owned(),
            ));
        };
        if place.byte + len * size_of::<T>() > block.len() {
            return Err(Error::Internal("a shared block ends early".to_owned()));
        }
        // SAFETY: just checked to be inside the block.
        Ok(unsafe { block.as_ptr().add(place.byte).cast() })
    }
}

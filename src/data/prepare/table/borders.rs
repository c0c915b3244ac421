//! Where rows begin, so that a file can be read in blocks, by several ranks, and no block alone.
//!
//! ```text
//!   block 0                  block 1                  block 2
//!   1,2,x⏎3,"a⏎b",y⏎4,"long  text, with⏎lines",z⏎5,6  ,w⏎7,8,z⏎
//!                                               ↑ first row of block 1
//! ```
//!
//! A line break within quotes ends no row, and whether a block begins within quotes is not to be seen in it. So a
//! block is scanned for each state in which it may begin; the states then follow from block to block. The grammar
//! is that of the `csv` crate: a quote opens only at the beginning of a cell.

use serde::{Deserialize, Serialize};

/// Bytes of a block.
pub const BLOCK: u64 = 4 << 20;

/// Where in a row a byte is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// At the beginning of a row.
    Row,
    /// At the beginning of another cell.
    Cell,
    /// In a cell, where a quote is a quote.
    Bare,
    /// In a quoted cell.
    Quoted,
    /// After a quote in a quoted cell: it was the end, or one of two.
    Quote,
}

const STATES: [State; 5] = [State::Row, State::Cell, State::Bare, State::Quoted, State::Quote];

/// What becomes of a block that begins in one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// How the next block begins.
    pub end: State,
    /// The first byte of the first row that begins in the block, and the line breaks before it.
    pub first: Option<(u64, u64)>,
}

/// A block, whatever state it begins in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    ways: [Way; 5],
    /// Its line breaks.
    pub lines: u64,
    /// Hash of its bytes.
    pub blake3: String,
}

impl Scan {
    /// Scans the bytes of a block.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Scan {
        let (bare, quoted) = (end(bytes, State::Bare), end(bytes, State::Quoted));
        let end = |start| match (start, bytes.first()) {
            (State::Quoted, _) => quoted,
            (_, Some(b'"') | None) => end(bytes, start),
            // After any other byte it is the same.
            _ => bare,
        };
        let way = |start| Way { end: end(start), first: first_row(bytes, start) };
        Scan {
            ways: STATES.map(way),
            lines: lines(bytes),
            blake3: blake3::hash(bytes).to_hex().to_string(),
        }
    }

    /// What becomes of it if it begins so.
    #[must_use]
    pub fn from(&self, start: State) -> Way {
        self.ways[start as usize]
    }
}

/// The line breaks in `bytes`.
#[must_use]
pub fn lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

fn quote(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|&byte| byte == b'"')
}

/// The state after `byte` outside of quotes.
fn outside(byte: u8) -> State {
    match byte {
        b'\n' | b'\r' => State::Row,
        b',' => State::Cell,
        _ => State::Bare,
    }
}

/// Goes to the next quote and the state after it: from place `at`, which is in `state`.
fn next_quote(bytes: &[u8], at: usize, state: State) -> Option<(usize, State)> {
    match state {
        State::Quoted => Some((at + quote(&bytes[at..])? + 1, State::Quote)),
        State::Quote => match bytes.get(at)? {
            b'"' => Some((at + 1, State::Quoted)),
            &other => Some((at + 1, outside(other))),
        },
        _ => {
            let found = at + quote(&bytes[at..])?;
            let before = if found == at { state } else { outside(bytes[found - 1]) };
            let opens = before != State::Bare;
            Some((found + 1, if opens { State::Quoted } else { State::Bare }))
        }
    }
}

/// The state after all bytes.
fn end(bytes: &[u8], start: State) -> State {
    let (mut at, mut state) = (0, start);
    while let Some(next) = next_quote(bytes, at, state) {
        (at, state) = next;
    }
    match (state, bytes.last()) {
        (State::Quoted | State::Quote, _) | (_, None) => state,
        _ if at == bytes.len() => state,
        (_, Some(&last)) => outside(last),
    }
}

/// The first byte of the first row that begins here, and the line breaks before it.
fn first_row(bytes: &[u8], start: State) -> Option<(u64, u64)> {
    let (mut at, mut state) = (0, start);
    while state != State::Row {
        if matches!(state, State::Quoted | State::Quote) {
            (at, state) = next_quote(bytes, at, state)?;
            continue;
        }
        let found = at + bytes[at..].iter().position(|b| matches!(b, b'"' | b'\n' | b'\r'))?;
        let before = if found == at { state } else { outside(bytes[found - 1]) };
        state = match bytes[found] {
            b'"' if before == State::Bare => State::Bare,
            b'"' => State::Quoted,
            _ => State::Row,
        };
        at = found + 1;
    }
    (at < bytes.len()).then(|| (at as u64, lines(&bytes[..at])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::rng::{Purpose, Rng};

    /// The places at which rows begin, as the `csv` crate finds them.
    fn rows(text: &[u8]) -> Vec<u64> {
        let mut reader =
            csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text);
        let mut record = csv::ByteRecord::new();
        let mut found = Vec::new();
        loop {
            let mut at = reader.position().byte();
            if !reader.read_byte_record(&mut record).unwrap() {
                return found;
            }
            while matches!(text[at as usize], b'\n' | b'\r') {
                at += 1;
            }
            found.push(at);
        }
    }

    #[test]
    fn blocks_of_any_size_begin_their_rows_where_a_reader_of_the_whole_file_finds_them() {
        let words: [&[u8]; 8] = [b"\"", b"\"\"", b",", b"\n", b"\r\n", b"a", b"bc", b"\""];
        for case in 0..300 {
            let mut rng = Rng::new(3, Purpose::Synthetic, 0, 0, case);
            let text: Vec<u8> =
                (0..60).flat_map(|_| words[rng.below(8) as usize].to_vec()).collect();
            let all = rows(&text);
            for size in [1, 2, 3, 7, 20, 1000] {
                let (mut state, mut above) = (State::Row, 0);
                for (i, block) in text.chunks(size).enumerate() {
                    let (from, scan) = ((i * size) as u64, Scan::of(block));
                    let way = scan.from(state);
                    let inside = |&&at: &&u64| (from..from + block.len() as u64).contains(&at);
                    let first = all.iter().find(inside);
                    if let Some(&first) = first {
                        let (mut found, before) = way.first.unwrap();
                        let until = &text[..from as usize + found as usize];
                        assert_eq!(above + before, lines(until));
                        // Empty lines before a row are read over.
                        while matches!(text[(from + found) as usize], b'\n' | b'\r') {
                            found += 1;
                        }
                        let text = String::from_utf8_lossy(&text);
                        assert_eq!(from + found, first, "{text:?} in blocks of {size}");
                    }
                    (state, above) = (way.end, above + scan.lines);
                }
            }
        }
    }
}

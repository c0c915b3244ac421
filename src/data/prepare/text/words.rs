//! What documents are compared by: their words.
//!
//! Two documents are equal if they are the same but for white space. They are nearly equal if they have
//! most runs of five words in common; there a word is letters and digits in lower case.

/// Words of a run.
pub const RUN: usize = 5;

/// A hash of the text with each stretch of white space as one space.
#[must_use]
pub fn hash(text: &str) -> [u8; 32] {
    let mut joined = Vec::with_capacity(text.len() + 1);
    let mut add = |word: &str| {
        joined.extend_from_slice(word.as_bytes());
        joined.push(b' ');
    };
    if text.is_ascii() {
        text.split_ascii_whitespace().for_each(&mut add);
    } else {
        text.split_whitespace().for_each(&mut add);
    }
    *blake3::hash(&joined).as_bytes()
}

/// The number of words, and a number for each run of [`RUN`] words, in their order and as often as they come.
/// Fewer words are one run; without words there is none.
#[must_use]
pub fn runs(text: &str) -> (u32, Vec<u32>) {
    let mut runs = Runs { last: [0; RUN], count: 0, found: Vec::with_capacity(text.len() / 5) };
    let mut word = EMPTY;
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        let lower = LOWER[usize::from(byte)];
        if lower != 0 {
            word = mixed(word, lower);
            at += 1;
            continue;
        }
        if byte < 0x80 {
            at += 1;
        } else {
            // A character begins here: the bytes before were whole ones.
            let c = text[at..].chars().next().unwrap_or_default();
            at += c.len_utf8();
            if is_of_word(c) {
                for lower in c.to_lowercase() {
                    lower.encode_utf8(&mut [0; 4]).bytes().for_each(|b| word = mixed(word, b));
                }
                continue;
            }
        }
        if word != EMPTY {
            runs.add(word);
            word = EMPTY;
        }
    }
    if word != EMPTY {
        runs.add(word);
    }
    if (1..RUN).contains(&runs.count) {
        runs.found.push(runs.number());
    }
    (runs.count as u32, runs.found)
}

struct Runs {
    /// The last words, as a ring.
    last: [u64; RUN],
    count: usize,
    found: Vec<u32>,
}

impl Runs {
    fn add(&mut self, word: u64) {
        self.last[self.count % RUN] = word;
        self.count += 1;
        if self.count >= RUN {
            self.found.push(self.number());
        }
    }

    /// Of the words that are there, the oldest first.
    fn number(&self) -> u32 {
        let first = if self.count < RUN { 0 } else { self.count };
        let words = (0..self.count.min(RUN)).map(|i| self.last[(first + i) % RUN]);
        (words.fold(0, |all, word| scattered(all ^ word)) >> 32) as u32
    }
}

/// FNV-1a, which is read byte by byte.
const EMPTY: u64 = 0xcbf2_9ce4_8422_2325;

fn mixed(word: u64, byte: u8) -> u64 {
    (word ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
}

/// A step of MurmurHash3's finish: multiplying carries low bits up, shifting brings them down again.
fn scattered(x: u64) -> u64 {
    let x = (x ^ (x >> 32)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^ (x >> 29)
}

/// For a byte below 0x80 that is of a word its lower case, else 0.
const LOWER: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0u8;
    while byte < 0x80 {
        if byte.is_ascii_alphanumeric() {
            table[byte as usize] = byte.to_ascii_lowercase();
        }
        byte += 1;
    }
    table
};

/// Letters, digits and the marks on them: what is neither space nor in the blocks of punctuation.
fn is_of_word(c: char) -> bool {
    c.is_alphanumeric()
        || !(c.is_whitespace()
            || matches!(c, '\u{80}'..='\u{bf}' | '×' | '÷' | '\u{2000}'..='\u{206f}')
            || matches!(c, '\u{3000}'..='\u{303f}' | '\u{ff00}'..='\u{ff65}'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn white_space_does_not_count_and_everything_else_does() {
        assert_eq!(hash("a  b\n\tc "), hash("a b c"));
        assert_eq!(hash("ä\u{a0} b"), hash("ä b"));
        let all = ["a b c", "a bc", "ab c", "A b c", "a b, c", "a b", "a b c c"].map(hash);
        assert_eq!(BTreeSet::from(all).len(), 7);
    }

    #[test]
    fn a_run_is_five_words_in_lower_case_without_punctuation() {
        let text = "One two, three four five six. Seven";
        let (count, found) = runs(text);
        assert_eq!((count, found.len()), (7, 3));
        assert_eq!(runs("one TWO -- three (four) five; six seven!").1, found);
        assert_eq!(runs("three four five six seven").1, found[2..]);
        assert_eq!(runs("Ärger über Öl, 3 km").1, runs("ärger ÜBER öl – 3 KM").1);
        let different = ["a b c d e", "b a c d e", "ab c d e f", "a b c d", "a b c", "a"];
        let different: BTreeSet<Vec<u32>> = different.iter().map(|text| runs(text).1).collect();
        assert_eq!(different.len(), 6);
        assert_eq!(runs("«…» — 。"), (0, Vec::new()));
        assert_eq!(runs("नमस्ते दुनिया").0, 2);
    }
}

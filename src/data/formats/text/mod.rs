//! Text and token files: windows of tokens, each token labelled with the one that follows it.
//!
//! Each file stands by itself; no window reaches from one into the next. Window k of a file of n tokens
//! begins at token k · stride and has `context` tokens; there are as many windows as it takes until each
//! token but the first has been a label. What the last one has too much is padding whose labels are
//! [`IGNORED`]: with `stride = context` a pass over the windows predicts each token exactly once.
//!
//! With streams the windows come in an order in which a model's state can be carried: sample i is window
//! ⌊i / S⌋ of stream i mod S, each stream being a run of windows of the text. For 10 windows in 3 streams:
//!
//! ```text
//! stream 0   0 1 2 3       samples   0 → window 0   1 → 4   2 → 7
//! stream 1   4 5 6                   3 → window 1   4 → 5   5 → 8
//! stream 2   7 8 9                   6 → window 2   7 → 6   8 → 9   9 → window 3
//! ```
//!
//! | file | holds |
//! |---|---|
//! | [`tokens`] | a file as a row of tokens: bytes, numbers, characters |
//! | [`utf8`] | where characters lie in UTF-8; the characters of a vocabulary |

pub mod tokens;
pub mod utf8;

use crate::config::{Data, Text};
use crate::data::{Dataset, IGNORED};
use crate::error::{Error, Result};
use std::ops::Range;
use std::path::PathBuf;
use tokens::{Kind, Tokens};

/// Which tokens of a file are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// To train on: all but the held-out share.
    Train,
    /// The held-out share of the training files.
    HeldOut,
    /// All, without overlap.
    Test,
}

/// The tokens of one file that are used.
struct Part {
    tokens: Tokens,
    range: Range<u64>,
    /// The number, in the whole set, of its first window.
    first: usize,
}

/// Text as samples of shape (context) with as many labels.
pub struct TextSet {
    parts: Vec<Part>,
    shape: [usize; 1],
    stride: usize,
    classes: usize,
    windows: usize,
    /// Of the training text, if a model's state is carried.
    streams: Option<usize>,
}

impl TextSet {
    /// Opens the files of a checked card, of which `share` is used.
    ///
    /// # Errors
    /// [`Error::NoInput`] when a file cannot be read; [`Error::Data`] when it is empty, too short, not
    /// UTF-8, or has tokens that are not in the vocabulary.
    pub fn open(
        card: &Data,
        files: &[PathBuf],
        share: Share,
        limit: Option<usize>,
    ) -> Result<TextSet> {
        let text = card.text.ok_or_else(|| Error::Config("data.text: is missing".to_owned()))?;
        let kind = Kind::of(card, &text)?;
        let files: Vec<Tokens> =
            files.iter().map(|path| Tokens::open(path, &kind)).collect::<Result<_>>()?;
        let stride = if share == Share::Train { text.stride() } else { text.context };
        let mut set = TextSet {
            parts: Vec::new(),
            shape: [text.context],
            stride,
            classes: card.classes,
            windows: 0,
            streams: text.streams.filter(|_| share == Share::Train),
        };
        for tokens in files {
            set.add(tokens, &text, share)?;
        }
        set.windows = set.windows.min(limit.unwrap_or(usize::MAX));
        Ok(set)
    }

    fn add(&mut self, tokens: Tokens, text: &Text, share: Share) -> Result<()> {
        let all = tokens.count();
        // The product is rounded, the same on every rank: a card means "about a tenth".
        let held = text.holdout.map_or(0, |share| (share * all as f64) as u64);
        let range = match share {
            Share::Train => 0..all - held,
            Share::HeldOut => all - held..all,
            Share::Test => 0..all,
        };
        let used = range.end - range.start;
        if used < 2 {
            let of = match share {
                Share::HeldOut => " in the held-out share",
                Share::Train if held > 0 => " beside the held-out share",
                _ => "",
            };
            return Err(tokens.wrong(&format!(
                "has {used} of its {all} tokens{of}; at least 2 are needed, one to predict the next"
            )));
        }
        let beyond = (used - 1).saturating_sub(self.shape[0] as u64);
        let windows = 1 + beyond.div_ceil(self.stride as u64) as usize;
        self.parts.push(Part { tokens, range, first: self.windows });
        self.windows += windows;
        Ok(())
    }

    /// The window that is sample `index`. The first streams have one more where they do not come out even, so
    /// that the last samples are those of the first streams.
    fn place(&self, index: usize) -> usize {
        let Some(streams) = self.streams else { return index };
        let (whole, longer) = (self.windows / streams, self.windows % streams);
        let (step, stream) = (index / streams, index % streams);
        stream * whole + stream.min(longer) + step
    }

    /// The file of sample `index` and the tokens of the window and of its last label.
    fn window(&self, index: usize) -> Option<(&Part, Range<u64>)> {
        if index >= self.windows {
            return None;
        }
        let index = self.place(index);
        let part = &self.parts[self.parts.partition_point(|part| part.first <= index) - 1];
        let start = part.range.start + ((index - part.first) * self.stride) as u64;
        Some((part, start..part.range.end.min(start + self.shape[0] as u64 + 1)))
    }
}

impl Dataset for TextSet {
    fn len(&self) -> usize {
        self.windows
    }

    fn sample_shape(&self) -> &[usize] {
        &self.shape
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn labels_per_sample(&self) -> usize {
        self.shape[0]
    }

    fn in_order(&self) -> bool {
        self.streams.is_some()
    }

    fn weight(&self, index: usize) -> u64 {
        self.window(index).map_or(0, |(_, tokens)| tokens.end - tokens.start - 1)
    }

    /// Gives the first label.
    fn read(&self, index: usize, out: &mut [f32]) -> Result<u32> {
        let mut labels = vec![IGNORED; self.shape[0]];
        self.read_all(index, out, &mut labels)?;
        Ok(labels[0])
    }

    fn read_all(&self, index: usize, out: &mut [f32], labels: &mut [u32]) -> Result<()> {
        let fits = out.len() == self.shape[0] && labels.len() == self.shape[0];
        let (part, range) = match self.window(index) {
            Some(window) if fits => window,
            _ => return Err(super::no_sample(index, self.windows)),
        };
        let mut tokens = vec![0; (range.end - range.start) as usize];
        part.tokens.read(range.start, &mut tokens)?;
        out.fill(0.0);
        labels.fill(IGNORED);
        for (i, pair) in tokens.windows(2).enumerate() {
            // Exact: a vocabulary has at most 65,536 tokens.
            out[i] = pair[0] as f32;
            labels[i] = pair[1];
        }
        Ok(())
    }

    fn as_text(&self, index: usize) -> Result<Option<String>> {
        let (part, range) =
            self.window(index).ok_or_else(|| super::no_sample(index, self.windows))?;
        let mut tokens = vec![0; (range.end - range.start) as usize];
        part.tokens.read(range.start, &mut tokens)?;
        Ok(part.tokens.text(&tokens))
    }

    fn fingerprint(&self) -> String {
        let mut hash = blake3::Hasher::new();
        hash.update(format!("{:?} {} {}", self.shape, self.stride, self.windows).as_bytes());
        if let Some(streams) = self.streams {
            hash.update(format!("{streams} streams").as_bytes());
        }
        for part in &self.parts {
            hash.update(format!("{:?}", part.range).as_bytes());
            if let Err(e) = part.tokens.hash(&mut hash) {
                return format!("unreadable: {e}");
            }
        }
        hash.finalize().to_hex().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Format, Vocabulary};
    use proptest::prelude::*;

    fn card(text: Text) -> Data {
        let value = serde_json::json!({"format": "text", "train": {}, "classes": 256});
        let mut card: Data = serde_json::from_value(value).unwrap();
        card.format = Format::Text;
        card.text = Some(text);
        card
    }

    fn text(context: usize, stride: Option<usize>, holdout: Option<f64>) -> Text {
        let vocabulary = Some(Vocabulary::Bytes);
        Text { context, stride, streams: None, vocabulary, ids: None, holdout }
    }

    /// All (place in the file, label) of the windows, by the values of the bytes.
    fn pairs(set: &TextSet) -> Vec<(u32, u32)> {
        let mut all = Vec::new();
        for i in 0..set.len() {
            let (mut x, mut y) = (vec![9.0; set.shape[0]], vec![9; set.shape[0]]);
            set.read_all(i, &mut x, &mut y).unwrap();
            let counted: Vec<_> =
                x.iter().map(|&x| x as u32).zip(y).filter(|&(_, y)| y != IGNORED).collect();
            assert_eq!(counted.len() as u64, set.weight(i));
            all.extend(counted);
        }
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn each_token_but_the_first_is_predicted_from_the_one_before_it(
            lens in proptest::collection::vec(2..200usize, 1..4),
            context in 1..70usize,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let files: Vec<PathBuf> = (0..lens.len()).map(|i| folder.path().join(i.to_string())).collect();
            let mut expected = Vec::new();
            for (file, &len) in files.iter().zip(&lens) {
                let bytes: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
                std::fs::write(file, &bytes).unwrap();
                expected.extend(bytes.windows(2).map(|p| (u32::from(p[0]), u32::from(p[1]))));
            }
            let set = TextSet::open(&card(text(context, None, None)), &files, Share::Train, None).unwrap();
            prop_assert_eq!(pairs(&set), expected.clone());
            let stride = context.div_ceil(2);
            let card = card(text(context, Some(stride), None));
            let set = TextSet::open(&card, &files, Share::Train, None).unwrap();
            let found = pairs(&set);
            prop_assert!(expected.iter().all(|pair| found.contains(pair)));
        }
    }

    #[test]
    fn what_is_held_out_is_the_end_of_each_file_and_not_trained_on() {
        let folder = tempfile::tempdir().unwrap();
        let file = vec![folder.path().join("t")];
        std::fs::write(&file[0], (0..100).collect::<Vec<u8>>()).unwrap();
        let card = card(text(8, Some(4), Some(0.25)));
        let open = |share| TextSet::open(&card, &file, share, None);
        let (train, test) = (open(Share::Train).unwrap(), open(Share::HeldOut).unwrap());
        assert_eq!(pairs(&train).iter().map(|p| p.1).max(), Some(74));
        assert_eq!(pairs(&test), (75..99).map(|i| (i, i + 1)).collect::<Vec<_>>());
        assert_ne!(train.fingerprint(), test.fingerprint());
        std::fs::write(&file[0], [1, 2, 3]).unwrap();
        let error = open(Share::HeldOut).err().unwrap().to_string();
        assert!(error.contains("has 0 of its 3 tokens in the held-out share"), "{error}");
    }

    #[test]
    fn streams_are_runs_of_windows_and_each_window_is_one_sample() {
        let folder = tempfile::tempdir().unwrap();
        let file = [folder.path().join("a")];
        std::fs::write(&file[0], (0..51).collect::<Vec<u8>>()).unwrap();
        for (streams, windows) in [(3, 10), (4, 10), (5, 10), (16, 10), (1, 7)] {
            let text = Text { streams: Some(streams), ..text(5, None, None) };
            let open = |share| TextSet::open(&card(text), &file, share, Some(windows)).unwrap();
            let (set, test) = (open(Share::Train), open(Share::Test));
            let first = |set: &TextSet, i| {
                let (mut x, mut y) = (vec![0.0; 5], vec![0; 5]);
                set.read_all(i, &mut x, &mut y).unwrap();
                x[0] as usize / 5
            };
            let samples: Vec<usize> = (0..windows).map(|i| first(&set, i)).collect();
            for (i, &window) in samples.iter().enumerate().skip(streams) {
                assert_eq!(window, samples[i - streams] + 1, "{streams} streams: {samples:?}");
            }
            let mut sorted = samples.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..windows).collect::<Vec<_>>());
            assert!(set.in_order() && !test.in_order() && set.fingerprint() != test.fingerprint());
            assert_eq!(first(&test, 2), 2, "evaluation knows no streams");
        }
    }
}

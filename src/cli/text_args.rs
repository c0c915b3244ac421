//! What can be written on the command line of `annulus prepare` for text.

use crate::data::prepare::text::tokenizer::Tokenizer;
use crate::data::prepare::text::{Options, Tokens};
use crate::error::{Error, Result};
use std::path::PathBuf;

/// Options for text alone.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options for text")]
pub struct TextArgs {
    /// The field of each line of a .jsonl file that has the text [default: text]
    #[arg(long, value_name = "NAME")]
    pub field: Option<String>,
    /// The line that stands between two documents of a .txt file; else each file is one document
    #[arg(long, value_name = "LINE", allow_hyphen_values = true)]
    pub separator: Option<String>,
    /// Documents of fewer characters are removed [default: 20]
    #[arg(long, value_name = "N")]
    pub min_chars: Option<usize>,
    /// Documents that share this part of their runs of five words are near-duplicates, of which the first is
    /// kept; 1 is for the same words, 0 does not look for any [default: 0.8]
    #[arg(long, value_name = "SHARE")]
    pub alike: Option<f64>,
    /// What is a token: bytes, or the characters of the training part [default: bytes]
    #[arg(long, value_name = "bytes|characters", value_parser = ["bytes", "characters"])]
    pub tokens: Option<String>,
    /// Tokens by this tokenizer.json of Hugging Face, at most 65,536 different ones
    #[arg(long, value_name = "FILE", conflicts_with = "tokens")]
    pub tokenizer: Option<PathBuf>,
    /// Follows each document; \n, \t and \\ are escapes [default: \n]; with --tokenizer the name of one of its
    /// tokens [default: nothing]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub end: Option<String>,
    /// Tokens of a window in data.json [default: 256]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub context: Option<u32>,
}

impl TextArgs {
    /// The options.
    ///
    /// # Errors
    /// [`Error::Usage`] if a value is none.
    pub fn options(&self, seed: u64, split: [f64; 3], shard: usize) -> Result<Options> {
        let alike = self.alike.unwrap_or(0.8);
        if !(alike == 0.0 || (0.1..=1.0).contains(&alike)) {
            return Err(Error::Usage(format!(
                "--alike {alike}: a share from 0.1 to 1 is needed, or 0 to look for no near-duplicates"
            )));
        }
        let separator = self.separator.as_deref().map(str::trim_end);
        if separator.is_some_and(|line| line.is_empty() || line.contains(['\n', '\r'])) {
            return Err(Error::Usage(
                "--separator: one line that is not empty is needed; example: --separator '<|endoftext|>'"
                    .to_owned(),
            ));
        }
        let (tokens, end) = match (&self.tokenizer, self.tokens.as_deref()) {
            (Some(_), _) => (Tokens::Tokenizer, ""),
            (None, Some("characters")) => (Tokens::Characters, "\\n"),
            (None, _) => (Tokens::Bytes, "\\n"),
        };
        Ok(Options {
            seed,
            split,
            field: self.field.clone().unwrap_or_else(|| "text".to_owned()),
            separator: separator.map(str::to_owned),
            min_chars: self.min_chars.unwrap_or(20),
            alike,
            tokens,
            tokenizer: None,
            end: unescaped(self.end.as_deref().unwrap_or(end))?,
            context: self.context.unwrap_or(256) as usize,
            shard,
        })
    }

    /// The tokenizer, if one was given.
    ///
    /// # Errors
    /// As [`Tokenizer::open`].
    pub fn tokenizer(&self, options: &Options) -> Result<Option<Tokenizer>> {
        let open = |path| Tokenizer::open(path, &options.end);
        self.tokenizer.as_deref().map(open).transpose()
    }

    /// Refuses these options, where the sources are no text.
    ///
    /// # Errors
    /// [`Error::Usage`] with the first that was given.
    pub fn refuse(&self) -> Result<()> {
        let given = [
            (self.field.is_some(), "--field"),
            (self.separator.is_some(), "--separator"),
            (self.min_chars.is_some(), "--min-chars"),
            (self.alike.is_some(), "--alike"),
            (self.tokens.is_some(), "--tokens"),
            (self.tokenizer.is_some(), "--tokenizer"),
            (self.end.is_some(), "--end"),
            (self.context.is_some(), "--context"),
        ];
        let Some((_, name)) = given.iter().find(|(given, _)| *given) else { return Ok(()) };
        Err(Error::Usage(format!("{name} is for text, and the sources are none; leave it out")))
    }
}

fn unescaped(text: &str) -> Result<String> {
    let mut out = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        out.push(match c {
            '\\' => match rest.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('\\') => '\\',
                _ => {
                    return Err(Error::Usage(format!(
                        "--end {text}: of escapes only \\n, \\t and \\\\ are known"
                    )));
                }
            },
            c => c,
        });
    }
    Ok(out)
}

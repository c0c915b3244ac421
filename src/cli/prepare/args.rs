//! What can be written after `annulus prepare`, and the card section that it comes to.

use crate::cli::text_args::TextArgs;
use crate::config::{
    Card, Clip, Holds, Places, Prepare, PrepareColumn, PreparePictures, PrepareTable,
};
use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use std::path::PathBuf;

/// `annulus prepare`. Interrupted, the same command goes on; the result is the same at any rank count.
#[derive(Debug, clap::Args)]
pub struct PrepareArgs {
    /// A card with a section `prepare`; or folders of pictures (each class a folder), CSV files with a header, or
    /// text: .jsonl and .txt files or folders of them.
    #[arg(required = true)]
    pub sources: Vec<PathBuf>,
    /// Folder for the prepared files: new, or of the same preparation.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Change an option of the card; may be repeated. Example: --set prepare.seed=2
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub sets: Vec<String>,
    /// What is said without a card.
    #[command(flatten)]
    pub options: PrepareOptions,
    /// Text alone has these.
    #[command(flatten)]
    pub text: TextArgs,
}

/// Options in place of a card.
#[derive(Debug, Default, PartialEq, clap::Args)]
pub struct PrepareOptions {
    /// Shares of training, validation and test [default: 0.8,0.1,0.1]
    #[arg(long, value_name = "A,B,C")]
    pub split: Option<String>,
    /// Another seed is another split [default: 1]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Samples of a file; of text documents, at most 32 MiB [default: 8192]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000_000))]
    pub shard: Option<u32>,
    /// Pictures: scale them; else those of another size than most are removed
    #[arg(long, value_name = "ROWSxCOLUMNS")]
    pub resize: Option<String>,
    /// Pictures: one channel instead of three
    #[arg(long)]
    pub grey: bool,
    /// Pictures: bits of 64 in which the perceptual hashes of those that look alike may differ [default: 3]
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=32))]
    pub near: Option<u32>,
    /// Pictures: keep only the first of those that look alike; else all stay, in the same part
    #[arg(long)]
    pub drop_near: bool,
    /// Tables: the column of labels [default: label]
    #[arg(long, value_name = "COLUMN")]
    pub label: Option<String>,
    /// Tables: rows with missing values are dropped, or the values filled with the mean (a category of their own),
    /// the median or the most frequent value [default: drop]
    #[arg(long, value_parser = ["drop", "fill", "median", "most-frequent"])]
    pub missing: Option<String>,
    /// Tables: rows with text that is not UTF-8 are removed, or it is read as Windows-1252 [default: refuse]
    #[arg(long, value_parser = ["refuse", "repair"])]
    pub encoding: Option<String>,
    /// Tables: numbers beyond these become these: quantiles=0.01,0.99 or deviations=4 or bounds=0,100
    #[arg(long, value_name = "HOW")]
    pub clip: Option<String>,
    /// Tables: what a column holds (numeric, category, time, text); another value is then an error; may be repeated
    #[arg(long = "column", value_name = "COLUMN=KIND")]
    pub columns: Vec<String>,
    /// Tables: a column to leave out; may be repeated
    #[arg(long, value_name = "COLUMN")]
    pub ignore: Vec<String>,
    /// Tables: rows with the same value in this column stay in one part; it is no feature
    #[arg(long, value_name = "COLUMN", conflicts_with = "time")]
    pub group: Option<String>,
    /// Tables: split by this column instead of at random: the latest rows are for test, those before them for validation
    #[arg(long, value_name = "COLUMN")]
    pub time: Option<String>,
}

/// Where the wishes were written, for errors that name the place.
pub enum Written {
    /// In a card.
    Card(Places),
    /// After the command.
    Options,
}

impl Written {
    /// The error with the place of the field that it begins with, if that is in a card.
    ///
    /// # Errors
    /// That of `result`.
    pub fn point<T>(&self, result: Result<T>) -> Result<T> {
        match self {
            Written::Card(places) => places.point(result),
            Written::Options => result.map_err(as_of_options),
        }
    }
}

impl PrepareArgs {
    /// What is wished for, whether it stands in a card or in the options.
    ///
    /// # Errors
    /// As [`Card::load_prepare`]; [`Error::Usage`] for options that cannot be, or without sources or output folder.
    pub fn wishes(&self) -> Result<(Prepare, Written)> {
        let is_card = |path: &PathBuf| path.extension().is_some_and(|e| e == "json");
        let (mut wishes, written) = match self.sources.as_slice() {
            [card] if is_card(card) && !card.is_dir() => {
                if self.options != PrepareOptions::default() {
                    return Err(Error::Usage(
                        "with a card, only --set and --out change what is done; write --set prepare.seed=2 for --seed 2"
                            .to_owned(),
                    ));
                }
                let (wishes, places) = Card::load_prepare(card, &self.sets)?;
                (wishes, Written::Card(places))
            }
            _ if !self.sets.is_empty() => {
                let what = "--set is for cards; without one, give the options themselves";
                return Err(Error::Usage(what.to_owned()));
            }
            sources => {
                let wishes = self.options.wishes()?;
                (Prepare { sources: sources.to_vec(), ..wishes }, Written::Options)
            }
        };
        wishes.out = self.out.clone().or(wishes.out);
        if wishes.out.is_none() {
            let what = "no folder for the prepared files is named; give --out DIR or prepare.out";
            return Err(Error::Usage(what.to_owned()));
        }
        if wishes.sources.is_empty() {
            return written.point(Err(Error::Config(
                "prepare.sources: is missing; name folders of pictures or CSV files".to_owned(),
            )));
        }
        Ok((wishes, written))
    }
}

impl PrepareOptions {
    fn wishes(&self) -> Result<Prepare> {
        let default = Prepare::default();
        let split = match &self.split {
            None => default.split,
            Some(text) => numbers(text).ok_or_else(|| {
                let what = "three shares that add up to 1 are needed; example: --split 0.8,0.1,0.1";
                Error::Usage(format!("--split {text}: {what}"))
            })?,
        };
        let wishes = Prepare {
            seed: self.seed.unwrap_or(default.seed),
            split,
            shard: self.shard.map_or(default.shard, |shard| shard as usize),
            pictures: self.pictures()?,
            table: self.table()?,
            ..default
        };
        match wishes.problems().first() {
            None => Ok(wishes),
            Some((field, what)) => {
                let option = field.rsplit('.').next().unwrap_or(field);
                Err(Error::Usage(format!("--{option}: {what}")))
            }
        }
    }

    fn pictures(&self) -> Result<Option<PreparePictures>> {
        if self.for_pictures().is_none() {
            return Ok(None);
        }
        let resize = self.resize.as_ref().map(|text| {
            let sides =
                text.split_once('x').and_then(|(r, c)| Some([r.parse().ok()?, c.parse().ok()?]));
            sides.filter(|sides| sides.iter().all(|side| (1..=8192).contains(side))).ok_or_else(
                || {
                    Error::Usage(format!(
                        "--resize {text}: rows and columns, 1 to 8192; example: 28x28"
                    ))
                },
            )
        });
        Ok(Some(PreparePictures {
            resize: resize.transpose()?,
            grey: self.grey,
            near: self.near.unwrap_or(PreparePictures::default().near),
            drop_near: self.drop_near,
        }))
    }

    fn table(&self) -> Result<Option<PrepareTable>> {
        if self.for_tables().is_none() {
            return Ok(None);
        }
        let default = PrepareTable::default();
        let columns: Result<Vec<_>> = self.columns.iter().map(|text| column(text)).collect();
        Ok(Some(PrepareTable {
            label: self.label.clone().unwrap_or(default.label),
            missing: self.missing.as_deref().map(word).transpose()?.unwrap_or_default(),
            encoding: self.encoding.as_deref().map(word).transpose()?.unwrap_or_default(),
            clip: self.clip.as_deref().map(clip).transpose()?,
            ignore: self.ignore.clone(),
            group: self.group.clone(),
            time: self.time.clone(),
            columns: columns?,
        }))
    }

    fn for_pictures(&self) -> Option<&'static str> {
        first(&[
            (self.resize.is_some(), "--resize"),
            (self.grey, "--grey"),
            (self.near.is_some(), "--near"),
            (self.drop_near, "--drop-near"),
        ])
    }

    fn for_tables(&self) -> Option<&'static str> {
        first(&[
            (!self.ignore.is_empty(), "--ignore"),
            (self.group.is_some(), "--group"),
            (self.time.is_some(), "--time"),
            (self.label.is_some(), "--label"),
            (self.missing.is_some(), "--missing"),
            (self.encoding.is_some(), "--encoding"),
            (self.clip.is_some(), "--clip"),
            (!self.columns.is_empty(), "--column"),
        ])
    }

    /// Refuses what is for pictures or tables.
    ///
    /// # Errors
    /// [`Error::Usage`] with the first such option.
    pub fn suit_text(&self) -> Result<()> {
        let first = self.for_pictures().map(|name| (name, "pictures"));
        let other = first.or_else(|| self.for_tables().map(|name| (name, "tables")));
        other.map_or(Ok(()), |(name, is)| {
            let what = format!("{name} is for {is}, and the sources are text; leave it out");
            Err(Error::Usage(what))
        })
    }

    /// Refuses what is for the other kind of sources.
    ///
    /// # Errors
    /// [`Error::Usage`] with the first such option.
    pub fn suit(&self, pictures: bool) -> Result<()> {
        let (other, is, are) = match pictures {
            true => (self.for_tables(), "tables", "pictures"),
            false => (self.for_pictures(), "pictures", "tables"),
        };
        other.map_or(Ok(()), |name| {
            let what = format!("{name} is for {is}, and the sources are {are}; leave it out");
            Err(Error::Usage(what))
        })
    }
}

/// An error about `prepare.table.label: …` as one about `--label: …`.
fn as_of_options(error: Error) -> Error {
    let text = error.to_string();
    let Some((field, what)) = text.strip_prefix("prepare.").and_then(|t| t.split_once(": ")) else {
        return error;
    };
    let mut parts = field.split('.');
    let name = match (parts.next(), parts.next()) {
        (_, Some("columns")) => "column",
        (_, Some(name)) | (Some(name), None) => name,
        (None, _) => return error,
    };
    Error::from_exit_code(error.exit_code(), format!("--{}: {what}", name.replace('_', "-")))
}

fn first(options: &[(bool, &'static str)]) -> Option<&'static str> {
    options.iter().find_map(|&(given, name)| given.then_some(name))
}

/// `N` numbers with commas between them.
fn numbers<const N: usize>(text: &str) -> Option<[f64; N]> {
    let numbers: Option<Vec<f64>> = text.split(',').map(|s| s.trim().parse().ok()).collect();
    numbers?.try_into().ok()
}

/// A word as the card spells it.
fn word<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_value(text.into()).map_err(|e| Error::Usage(format!("{text}: {e}")))
}

fn clip(text: &str) -> Result<Clip> {
    let found = text.split_once('=').and_then(|(how, of)| match how {
        "quantiles" => Some(Clip { quantiles: Some(numbers(of)?), ..Clip::default() }),
        "bounds" => Some(Clip { bounds: Some(numbers(of)?), ..Clip::default() }),
        "deviations" => {
            let deviations = of.parse().ok().filter(|n: &f64| *n > 0.0 && n.is_finite())?;
            Some(Clip { deviations: Some(deviations), ..Clip::default() })
        }
        _ => None,
    });
    found.ok_or_else(|| {
        let ways = "quantiles=0.01,0.99, deviations=4 or bounds=0,100";
        Error::Usage(format!("--clip {text}: write it as {ways}"))
    })
}

fn column(text: &str) -> Result<PrepareColumn> {
    let found = text.rsplit_once('=').and_then(|(name, kind)| {
        let kind: Holds = serde_json::from_value(kind.into()).ok()?;
        let name = name.to_owned();
        Some(PrepareColumn { name, kind: Some(kind), missing: None, fill: None, clip: None })
    });
    found.ok_or_else(|| {
        let kinds = "numeric, category, time or text";
        Error::Usage(format!("--column {text}: write it as NAME=KIND; kinds are {kinds}"))
    })
}

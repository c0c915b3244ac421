//! What can be written on the command line.

use super::bench::args::BenchArgs;
use super::prepare::args::PrepareArgs;
use crate::comm::launcher;
use crate::error::Error;
use crate::report::lr_range::Range;
use crate::train::Device;
use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Ring all-reduce data-parallel training of Candle models.
///
/// Start it alone for one rank, or under mpirun or srun for several:
///
///   mpirun -n 2 annulus train configs/lenet-mnist.json
#[derive(Debug, Parser)]
#[command(version, verbatim_doc_comment)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train the model of a card.
    Train(TrainArgs),
    /// Evaluate a model on a card's test set.
    Eval(EvalArgs),
    /// Search for the best values of some options of a card: grid, random, successive halving.
    Tune(TuneArgs),
    /// Find a learning rate: train at rising rates and see where the loss falls fastest.
    LrFind(LrFindArgs),
    /// Clean, deduplicate, split and count pictures or tables, and write files to train on.
    Prepare(Box<PrepareArgs>),
    /// Show what is in a data set: counts, statistics, a few samples.
    Inspect(InspectArgs),
    /// Check this machine, the launcher and MPI, and test every collective on the ranks at hand.
    Doctor,
    /// Measure all-reduce, training steps and optimizers on the ranks at hand, beside their limits.
    Bench(BenchArgs),
    /// Compare two runs by their ledgers: the first step that differs, and in what.
    Diff(DiffArgs),
}

/// `annulus diff`. Exit code 0 when the runs are the same bit for bit, 76 when they differ.
#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// A run folder.
    pub a: PathBuf,
    /// Another run folder.
    pub b: PathBuf,
}

/// `annulus inspect`.
#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// A card, its `data` section alone, or a folder that `annulus prepare` has written.
    pub data: PathBuf,
    /// Change an option of the card; may be repeated.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub sets: Vec<String>,
    /// How many of the first samples to show
    #[arg(long, default_value_t = 16, value_name = "N")]
    pub samples: usize,
    /// Write pictures as a PNG instead of showing them on a terminal with colours
    #[arg(long, value_name = "FILE")]
    pub sheet: Option<PathBuf>,
}

/// `annulus train`.
#[derive(Debug, clap::Args)]
pub struct TrainArgs {
    /// The card: a JSON file that describes the job (configs/README.md lists every option).
    pub card: PathBuf,
    /// Change an option of the card; may be repeated. Example: --set train.epochs=5
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub sets: Vec<String>,
    /// Run folder for model, metrics and status [default: runs/NAME-OF-THE-CARD]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// What to go on from: `auto` the newest sound checkpoint of the run folder, if there is one;
    /// `never` from the start; or the folder of a checkpoint
    #[arg(long, default_value = "auto", value_name = "auto|never|DIR")]
    pub resume: String,
    /// Where to compute: cpu, cuda (each rank its own GPU), or cuda:N
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub device: Device,
    /// Threads that one rank computes with [default: cores / ranks of the host]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Print model, parameters, memory, steps and bytes per step, and stop.
    #[arg(long)]
    pub dry_run: bool,
}

/// `annulus eval`.
#[derive(Debug, clap::Args)]
pub struct EvalArgs {
    /// A run folder, or a model as a safetensors file.
    pub model: PathBuf,
    /// The card that names the model's kind and the test set.
    pub card: PathBuf,
    /// Change an option of the card; may be repeated.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub sets: Vec<String>,
    /// Write all numbers, each class and the confusion matrix as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Where to compute: cpu, cuda (each rank its own GPU), or cuda:N
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub device: Device,
    /// Threads that one rank computes with [default: cores / ranks of the host]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

/// `annulus tune`. Interrupted, the same command goes on, and ends with the same table.
#[derive(Debug, clap::Args)]
pub struct TuneArgs {
    /// The card of the training; its section `tune` says what is searched.
    pub card: PathBuf,
    /// A file with what would else be the section `tune` of the card
    #[arg(long, value_name = "FILE")]
    pub space: Option<PathBuf>,
    /// Change an option of the card, or of the search; may be repeated. Example: --set tune.trials=20
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub sets: Vec<String>,
    /// Folder of the search; each trial is a run folder in it [default: runs/tune-NAME-OF-THE-CARD]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// What each trial is started with, for several ranks: 'mpirun -n 2' [default: the launcher of this command;
    /// srun in a Slurm job of several tasks; else one rank]
    #[arg(long, value_name = "COMMAND")]
    pub launch: Option<String>,
    /// Run this trial only, from 0: for a Slurm array, whose tasks may go on at once
    #[arg(long, value_name = "N", conflicts_with_all = ["table", "dry_run"])]
    pub trial: Option<usize>,
    /// Run nothing: write the table, the page and the best card of what has been run so far
    #[arg(long, conflicts_with = "dry_run")]
    pub table: bool,
    /// Check everything, list the trials, and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Where to compute: cpu, cuda (each rank its own GPU), or cuda:N
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub device: Device,
    /// Threads that one rank computes with [default: cores / ranks of the host]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

/// `annulus lr-find`: the range test of Smith (2017). No checkpoint is written and no run folder changed.
#[derive(Debug, clap::Args)]
pub struct LrFindArgs {
    /// The card of the training.
    pub card: PathBuf,
    /// Change an option of the card; may be repeated.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub sets: Vec<String>,
    /// The learning rate of the first step
    #[arg(long, default_value_t = 1e-7, value_name = "RATE")]
    pub from: f64,
    /// The learning rate of the last step
    #[arg(long, default_value_t = 10.0, value_name = "RATE")]
    pub to: f64,
    /// Steps from one to the other; fewer are taken when the smoothed loss rises to 4 times its lowest
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub steps: u64,
    /// Folder for lr-find.json and lr-find.html [default: runs/lr-find/NAME-OF-THE-CARD]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Where to compute: cpu, cuda (each rank its own GPU), or cuda:N
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub device: Device,
    /// Threads that one rank computes with [default: cores / ranks of the host]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

impl LrFindArgs {
    /// The rates to try.
    ///
    /// # Errors
    /// [`Error::Usage`] if they are none.
    pub fn range(&self) -> Result<Range, Error> {
        let Self { from, to, steps, .. } = *self;
        let sound = from > 0.0 && from < to && to.is_finite();
        if !sound || !(2..=1_000_000).contains(&steps) {
            return Err(Error::Usage(format!(
                "--from {from} --to {to} --steps {steps}: rates above 0, the first smaller than the last, and \
                 2 to 1,000,000 steps are needed"
            )));
        }
        Ok(Range { from, to, steps })
    }
}

/// Reads the command line; help, versions and mistakes are printed here, by one rank only.
///
/// # Errors
/// The exit code: 0 after help, 64 after a mistake.
pub fn parse() -> Result<Args, u8> {
    Args::try_parse().map_err(|error| {
        let silent = launcher::rank_hint() != 0;
        if !silent {
            // Nobody is left to be told when printing fails.
            let _ = error.print();
        }
        if error.use_stderr() { 64 } else { 0 }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }
}

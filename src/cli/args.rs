//! What can be written on the command line.

use super::bench::args::BenchArgs;
use crate::comm::launcher;
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
    /// Where to compute: cpu, cuda (each rank its own GPU), or cuda:N
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub device: Device,
    /// Threads that one rank computes with [default: cores / ranks of the host]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
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

//! What can be asked of `annulus bench`.

use super::entrant::{Entrant, parse as parse_entrant};
use super::sizes;
use crate::train::Device;
use std::path::PathBuf;

/// `annulus bench`.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// What to measure.
    #[command(subcommand)]
    pub part: Part,
}

/// The parts.
#[derive(Debug, clap::Subcommand)]
pub enum Part {
    /// Sum buffers of many sizes over all ranks: our all-reduce beside MPI's own and the memory limit.
    Allreduce(AllreduceArgs),
    /// Take training steps of the shipped models and show where their time goes.
    Step(StepArgs),
    /// Compare reproducible mode with fast mode on the same micro-batches.
    Leaves(LeavesArgs),
    /// Update parameters: our optimizers beside Candle's AdamW and the memory limit.
    Optimizer(OptimizerArgs),
}

/// `annulus bench allreduce`.
///
/// Every size is measured with all algorithms in turn, batch by batch, so that a machine that slows
/// down meanwhile harms all of them alike. A batch is as many calls as take 200 µs, and the slowest
/// rank's time counts. Sums are checked once for each size and algorithm.
///
///   mpirun -n 2 annulus bench allreduce --sizes 8,64K,1M
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct AllreduceArgs {
    /// Bytes of f32 numbers, with K, M, G for powers of 1024
    /// [default: powers of 4 from 8 bytes, and 256M, as memory allows]
    #[arg(long, value_delimiter = ',', value_name = "SIZE,…", value_parser = sizes::parse)]
    pub sizes: Option<Vec<usize>>,
    /// What to compare: ours (the automatic choice), shared, ring, doubling, mpi
    /// [default: all that these ranks have]
    #[arg(long, value_delimiter = ',', value_name = "NAME,…", value_parser = parse_entrant)]
    pub algorithms: Option<Vec<Entrant>>,
    /// Sum this many small tensors, as a ResNet has, instead of sizes: one call for each tensor
    /// against one call for each bucket.
    #[arg(long, value_name = "N", conflicts_with = "sizes", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub tensors: Option<u32>,
    /// Seconds for each size [default: the budget divided by the number of sizes]
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub seconds: Option<f64>,
    /// Seconds for everything; sizes that do not fit any more are left out.
    #[arg(long, value_name = "S", default_value = "60", value_parser = seconds)]
    pub budget: f64,
    /// Write all figures to this file, too.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// `annulus bench step`.
///
/// lenet and mlp train on MNIST with the code of `annulus train`; gpt trains on made-up tokens. With --card, the
/// model of any card trains on its data.
#[derive(Debug, clap::Args)]
pub struct StepArgs {
    /// Which model.
    #[arg(long, value_enum, default_value = "all")]
    pub model: ModelChoice,
    /// A card whose model, data and optimizer are measured instead
    #[arg(long, value_name = "CARD", conflicts_with_all = ["model", "data"])]
    pub card: Option<PathBuf>,
    /// Samples for each rank and step [default: 64; gpt 4; of a card its global batch divided by the ranks]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=30_000))]
    pub batch: Option<u32>,
    /// Steps to measure, after a warm-up [default: as many as fit into --seconds]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub steps: Option<u64>,
    /// Seconds for each model, when --steps is not given.
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    pub seconds: f64,
    /// Where to compute: cpu, cuda (each rank its own GPU), or cuda:N
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub device: Device,
    /// Threads that one rank computes with [default: cores / ranks of the host]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// The folder with MNIST's four files [default: data/mnist here or beside the program]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Write all figures to this file, too.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// `annulus bench leaves`.
///
/// LeNet-5 and the MLP train on MNIST both ways in turn, with one thread in each rank.
#[derive(Debug, clap::Args)]
pub struct LeavesArgs {
    /// Leaves of each global batch.
    #[arg(long, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub leaves: u16,
    /// Samples for each rank and step.
    #[arg(long, value_name = "N", default_value = "128", value_parser = clap::value_parser!(u32).range(1..=30_000))]
    pub batch: u32,
    /// Steps of each way in each round, after a warm-up.
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub steps: u32,
    /// Rounds.
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rounds: u16,
    /// The folder with MNIST's four files [default: data/mnist here or beside the program]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Write all figures to this file, too.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// The models of `annulus bench step`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ModelChoice {
    /// LeNet-5 on MNIST.
    Lenet,
    /// Dense layers 784-512-256-10 on MNIST.
    Mlp,
    /// A small GPT on made-up tokens.
    Gpt,
    /// One after the other.
    All,
}

/// `annulus bench optimizer`.
///
/// Each rank updates its own parameters, all ranks at once; the slowest rank's time counts.
#[derive(Debug, clap::Args)]
pub struct OptimizerArgs {
    /// Numbers of parameters, with K and M for thousands and millions
    /// [default: LeNet-5's 34,622 and 20,037,642, those of a 784-4096-4096-10 MLP]
    #[arg(long, value_delimiter = ',', value_name = "N,…", value_parser = sizes::parse_count)]
    pub params: Option<Vec<usize>>,
    /// Seconds for each number of parameters.
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    pub seconds: f64,
    /// Write all figures to this file, too.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// A time to spend: more than nothing, at most a day.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(s) if s > 0.0 && s <= 86_400.0 => Ok(s),
        _ => Err("expected seconds, more than 0 and at most 86400".to_owned()),
    }
}

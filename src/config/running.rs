//! Around the loop: communication, reports, injected faults.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How the ranks talk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Comm {
    /// The way of an all-reduce. All give the same sums; `auto` is the fast one.
    pub algorithm: Algorithm,
    /// What gradients look like on their way between hosts. 16-bit floats halve the bytes on slow
    /// links for a rounding of each partial sum.
    pub wire: Wire,
    /// Each message between ranks is followed by its CRC-32; one that was damaged on its way ends the job
    /// with the names of both ends instead of spoiling the sums. What the ranks of a host exchange in shared
    /// memory has none.
    pub checksum: bool,
    /// Reduce gradients while the backward pass goes on. `auto` takes the first steps both ways and
    /// keeps the faster; the results are the same.
    pub overlap: Overlap,
    /// Seconds that a rank waits for another before it gives up and names it. When left out: 60 until
    /// 20 steps are done, then 20 times the median step, at least 10, and up to 60 for a rank that saves or
    /// evaluates; always 60 where a rank does not see the run folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 10_000_000), extend("exclusiveMinimum" = 0))]
    pub deadline_s: Option<f64>,
    /// Gradients are reduced in buckets of about this many megabytes.
    #[schemars(range(max = 65536), extend("exclusiveMinimum" = 0))]
    pub bucket_mb: f64,
    /// The first bucket is smaller, so that communication starts early.
    #[schemars(range(max = 65536), extend("exclusiveMinimum" = 0))]
    pub first_bucket_mb: f64,
    /// Messages are cut into segments of this many kilobytes.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub segment_kb: usize,
}

impl Default for Comm {
    fn default() -> Self {
        Comm {
            algorithm: Algorithm::Auto,
            wire: Wire::F32,
            checksum: false,
            overlap: Overlap::Auto,
            deadline_s: None,
            bucket_mb: 25.0,
            first_bucket_mb: 1.0,
            segment_kb: 512,
        }
    }
}

/// All-reduce algorithms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// Shared memory among the ranks of a host, messages between hosts; by size.
    #[default]
    Auto,
    /// As auto, and an error where the ranks of a host cannot share memory.
    Shared,
    /// Reduce-scatter and all-gather round a ring of messages between all ranks.
    Ring,
    /// Recursive doubling by messages between all ranks.
    Doubling,
    /// `MPI_Allreduce` of the installed MPI, for comparison.
    Mpi,
}

impl Algorithm {
    /// All of them, with their names in cards.
    pub const ALL: [(Algorithm, &str); 5] = [
        (Algorithm::Auto, "auto"),
        (Algorithm::Shared, "shared"),
        (Algorithm::Ring, "ring"),
        (Algorithm::Doubling, "doubling"),
        (Algorithm::Mpi, "mpi"),
    ];
}

/// Whether communication and computation overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// Measured at the start.
    Auto,
    /// Always, on a thread of its own.
    On,
    /// Never.
    Off,
}

/// Number formats for gradients between hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Wire {
    /// As they are.
    F32,
    /// The range of f32 with 8 bits of precision.
    Bf16,
    /// 11 bits of precision, nothing below 6e-8; values beyond 65,504 become infinite and stop the job. Use
    /// it with `train.loss_scale`.
    F16,
}

/// What is written while training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Report {
    /// Write a line to metrics.jsonl every n steps.
    #[schemars(range(min = 1))]
    pub every_steps: u64,
    /// Run folder; `--out` wins. When left out: runs/NAME-OF-THE-CARD under the current folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out: Option<PathBuf>,
}

impl Default for Report {
    fn default() -> Self {
        Report { every_steps: 1, out: None }
    }
}

/// A fault to inject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The rank that suffers it.
    pub rank: usize,
    /// In this step, counted from 1.
    #[schemars(range(min = 1))]
    pub step: u64,
    /// What happens.
    pub kind: FaultKind,
    /// When this part of the step begins; at the start of the step when left out. For the kinds that
    /// happen to the process: panic, stop, kill, exit, abort, segfault, memory, slow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<FaultPlace>,
    /// At this message of the reduction of a gradient bucket, counted from 0 (between several hosts 0 is the
    /// collective's header): what `corrupt`, `short` and `long` happen to (1 when left out), or when `at` is
    /// `reduce`, the moment of the fault. Only messages count, not what goes through shared memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub message: Option<u64>,
    /// How long a `slow` rank sleeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86400))]
    pub seconds: Option<f64>,
}

/// Parts of a step at which a fault can strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FaultPlace {
    /// The forward pass.
    Forward,
    /// The backward pass.
    Backward,
    /// The reduction of the gradients.
    Reduce,
    /// The parameter update.
    Optimizer,
    /// The evaluation after the step.
    Evaluation,
    /// The checkpoint after the step.
    Saving,
}

/// Kinds of injected faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FaultKind {
    /// The rank panics.
    Panic,
    /// The rank returns an error.
    Error,
    /// The process is stopped (SIGSTOP).
    Stop,
    /// The process is killed (SIGKILL).
    Kill,
    /// The process exits with code 0 in the middle of the run.
    Exit,
    /// The process aborts (SIGABRT).
    Abort,
    /// The process gets SIGSEGV.
    Segfault,
    /// The process gets no more memory (`RLIMIT_AS`) and asks for a gigabyte.
    Memory,
    /// The rank sleeps for `seconds`.
    Slow,
    /// The thread that reads the data panics.
    Loader,
    /// The rank skips its next collective.
    Skip,
    /// The rank does a collective that the others do not.
    Extra,
    /// The rank gives its next collective one element more than the others.
    Length,
    /// A bit of a message flips on its way.
    Corrupt,
    /// A message is 8 bytes too short.
    Short,
    /// A message is 8 bytes too long.
    Long,
    /// One gradient becomes NaN.
    Nan,
    /// One gradient becomes infinite.
    Inf,
    /// The loss that the rank reports is ten times what it is.
    Spike,
    /// One bit of one parameter flips after the step.
    Flip,
}

impl FaultKind {
    /// Whether it happens to the process as such, so that it can happen anywhere in a step.
    #[must_use]
    pub fn is_of_process(self) -> bool {
        use FaultKind::{Abort, Exit, Kill, Memory, Panic, Segfault, Slow, Stop};
        matches!(self, Panic | Stop | Kill | Exit | Abort | Segfault | Memory | Slow)
    }

    /// Whether it happens to a message.
    #[must_use]
    pub fn is_of_message(self) -> bool {
        matches!(self, FaultKind::Corrupt | FaultKind::Short | FaultKind::Long)
    }
}

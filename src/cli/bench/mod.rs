//! `annulus bench`: how fast the parts are, each beside its limit and beside what others do, measured
//! in one run.
//!
//! | file | holds |
//! |---|---|
//! | `allreduce` | sizes × algorithms; `tensors`: many small ones, bucketed or not |
//! | `step` | training steps of the shipped models by phase; `mnist`, `gpt` and `card` take them |
//! | `leaves` | what reproducible mode costs |
//! | `optimizer` | updates, beside Candle's |
//! | `race` | several things timed in turn, the slowest rank's time |
//! | `limits` | memory passes, peak of matrix products, free memory |
//! | `buffers` | memory that is summed |
//! | `sums` | numbers whose sum is exact, and the check |
//! | `heading` `table` `sizes` `entrant` | what people see and write |

mod allreduce;
pub mod args;
mod buffers;
mod card;
mod entrant;
mod gpt;
mod heading;
mod leaves;
mod limits;
mod mnist;
mod optimizer;
mod race;
mod sizes;
mod step;
mod sums;
mod table;
mod tensors;

use crate::collective::Group;
use crate::error::Result;
use args::{BenchArgs, Part};

/// Measures the part that was asked for on the ranks at hand.
///
/// # Errors
/// When memory is short, a result is wrong, a file cannot be written, or a rank is late.
pub fn run(args: &BenchArgs, group: &mut Group) -> Result<()> {
    match &args.part {
        Part::Allreduce(args) => allreduce::run(args, group),
        Part::Leaves(args) => leaves::run(args, group),
        Part::Optimizer(args) => optimizer::run(args, group),
        Part::Step(args) => step::run(args, group),
    }
}

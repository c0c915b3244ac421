//! `annulus doctor`: is this machine, with this launcher and this MPI, fit for training?

use crate::collective::{Algorithm, Group, Tuning, self_test};
use crate::comm::{self, launcher};
use crate::error::Result;
use crate::report::console::say;
use crate::train::gpus;
use std::time::Duration;

/// Short, so that a lost message shows soon; small segments, so that every boundary is met.
const DEADLINE: Duration = Duration::from_secs(20);
const SEGMENT: usize = 4096;

/// Prints what was found and tests every collective on the ranks at hand.
///
/// # Errors
/// When a collective is wrong or a rank is late.
pub fn run(group: &mut Group) -> Result<()> {
    let speaks = group.rank() == 0;
    let fact = |label: &str, text: &str| {
        if speaks {
            say(&format!("  {label:<10} {text}"));
        }
    };
    if speaks {
        say(&format!("annulus {} doctor", env!("CARGO_PKG_VERSION")));
    }
    fact("launcher", launcher::from_env().map_or("none: one rank", |l| l.name));
    fact("mpi", &comm::library_version());
    let hosts = group.hosts().to_vec();
    fact("ranks", &format!("{} on {}", group.size(), hosts.join(", ")));
    let (local, cores) = (group.local_ranks(), group.local_cores());
    fact("cores", &format!("{cores} for the {local} ranks of this host"));
    if local > cores {
        fact("", "more ranks than cores: correct, but slow; ranks give way while they wait");
    }
    match gpus::list() {
        _ if !candle_core::utils::cuda_is_available() => fact("cuda", "not built in"),
        Ok(gpus) => fact("cuda", &gpus.join(", ")),
        Err(why) => fact("cuda", &format!("built in, but no GPU can be used: {why}")),
    }
    match group.shared_memory() {
        Ok(()) => fact("memory", "the ranks of each host share memory"),
        Err(why) => fact("memory", &format!("not shared, messages are used instead: {why}")),
    }
    if let Some(ns) = group.core_to_core_ns()? {
        fact("", &format!("{ns:.0} ns for a cache line from rank 0 to the next"));
    }
    for (algorithm, name) in Algorithm::ALL {
        let tuning =
            Tuning { deadline: DEADLINE, segment: SEGMENT, algorithm, ..Tuning::default() };
        if algorithm == Algorithm::Shared && group.shared_memory().is_err() {
            continue;
        }
        group.configure(tuning)?;
        let checks = self_test::run(group, SEGMENT)?;
        fact(name, &format!("{checks} checks of all-reduce, broadcast, gather, agree: exact"));
    }
    Ok(())
}

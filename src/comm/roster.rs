//! Who has come? MPI starts when the last rank has come, and waits for ever for one that never does.
//!
//! Before MPI is up no rank can ask another. But the processes that a launcher has started on a host are
//! there to see, with their ranks in their environments, whether or not they have come as far as MPI.

use super::launcher::Launch;
use super::mpi::leave_now;
use crate::util::{processes, whereabouts};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// The environment variable with the seconds that MPI may take to start.
pub const START_TIMEOUT: &str = "ANNULUS_START_TIMEOUT_S";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// The first rank of a host speaks; the others leave so much later, lest the launcher cut it short.
const LET_SPEAK: Duration = Duration::from_millis(500);
/// Exit code: a peer is lost or late.
const LATE: u8 = 69;

/// Ends this process, with who is missing, unless what it gives is dropped in time.
pub fn expect_all(launch: &Launch) -> Option<SyncSender<()>> {
    let (came, waiting) = sync_channel(0);
    let (launch, limit) = (launch.clone(), timeout());
    let watch = move || {
        if waiting.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            give_up(&launch, limit);
        }
    };
    // Without a thread nobody watches, and that is all.
    std::thread::Builder::new().name("annulus-start".into()).spawn(watch).ok().map(|_| came)
}

fn timeout() -> Duration {
    let given = std::env::var(START_TIMEOUT).ok().and_then(|text| text.parse::<f64>().ok());
    let given = given.filter(|seconds| *seconds > 0.0).map(Duration::try_from_secs_f64);
    given.and_then(Result::ok).unwrap_or(DEFAULT_TIMEOUT)
}

fn give_up(launch: &Launch, limit: Duration) -> ! {
    let here = ranks_here(launch.rank_variable);
    let first = here.iter().find(|(_, seat)| seat.is_none()).map(|(rank, _)| *rank);
    if first == launch.rank {
        let text = verdict(launch.size, &here, limit);
        let line = format!("annulus: error: {}: {text}\n", whereabouts::describe());
        // When standard error is gone there is nobody to tell.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    std::thread::sleep(LET_SPEAK);
    leave_now(LATE)
}

/// What is in the place of a rank that has not come; `None` for one that has.
type Seat = Option<(u32, String)>;

fn verdict(size: usize, here: &BTreeMap<usize, Seat>, limit: Duration) -> String {
    let came: Vec<String> =
        here.iter().filter(|(_, seat)| seat.is_none()).map(|(rank, _)| rank.to_string()).collect();
    let missing: Vec<String> = here
        .iter()
        .filter_map(|(rank, seat)| {
            let (pid, program) = seat.as_ref()?;
            Some(format!("rank {rank} (pid {pid}, which runs `{program}`)"))
        })
        .collect();
    let elsewhere = size.saturating_sub(here.len());
    let missing = match (missing.is_empty(), elsewhere) {
        (true, 0) => "all ranks have come: the network between them may be at fault".to_owned(),
        (true, n) => {
            format!("all of this host have come, {n} are on other hosts or were not started")
        }
        (false, _) => format!("missing here: {}", missing.join(", ")),
    };
    format!(
        "MPI has not started in {:.0} s: it waits until all {size} ranks have come. Of this host \
         have come: {}; {missing}. Where start-up takes longer, set {START_TIMEOUT}",
        limit.as_secs_f64(),
        came.join(", ")
    )
}

/// The ranks of this job that its launcher has started on this host, with what is in their place where
/// that is not this program.
fn ranks_here(rank_variable: &str) -> BTreeMap<usize, Seat> {
    let rank_of = |pid: u32| processes::variable(pid, rank_variable)?.parse::<usize>().ok();
    // The first ancestor without a rank is the launcher's own process on this host.
    let launcher = |mut pid: u32| {
        while rank_of(pid).is_some() {
            pid = processes::parent(pid)?;
        }
        Some(pid)
    };
    let me = std::process::id();
    let (mine, program) = (launcher(me), processes::program(me));
    let mut found: BTreeMap<usize, Seat> = BTreeMap::new();
    for pid in processes::all() {
        let Some(rank) = rank_of(pid).filter(|_| launcher(pid) == mine) else { continue };
        let runs = processes::program(pid);
        let seat = if runs.is_some() && runs == program {
            None
        } else {
            let name = runs.as_deref().and_then(Path::file_name);
            Some((pid, name.map_or("?".into(), |name| name.to_string_lossy().into_owned())))
        };
        // A rank may be a chain of processes, such as a shell and what it has started.
        let known = found.entry(rank).or_insert_with(|| seat.clone());
        if known.is_some() {
            *known = seat;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(size: usize, here: &[(usize, Seat)]) -> String {
        verdict(size, &here.iter().cloned().collect(), Duration::from_secs(60))
    }

    #[test]
    fn who_has_not_come_is_named_with_what_is_in_its_place() {
        let text = says(3, &[(0, None), (1, Some((42, "sleep".into()))), (2, None)]);
        assert!(text.contains("all 3 ranks") && text.contains("have come: 0, 2;"), "{text}");
        assert!(text.contains("missing here: rank 1 (pid 42, which runs `sleep`)."), "{text}");
        assert!(says(4, &[(0, None), (1, None)]).contains("have come, 2 are on other hosts"));
        assert!(says(1, &[(0, None)]).contains("network"));
    }

    #[test]
    fn processes_are_found_by_the_rank_in_their_environment() {
        let name = format!("ANNULUS_TEST_RANK_{}", std::process::id());
        let mut child =
            std::process::Command::new("sleep").arg("30").env(&name, "5").spawn().unwrap();
        let found = || ranks_here(&name);
        let start = std::time::Instant::now();
        // Between fork and exec the child still has this process's environment.
        while found().is_empty() && start.elapsed() < Duration::from_secs(5) {}
        let there = found();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(there.keys().collect::<Vec<_>>(), [&5]);
        assert_eq!(there[&5].as_ref().unwrap().0, child.id());
    }
}

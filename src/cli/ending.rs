//! How the process ends when something went wrong: one message, the right code, no rank left behind.

use crate::collective::Group;
use crate::comm::{self, launcher};
use crate::error::Error;
use crate::train::postmortem;
use crate::util::{allocator, human, panics, processes, whereabouts};
use std::io::Write;
use std::time::Duration;

/// So long a rank that fails may take over its report and its end, whatever hangs: a disk, MPI.
const LIMIT: Duration = Duration::from_secs(2);

/// Prints one line to standard error, with one write, so that ranks do not mix their words.
pub fn tell(text: &str) {
    // When standard error is gone there is nobody to tell.
    let _ = std::io::stderr().write_all(format!("annulus: {text}\n").as_bytes());
}

/// Ends with an error of this rank: in good order when all ranks have the same one, else by tearing
/// the job down. Returns the exit code of the orderly way.
pub fn leave(error: &Error, group: Group) -> u8 {
    if !group.failed_together() {
        abort(error);
    }
    if group.rank() == 0 {
        match error {
            Error::Preempted(text) => tell(text),
            error => tell(&format!("error: {error}")),
        }
    }
    leave_with(error.exit_code(), group)
}

/// Ends with an exit code that all ranks have come to, once all of them are here.
pub fn leave_with(code: u8, mut group: Group) -> u8 {
    let met = group.barrier();
    if group.size() == 1 || (code == 0 && met.is_ok()) {
        group.finish();
        return code;
    }
    // Not by finalising and exiting: Open MPI's launcher then waits for two seconds, MPICH's turns
    // the code into another. MPI_Abort ends in 0.3 s with this code under both.
    comm::abort(code)
}

/// Ends the whole job because of an error that only this rank knows of.
pub fn abort(error: &Error) -> ! {
    comm::end_within(LIMIT, error.exit_code());
    let more = postmortem::examine(error);
    tell(&format!("error: {}: {error}{more}", whereabouts::describe()));
    if matches!(error, Error::PeerLost(_)) {
        // The other survivors are about to say the same of the same culprit: let them.
        std::thread::sleep(Duration::from_millis(300));
    }
    comm::abort(error.exit_code())
}

/// Ends before the ranks have met: an error of the set-up is the same on all of them and is told by
/// the one that the launcher calls rank 0.
pub fn abort_before_meeting(error: &Error) -> ! {
    if !matches!(error, Error::Config(_)) {
        abort(error);
    }
    if launcher::rank_hint() == 0 {
        tell(&format!("error: {error}"));
    }
    // Each process is a job of its own here: leave by itself, so that rank 0 can still speak.
    std::process::exit(i32::from(error.exit_code()))
}

/// From now on a panic or an allocation that fails ends the job, wherever it happens, with its place.
pub fn install_hooks() {
    allocator::when_exhausted(end_exhausted);
    install_panic_hook();
}

/// The end of a rank that could not get `size` bytes.
fn end_exhausted(size: usize) -> ! {
    comm::end_within(LIMIT, 70);
    let has = human::bytes(processes::address_space());
    let words = format!(
        "out of memory: {} ({size} bytes) asked for, and the system gives this process no more than the \
         {has} of address space it has. Look at the memory limit of the job (ulimit -v, cgroup, Slurm's \
         --mem); a smaller train.global_batch, a larger train.accumulate or fewer ranks on a host \
         need less",
        human::bytes(size as u64)
    );
    let more = postmortem::examine_words(&words, 70);
    tell(&format!("error: {}: {words}{more}", whereabouts::describe()));
    comm::abort(70)
}

fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        if panics::expected() {
            return;
        }
        let payload = info.payload();
        let words = payload
            .downcast_ref::<&str>()
            .map(|s| (*s).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned());
        let place = info.location().map_or(String::new(), |at| format!(" at {at}"));
        comm::end_within(LIMIT, 70);
        let more = postmortem::examine_words(&format!("panic: {words}{place}"), 70);
        tell(&format!(
            "panic: {}: {words}{place}. This is a bug in annulus or a library it uses; please \
             report it with this line{more}",
            whereabouts::describe()
        ));
        comm::abort(70);
    }));
}

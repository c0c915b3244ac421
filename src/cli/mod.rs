//! The command line: arguments in, exit code out.

mod args;
mod bench;
mod diff;
mod doctor;
mod ending;
mod eval;
mod inspect;
mod lr_find;
mod prepare;
mod prepare_text;
mod text_args;
mod train;
mod tune;

use crate::collective::Group;
use crate::comm::{self, launcher};
use crate::util::{malloc, restart};
use args::{Args, Command};
use std::process::ExitCode;

/// Deep graphs are walked and freed by recursion: 20,000 chained operations overflow 2 MB.
const STACK: usize = 64 << 20;

/// The whole program.
#[must_use]
pub fn run() -> ExitCode {
    restart::with_settings();
    malloc::keep_freed_memory();
    let args = args::parse();
    if let (Err(code), None) = (&args, launcher::from_env()) {
        return ExitCode::from(*code);
    }
    if let Ok(Args { command: Command::Diff(args) }) = &args {
        // Reads files and nothing else: no other rank is needed, and no MPI.
        return diff::run(args);
    }
    if let Ok(Args { command: Command::Tune(args) }) = &args {
        // Starts jobs of several ranks and is none itself.
        return tune::run(args);
    }
    ending::install_hooks();
    if let Ok(Args { command: Command::Inspect(args) }) = &args {
        return inspect::run(args);
    }
    // These can be ended at any moment: nothing waits for a good one to leave.
    let at_any = |command: &Command| matches!(command, Command::Prepare(_) | Command::LrFind(_));
    let ends_at_once = args.as_ref().is_ok_and(|args| at_any(&args.command));
    if !ends_at_once && let Err(error) = crate::train::hear_signals() {
        ending::tell(&format!("error: {error}"));
        return ExitCode::from(error.exit_code());
    }
    let worker = std::thread::Builder::new().stack_size(STACK).spawn(move || work(&args));
    match worker.map(std::thread::JoinHandle::join) {
        Ok(Ok(code)) => ExitCode::from(code),
        // A panic has been reported and has ended the process in the hook.
        Ok(Err(_)) => ExitCode::from(70),
        Err(e) => {
            ending::tell(&format!("cannot start the main thread: {e}"));
            ExitCode::from(70)
        }
    }
}

/// Meets the other ranks, does what the command says, and leaves with them. A command line that was
/// refused (its exit code) also ends here: launchers take two seconds over ranks that just exit.
fn work(args: &Result<Args, u8>) -> u8 {
    let mut group = match comm::connect().and_then(Group::meet) {
        Ok(group) => group,
        Err(error) => ending::abort_before_meeting(&error),
    };
    let args = match args {
        Ok(args) => args,
        Err(code) => return ending::leave_with(*code, group),
    };
    match dispatch(&args.command, &mut group) {
        Ok(()) => {
            group.finish();
            0
        }
        Err(error) => ending::leave(&error, group),
    }
}

fn dispatch(command: &Command, group: &mut Group) -> crate::error::Result<()> {
    match command {
        Command::Train(args) => train::run(args, group),
        Command::Eval(args) => eval::run(args, group),
        Command::LrFind(args) => lr_find::run(args, group),
        Command::Prepare(args) => prepare::run(args, group),
        Command::Doctor => doctor::run(group),
        Command::Bench(args) => bench::run(args, group),
        Command::Diff(_) | Command::Inspect(_) | Command::Tune(_) => Ok(()),
    }
}

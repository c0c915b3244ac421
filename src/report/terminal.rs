//! Is a person watching? Also through a launcher.
//!
//! Under `mpirun` a rank's standard error is a pipe to the launcher, although the launcher may well
//! print to a terminal. So when standard error is a pipe, the ancestors of this process are asked:
//! if the launcher among them writes to a terminal, so do we. Linux only (`/proc`); elsewhere, and
//! under schedulers, plain lines are right.

use indicatif::{ProgressDrawTarget, TermLike};
use std::fs::File;
use std::io::{self, IsTerminal, Write};

const LAUNCHERS: [&str; 6] =
    ["mpirun", "mpiexec", "mpiexec.hydra", "mpirun.mpich", "orterun", "prterun"];

/// Where a progress bar can be drawn; `None` when nobody would see it move.
pub fn draw_target() -> Option<ProgressDrawTarget> {
    if std::env::var_os("NO_COLOR").is_some() || std::env::var("TERM").is_ok_and(|t| t == "dumb") {
        return None;
    }
    if io::stderr().is_terminal() {
        return Some(ProgressDrawTarget::stderr_with_hz(8));
    }
    let terminal = launchers_terminal()?;
    let width = rustix::termios::tcgetwinsize(&terminal).map_or(80, |size| size.ws_col.max(40));
    Some(ProgressDrawTarget::term_like_with_hz(Box::new(Forwarded { width }), 8))
}

/// The terminal that the launcher writes its errors to.
fn launchers_terminal() -> Option<File> {
    let mut pid = std::process::id();
    for _ in 0..6 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // `pid (name) state parent …`; the name may itself hold brackets and spaces.
        let (head, tail) = stat.rsplit_once(") ")?;
        let name = head.split_once('(')?.1;
        if LAUNCHERS.contains(&name) {
            let target = std::fs::read_link(format!("/proc/{pid}/fd/2")).ok()?;
            if target.starts_with("/dev/pts") || target.starts_with("/dev/tty") {
                return File::open(target).ok();
            }
        }
        pid = tail.split(' ').nth(1)?.parse().ok()?;
    }
    None
}

/// A terminal at the far end of a pipe: it understands the usual control sequences.
#[derive(Debug)]
struct Forwarded {
    width: u16,
}

impl Forwarded {
    fn put(&self, text: &str) -> io::Result<()> {
        io::stderr().write_all(text.as_bytes())
    }
}

impl TermLike for Forwarded {
    fn width(&self) -> u16 {
        self.width
    }
    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        if n == 0 { Ok(()) } else { self.put(&format!("\x1b[{n}A")) }
    }
    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        if n == 0 { Ok(()) } else { self.put(&format!("\x1b[{n}B")) }
    }
    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        if n == 0 { Ok(()) } else { self.put(&format!("\x1b[{n}C")) }
    }
    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        if n == 0 { Ok(()) } else { self.put(&format!("\x1b[{n}D")) }
    }
    fn write_line(&self, text: &str) -> io::Result<()> {
        self.put(&format!("{text}\r\n"))
    }
    fn write_str(&self, text: &str) -> io::Result<()> {
        self.put(text)
    }
    fn clear_line(&self) -> io::Result<()> {
        self.put("\r\x1b[2K")
    }
    fn flush(&self) -> io::Result<()> {
        io::stderr().flush()
    }
}

//! What has become of another process of this host.

use rustix::process::{Pid, test_kill_process};
use std::path::PathBuf;

/// The state of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It runs, or sleeps and can run.
    Alive,
    /// It was stopped (SIGSTOP, a debugger).
    Stopped,
    /// There is none of this number, or only its remains.
    Gone,
}

impl State {
    /// In words, for messages.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            State::Alive => "the process is alive",
            State::Stopped => "the process is stopped (SIGSTOP or a debugger)",
            State::Gone => "the process is gone",
        }
    }
}

/// Whether a process of this number runs on this host. A number is given again after some time, so
/// `true` may be about another process.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    match i32::try_from(pid).ok().and_then(Pid::from_raw) {
        None => false,
        // Not being allowed to signal it means that it is there.
        Some(pid) => test_kill_process(pid) != Err(rustix::io::Errno::SRCH),
    }
}

/// The state of process `pid` of this host, as Linux tells it.
#[must_use]
pub fn state(pid: u32) -> State {
    if !is_alive(pid) {
        return State::Gone;
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The letter stands after the name, which is in brackets and may hold brackets itself.
    match stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next()) {
        Some('T' | 't') => State::Stopped,
        Some('Z' | 'X') => State::Gone,
        _ => State::Alive,
    }
}

/// The processes of this host that can be seen.
pub fn all() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The process that started process `pid`, as far as Linux tells.
#[must_use]
pub fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // State and parent stand after the name, which is in brackets and may hold brackets itself.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// The file that process `pid` runs, if this user may know.
#[must_use]
pub fn program(pid: u32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// The words with which process `pid` was started, if this user may know; else none.
#[must_use]
pub fn arguments(pid: u32) -> Vec<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = bytes.strip_suffix(&[0]).unwrap_or(&bytes).split(|&byte| byte == 0);
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// A variable of the environment with which process `pid` was started, if this user may know.
#[must_use]
pub fn variable(pid: u32, name: &str) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let of = |entry: &[u8]| {
        let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(String::from_utf8_lossy(value).into_owned())
    };
    environment.split(|&byte| byte == 0).find_map(of)
}

/// Bytes of this process's address space, as Linux tells it; 0 where it does not.
#[must_use]
pub fn address_space() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    pages.unwrap_or(0).saturating_mul(rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::{Duration, Instant};

    #[test]
    fn the_words_of_a_process_are_those_it_was_started_with() {
        let words: Vec<String> = std::env::args().collect();
        assert_eq!(arguments(std::process::id()), words);
        assert!(arguments(4_000_000_000).concat().is_empty());
    }

    #[test]
    fn a_process_is_alive_then_stopped_then_gone() {
        assert_eq!(state(std::process::id()), State::Alive);
        assert_eq!(state(4_000_000_000), State::Gone);
        let mut child = Command::new("sleep").arg("30").spawn().unwrap();
        let signal = |name: &str| {
            let pid = child.id().to_string();
            assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
        };
        let until = |wanted: State| {
            let start = Instant::now();
            while state(child.id()) != wanted {
                assert!(start.elapsed() < Duration::from_secs(5), "never {wanted:?}");
                std::thread::yield_now();
            }
        };
        signal("-STOP");
        until(State::Stopped);
        signal("-KILL");
        until(State::Gone);
        child.wait().unwrap();
    }
}

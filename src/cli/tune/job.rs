//! A trial while it runs: `annulus train` as a process of its own, so that whatever becomes of it, the search lives.

use super::launch::Launch;
use super::signals::Signals;
use super::trial::{Ended, Trial, metric};
use crate::checkpoint::RunLock;
use crate::config::{Objective, Tune, Unit};
use crate::error::{Error, Result};
use crate::report::console::say;
use crate::report::status::{self, STATUS};
use crate::train::{Leave, SEARCH, STOP};
use crate::util::whereabouts;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Map, Value};
use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// What a trial prints goes here, in its run folder.
pub const LOG: &str = "log.txt";
/// Between two looks at the process.
const PAUSE: Duration = Duration::from_millis(20);
/// So long a trial may take to save itself when the search is told to leave, before it gets SIGTERM.
const PATIENCE: Duration = Duration::from_secs(20);
/// And so long from then on, before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// A trial that ends for a reason that may go away is started again, this many times and after this long.
const RETRIES: usize = 2;
const REST: Duration = Duration::from_secs(1);
/// Exit codes of what would fail again: bad usage, data, input, numbers, card.
const FINAL: [u8; 5] = [64, 65, 66, 77, 78];

/// How trials are run.
pub struct Jobs<'a> {
    /// The search's folder.
    pub search: &'a Path,
    /// The card of all trials.
    pub card: PathBuf,
    /// The search.
    pub tune: &'a Tune,
    /// What starts them.
    pub launch: Launch,
    /// Options of `annulus train` that are the same for all: device, threads.
    pub options: Vec<String>,
    /// What the search is told.
    pub signals: Signals,
}

/// What became of the run of a trial.
#[derive(Debug)]
pub enum Outcome {
    /// It came to the end of the rung, or failed for good.
    Ended(Ended),
    /// It, or the search, was told to leave: the exit code, and why.
    Left(u8, String),
}

/// What is known of one process that has ended.
enum Verdict {
    Outcome(Outcome),
    /// Killed, out of memory, a full disk, …: it may go better the next time. What is to be told if not.
    Unclear(Ended),
}

impl Jobs<'_> {
    /// Runs `trial` until it has had `budget` epochs or steps, or to its end, from where it stands.
    ///
    /// # Errors
    /// When no process can be started, or the search's folder cannot be written.
    pub fn run(&self, trial: &Trial, budget: Option<u64>) -> Result<Outcome> {
        let folder = Trial::folder(self.search, trial.trial);
        let (mut tries, start) = (0, Instant::now());
        loop {
            if let Some(code) = self.wait_for_its_turn(&folder)? {
                return Ok(Outcome::Left(code, "told to leave".to_owned()));
            }
            match self.once(trial, budget, &folder)? {
                Verdict::Outcome(Outcome::Ended(ended)) => {
                    let seconds = start.elapsed().as_secs_f64();
                    return Ok(Outcome::Ended(Ended { seconds, ..ended }));
                }
                Verdict::Outcome(left) => return Ok(left),
                Verdict::Unclear(ended) if tries == RETRIES => {
                    let seconds = start.elapsed().as_secs_f64();
                    return Ok(Outcome::Ended(Ended { seconds, ..ended }));
                }
                Verdict::Unclear(Ended { exit_code, reason, .. }) => {
                    tries += 1;
                    let why = reason.unwrap_or_default();
                    say(&format!("  it ended with {exit_code} and is started again: {why}"));
                    std::thread::sleep(REST);
                }
            }
        }
    }

    /// Waits while another process has the run folder: one that an earlier search has left behind. Gives the exit
    /// code to leave with if the search is told to.
    fn wait_for_its_turn(&self, folder: &Path) -> Result<Option<u8>> {
        let mut told = false;
        loop {
            if let Some(code) = self.signals.take() {
                return Ok(Some(code));
            }
            if !RunLock::is_taken(folder)? {
                return Ok(None);
            }
            if !std::mem::replace(&mut told, true) {
                say(&format!(
                    "  {} is in use by another job; waiting for its end",
                    folder.display()
                ));
            }
            std::thread::sleep(10 * PAUSE);
        }
    }

    fn once(&self, trial: &Trial, budget: Option<u64>, folder: &Path) -> Result<Verdict> {
        // An earlier search that was told to leave may have left its wish behind.
        let _ = std::fs::remove_file(folder.join(STOP));
        let before = std::fs::read(folder.join(STATUS)).ok();
        let log = folder.join(LOG);
        let mut log = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(&log)
            .map_err(|e| Error::writing(&log, &e))?;
        let failed = |e: std::io::Error| Error::Io(format!("{}: {e}", folder.join(LOG).display()));
        let printed = log.metadata().map_err(failed)?.len();
        let child = self.start(trial, budget, folder, &log)?;
        let (code, told) = self.wait(child, folder)?;
        let mut words = String::new();
        log.seek(SeekFrom::Start(printed)).map_err(failed)?;
        // Words that are no text are no reason to fail.
        let _ = log.take(1 << 20).read_to_string(&mut words);
        let after = std::fs::read(folder.join(STATUS)).ok();
        let status = if after == before { None } else { status::read(&folder.join(STATUS)) };
        let verdict = judge(status.as_ref(), code, &words, folder, &self.tune.objective);
        Ok(match (told, verdict) {
            // It came to its end all the same, or it saved itself, or it had to be killed.
            (Some(_), Verdict::Outcome(Outcome::Ended(ended))) => {
                Verdict::Outcome(Outcome::Ended(ended))
            }
            (Some(code), _) => Verdict::Outcome(Outcome::Left(code, "told to leave".to_owned())),
            (None, verdict) => verdict,
        })
    }

    fn start(
        &self,
        trial: &Trial,
        budget: Option<u64>,
        folder: &Path,
        log: &std::fs::File,
    ) -> Result<Child> {
        let program = std::env::current_exe()
            .map_err(|e| Error::Internal(format!("cannot tell where this program is: {e}")))?;
        let mut command = self.launch.command(&program);
        command.arg("train").arg(&self.card).arg("--out").arg(folder).args(&self.options);
        for set in &trial.set {
            command.args(["--set", set]);
        }
        if let (Some(budget), Some(halving)) = (budget, self.tune.halving) {
            let field = match halving.by {
                Unit::Epochs => "train.pause_at_epoch",
                Unit::Steps => "train.pause_at_step",
            };
            command.args(["--set", &format!("{field}={budget}")]);
        }
        let copy = || log.try_clone().map_err(|e| Error::Io(format!("the log of a trial: {e}")));
        command.env(SEARCH, format!("{} {}", whereabouts::host_name(), std::process::id()));
        // A group of its own: a key pressed at the terminal is for the search, which then lets the trial save itself.
        command.process_group(0).stdin(Stdio::null()).stdout(copy()?).stderr(copy()?);
        command.spawn().map_err(|e| {
            let name = command.get_program().display();
            Error::NoInput(format!("cannot start `{name}`, which starts the trials: {e}"))
        })
    }

    /// Waits for the end of a trial; gives its exit code, and the one that the search is to leave with if it was
    /// told to meanwhile.
    fn wait(&self, mut child: Child, folder: &Path) -> Result<(Option<i32>, Option<u8>)> {
        let (mut told, mut since, mut sent) = (None, Instant::now(), 0);
        loop {
            let ended = child
                .try_wait()
                .map_err(|e| Error::Internal(format!("cannot wait for a trial: {e}")))?;
            if let Some(status) = ended {
                return Ok((status.code(), told));
            }
            if let Some(code) = self.signals.take() {
                if told.is_some() {
                    send(&child, Signal::KILL);
                } else {
                    say(
                        "  told to leave; the trial saves itself (a second signal ends it at once)",
                    );
                    // Not by a signal: mpirun kills its ranks a second after its own.
                    let _ = std::fs::write(folder.join(STOP), "");
                }
                (told, since) = (Some(code), Instant::now());
            }
            if told.is_some() && sent == 0 && since.elapsed() > PATIENCE {
                send(&child, Signal::TERM);
                sent = 1;
            }
            if told.is_some() && sent == 1 && since.elapsed() > PATIENCE + GRACE {
                send(&child, Signal::KILL);
                sent = 2;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn send(child: &Child, signal: Signal) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    // It may have ended meanwhile, which is what is wanted.
    let _ = group.map(|group| kill_process_group(group, signal));
}

/// What became of a run that ended with `code` after it printed `words`; `status` is what it wrote into its folder, if
/// it came so far. Launchers have exit codes of their own, so the run's word counts for more.
fn judge(
    status: Option<&Map<String, Value>>,
    code: Option<i32>,
    words: &str,
    folder: &Path,
    objective: &Objective,
) -> Verdict {
    let text = |name: &str| status.and_then(|s| s.get(name)?.as_str()).unwrap_or_default();
    let number = |name: &str| status.and_then(|s| s.get(name)?.as_u64());
    let step = number("step").unwrap_or(0);
    let reason = text("reason").to_owned();
    let paused = reason.starts_with(Leave::Paused.reason());
    match text("state") {
        "completed" | "preempted" if paused || text("state") == "completed" => {
            let (exit_code, completed) = if paused { (75, false) } else { (0, true) };
            let ended = Ended { step, completed, exit_code, ..Ended::default() };
            Verdict::Outcome(Outcome::Ended(match metric(folder, objective) {
                Ok(metric) => Ended { metric: Some(metric), ..ended },
                Err(reason) => Ended { completed: true, reason: Some(reason), ..ended },
            }))
        }
        "preempted" | "interrupted" => Verdict::Outcome(Outcome::Left(75, reason)),
        state => {
            let told = words.lines().rev().find_map(|line| line.split_once("annulus: error: "));
            let own = code.and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0);
            let exit_code = number("exit_code").and_then(|code| u8::try_from(code).ok()).or(own);
            let exit_code = exit_code.unwrap_or(70);
            let reason = match (state, told) {
                ("failed", _) => reason,
                (_, Some((_, told))) => told.to_owned(),
                _ => format!("it ended without a word; see {LOG} in its folder"),
            };
            let reason = Some(reason);
            let ended = Ended { step, exit_code, reason, completed: true, ..Ended::default() };
            if FINAL.contains(&exit_code) {
                Verdict::Outcome(Outcome::Ended(ended))
            } else {
                Verdict::Unclear(ended)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn judged(status: Option<Value>, code: i32, words: &str, evals: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("metrics.jsonl"), evals).unwrap();
        let status = status.map(|status| status.as_object().unwrap().clone());
        let verdict =
            judge(status.as_ref(), Some(code), words, folder.path(), &Objective::default());
        match verdict {
            Verdict::Outcome(Outcome::Ended(e)) => format!(
                "{} {:?} {} {}",
                e.exit_code,
                e.metric,
                e.completed,
                e.reason.unwrap_or_default()
            ),
            Verdict::Outcome(Outcome::Left(code, reason)) => format!("left {code} {reason}"),
            Verdict::Unclear(e) => {
                format!("unclear {} {}", e.exit_code, e.reason.unwrap_or_default())
            }
        }
    }

    #[test]
    fn a_run_is_judged_by_its_own_word_before_its_launchers_code() {
        let eval = "{\"kind\":\"eval\",\"accuracy\":0.5}\n";
        let of = |state: &str, code: Option<u8>, reason: &str| {
            Some(json!({"state": state, "exit_code": code, "reason": reason, "step": 9}))
        };
        let pause = format!("{}: saved at step 9", Leave::Paused.reason());
        for (status, code, words, expected) in [
            (of("completed", Some(0), "done"), 1, "", "0 Some(0.5) true "),
            (of("preempted", Some(75), &pause), 1, "", "75 Some(0.5) false "),
            (of("preempted", Some(75), "STOP"), 75, "", "left 75 STOP"),
            (of("failed", Some(77), "NaN"), 1, "", "77 None true NaN"),
            (of("failed", Some(74), "full"), 74, "", "unclear 74 full"),
            (of("running", None, ""), 137, "", "unclear 137 it ended without a word"),
            (None, 78, "x\nannulus: error: bad card\n", "78 None true bad card"),
            (None, 70, "", "unclear 70 it ended without a word"),
            (None, 0, "", "unclear 70 it ended without a word"),
        ] {
            let found = judged(status, code, words, eval);
            assert!(found.starts_with(expected), "{found:?}, not {expected:?}");
        }
        let done = judged(of("completed", Some(0), "done"), 0, "", "");
        assert_eq!(done, "0 None true it was never evaluated");
    }
}

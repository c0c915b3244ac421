//! Starts real jobs under real launchers, each in a folder of its own.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Jobs of one test program run one after another: two cores are few.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Which MPI a job runs under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mpi {
    Open,
    Mpich,
}

pub const BOTH: [Mpi; 2] = [Mpi::Open, Mpi::Mpich];

impl Mpi {
    fn launcher(self) -> &'static str {
        match self {
            Mpi::Open => "mpirun.openmpi",
            Mpi::Mpich => "mpirun.mpich",
        }
    }

    /// The binary that is linked to this MPI.
    pub fn binary(self) -> PathBuf {
        match self {
            Mpi::Open => env!("CARGO_BIN_EXE_annulus").into(),
            Mpi::Mpich => {
                let path = root().join("target/mpich/release/annulus");
                assert!(
                    path.exists(),
                    "{} is missing; scripts/test.sh builds it: MPICC=mpicc.mpich \
                     CARGO_TARGET_DIR=target/mpich cargo build --release --locked",
                    path.display()
                );
                path
            }
        }
    }
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn card(name: &str) -> String {
    root().join("configs").join(name).display().to_string()
}

/// How a job ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Ended {
    pub fn all_output(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// The lines that annulus itself wrote to standard error.
    pub fn complaints(&self) -> Vec<&str> {
        self.stderr.lines().filter(|l| l.contains("annulus: ")).collect()
    }
}

/// A job to start.
pub struct Job {
    command: Command,
    limit: Duration,
    _turn: MutexGuard<'static, ()>,
}

/// `program` without a launcher.
pub fn alone(program: &Path) -> Job {
    Job::of(Command::new(program))
}

/// `ranks` ranks of annulus under `mpi`.
pub fn under(mpi: Mpi, ranks: usize) -> Job {
    launched(mpi, ranks, &mpi.binary())
}

/// `ranks` ranks of `program` under `mpi`'s launcher.
pub fn launched(mpi: Mpi, ranks: usize, program: &Path) -> Job {
    let mut command = Command::new(mpi.launcher());
    if mpi == Mpi::Open {
        command.args(["--oversubscribe", "--bind-to", "none"]);
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    }
    command.args(["-n", &ranks.to_string()]).arg(program);
    Job::of(command)
}

impl Job {
    fn of(mut command: Command) -> Job {
        // A group of its own, so that everything it starts can be found and ended.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        Job { command, limit: Duration::from_secs(120), _turn: turn }
    }

    pub fn args<S: AsRef<std::ffi::OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Job {
        self.command.args(args);
        self
    }

    /// Words and then paths as arguments.
    pub fn arg_paths<const N: usize>(self, words: [&str; N], paths: &[&Path]) -> Job {
        self.args(words).args(paths)
    }

    pub fn set(self, path_value: impl AsRef<str>) -> Job {
        self.args(["--set", path_value.as_ref()])
    }

    pub fn env(mut self, key: &str, value: &str) -> Job {
        self.command.env(key, value);
        self
    }

    pub fn current_dir(mut self, folder: &Path) -> Job {
        self.command.current_dir(folder);
        self
    }

    /// Runs the job to its end; a job that does not end is killed and fails the test.
    pub fn run(self) -> Ended {
        self.start().end()
    }

    /// Starts the job.
    pub fn start(mut self) -> Running {
        let mut child = self.command.spawn().unwrap_or_else(|e| panic!("{:?}: {e}", self.command));
        let (out, err) = (collect(child.stdout.take()), collect(child.stderr.take()));
        Running { job: self, start: Instant::now(), child, out, err }
    }

    /// Runs the job and expects success.
    pub fn succeed(self) -> Ended {
        let ended = self.run();
        assert_eq!(ended.code, 0, "{}", ended.all_output());
        ended
    }
}

/// A job that is going on.
pub struct Running {
    job: Job,
    start: Instant,
    child: Child,
    out: std::thread::JoinHandle<String>,
    err: std::thread::JoinHandle<String>,
}

impl Running {
    /// Waits for its end; a job that does not end is killed and fails the test.
    pub fn end(self) -> Ended {
        self.end_while(|| std::thread::sleep(Duration::from_millis(5)))
    }

    /// Until its end, stops and continues the last of its ranks, `pause` each.
    pub fn stutter(self, pause: Duration) -> Ended {
        self.end_while(|| {
            let last = ranks().last().copied();
            for signal in ["STOP", "CONT"] {
                last.inspect(|&pid| send(signal, pid));
                std::thread::sleep(pause);
            }
        })
    }

    fn end_while(mut self, mut meanwhile: impl FnMut()) -> Ended {
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code().unwrap_or(-1);
            }
            if self.start.elapsed() > self.job.limit {
                kill_group(&self.child);
                let text = self.err.join().unwrap();
                panic!("{:?} hangs:\n{}{text}", self.job.command, self.out.join().unwrap());
            }
            meanwhile();
        };
        let took = self.start.elapsed();
        no_process_left(&self.child);
        let (stdout, stderr) = (self.out.join().unwrap(), self.err.join().unwrap());
        Ended { code, stdout, stderr, took }
    }

    /// Kills every process of the job at once, as a power cut would.
    pub fn kill(mut self) {
        for pid in ranks() {
            send("KILL", pid);
        }
        kill_group(&self.child);
        self.child.wait().unwrap();
        no_process_left(&self.child);
    }

    /// Sends a signal to the launcher and to no other process.
    pub fn signal_launcher(&self, signal: &str) {
        send(signal, self.child.id());
    }

    /// Sends a signal to the last of its ranks and to no other process.
    pub fn signal_a_rank(&self, signal: &str) {
        send(signal, *ranks().last().expect("a rank is running"));
    }
}

pub fn send(signal: &str, pid: u32) {
    let _ = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
}

/// Whether a line of `ps` shows, among its words, one of this checkout's binaries. Another checkout on
/// the machine may have its own tests going on.
fn is_ours(line: &str) -> bool {
    let mpich = root().join("target/mpich/release/annulus");
    let ours = [Mpi::Open.binary(), mpich].map(|path| path.display().to_string());
    line.split_whitespace().any(|word| ours.iter().any(|path| path == word))
}

/// Process ids of all ranks of this checkout's annulus; its tests run one job at a time.
pub fn ranks() -> Vec<u32> {
    let output = Command::new("ps").args(["-eo", "pid=,args="]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let of_rank = |line: &&str| line.split_whitespace().nth(1).is_some_and(is_ours);
    let mut pids: Vec<u32> = text
        .lines()
        .filter(of_rank)
        .filter_map(|line| line.split_whitespace().next()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids
}

fn collect<R: Read + Send + 'static>(pipe: Option<R>) -> std::thread::JoinHandle<String> {
    let mut pipe = pipe.expect("the pipe was asked for");
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn kill_group(child: &Child) {
    let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]).status();
}

/// Nothing that the job started may outlive it by more than two seconds. Hydra gives ranks process
/// groups of their own, so ranks are sought by the path of their program.
fn no_process_left(child: &Child) {
    let group = child.id();
    let left = || {
        let output = Command::new("ps").args(["-eo", "pgid=,ppid=,args="]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines()
            .filter(|line| {
                let of_group = line.split_whitespace().next() == Some(&group.to_string());
                of_group || is_ours(line)
            })
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let start = Instant::now();
    while !left().is_empty() {
        if start.elapsed() > Duration::from_secs(2) {
            let names = left();
            kill_group(child);
            panic!("processes are left: {names:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The lines of a run's metrics of one kind.
pub fn metrics(run: &Path, kind: &str) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|value| value["kind"] == kind)
        .collect()
}

pub fn status(run: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(run.join("status.json")).unwrap()).unwrap()
}

/// Everything of a run's lines that is neither a time nor about its ranks, with floats as written:
/// shortest exact digits.
pub fn story(run: &Path) -> Vec<String> {
    let other =
        ["samples_per_s", "comm_share", "input_share", "seconds", "bytes_sent", "world_size"];
    let lines = ["step", "eval", "summary"].into_iter().flat_map(|kind| metrics(run, kind));
    lines
        .map(|mut line| {
            other.iter().for_each(|key| drop(line.as_object_mut().unwrap().remove(*key)));
            line.to_string()
        })
        .collect()
}

/// The last sign of life of a rank, as far as it is there.
pub fn sign(run: &Path, rank: usize) -> serde_json::Value {
    let text = std::fs::read(run.join(format!("ranks/{rank:04}.json"))).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// The hash of the parameters with which a run was completed.
pub fn hash(run: &Path) -> serde_json::Value {
    let status = status(run);
    assert_eq!(status["state"], "completed", "{status}");
    status["params_hash"].clone()
}

/// Waits until `done` says so; what never comes fails the test.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(30), "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

//! Where this process is just now: rank, host, step, phase, collective, bucket.
//!
//! Kept in process-wide cells because the panic hook, the heartbeat and the error printer need it from
//! any thread.

use super::flight;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// What a rank is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Reading the card, meeting the other ranks.
    Startup,
    /// Waiting for a batch.
    Input,
    /// Forward pass and loss.
    Forward,
    /// Backward pass.
    Backward,
    /// Gradients on their way round the ring.
    Reduce,
    /// Parameter update.
    Optimizer,
    /// Evaluation on the test set.
    Evaluation,
    /// Writing the model or the run's files.
    Saving,
}

const PHASES: [(Phase, &str); 8] = [
    (Phase::Startup, "start-up"),
    (Phase::Input, "input"),
    (Phase::Forward, "forward"),
    (Phase::Backward, "backward"),
    (Phase::Reduce, "gradient reduction"),
    (Phase::Optimizer, "optimizer"),
    (Phase::Evaluation, "evaluation"),
    (Phase::Saving, "saving"),
];

/// How far a rank has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The optimizer step, counted from 1; 0 before the first.
    pub step: u64,
    /// What it does there.
    pub phase: Phase,
    /// Number of the last collective that it began.
    pub collective: u64,
    /// The gradient bucket that is being reduced.
    pub bucket: Option<usize>,
}

impl Phase {
    /// Its name for messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        PHASES.iter().find(|(phase, _)| *phase == self).map_or("start-up", |(_, name)| name)
    }

    /// The phase with this number (`phase as u8`).
    #[must_use]
    pub fn from_number(number: u8) -> Phase {
        let found = PHASES.iter().find(|(phase, _)| *phase as u8 == number);
        found.map_or(Phase::Startup, |(phase, _)| *phase)
    }
}

struct Identity {
    rank: usize,
    size: usize,
    host: String,
}

static IDENTITY: OnceLock<Identity> = OnceLock::new();
static STEP: AtomicU64 = AtomicU64::new(0);
static PHASE: AtomicU8 = AtomicU8::new(Phase::Startup as u8);
static COLLECTIVE: AtomicU64 = AtomicU64::new(0);
static BUCKET: AtomicUsize = AtomicUsize::new(NO_BUCKET);

type Watcher = Box<dyn Fn(Place) + Send + Sync>;
static WATCHER: OnceLock<Watcher> = OnceLock::new();

const NO_BUCKET: usize = usize::MAX;

/// Says once who this process is. A second call changes nothing.
pub fn identify(rank: usize, size: usize) {
    let _ = IDENTITY.set(Identity { rank, size, host: host_name() });
}

/// The step that is being computed, counted from 1; 0 before the first.
pub fn at_step(step: u64) {
    STEP.store(step, Relaxed);
    flight::note(place());
}

/// The phase that begins now.
pub fn enter(phase: Phase) {
    PHASE.store(phase as u8, Relaxed);
    flight::note(place());
    if let Some(watcher) = WATCHER.get() {
        watcher(place());
    }
}

/// From now on `watcher` is called, on the thread that enters, with each phase that this process
/// enters. For rehearsed faults; the first one given stays.
pub fn watch(watcher: impl Fn(Place) + Send + Sync + 'static) {
    let _ = WATCHER.set(Box::new(watcher));
}

/// The gradient bucket whose reduction begins now; `None` after the last.
pub fn at_bucket(bucket: Option<usize>) {
    BUCKET.store(bucket.unwrap_or(NO_BUCKET), Relaxed);
    flight::note(place());
}

/// The collective that begins now. Leaves no event and costs next to nothing: a collective of a few
/// bytes takes less than a microsecond.
pub fn at_collective(number: u64) {
    COLLECTIVE.store(number, Relaxed);
}

/// All of it.
#[must_use]
pub fn place() -> Place {
    let bucket = BUCKET.load(Relaxed);
    Place {
        step: step(),
        phase: Phase::from_number(PHASE.load(Relaxed)),
        collective: COLLECTIVE.load(Relaxed),
        bucket: (bucket != NO_BUCKET).then_some(bucket),
    }
}

/// The name of this host.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The step last given to [`at_step`].
#[must_use]
pub fn step() -> u64 {
    STEP.load(Relaxed)
}

/// This process's rank and the number of ranks, once they are known.
#[must_use]
pub fn rank() -> Option<(usize, usize)> {
    IDENTITY.get().map(|me| (me.rank, me.size))
}

/// `rank 2/8 on node17 (pid 4242), step 1234, gradient reduction, bucket 3`, or the shorter truth
/// before that is known.
#[must_use]
pub fn describe() -> String {
    let Some(me) = IDENTITY.get() else {
        return format!("pid {} on {}", std::process::id(), host_name());
    };
    let who = format!("rank {}/{} on {} (pid {})", me.rank, me.size, me.host, std::process::id());
    format!("{who}, {}", place().words())
}

impl Place {
    /// `step 1234, gradient reduction, bucket 3`.
    #[must_use]
    pub fn words(&self) -> String {
        let bucket = self.bucket.map_or(String::new(), |k| format!(", bucket {k}"));
        match self.step {
            0 => format!("{}{bucket}", self.phase.name()),
            step => format!("step {step}, {}{bucket}", self.phase.name()),
        }
    }
}

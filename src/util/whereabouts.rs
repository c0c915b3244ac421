//! Where this process is just now: rank, host, step, phase.
//!
//! Kept in process-wide cells because the panic hook and the error printer need it from any thread.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

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

struct Identity {
    rank: usize,
    size: usize,
    host: String,
}

static IDENTITY: OnceLock<Identity> = OnceLock::new();
static STEP: AtomicU64 = AtomicU64::new(0);
static PHASE: AtomicU8 = AtomicU8::new(Phase::Startup as u8);

/// Says once who this process is. A second call changes nothing.
pub fn identify(rank: usize, size: usize) {
    let _ = IDENTITY.set(Identity { rank, size, host: host_name() });
}

/// The step that is being computed, counted from 1; 0 before the first.
pub fn at_step(step: u64) {
    STEP.store(step, Relaxed);
}

/// The phase that begins now.
pub fn enter(phase: Phase) {
    PHASE.store(phase as u8, Relaxed);
}

/// The name of this host.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The phase's name for messages.
#[must_use]
pub fn phase() -> &'static str {
    let now = PHASE.load(Relaxed);
    PHASES.iter().find(|(p, _)| *p as u8 == now).map_or("start-up", |(_, name)| name)
}

/// The step last given to [`at_step`].
#[must_use]
pub fn step() -> u64 {
    STEP.load(Relaxed)
}

/// `rank 2/8 on node17 (pid 4242), step 1234, backward`, or the shorter truth before that is known.
#[must_use]
pub fn describe() -> String {
    let Some(me) = IDENTITY.get() else {
        return format!("pid {} on {}", std::process::id(), host_name());
    };
    let who = format!("rank {}/{} on {} (pid {})", me.rank, me.size, me.host, std::process::id());
    match step() {
        0 => format!("{who}, {}", phase()),
        step => format!("{who}, step {step}, {}", phase()),
    }
}

//! Faults on order, to rehearse what happens when a rank fails: `faults` in the card, obeyed only
//! with `ANNULUS_ALLOW_FAULTS=1` in the environment.

use crate::collective::Group;
use crate::config::{Fault, FaultKind};
use crate::error::{Error, Result};
use crate::nn::ParamSet;
use rustix::process::{Signal, getpid, kill_process};
use std::time::Duration;

/// The variable that must be 1.
pub const ALLOW: &str = "ANNULUS_ALLOW_FAULTS";

/// Refuses a card with faults when they are not allowed.
///
/// # Errors
/// [`Error::Config`].
pub fn check_allowed(faults: &[Fault]) -> Result<()> {
    if faults.is_empty() || std::env::var(ALLOW).is_ok_and(|value| value == "1") {
        return Ok(());
    }
    Err(Error::Config(format!(
        "the card orders faults, which end or damage the run; set {ALLOW}=1 to allow that"
    )))
}

/// Does what the card orders for this rank at the start of `step` (counted from 1).
///
/// # Errors
/// The ordered error.
#[allow(clippy::panic)]
pub fn before_step(faults: &[Fault], step: u64, group: &mut Group) -> Result<()> {
    let rank = group.rank();
    for fault in faults.iter().filter(|f| f.rank == rank && f.step == step) {
        match fault.kind {
            FaultKind::Panic => panic!("ordered by the card's faults"),
            FaultKind::Error => {
                return Err(Error::Io("an error ordered by the card's faults".to_owned()));
            }
            FaultKind::Stop => {
                signal(Signal::STOP)?;
                // The signal may reach another thread first: stay here until it reaches this one.
                std::thread::sleep(Duration::from_millis(100));
            }
            FaultKind::Kill => signal(Signal::KILL)?,
            FaultKind::Exit => std::process::exit(0),
            FaultKind::Skip => group.skip_next_collective(),
            FaultKind::Nan | FaultKind::Flip | FaultKind::Spike => {}
        }
    }
    Ok(())
}

/// Whether the card orders a spoiled gradient in `step`, on any rank: that step reduces after the
/// backward pass, since what is spoiled after a bucket has left would reach no other rank.
pub fn spoil_a_gradient(faults: &[Fault], step: u64) -> bool {
    faults.iter().any(|f| f.step == step && f.kind == FaultKind::Nan)
}

/// Spoils one gradient where the card orders it, after the backward pass of `step`.
pub fn after_backward(faults: &[Fault], step: u64, rank: usize, params: &ParamSet) {
    let ordered = |f: &&Fault| f.rank == rank && f.step == step && f.kind == FaultKind::Nan;
    if faults.iter().any(|f| ordered(&f)) {
        params.grads().with_bucket(0, |bucket| bucket[0] = f32::NAN);
    }
}

/// What the loss of `step` is multiplied by on this rank: 10 where the card orders it.
#[must_use]
pub fn loss_factor(faults: &[Fault], step: u64, rank: usize) -> f64 {
    let ordered = |f: &Fault| f.rank == rank && f.step == step && f.kind == FaultKind::Spike;
    if faults.iter().any(ordered) { 10.0 } else { 1.0 }
}

/// Flips a bit where the card orders it, after `step`: the highest bit of the fraction of the middle
/// value of the first weight, which every sample meets.
///
/// # Errors
/// When the parameter cannot be copied from or to its device.
pub fn after_update(faults: &[Fault], step: u64, rank: usize, params: &ParamSet) -> Result<()> {
    let ordered = |f: &&Fault| f.rank == rank && f.step == step && f.kind == FaultKind::Flip;
    let weight = params.iter().find(|p| p.var().dims().len() > 1);
    if let (Some(weight), true) = (weight, faults.iter().any(|f| ordered(&f))) {
        weight.update(|theta| {
            let middle = &mut theta[theta.len() / 2];
            *middle = f32::from_bits(middle.to_bits() ^ (1 << 22));
        })?;
    }
    Ok(())
}

fn signal(signal: Signal) -> Result<()> {
    kill_process(getpid(), signal)
        .map_err(|e| Error::Internal(format!("cannot send a signal to this process: {e}")))
}

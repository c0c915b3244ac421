//! Faults on order, to rehearse what happens when a rank fails: `faults` in the card, obeyed only
//! with `ANNULUS_ALLOW_FAULTS=1` in the environment.

use crate::collective::{Group, Slip};
use crate::comm::Damage;
use crate::config::{Fault, FaultKind, FaultPlace};
use crate::data::{Dataset, SharedDataset};
use crate::error::{Error, Result};
use crate::nn::ParamSet;
use crate::util::processes;
use crate::util::whereabouts::{self, Phase};
use rustix::process::{Resource, Rlimit, Signal, getpid, kill_process, setrlimit};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
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

/// Makes ready what the card orders for this rank inside steps.
pub fn arm(faults: &[Fault], group: &mut Group) {
    arm_messages(faults, group);
    let rank = group.rank();
    let mine = |f: &&Fault| f.rank == rank && f.at.is_some() && f.message.is_none();
    let armed: Vec<(Fault, AtomicBool)> =
        faults.iter().filter(mine).map(|f| (f.clone(), AtomicBool::new(true))).collect();
    if armed.is_empty() {
        return;
    }
    whereabouts::watch(move |place| {
        for (fault, pending) in &armed {
            let here = fault.step == place.step && fault.at.map(phase) == Some(place.phase);
            if here && pending.swap(false, Relaxed) {
                strike(fault);
            }
        }
    });
}

/// Faults at or of one message of a gradient reduction.
fn arm_messages(faults: &[Fault], group: &mut Group) {
    let rank = group.rank();
    let mine = |f: &&Fault| f.rank == rank && (f.message.is_some() || f.kind.is_of_message());
    let mut armed: Vec<Fault> = faults.iter().filter(mine).cloned().collect();
    if armed.is_empty() {
        return;
    }
    group.tamper(Box::new(move |message| {
        let place = whereabouts::place();
        let here = |f: &Fault| {
            f.step == place.step && f.message.unwrap_or(1) == message && place.bucket.is_some()
        };
        let fault = armed.swap_remove(armed.iter().position(here)?);
        match fault.kind {
            FaultKind::Corrupt => Some(Damage::Flip),
            FaultKind::Short => Some(Damage::Short),
            FaultKind::Long => Some(Damage::Long),
            _ => {
                strike(&fault);
                None
            }
        }
    }));
}

fn phase(place: FaultPlace) -> Phase {
    match place {
        FaultPlace::Forward => Phase::Forward,
        FaultPlace::Backward => Phase::Backward,
        FaultPlace::Reduce => Phase::Reduce,
        FaultPlace::Optimizer => Phase::Optimizer,
        FaultPlace::Evaluation => Phase::Evaluation,
        FaultPlace::Saving => Phase::Saving,
    }
}

/// Does what the card orders for this rank at the start of `step` (counted from 1).
///
/// # Errors
/// The ordered error.
pub fn before_step(faults: &[Fault], step: u64, group: &mut Group) -> Result<()> {
    let rank = group.rank();
    let mine = |f: &&Fault| f.rank == rank && f.step == step && f.at.is_none();
    for fault in faults.iter().filter(mine) {
        match fault.kind {
            FaultKind::Error => {
                return Err(Error::Io("an error ordered by the card's faults".to_owned()));
            }
            FaultKind::Skip => group.slip(Slip::Skip),
            FaultKind::Length => group.slip(Slip::Length),
            FaultKind::Extra => group.barrier()?,
            _ => strike(fault),
        }
    }
    Ok(())
}

/// Does to this process what the fault says, if it is of that kind.
#[allow(clippy::panic)]
fn strike(fault: &Fault) {
    match fault.kind {
        FaultKind::Panic => panic!("ordered by the card's faults"),
        FaultKind::Stop => {
            signal(Signal::STOP);
            // The signal may reach another thread first: stay here until it reaches this one.
            std::thread::sleep(Duration::from_millis(100));
        }
        FaultKind::Kill => signal(Signal::KILL),
        FaultKind::Exit => std::process::exit(0),
        FaultKind::Abort => std::process::abort(),
        // Rust's handler of stack overflows takes the first one, and steps aside.
        FaultKind::Segfault => (0..2).for_each(|_| {
            signal(Signal::SEGV);
            std::thread::sleep(Duration::from_millis(100));
        }),
        FaultKind::Memory => run_out_of_memory(),
        FaultKind::Slow => {
            let seconds = fault.seconds.unwrap_or_default();
            std::thread::sleep(Duration::try_from_secs_f64(seconds).unwrap_or_default());
        }
        _ => {}
    }
}

/// Lets this process have no more than a quarter of a gigabyte beside what it has, and asks for a whole.
fn run_out_of_memory() {
    let now = processes::address_space().saturating_add(256 << 20);
    let limit = Rlimit { current: Some(now), maximum: Some(now) };
    if let Err(error) = setrlimit(Resource::As, limit) {
        tell_and_go_on(&format!("cannot limit the address space: {error}"));
    }
    drop(std::hint::black_box(Vec::<u8>::with_capacity(1 << 30)));
}

fn tell_and_go_on(what: &str) {
    eprintln!("annulus: a fault ordered by the card does not happen: {what}");
}

/// Samples whose reading panics on this rank while it takes `step`, where the card orders that.
pub fn spoil_the_loader(faults: &[Fault], rank: usize, samples: SharedDataset) -> SharedDataset {
    let mine = |f: &&Fault| f.rank == rank && f.kind == FaultKind::Loader;
    match faults.iter().find(mine) {
        Some(fault) => Arc::new(Panicking { samples, step: fault.step }),
        None => samples,
    }
}

struct Panicking {
    samples: SharedDataset,
    step: u64,
}

impl Dataset for Panicking {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn sample_shape(&self) -> &[usize] {
        self.samples.sample_shape()
    }

    fn classes(&self) -> usize {
        self.samples.classes()
    }

    fn read(&self, index: usize, out: &mut [f32]) -> Result<u32> {
        assert!(whereabouts::step() < self.step, "ordered by the card's faults");
        self.samples.read(index, out)
    }

    fn labels_per_sample(&self) -> usize {
        self.samples.labels_per_sample()
    }

    fn weight(&self, index: usize) -> u64 {
        self.samples.weight(index)
    }

    fn read_all(&self, index: usize, out: &mut [f32], labels: &mut [u32]) -> Result<()> {
        assert!(whereabouts::step() < self.step, "ordered by the card's faults");
        self.samples.read_all(index, out, labels)
    }

    fn label(&self, index: usize) -> Result<u32> {
        self.samples.label(index)
    }

    fn fingerprint(&self) -> String {
        self.samples.fingerprint()
    }
}

/// Whether the card orders a spoiled gradient in `step`, on any rank: that step reduces after the
/// backward pass, since what is spoiled after a bucket has left would reach no other rank.
pub fn spoil_a_gradient(faults: &[Fault], step: u64) -> bool {
    faults.iter().any(|f| f.step == step && spoilt(f.kind).is_some())
}

/// Spoils one gradient where the card orders it, after the backward pass of `step`.
pub fn after_backward(faults: &[Fault], step: u64, rank: usize, params: &ParamSet) {
    let mut ordered = faults.iter().filter(|f| f.rank == rank && f.step == step);
    if let Some(value) = ordered.find_map(|f| spoilt(f.kind)) {
        params.grads().spoil(value);
    }
}

/// What a fault of this kind makes of a gradient.
fn spoilt(kind: FaultKind) -> Option<f32> {
    match kind {
        FaultKind::Nan => Some(f32::NAN),
        FaultKind::Inf => Some(f32::INFINITY),
        _ => None,
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

fn signal(signal: Signal) {
    if let Err(error) = kill_process(getpid(), signal) {
        tell_and_go_on(&format!("cannot send a signal to this process: {error}"));
    }
}

//! What an optimizer remembers: moments in flat memory while it runs, named tensors when it is saved.

use crate::error::{Error, Result};
use crate::util::aligned::FlatBuf;
use std::ops::Range;

/// An optimizer's memory, as it is saved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// The optimizer's name: `sgd`, `adam`, `adamw`.
    pub kind: String,
    /// Steps done.
    pub step: u64,
    /// Each moment by PyTorch's name (`momentum_buffer`, `exp_avg`, `exp_avg_sq`), with one vector per
    /// parameter in parameter order.
    pub moments: Vec<(String, Vec<Vec<f32>>)>,
    /// How often the average of the parameters, the last of the moments where there is one, has taken them in.
    pub averaged: u64,
}

/// One moment of all parameters, in one flat block. Starts at zero.
pub(super) struct Moment {
    name: &'static str,
    block: FlatBuf,
    slots: Vec<Range<usize>>,
}

impl Moment {
    /// A moment for parameters of the given lengths.
    pub(super) fn new(name: &'static str, lens: &[usize]) -> Result<Moment> {
        let mut end = 0;
        let mut slots = Vec::with_capacity(lens.len());
        for &len in lens {
            slots.push(end..end + len);
            // As in the gradient buckets: slots start on a cache line.
            end += len.next_multiple_of(16);
        }
        Ok(Moment { name, block: FlatBuf::zeroed(end)?, slots })
    }

    /// Shows `see` the values of each parameter.
    pub(super) fn visit(&self, see: &mut dyn FnMut(&'static str, usize, &[f32])) {
        self.slots
            .iter()
            .enumerate()
            .for_each(|(i, slot)| see(self.name, i, &self.block[slot.clone()]));
    }

    /// The values of parameter `i`.
    pub(super) fn slot(&mut self, i: usize) -> &mut [f32] {
        &mut self.block[self.slots[i].clone()]
    }
}

/// The state of an optimizer with these moments.
pub(super) fn save(kind: &str, step: u64, moments: &[&Moment]) -> State {
    let copy = |m: &&Moment| {
        let values = m.slots.iter().map(|slot| m.block[slot.clone()].to_vec()).collect();
        (m.name.to_owned(), values)
    };
    let moments = moments.iter().map(copy).collect();
    State { kind: kind.to_owned(), step, moments, averaged: 0 }
}

/// Checks `state` against the moments, all of it, then copies it into them; gives the step.
pub(super) fn load(kind: &str, state: &State, moments: &mut [&mut Moment]) -> Result<u64> {
    if state.kind != kind {
        return Err(Error::Data(format!(
            "the saved optimizer state is of {}, the card's optimizer is {kind}",
            state.kind
        )));
    }
    let names: Vec<&str> = state.moments.iter().map(|(name, _)| name.as_str()).collect();
    let expected: Vec<&str> = moments.iter().map(|m| m.name).collect();
    if names != expected {
        return Err(Error::Data(format!(
            "the saved {kind} state holds {names:?}, expected {expected:?}: was it saved with other \
             optimizer settings?"
        )));
    }
    for (moment, (name, values)) in moments.iter().zip(&state.moments) {
        check(kind, name, &moment.slots, values)?;
    }
    for (moment, (_, values)) in moments.iter_mut().zip(&state.moments) {
        for (i, values) in values.iter().enumerate() {
            moment.slot(i).copy_from_slice(values);
        }
    }
    Ok(state.step)
}

fn check(kind: &str, name: &str, slots: &[Range<usize>], values: &[Vec<f32>]) -> Result<()> {
    if values.len() != slots.len() {
        return Err(Error::Data(format!(
            "the saved {kind} state has {name} for {} parameters, the model has {}",
            values.len(),
            slots.len()
        )));
    }
    for (i, (slot, values)) in slots.iter().zip(values).enumerate() {
        if values.len() != slot.len() {
            return Err(Error::Data(format!(
                "the saved {kind} state has {} values of {name} for parameter {i}, the model has {}",
                values.len(),
                slot.len()
            )));
        }
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Err(Error::Data(format!(
                "the saved {kind} state is damaged: {name} of parameter {i} is {} at {at}",
                values[at]
            )));
        }
    }
    Ok(())
}

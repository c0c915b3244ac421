//! Back to before a loss spike: parameters and optimizer as they were after the last step whose
//! checkpoint the card's steps or epochs ask for, in the memory of every rank.
//!
//! PaLM's runs (Chowdhery et al., 2022, section 5.1) went back some hundred steps and left out the batches
//! in between. Checkpoints that time or a signal asked for do not count: what a run comes to must not
//! depend on a clock. When such a checkpoint is written, the state to go back to is saved with it.

use crate::checkpoint::model_file::Named;
use crate::checkpoint::{Group as Tensors, Snapshot, optimizer};
use crate::collective::Group;
use crate::error::Result;
use crate::optim;
use crate::train::replica::Replica;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// Groups of a checkpoint.
const MODEL: &str = "rewind";
const OPTIMIZER: &str = "rewind_optimizer";

/// A state to go back to.
#[derive(Debug, Clone)]
pub struct Rewind {
    /// Steps done in it.
    step: u64,
    model: Vec<Named>,
    optimizer: optim::State,
}

/// What a checkpoint's story tells of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    step: u64,
    optimizer: Value,
    optimizer_step: u64,
    #[serde(default)]
    averaged: u64,
}

impl Rewind {
    /// The state of `replica` after `step` steps.
    ///
    /// # Errors
    /// When parameters cannot be copied from their device.
    pub fn of(replica: &Replica, step: u64) -> Result<Rewind> {
        let (model, optimizer) = (replica.snapshot()?, replica.optimizer_state());
        Ok(Rewind { step, model, optimizer })
    }

    /// Steps done in it.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Puts `replica` back.
    ///
    /// # Errors
    /// When parameters cannot be copied to their device.
    pub fn apply(&self, replica: &mut Replica) -> Result<()> {
        replica.restore(&self.model)?;
        replica.load_optimizer(self.optimizer.clone())
    }

    /// For a checkpoint: a value for its story, and its tensors.
    ///
    /// # Errors
    /// [`crate::error::Error::Internal`] when this is not of parameters of these names and shapes.
    pub fn pack(&self, shapes: &[(String, Vec<usize>)]) -> Result<(Saved, [Tensors; 2])> {
        let (about, moments) = optimizer::pack(self.optimizer.clone(), shapes)?;
        let (step, optimizer_step) = (self.step, self.optimizer.step);
        let averaged = self.optimizer.averaged;
        let tensors = |name: &str, tensors| Tensors { name: name.to_owned(), tensors };
        let groups = [tensors(MODEL, self.model.clone()), tensors(OPTIMIZER, moments)];
        Ok((Saved { step, optimizer: about, optimizer_step, averaged }, groups))
    }

    /// What [`Rewind::pack`] put into the checkpoint at `path`.
    ///
    /// # Errors
    /// [`crate::error::Error::Data`] when its tensors are not those of parameters of these names and shapes.
    pub fn unpack(
        saved: &Saved,
        path: &Path,
        snapshot: &mut Snapshot,
        shapes: &[(String, Vec<usize>)],
    ) -> Result<Rewind> {
        snapshot.check_fits(path, MODEL, shapes)?;
        let model = snapshot.take_group(MODEL).unwrap_or_default();
        let moments = snapshot.take_group(OPTIMIZER).unwrap_or_default();
        let optimizer = optimizer::unpack(path, &saved.optimizer, moments, shapes)?;
        Ok(Rewind { step: saved.step, model, optimizer })
    }

    /// Gives every rank what rank 0 has `read`, as `saved` tells.
    ///
    /// # Errors
    /// When a rank is late or dead.
    pub fn share(
        saved: &Saved,
        read: Option<Rewind>,
        replica: &Replica,
        group: &mut Group,
    ) -> Result<Rewind> {
        let mut rewind = match read {
            Some(rewind) => rewind,
            None => Rewind::of(replica, saved.step)?,
        };
        rewind.optimizer.step = saved.optimizer_step;
        rewind.optimizer.averaged = saved.averaged;
        let moments = rewind.optimizer.moments.iter_mut().flat_map(|(_, all)| all);
        for values in rewind.model.iter_mut().map(|named| &mut named.values).chain(moments) {
            group.broadcast(values, 0)?;
        }
        Ok(rewind)
    }
}

//! What is watched while a run goes on: are all replicas still the same?
//!
//! Every decision here follows from numbers that all ranks have alike, so they stop, or go on, together.

pub mod replicas;

use super::faults;
use super::replica::Replica;
use crate::collective::Group;
use crate::config::Card;
use crate::error::Result;
use replicas::Replicas;
use std::path::Path;

/// The guards of a run.
pub struct Guards {
    replicas: Replicas,
}

impl Guards {
    /// The guards that `card` asks for, of a run that stands after `done` of `total` steps.
    #[must_use]
    pub fn new(card: &Card, done: u64, total: u64) -> Guards {
        Guards { replicas: Replicas::new(card.guards.replicas_every, done, total) }
    }

    /// Looks at the replica after `done` steps. `folder` is the run folder, on the rank that writes it.
    ///
    /// # Errors
    /// [`crate::error::Error::ReplicasDiffer`] on all ranks, naming rank and tensor.
    pub fn after_step(
        &mut self,
        card: &Card,
        done: u64,
        replica: &Replica,
        folder: Option<&Path>,
        group: &mut Group,
    ) -> Result<()> {
        faults::after_update(&card.faults, done, group.rank(), &replica.params)?;
        self.replicas.check(done, replica, folder, group)
    }
}

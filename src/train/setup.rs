//! From a card to a job that can take its first step: every rank has the same program, card, data,
//! model and parameters, or the job stops here and says what differs.

use super::conditions;
use super::device::Choice;
use super::faults;
use super::plan::Plan;
use super::replica::{Replica, bucket_bytes};
use crate::checkpoint::model_file;
use crate::collective::{Group, Tuning};
use crate::comm::DEFAULT_DEADLINE;
use crate::config::Card;
use crate::data::{self, Augment, Dataset, Feed, Sampling};
use crate::error::{Error, Result};
use crate::nn::{probe, probe_trained};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Everything that training needs.
pub struct Job {
    /// The job's description.
    pub card: Card,
    /// This rank's model.
    pub replica: Replica,
    /// Training samples.
    pub train: Arc<dyn Dataset>,
    /// Their fingerprint, which costs a pass over them.
    pub fingerprint: String,
    /// Test samples, if there are any.
    pub test: Option<Arc<dyn Dataset>>,
    /// How training samples are drawn.
    pub sampling: Sampling,
    /// How training images are changed.
    pub augment: Arc<Augment>,
    /// The length of the run.
    pub plan: Plan,
}

impl Job {
    /// Opens data and device, builds the model, and makes sure that all ranks agree on everything.
    ///
    /// # Errors
    /// The same error on every rank; [`Error::Config`] with both values when ranks differ.
    pub fn prepare(card: Card, device: Choice, group: &mut Group) -> Result<Job> {
        group.require_equal("the program", &build_id())?;
        let json = group.together(card.to_json_pretty())?;
        group.require_equal("the card", &json)?;
        group.together(faults::check_allowed(&card.faults))?;
        faults::arm(&card.faults, group);
        let deadline = card.comm.deadline_s.map_or(DEFAULT_DEADLINE, Duration::from_secs_f64);
        group.configure(Tuning {
            deadline,
            segment: card.comm.segment_kb << 10,
            algorithm: card.comm.algorithm,
            wire: card.comm.wire,
            checksum: card.comm.checksum,
        })?;
        conditions::check(&card, device, group)?;

        let device = group.together(device.open(group.local_rank(), group.local_ranks()))?;
        let (train, test) = group.together(data::open(&card.data))?;
        let fingerprint = train.fingerprint();
        group.require_equal("the training data", &fingerprint)?;
        if let Some(test) = &test {
            group.require_equal("the test data", &test.fingerprint())?;
        }
        let shape = train.sample_shape().to_vec();
        let sampling = group.together(Sampling::new(&card.data.sampling, train.as_ref()))?;
        let augment = Augment::new(&card.data.augment, card.data.normalize, card.seed, &shape);
        let augment = Arc::new(group.together(augment)?);
        let mut replica = group.together(Replica::build(&card, &shape, &device))?;
        group.require_equal("the model's parameters", &replica.params.signature())?;
        broadcast(&mut replica, group)?;
        let plan = Plan::new(&card, train.len() as u64);
        let train = faults::spoil_the_loader(&card.faults, group.rank(), train);
        Ok(Job { card, replica, train, fingerprint, test, sampling, augment, plan })
    }

    /// What the loader of one rank is to hand out of a run of this `plan`, from step `from` on.
    #[must_use]
    pub fn feed(&self, plan: &Plan, from: u64, rank: usize, world: usize) -> Feed {
        let (sampling, augment) = (self.sampling.clone(), self.augment.clone());
        Feed { sampling, augment, ..plan.feed(&self.card, from, rank, world) }
    }

    /// Proves on the first samples that every parameter receives a gradient, and lays the gradients
    /// out in the order in which that backward pass finished them, in memory that the ranks of a host
    /// share.
    ///
    /// # Errors
    /// Naming the parameters that receive none.
    pub fn probe(&mut self, group: &mut Group) -> Result<()> {
        self.probe_as(false, group)
    }

    /// The same; of a run that goes on, a gradient may be zero: its units may have died since it began.
    ///
    /// # Errors
    /// As [`Job::probe`].
    pub fn probe_as(&mut self, goes_on: bool, group: &mut Group) -> Result<()> {
        let mut course = self.replica.params.name_course();
        if self.card.train.probe {
            let loss = || self.replica.probe_loss(self.train.as_ref());
            let params = &self.replica.params;
            let probed = if goes_on { probe_trained(params, loss) } else { probe(params, loss) };
            course = group.together(probed)?;
        }
        group.require_equal("the order of the gradients", &format!("{course:?}"))?;
        let mut allocate = |len| group.shared_buffer(len);
        self.replica.params.lay_out(&course, bucket_bytes(&self.card), &mut allocate)
    }

    /// Takes over the parameters of a model file.
    ///
    /// # Errors
    /// When it is missing, damaged, or of another model.
    pub fn load_model(&mut self, path: &Path, group: &mut Group) -> Result<()> {
        let read = || {
            let tensors = model_file::load(path)?;
            model_file::check_fits(path, &tensors, &self.replica.shapes())?;
            Ok(tensors)
        };
        let tensors = group.together(read())?;
        self.replica.restore(&tensors)?;
        group.require_equal("the model file", &self.replica.params.hash()?)
    }
}

/// Gives every rank the parameters of rank 0. They are equal by construction; this makes it so even
/// where a library or a machine breaks that promise.
pub fn broadcast(replica: &mut Replica, group: &mut Group) -> Result<()> {
    for param in &replica.params {
        let mut values = param.to_vec()?;
        group.broadcast(&mut values, 0)?;
        param.update(|theta| theta.copy_from_slice(&values))?;
    }
    Ok(())
}

/// Identifies this program: its version and the hash of its file.
fn build_id() -> String {
    let hash = std::env::current_exe()
        .map_err(|e| Error::Internal(e.to_string()))
        .and_then(|path| std::fs::read(&path).map_err(|e| Error::reading(&path, &e)))
        .map_or_else(|e| e.to_string(), |bytes| blake3::hash(&bytes).to_hex()[..16].to_owned());
    format!("annulus {} (program file {hash})", env!("CARGO_PKG_VERSION"))
}

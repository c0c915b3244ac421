//! The run's ledger (`report/ledger.rs`), written by rank 0 after each step.

use super::guards::replicas;
use super::resume::From;
use super::setup::Job;
use super::step::StepReport;
use crate::collective::Group;
use crate::config;
use crate::data::Sampler;
use crate::data::sampling::Draws;
use crate::error::{Error, Result};
use crate::report::ledger::{About, Hex, LEDGER, Line, Step};
use crate::report::lines::Lines;
use crate::util::rng::mix;
use std::path::Path;

/// The ledger of a run; empty on a rank that does not write it.
pub struct Ledger {
    lines: Option<Lines>,
    rule: config::Ledger,
    total: u64,
    /// The draws of the epoch that is going on.
    draws: Option<(u64, Draws)>,
}

impl Ledger {
    /// Opens the ledger in the run folder `folder`, anew or cut back to where `from` stands.
    ///
    /// # Errors
    /// When it cannot be written, or is not the one to go on with.
    pub fn open(
        job: &Job,
        folder: Option<&Path>,
        from: Option<&From>,
        group: &Group,
    ) -> Result<Ledger> {
        let rule = job.card.ledger.clone();
        let open = |folder: &Path| {
            let (path, bytes) = (folder.join(LEDGER), from.map_or(0, |f| f.story.ledger_bytes));
            let mut lines = if bytes > 0 {
                Lines::go_on(&path, bytes)?
            } else {
                let mut lines = Lines::create(&path)?;
                lines.write(&Line::Run(about(job, group)?))?;
                lines
            };
            if let Some(from) = from {
                lines.write(&Line::Resume { step: from.step, ranks: group.size() })?;
            }
            Ok::<_, Error>(lines)
        };
        let lines = folder.filter(|_| rule.every_steps > 0).map(open).transpose()?;
        Ok(Ledger { lines, rule, total: job.plan.total_steps, draws: None })
    }

    /// Writes down the last of `done` steps, if it is its turn.
    ///
    /// # Errors
    /// When the disk is full or gone.
    pub fn step(&mut self, done: u64, taken: &StepReport, job: &Job) -> Result<()> {
        let last = done == self.total;
        let hashes = last || done.is_multiple_of(self.rule.hashes_every);
        let hashes = hashes && self.rule.hashes_every > 0;
        let Some(lines) = &mut self.lines else { return Ok(()) };
        if !hashes && !done.is_multiple_of(self.rule.every_steps) && !last {
            return Ok(());
        }
        let hashes = if hashes { replicas::hashes(&job.replica)? } else { Vec::new() };
        let sampler = &job.plan.sampler;
        let (epoch, at) = sampler.locate(done - 1);
        let draws = match &self.draws {
            Some((of, draws)) if *of == epoch => draws,
            _ => &self.draws.insert((epoch, job.sampling.draws(sampler, epoch))).1,
        };
        lines.write(&Line::Step(Step {
            step: done,
            loss: Hex(taken.tally.mean_loss().to_bits()),
            grad_norm: Hex(taken.grad_norm.to_bits()),
            order: Hex(order_hash(sampler, draws, at)),
            skipped: !taken.updated,
            hashes: hashes.into_iter().map(Hex).collect(),
        }))
    }

    /// The file, on the rank that writes it.
    #[must_use]
    pub fn lines(&self) -> Option<&Lines> {
        self.lines.as_ref()
    }
}

fn about(job: &Job, group: &Group) -> Result<About> {
    let mut tensors = Vec::new();
    job.replica.visit(&mut |name, _| tensors.push(name.to_string()))?;
    Ok(About {
        card: job.card.hash()?,
        data: job.fingerprint.clone(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        ranks: group.size(),
        tensors,
    })
}

/// A hash of the samples of a global batch, in order: sample by sample.
fn order_hash(sampler: &Sampler, draws: &Draws, step_in_epoch: u64) -> u64 {
    let positions = sampler.global_batch(step_in_epoch);
    positions.fold(0, |hash, position| mix(hash ^ draws.at(position).sample))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Sampling;

    #[test]
    fn another_sample_or_another_order_of_a_batch_has_another_hash() {
        let hash = |batch: u64, seed: u64, step: u64| {
            let sampler = Sampler::new(1000, batch, seed);
            order_hash(&sampler, &Sampling::default().draws(&sampler, 0), step)
        };
        assert_eq!(hash(64, 1, 3), hash(64, 1, 3));
        for other in [hash(64, 1, 4), hash(64, 2, 3), hash(32, 1, 3)] {
            assert_ne!(hash(64, 1, 3), other);
        }
    }
}

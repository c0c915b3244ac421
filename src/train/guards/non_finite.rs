//! Whose gradient is not finite, and through which samples?
//!
//! The reduction has put the sums of all ranks where each rank's gradients were. Nothing was updated, so
//! every rank computes its part of the step once more, which gives the same bits, and looks for the first
//! tensor and loss that are not finite; then sample by sample, to tell which of them are to blame.

use crate::collective::Group;
use crate::config::Wire;
use crate::data::{Batch, Feed, Loader};
use crate::error::{Error, Result};
use crate::train::faults;
use crate::train::replica::{Replica, Spent};
use crate::train::setup::Job;
use serde::{Deserialize, Serialize};

/// More samples than this are counted, not named.
const NAMED: usize = 8;

/// What one rank found in its own part of a step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Finding {
    /// A parameter that is itself not finite before the step.
    parameter: Option<String>,
    /// Whether the loss is not finite.
    loss: bool,
    /// The first tensor, in name order, whose gradient is not finite.
    gradient: Option<String>,
    /// The first samples that are to blame: each alone has a loss or gradient that is not finite.
    samples: Vec<u64>,
    /// How many there are.
    guilty: usize,
    /// How many samples this rank has in the step.
    part: usize,
    /// The first of them.
    some: Vec<u64>,
}

impl Finding {
    fn is_bad(&self) -> bool {
        self.parameter.is_some() || self.loss || self.gradient.is_some()
    }
}

/// Finds out what is not finite in `step` (from 0); in words, the same on all ranks.
///
/// # Errors
/// When data, an operation or another rank fails (the same on all ranks).
pub fn find_out(step: u64, job: &Job, group: &mut Group) -> Result<String> {
    let mine = look(step, job, group.rank(), group.size());
    let mine = group.together(mine)?;
    let bytes = serde_json::to_vec(&mine)
        .map_err(|e| Error::Internal(format!("what was found as JSON: {e}")))?;
    let mut all = Vec::new();
    for bytes in group.all_gather(&bytes)? {
        let finding: Finding = serde_json::from_slice(&bytes)
            .map_err(|e| Error::Internal(format!("what was found from JSON: {e}")))?;
        all.push(finding);
    }
    let bad: Vec<usize> = (0..all.len()).filter(|&r| all[r].is_bad()).collect();
    let Some(&first) = bad.first() else { return Ok(nobody(job)) };
    let name = |r: usize| format!("rank {r} ({})", group.hosts()[r]);
    let others: Vec<String> = bad[1..].iter().map(|&r| name(r)).collect();
    let also = match others.len() {
        0 => String::new(),
        n if n + 1 == all.len() => "; the other ranks find the like".to_owned(),
        _ => format!("; the like on {}", others.join(", ")),
    };
    Ok(format!("first on {}: {}{also}", name(first), describe(&all[first])))
}

fn nobody(job: &Job) -> String {
    let wire = match job.card.comm.wire {
        Wire::F16 => "the sum of all ranks, or comm.wire \"f16\" on the way to it, overflows",
        _ => "the sum of all ranks overflows, or a machine erred",
    };
    format!("computed once more, no rank's own loss or gradient is at fault: {wire}")
}

fn describe(found: &Finding) -> String {
    if let Some(name) = &found.parameter {
        return format!("the parameter {name} itself is not finite since an earlier step");
    }
    let what = match (&found.gradient, found.loss) {
        (Some(name), true) => format!("the loss and the gradient of {name}"),
        (Some(name), false) => format!("the gradient of {name}"),
        (None, _) => "the loss".to_owned(),
    };
    let list = |ids: &[u64], all: usize| {
        let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
        let more = if all > ids.len() { ", …" } else { "" };
        format!("{}{more}", ids.join(", "))
    };
    if found.guilty == 0 {
        let some = list(&found.some, found.part);
        return format!(
            "{what}, over samples {some} ({}), none of which does it alone",
            found.part
        );
    }
    let samples = list(&found.samples, found.guilty);
    format!("{what}, through samples {samples} ({} of its {})", found.guilty, found.part)
}

/// This rank's part of the step, once more.
fn look(step: u64, job: &Job, rank: usize, world: usize) -> Result<Finding> {
    let replica = &job.replica;
    let feed = Feed { steps: step..step + 1, ..job.feed(&job.plan, step, rank, world) };
    let mut loader = Loader::start(job.train.clone(), feed)?;
    let mut batches = Vec::new();
    while let Some(batch) = loader.next_batch()? {
        batches.push(batch);
    }
    examine(replica, &batches, || {
        faults::after_backward(&job.card.faults, step + 1, rank, &replica.params);
    })
}

/// What is not finite in the passes over `batches`; `spoil` is done to the gradients after them.
fn examine(replica: &Replica, batches: &[Batch], spoil: impl FnOnce()) -> Result<Finding> {
    let parameter = first_not_finite_parameter(replica)?;
    let (loss, gradient) = passes(replica, batches, spoil)?;
    let part = batches.iter().map(Batch::len).sum();
    let some = batches.iter().flat_map(|b| b.samples.iter().copied()).take(NAMED).collect();
    let mut found = Finding { parameter, loss, gradient, part, some, ..Finding::default() };
    if !found.is_bad() || found.parameter.is_some() {
        return Ok(found);
    }
    for batch in batches {
        for i in 0..batch.len() {
            let one = batch.only(i, replica.sample_len());
            let (loss, gradient) = passes(replica, std::slice::from_ref(&one), || {})?;
            if loss || gradient.is_some() {
                found.guilty += 1;
                found.samples.extend(one.samples.first().filter(|_| found.guilty <= NAMED));
            }
        }
    }
    Ok(found)
}

/// Forward and backward over `batches`; whether the loss is not finite, and whose gradient is not.
fn passes(
    replica: &Replica,
    batches: &[Batch],
    spoil: impl FnOnce(),
) -> Result<(bool, Option<String>)> {
    let grads = replica.params.grads();
    grads.begin_step();
    let mut loss = 0.0;
    for batch in batches {
        loss += replica.forward_backward(batch, &mut Spent::default())?.loss;
    }
    grads.zero_missing();
    spoil();
    let bad = |i: &usize| grads.read(*i, |grad| !all_finite(grad));
    let mut names = replica.params.iter().enumerate();
    let gradient = names.find(|(i, _)| bad(i)).map(|(_, param)| param.name().to_owned());
    Ok((!loss.is_finite(), gradient))
}

fn first_not_finite_parameter(replica: &Replica) -> Result<Option<String>> {
    for param in &replica.params {
        if !param.read(all_finite)? {
            return Ok(Some(param.name().to_owned()));
        }
    }
    Ok(None)
}

fn all_finite(values: &[f32]) -> bool {
    values.iter().all(|x| x.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Card;
    use candle_core::Device;

    fn replica(card: &str) -> Replica {
        let card: Card = serde_json::from_str(card).unwrap();
        Replica::build(&card, &[1, 28, 28], &Device::Cpu).unwrap()
    }

    /// Two micro-batches of three samples, 40 to 45.
    fn batches() -> Vec<Batch> {
        let batch = |first: u64| Batch {
            images: (0..3 * 784).map(|i| (i % 7) as f32 * 0.1).collect(),
            labels: vec![1, 2, 3],
            samples: (first..first + 3).collect(),
            keys: (first..first + 3).collect(),
            global_weight: 6.0,
            ..Batch::default()
        };
        vec![batch(40), batch(43)]
    }

    #[test]
    fn the_samples_that_spoil_a_gradient_are_found_among_many() {
        for card in [
            include_str!("../../../configs/lenet-mnist.json"),
            include_str!("../../../configs/mlp-mnist.json"),
        ] {
            let (replica, mut batches) = (replica(card), batches());
            assert!(!examine(&replica, &batches, || {}).unwrap().is_bad());
            batches[0].images[784 + 300] = f32::NAN;
            batches[1].images[2 * 784 + 300] = f32::INFINITY;
            let found = examine(&replica, &batches, || {}).unwrap();
            assert_eq!((found.samples.as_slice(), found.guilty), ([41, 45].as_slice(), 2));
            assert!(found.gradient.is_some());
            let text = describe(&found);
            assert!(text.contains("through samples 41, 45 (2 of its 6)"), "{text}");
        }
    }

    #[test]
    fn a_gradient_that_no_sample_spoils_is_told_with_the_samples_it_is_over() {
        let (replica, batches) =
            (replica(include_str!("../../../configs/lenet-mnist.json")), batches());
        let spoil = || replica.params.grads().with_bucket(0, |bucket| bucket[0] = f32::NAN);
        let text = describe(&examine(&replica, &batches, spoil).unwrap());
        assert!(text.starts_with("the gradient of "), "{text}");
        assert!(text.contains("over samples 40, 41, 42, 43, 44, 45 (6), none of which"), "{text}");
    }

    #[test]
    fn a_parameter_that_is_not_finite_is_named_instead_of_every_sample() {
        let replica = replica(include_str!("../../../configs/lenet-mnist.json"));
        let bias = replica.params.iter().find(|p| p.name() == "fc1.bias").unwrap();
        bias.update(|values| values[3] = f32::INFINITY).unwrap();
        let found = examine(&replica, &batches(), || {}).unwrap();
        assert_eq!(found.parameter.as_deref(), Some("fc1.bias"));
        assert!(describe(&found).contains("fc1.bias itself is not finite since an earlier step"));
    }
}

//! What a job is, in a few lines: printed before the first step and by `--dry-run`.

use super::gpus;
use super::pace::SHORTEST;
use super::plan::Plan;
use super::setup::Job;
use crate::collective::Group;
use crate::comm::DEFAULT_DEADLINE;
use crate::config::{Algorithm, Card, Format, SamplingKind, Wire};
use crate::data::limits;
use crate::report::console::Console;
use crate::util::human;

/// The facts of the job, as printed before the first step and by `--dry-run`.
pub fn heading(console: &Console, job: &Job, group: &Group) {
    let (card, plan) = (&job.card, job.plan);
    let about = if card.about.is_empty() { "training" } else { &card.about };
    console.line(&format!("annulus {}: {about}", env!("CARGO_PKG_VERSION")));
    console.fact("ranks", &ranks(group));
    if let Some(number) = gpus::number(job.replica.device()) {
        console.fact("device", &format!("{}, on rank 0", gpus::describe(number)));
    }
    if group.size() > 1 {
        console.fact("reduce", &reduction(card, group));
        console.fact("deadline", &deadline(card));
    }
    let grads = job.replica.params.grads();
    console.fact(
        "model",
        &format!(
            "{:?}, {} parameters, {} of gradients in {} bucket{}",
            card.model.kind,
            human::count(job.replica.params.count() as u64),
            human::bytes(grads.bytes() as u64),
            grads.bucket_count(),
            plural(grads.bucket_count()),
        ),
    );
    console.fact("data", &data(job));
    if let Some(samples) = samples(card) {
        console.fact("samples", &samples);
    }
    console.fact("batch", &batch(card, group, plan));
    console.fact("optimizer", &optimizer(card));
}

/// What `--dry-run` prints: the heading, the layers, memory and bytes on the wire.
pub fn describe(job: &Job, group: &Group) {
    let console = Console::new(group.rank() == 0);
    heading(&console, job, group);
    for (i, layer) in job.replica.model.describe().iter().enumerate() {
        console.fact(if i == 0 { "layers" } else { "" }, layer);
    }
    let gradients = job.replica.params.grads().bytes() as u64;
    let parameters = 4 * job.replica.params.count() as u64;
    let moments = job.replica.state_bytes();
    console.fact(
        "memory",
        &format!(
            "per rank: parameters {}, gradients {}, optimizer {}, data {}",
            human::bytes(parameters),
            human::bytes(gradients),
            human::bytes(moments),
            data_in_memory(job)
        ),
    );
    let n = group.size() as u64;
    console.fact(
        "wire",
        &format!(
            "{} sent and received by each rank per step, {} in the whole run",
            human::bytes(2 * (n - 1) * gradients / n),
            human::bytes(2 * (n - 1) * gradients / n * job.plan.total_steps)
        ),
    );
    console.line("dry run: nothing was trained");
}

/// How much of the data each rank keeps.
fn data_in_memory(job: &Job) -> String {
    let samples = job.train.len() + job.test.as_ref().map_or(0, |test| test.len());
    let numbers = (samples * job.train.sample_len()) as u64;
    let kept = limits::TABLE_MEMORY as u64;
    match job.card.data.format {
        Format::Idx => human::bytes(numbers),
        Format::Csv | Format::Parquet => human::bytes((4 * numbers).min(kept)),
        _ => "stays in its files".to_owned(),
    }
}

fn data(job: &Job) -> String {
    let shape: Vec<String> = job.train.sample_shape().iter().map(ToString::to_string).collect();
    let test = job.test.as_ref().map_or(0, |t| t.len() as u64);
    let part = if job.card.data.val.is_some() { "validation" } else { "test" };
    let (shape, classes) = (shape.join("×"), job.card.data.classes);
    let counts = format!(
        "{} training and {} {part}",
        human::count(job.train.len() as u64),
        human::count(test)
    );
    if job.card.data.format.is_of_tokens() {
        return format!("{counts} windows of {shape} tokens, {classes} in the vocabulary");
    }
    if job.card.train.loss.is_of_numbers() {
        return format!("{counts} samples of {shape}, one number to predict");
    }
    format!("{counts} samples of {shape}, {classes} classes")
}

fn ranks(group: &Group) -> String {
    let mut hosts = group.hosts().to_vec();
    hosts.sort_unstable();
    hosts.dedup();
    let (n, h) = (group.size(), hosts.len());
    let threads = rayon::current_num_threads();
    format!(
        "{n} rank{} on {h} host{} ({}), {threads} thread{} each",
        plural(n),
        plural(h),
        hosts.join(", "),
        plural(threads)
    )
}

/// How gradients meet.
fn reduction(card: &Card, group: &Group) -> String {
    if card.reproducible.is_some() {
        let memory = group.shared_memory().is_ok() && group.host_count() == 1;
        let memory = memory && matches!(card.comm.algorithm, Algorithm::Auto | Algorithm::Shared);
        let how = if memory { "in shared memory" } else { "by messages" };
        return format!("in one order at any number of ranks, {how}");
    }
    let comm = &card.comm;
    let (name, wire) = (format!("{:?}", comm.algorithm), format!("{:?}", comm.wire));
    let mut text = match (comm.algorithm, group.shared_memory()) {
        (Algorithm::Auto | Algorithm::Shared, Ok(())) if group.host_count() == 1 => {
            "in shared memory".to_owned()
        }
        (Algorithm::Auto | Algorithm::Shared, Ok(())) => {
            "in shared memory on each host, ring between hosts".to_owned()
        }
        (Algorithm::Auto | Algorithm::Shared, Err(why)) => {
            format!("ring of messages; no shared memory: {why}")
        }
        _ => format!("{} of messages", name.to_lowercase()),
    };
    if comm.wire != Wire::F32 {
        text += &format!(", {} between hosts", wire.to_lowercase());
    }
    text
}

/// How long a rank waits for another.
fn deadline(card: &Card) -> String {
    match card.comm.deadline_s {
        Some(seconds) => format!("a silent rank is given up after {seconds} s"),
        None => format!(
            "a silent rank is given up after {} s; from step 20 on after 20 median steps, at least {} s",
            DEFAULT_DEADLINE.as_secs(),
            SHORTEST.as_secs()
        ),
    }
}

/// How training samples are drawn and changed, if they are.
fn samples(card: &Card) -> Option<String> {
    let data = &card.data;
    let drawn = match data.sampling.kind {
        SamplingKind::Uniform => None,
        SamplingKind::Balanced => Some("classes drawn equally often".to_owned()),
        SamplingKind::Weighted => Some("classes drawn by weight".to_owned()),
    };
    let kinds: Vec<String> = data.augment.iter().map(|t| format!("{:?}", t.kind)).collect();
    let changed = (!kinds.is_empty()).then(|| format!("changed by {}", kinds.join(", ")));
    let parts: Vec<String> = drawn.into_iter().chain(changed).collect();
    (!parts.is_empty()).then(|| parts.join("; ").to_lowercase())
}

fn batch(card: &Card, group: &Group, plan: Plan) -> String {
    let (global, n) = (card.train.global_batch, group.size());
    let cut = match (card.reproducible, card.train.accumulate) {
        (Some(mode), _) => {
            format!("in {} leaves, {} per rank", mode.leaves, share(mode.leaves, n))
        }
        (None, 1) => format!("{} per rank", share(global, n)),
        (None, k) => format!("{} per rank in {k} micro-batches", share(global, n)),
    };
    format!(
        "{global} samples, {cut}; {} steps an epoch, {} in all",
        human::count(plan.steps_per_epoch),
        human::count(plan.total_steps)
    )
}

/// What each of `n` ranks gets of `all`.
fn share(all: usize, n: usize) -> String {
    match all / n {
        each if all.is_multiple_of(n) => each.to_string(),
        each => format!("{each}–{}", each + 1),
    }
}

fn optimizer(card: &Card) -> String {
    let (o, s) = (&card.optimizer, &card.schedule);
    let mut text = format!("{:?}, lr {}", o.kind, o.lr).to_lowercase();
    text += &format!(", {:?} schedule", s.kind).to_lowercase();
    if let Some(scale) = &card.train.loss_scale {
        text += &format!(", loss scale from {}", human::count(scale.initial.into()));
    }
    if s.warmup_steps > 0 {
        text += &format!(" after {} warm-up steps", s.warmup_steps);
    }
    if let Some(ema) = &card.train.ema {
        text += &format!(", parameters averaged (ema {})", ema.decay);
    }
    if let Some(swa) = &card.train.swa {
        text += &format!(", parameters averaged from epoch {} on (swa)", swa.from_epoch);
    }
    text
}

fn plural(n: usize) -> &'static str {
    if n == 1 { "" } else { "s" }
}

//! What one field of a card demands of another. Types and bounds of single fields stand in the
//! schema (attributes beside the fields).

use super::{
    Algorithm, Card, FaultKind, FaultPlace, ModelKind, Prepare, Problem, SamplingKind,
    ScheduleKind, SpikeAction, Wire, metrics, recurrent, regression, residual, text, tune,
};

/// The problems of `card`, leaving out rules that touch a field in `broken`: those hold a stand-in.
pub(super) fn check(card: &Card, broken: &[String]) -> Vec<Problem> {
    let mut rules = Rules { broken, problems: Vec::new() };
    length_of_the_run(card, &mut rules);
    unused_options(card, &mut rules);
    values_that_clash(card, &mut rules);
    faults_that_cannot_be(card, &mut rules);
    samples(card, &mut rules);
    for (field, what) in tune::problems(card) {
        rules.refuse_if(true, &[&field], &what);
    }
    if card.reproducible.is_some() {
        reproducible_mode(card, &mut rules);
    }
    rules.problems
}

struct Rules<'a> {
    broken: &'a [String],
    problems: Vec<Problem>,
}

impl Rules<'_> {
    /// If `wrong`, blames the first of `fields`, unless one of them is known to be broken.
    fn refuse_if(&mut self, wrong: bool, fields: &[&str], what: &str) {
        let broken = |field: &&str| self.broken.iter().any(|b| touches(b, field));
        if wrong && !fields.iter().any(broken) {
            self.problems.push(Problem::new(fields[0], what));
        }
    }
}

/// Whether one path is the other or lies inside it.
fn touches(a: &str, b: &str) -> bool {
    let inside = |a: &str, b: &str| {
        a.strip_prefix(b).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    a.is_empty() || inside(a, b) || inside(b, a)
}

fn length_of_the_run(card: &Card, rules: &mut Rules) {
    let train = &card.train;
    rules.refuse_if(
        train.epochs.is_none() && train.max_steps.is_none(),
        &["train.epochs", "train.max_steps"],
        "is missing; give train.epochs, train.max_steps or both",
    );
    if let Some(max) = train.max_steps {
        let warmup = card.schedule.warmup_steps;
        rules.refuse_if(
            warmup > max,
            &["schedule.warmup_steps", "train.max_steps"],
            &format!("{warmup} steps of warm-up are more than train.max_steps, {max}"),
        );
    }
}

fn unused_options(card: &Card, rules: &mut Rules) {
    let unused = |rules: &mut Rules, given: bool, field: &str, kind: &str, users: &str| {
        let what = format!("is used by {users} only; remove it or change {kind}");
        rules.refuse_if(given, &[field, kind], &what);
    };
    let o = &card.optimizer;
    for (given, field, users) in o.unused() {
        unused(rules, given, &format!("optimizer.{field}"), "optimizer.kind", users);
    }
    for (wrong, field, what) in card.schedule.problems() {
        rules.refuse_if(wrong, &[&format!("schedule.{field}"), "schedule.kind"], &what);
    }
    let scale = card.train.loss_scale.as_ref();
    rules.refuse_if(
        scale.is_some_and(|scale| !scale.initial.is_power_of_two()),
        &["train.loss_scale.initial"],
        "must be a power of two, by which gradients are multiplied and divided without rounding",
    );
    let hidden = !card.model.hidden.is_empty() && card.model.kind != ModelKind::Mlp;
    unused(rules, hidden, "model.hidden", "model.kind", "`mlp`");
    for (wrong, field, what) in regression::problems(card) {
        rules.refuse_if(wrong, &[field, "train.loss", "data.csv", "data.classes"], &what);
    }
    for (wrong, field, what) in metrics::problems(card) {
        let fields = [field, "metrics", "data.classes", "data.format", "data.test"];
        rules.refuse_if(wrong, &fields, &what);
    }
    let no_test = !card.data.is_evaluated();
    for (given, field) in [
        (card.data.test_limit.is_some(), "data.test_limit"),
        (card.train.early_stopping.is_some(), "train.early_stopping"),
        (card.train.eval_every_steps.is_some(), "train.eval_every_steps"),
        (card.schedule.kind == ScheduleKind::Plateau, "schedule.kind"),
    ] {
        let what = "needs samples to evaluate on; give data.val or data.test, or remove it";
        rules.refuse_if(given && no_test, &[field, "data.val", "data.test"], what);
    }
}

/// What would let the number of ranks into the results again.
fn reproducible_mode(card: &Card, rules: &mut Rules) {
    for (wrong, field, what) in [
        (
            card.train.accumulate > 1,
            "train.accumulate",
            "is not for reproducible mode, whose leaves are the micro-batches; raise \
             reproducible.leaves instead",
        ),
        (
            card.comm.algorithm == Algorithm::Mpi,
            "comm.algorithm",
            "`mpi` adds up in an order of its own, which reproducible mode cannot allow; remove it",
        ),
        (
            card.comm.wire != Wire::F32,
            "comm.wire",
            "rounds partial sums, which reproducible mode cannot allow; remove it",
        ),
    ] {
        rules.refuse_if(wrong, &[field, "reproducible"], what);
    }
}

/// Places and durations are for some kinds of faults only.
fn faults_that_cannot_be(card: &Card, rules: &mut Rules) {
    for (i, fault) in card.faults.iter().enumerate() {
        let field = |name: &str| format!("faults.{i}.{name}");
        rules.refuse_if(
            fault.at.is_some() && !fault.kind.is_of_process(),
            &[&field("at"), &field("kind")],
            "is for faults of the process only (panic, stop, kill, exit, abort, segfault, memory, slow)",
        );
        rules.refuse_if(
            fault.message.is_some()
                && fault.at != Some(FaultPlace::Reduce)
                && !fault.kind.is_of_message(),
            &[&field("message"), &field("kind")],
            "is for `corrupt`, `short` and `long`, and for faults of the process with `at: \"reduce\"`",
        );
        let slow = fault.kind == FaultKind::Slow;
        rules.refuse_if(
            fault.seconds.is_some() != slow,
            &[&field("seconds"), &field("kind")],
            if slow {
                "is missing; say how long a `slow` rank sleeps"
            } else {
                "is for `slow` only"
            },
        );
    }
}

/// How training samples are drawn and changed.
fn samples(card: &Card, rules: &mut Rules) {
    let list = &card.data.augment;
    for (i, transform) in list.iter().enumerate() {
        let field = |name: &str| format!("data.augment.{i}.{name}");
        for (name, what) in transform.problems() {
            rules.refuse_if(true, &[&field(name), &field("kind")], what);
        }
        let before = list.get(i + 1).is_some_and(|next| !next.kind.is_of_two());
        rules.refuse_if(
            transform.kind.is_of_two() && before,
            &[&field("kind"), "data.augment"],
            "mixes two finished images; mixup and cutmix come last",
        );
    }
    let sampling = &card.data.sampling;
    let weighted = sampling.kind == SamplingKind::Weighted;
    let fields = &["data.sampling.weights", "data.sampling.kind", "data.classes"];
    rules.refuse_if(
        !weighted && !sampling.weights.is_empty(),
        fields,
        "is used by `weighted` only; remove it or change data.sampling.kind",
    );
    rules.refuse_if(
        weighted && sampling.weights.len() != card.data.classes,
        fields,
        &format!(
            "has {} numbers; `weighted` needs one for each of the {} classes",
            sampling.weights.len(),
            card.data.classes
        ),
    );
}

fn values_that_clash(card: &Card, rules: &mut Rules) {
    rules.refuse_if(
        card.train.ema.is_some() && card.train.swa.is_some(),
        &["train.swa", "train.ema"],
        "is another average than train.ema; one can be kept, remove the other",
    );
    if let (Some(swa), Some(epochs)) = (&card.train.swa, card.train.epochs) {
        rules.refuse_if(
            swa.from_epoch > epochs,
            &["train.swa.from_epoch", "train.epochs"],
            &format!("{} is after the last epoch, {epochs}", swa.from_epoch),
        );
    }
    let rewinds = card.guards.spike.as_ref().is_some_and(|s| s.action == SpikeAction::Rewind);
    let checkpoint = &card.checkpoint;
    rules.refuse_if(
        rewinds && checkpoint.every_steps.is_none() && checkpoint.every_epochs == 0,
        &["guards.spike.action", "checkpoint.every_steps", "checkpoint.every_epochs"],
        "`rewind` goes back to checkpoints by steps or epochs; give checkpoint.every_steps or \
         checkpoint.every_epochs",
    );
    rules.refuse_if(
        card.comm.checksum && card.comm.algorithm == Algorithm::Mpi,
        &["comm.checksum", "comm.algorithm"],
        "cannot check what `mpi` moves by itself; take another comm.algorithm",
    );
    let o = &card.optimizer;
    if let Some([a, b]) = o.betas {
        rules.refuse_if(
            ![a, b].iter().all(|beta| (0.0..1.0).contains(beta)),
            &["optimizer.betas"],
            &format!("[{a}, {b}] are not two numbers of at least 0 and below 1"),
        );
    }
    rules.refuse_if(
        o.nesterov == Some(true) && o.momentum.unwrap_or(0.0) == 0.0,
        &["optimizer.nesterov", "optimizer.momentum", "optimizer.kind"],
        "needs optimizer.momentum above 0",
    );
    for (field, what) in card.prepare.as_ref().map(Prepare::problems).unwrap_or_default() {
        rules.refuse_if(true, &[&format!("prepare.{field}")], &what);
    }
    for (field, what) in card.data.problems() {
        rules.refuse_if(true, &[&field, "data.format"], &what);
    }
    for (wrong, field, what) in text::problems(card) {
        let of_model = ["data.format", "model.kind"];
        rules.refuse_if(wrong, &[&[field], &of_model[..], &["data.text"]].concat(), &what);
    }
    let of_models =
        [text::problems_of_gpt(card), residual::problems(card), recurrent::problems(card)];
    for (wrong, field, what) in of_models.concat() {
        rules.refuse_if(wrong, &[field, "model.kind", "data.format"], &what);
    }
}

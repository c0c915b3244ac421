//! Turns what the loop sees into lines, files and a progress bar. Active on rank 0 only.

use super::heading::heading;
use super::metrics::{Confusion, Evaluation};
use super::overlap::Verdict;
use super::resume::Start;
use super::setup::Job;
use super::step::StepReport;
use super::story::{SavedEvaluation, Sums};
use super::tally::Tally;
use super::totals::{Recent, Totals};
use super::wishes::Leave;
use crate::checkpoint::Bits;
use crate::collective::Group;
use crate::config::Monitor;
use crate::error::{Error, Result};
use crate::report::console::Console;
use crate::report::lines::Lines;
use crate::report::metrics::Record;
use crate::report::run_folder::{MODEL, RunFolder};
use crate::report::status::State;
use crate::util::human;
use std::path::Path;
use std::time::{Duration, Instant};

/// The voice of a run.
pub struct Reporter {
    console: Console,
    folder: Option<RunFolder>,
    every: u64,
    plan: super::Plan,
    world_size: usize,
    started: Instant,
    evaluated: Instant,
    recent: Recent,
    totals: Totals,
    /// The best evaluation, where early stopping restores it.
    pub best: Option<Evaluation>,
    last: Option<Evaluation>,
    /// The table of classes of [`Reporter::judged`], where a resumed run has counted it again.
    pub details: Option<Confusion>,
    /// What an evaluation's line shows beside loss and accuracy.
    shown: Vec<Monitor>,
    end: &'static str,
    /// Wall time of earlier parts of the run.
    before: Duration,
    left: Option<Leave>,
    /// Whether what is counted are the tokens of a text, not samples.
    of_tokens: bool,
    /// What is evaluated on while training: `val` or `test`.
    part: &'static str,
}

impl Reporter {
    /// Opens the run folder, anew or where `start` says, and prints the heading.
    ///
    /// # Errors
    /// When the folder cannot be written (told on all ranks).
    pub fn open(job: &Job, out: &Path, start: &Start, group: &mut Group) -> Result<Reporter> {
        let speaks = group.rank() == 0;
        let create = || -> Result<Option<RunFolder>> {
            let json = job.card.to_json_pretty()?;
            let bytes = start.from.as_ref().map(|from| from.metrics_bytes);
            speaks.then(|| RunFolder::create(out, &json, group.size(), bytes)).transpose()
        };
        let created = create();
        let folder = group.together(created)?;
        let console = Console::new(speaks);
        heading(&console, job, group);
        console.fact("run", &out.display().to_string());
        for text in &start.news {
            console.fact("", text);
        }
        let now = Instant::now();
        Ok(Reporter {
            console,
            folder,
            every: job.card.report.every_steps,
            plan: job.plan,
            world_size: group.size(),
            started: now,
            evaluated: now,
            recent: Recent::default(),
            totals: Totals::default(),
            best: None,
            last: None,
            details: None,
            shown: job.card.shown(),
            end: "all steps of the card done",
            before: Duration::ZERO,
            left: None,
            of_tokens: job.card.data.format.is_of_tokens(),
            part: if job.card.data.val.is_some() { "val" } else { "test" },
        })
    }

    /// The first step begins, with `done` steps done before.
    pub fn start(&mut self, done: u64) {
        self.started = Instant::now();
        self.evaluated = self.started;
        self.console.start(self.plan.total_steps, done);
    }

    /// The run goes on after `step` steps, with the sums of that time.
    pub fn go_on(&mut self, step: u64, sums: &Sums) {
        let seconds = |s: Bits| Duration::try_from_secs_f64(s.0).unwrap_or_default();
        self.totals = Totals {
            steps: step,
            samples: sums.samples.0,
            wall: seconds(sums.wall_s),
            comm: seconds(sums.comm_s),
            loss: sums.loss.0,
            lr: sums.lr.0,
            skipped: sums.skipped,
        };
        self.before = seconds(sums.seconds);
        self.recent.epoch_tally = sums.epoch.into();
        self.last = sums.last.as_ref().map(Evaluation::from);
        self.best = sums.best.as_ref().map(Evaluation::from);
    }

    /// The sums so far, for a checkpoint.
    #[must_use]
    pub fn sums(&self) -> Sums {
        Sums {
            samples: Bits(self.totals.samples),
            wall_s: Bits(self.totals.wall.as_secs_f64()),
            comm_s: Bits(self.totals.comm.as_secs_f64()),
            seconds: Bits((self.before + self.started.elapsed()).as_secs_f64()),
            loss: Bits(self.totals.loss),
            lr: Bits(self.totals.lr),
            skipped: self.totals.skipped,
            epoch: self.recent.epoch_tally.into(),
            last: self.last.as_ref().map(SavedEvaluation::from),
            best: self.best.as_ref().map(SavedEvaluation::from),
        }
    }

    /// The metrics, on the rank that writes them.
    #[must_use]
    pub fn metrics(&self) -> Option<&Lines> {
        self.folder.as_ref().map(RunFolder::metrics)
    }

    /// Something that does not stop the run, but that the user should know.
    pub fn warn(&self, text: &str) {
        self.console.line(&format!("warning: {text}"));
    }

    /// The run is saved and leaves before its end.
    pub fn leaves(&mut self, leave: Leave) {
        self.left = Some(leave);
    }

    /// Step `step` (from 0) has been taken.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn step(&mut self, step: u64, taken: &StepReport) -> Result<()> {
        let wall = taken.wall.as_secs_f64();
        self.totals.add(taken);
        self.recent.add(taken);
        self.recent.progress.step = step + 1;
        self.recent.progress.epoch = self.plan.epoch_of(step) + 1;
        self.console.progress(&self.recent.progress);
        let due = (step + 1).is_multiple_of(self.every) || step + 1 == self.plan.total_steps;
        match &mut self.folder {
            Some(folder) if due => folder.record(&Record::Step {
                step: step + 1,
                epoch: self.plan.epoch_of(step) + 1,
                loss: taken.tally.mean_loss(),
                accuracy: taken.tally.accuracy(),
                lr: taken.lr,
                grad_norm: taken.grad_norm,
                loss_scale: taken.loss_scale,
                samples_per_s: taken.tally.count / wall,
                comm_share: taken.comm.as_secs_f64() / wall,
                input_share: taken.input.as_secs_f64() / wall,
            }),
            _ => Ok(()),
        }
    }

    /// Step `step` (from 0) has been taken, but nothing was updated, and `why`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn skip(&mut self, step: u64, taken: &StepReport, why: &str) -> Result<()> {
        self.totals.steps += 1;
        self.totals.skipped += 1;
        self.warn(&format!("step {} is skipped: {why}", step + 1));
        let (step, epoch) = (step + 1, self.plan.epoch_of(step) + 1);
        let StepReport { tally, lr, grad_norm, loss_scale, .. } = *taken;
        let (loss, why) = (tally.mean_loss(), why.to_owned());
        let record = Record::Skip { step, epoch, loss, lr, grad_norm, loss_scale, why };
        self.folder.as_mut().map_or(Ok(()), |folder| folder.record(&record))
    }

    /// It was measured whether to overlap reduction and backward pass.
    pub fn overlap(&mut self, Verdict { on, off_ms, on_ms }: Verdict) {
        let choice = if on { "on" } else { "off" };
        self.console.fact(
            "overlap",
            &format!("{choice}: a step took {on_ms:.1} ms with and {off_ms:.1} ms without it"),
        );
    }

    /// What there is to tell after step `step` (from 0): the epoch that ends with it, if one does, and the
    /// evaluation, if one was due.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn evaluation(&mut self, step: u64, eval: Option<&Evaluation>) -> Result<()> {
        let ends_epoch = self.plan.ends_epoch(step);
        if !ends_epoch && eval.is_none() {
            return Ok(());
        }
        let epoch = self.plan.epoch_of(step) + 1;
        let mut text = if ends_epoch {
            let trained = std::mem::take(&mut self.recent.epoch_tally);
            let (loss, share) = (trained.mean_loss(), 100.0 * trained.accuracy());
            let share =
                if share.is_nan() { String::new() } else { format!("  train {share:.2} %") };
            format!("epoch {epoch}/{}  loss {loss:.4}{share}", self.plan.epochs())
        } else {
            format!("step {}/{}", step + 1, self.plan.total_steps)
        };
        if let Some(eval) = eval {
            let (part, tally) = (self.part, &eval.tally);
            text += &format!("  {part} loss {:.4}", tally.mean_loss());
            if !tally.accuracy().is_nan() {
                text += &format!("  {part} {}", percent(tally));
            }
            for (name, value) in eval.scores.iter().filter(|(of, _)| self.shown.contains(of)) {
                text += &format!("  {} {value:.4}", name.name());
            }
            self.last = Some(eval.clone());
        }
        let now = Instant::now();
        let since = now - std::mem::replace(&mut self.evaluated, now);
        self.console.line(&format!("{text}  {}", human::duration(since)));
        let (Some(eval), Some(folder)) = (eval, &mut self.folder) else { return Ok(()) };
        folder.record(&Record::Eval {
            step: step + 1,
            epoch,
            loss: eval.tally.mean_loss(),
            accuracy: eval.tally.accuracy(),
            scores: eval.named(),
            correct: eval.tally.correct as u64,
            count: eval.tally.count as u64,
            seconds: since.as_secs_f64(),
        })
    }

    /// The evaluation of the model that the run ends with.
    #[must_use]
    pub fn judged(&self) -> Option<&Evaluation> {
        self.best.as_ref().or(self.last.as_ref())
    }

    /// The learning rate drops because `watched` has not improved.
    pub fn drops(&self, lr: f64, watched: Monitor) {
        let watched = watched.name();
        self.console
            .line(&format!("learning rate {lr:.2e} from here on: {watched} has not improved"));
    }

    /// Early stopping has ended the run after `steps` steps.
    pub fn stopped_early(&mut self, steps: u64) {
        self.end = "stopped early: no improvement within early_stopping.patience";
        self.console.line(&format!("stopped early after step {steps}"));
    }

    /// Where the run folder is, on the rank that writes it.
    #[must_use]
    pub fn folder_path(&self) -> Option<&Path> {
        self.folder.as_ref().map(RunFolder::path)
    }

    /// The bar goes.
    pub fn finish(&mut self) {
        self.console.finish();
    }

    /// Prints the last block and writes the summary and, last of all, the status.
    ///
    /// # Errors
    /// When a file cannot be written (told on all ranks).
    pub fn conclude(&mut self, hashes: Vec<String>, group: &mut Group) -> Result<()> {
        let seconds = self.before + self.started.elapsed();
        self.last_block(seconds, group.bytes_sent());
        let written = self.write_end(hashes, seconds.as_secs_f64(), group.bytes_sent());
        group.together(written)
    }

    /// The run has ended before its time, with `error`.
    pub fn fail(&mut self, error: &Error) {
        self.console.finish();
        if let Some(folder) = &mut self.folder {
            let state = match self.left {
                None => State::Failed,
                Some(Leave::Terminated) => State::Interrupted,
                Some(_) => State::Preempted,
            };
            folder.fail(self.totals.steps, state, error);
        }
    }

    fn write_end(&mut self, hashes: Vec<String>, seconds: f64, bytes_sent: u64) -> Result<()> {
        let eval = self.best.as_ref().or(self.last.as_ref());
        let Some(folder) = &mut self.folder else { return Ok(()) };
        if let Some(eval) = eval {
            let details = eval.details.as_ref().or(self.details.as_ref());
            folder.evaluation(&eval.report(details), details.map(Confusion::to_csv))?;
        }
        folder.record(&Record::Summary {
            step: self.totals.steps,
            epoch: self.totals.steps.div_ceil(self.plan.steps_per_epoch),
            loss: eval.map_or(self.totals.loss, |e| e.tally.mean_loss()),
            accuracy: eval.map(|e| e.tally.accuracy()),
            scores: eval.map_or_else(Vec::new, Evaluation::named),
            lr: self.totals.lr,
            skipped: self.totals.skipped,
            samples_per_s: self.totals.samples / self.totals.wall.as_secs_f64(),
            seconds,
            comm_share: self.totals.comm_share(),
            bytes_sent,
            world_size: self.world_size,
        })?;
        folder.complete(self.totals.steps, hashes, self.end)
    }

    fn last_block(&self, seconds: Duration, bytes_sent: u64) {
        let console = &self.console;
        console.line("");
        match self.judged() {
            Some(e) => {
                let kind = if self.best.is_some() { "best model" } else { "final model" };
                let part = self.part;
                console.line(&if let Some(perplexity) = e.score(Monitor::Perplexity) {
                    let loss = e.tally.mean_loss();
                    format!(
                        "done: {part} perplexity {perplexity:.3}, loss {loss:.4} a token ({kind})"
                    )
                } else if let Some(error) = e.score(Monitor::Mae) {
                    let r2 = e.score(Monitor::R2).unwrap_or(f64::NAN);
                    format!("done: {part} mean absolute error {error:.4}, R² {r2:.4} ({kind})")
                } else {
                    format!("done: {part} accuracy {} ({kind})", percent(&e.tally))
                });
            }
            None => console.line("done"),
        }
        let speed = self.totals.samples / self.totals.wall.as_secs_f64();
        console.fact(
            "time",
            &format!(
                "{} for {} steps, {} {}/s in training",
                human::duration(seconds),
                human::count(self.totals.steps),
                human::count(speed as u64),
                if self.of_tokens { "tokens" } else { "samples" }
            ),
        );
        console.fact(
            "reduced",
            &format!(
                "{} sent by each rank, {:.1} % of training time",
                human::bytes(bytes_sent),
                100.0 * self.totals.comm_share()
            ),
        );
        if self.totals.skipped > 0 {
            let skipped = human::count(self.totals.skipped);
            console.fact("skipped", &format!("{skipped} steps: `skip` in metrics.jsonl"));
        }
        if let Some(folder) = self.folder_path() {
            console.fact("model", &folder.join(MODEL).display().to_string());
        }
    }
}

/// `98.87 % (9887/10000)`.
pub fn percent(tally: &Tally) -> String {
    format!("{:.2} % ({}/{})", 100.0 * tally.accuracy(), tally.correct, tally.count)
}

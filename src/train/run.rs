//! The loop: steps, evaluations, checkpoints, until the end of the card or a wish to leave.

use super::early_stopping::Watcher;
use super::evaluate;
use super::guards::rewind::Rewind;
use super::guards::{Guards, State};
use super::leaves::Leaves;
use super::ledger::Ledger;
use super::metrics::{Evaluation, Wanted};
use super::overlap::Overlap;
use super::pace::Pace;
use super::plateau::Plateau;
use super::replica::CARRIED;
use super::reporter::Reporter;
use super::resume::From;
use super::saving::{CHECKPOINTS, Saver, is_due_by_count};
use super::schedule::LearningRate;
use super::setup::Job;
use super::step::{self, Settings, StepReport};
use super::story::{Story, Watched};
use super::wishes::{Leave, Wishes};
use crate::checkpoint::model_file::Named;
use crate::checkpoint::{self, Snapshot, optimizer};
use crate::collective::Group;
use crate::config::SpikeAction;
use crate::data::Loader;
use crate::error::{Error, Result};
use crate::report::lines::Lines;
use crate::util::processor;
use crate::util::whereabouts::{Phase, enter};

/// A run between two steps.
pub struct Run<'a> {
    job: &'a mut Job,
    reporter: &'a mut Reporter,
    saver: Saver,
    wishes: Wishes,
    pace: Pace,
    watcher: Option<Watcher>,
    plateau: Option<Plateau>,
    /// In reproducible mode.
    leaves: Option<Leaves>,
    guards: Guards,
    /// Where the run goes back to after a loss spike, if the card says so.
    rewind: Option<Rewind>,
    ledger: Ledger,
    /// Parameters of the best evaluation, where early stopping restores them.
    best: Option<Vec<Named>>,
    /// Steps done.
    done: u64,
    stopped_early: bool,
}

impl<'a> Run<'a> {
    /// A run of `job` that has not begun, or goes on `from` a checkpoint.
    ///
    /// # Errors
    /// When checkpoints cannot be written (the same on all ranks).
    pub fn new(
        job: &'a mut Job,
        reporter: &'a mut Reporter,
        from: Option<From>,
        pace: Pace,
        group: &mut Group,
    ) -> Result<Run<'a>> {
        let saver = Saver::open(reporter.folder_path(), &job.card.checkpoint);
        let saver = group.together(saver)?;
        let wishes = Wishes::new(&job.card, reporter.folder_path());
        let watcher = job.card.train.early_stopping.clone().map(Watcher::new);
        let plateau = Plateau::new(&job.card.schedule, job.card.optimizer.lr);
        let leaves = Leaves::of(&job.card, job.replica.params.grads(), group)?;
        let (done, stopped_early, best) = (0, false, None);
        let total = job.plan.total_steps;
        let guards = Guards::new(&job.card, State::default(), done, total);
        let ledger = Ledger::open(job, reporter.folder_path(), from.as_ref(), group);
        let ledger = group.together(ledger)?;
        let mut run = Run {
            job,
            reporter,
            saver,
            wishes,
            pace,
            watcher,
            plateau,
            leaves,
            guards,
            rewind: None,
            ledger,
            best,
            done,
            stopped_early,
        };
        let mut rewind = None;
        if let Some(From { step, story, best, rewind: saved, .. }) = from {
            rewind = saved;
            run.guards = Guards::new(&run.job.card, story.guards, step, total);
            if let (Some(watcher), Some(watched)) = (&mut run.watcher, story.watched) {
                watched.give_to(watcher);
            }
            if let (Some(plateau), Some(state)) = (&mut run.plateau, story.plateau) {
                plateau.go_on(state);
            }
            run.reporter.go_on(step, &story.sums);
            (run.done, run.best, run.stopped_early) = (step, best, story.stopped_early);
        }
        run.rewind = rewind;
        if run.rewind.is_none() {
            run.mark()?;
        }
        Ok(run)
    }

    /// Takes the steps that are left, and the best parameters where the card wants them.
    ///
    /// # Errors
    /// [`Error::Preempted`] on all ranks when the run was told to leave and is saved; else what ends
    /// the run before its time.
    pub fn train(mut self, group: &mut Group) -> Result<()> {
        let job = &*self.job;
        let total = job.plan.total_steps;
        let rates = LearningRate::new(&job.card.optimizer, &job.card.schedule, total);
        let feed = job.feed(&job.plan, self.done, group.rank(), group.size());
        let mut loader = Loader::start(job.train.clone(), feed)?;
        let mut overlap = Overlap::new(&job.card, job.replica.params.grads(), group);
        self.reporter.start(self.done);
        if self.stopped_early {
            self.reporter.stopped_early(self.done);
        }
        while self.done < total && !self.stopped_early {
            if self.pauses() {
                return Err(self.farewell(Leave::Paused, group));
            }
            let lr = rates.at(self.done, self.plateau.as_ref().map(Plateau::lr));
            let taken = self.step(&mut loader, &overlap, lr, group)?;
            self.ledger.step(self.done, &taken, self.job)?;
            let folder = self.reporter.folder_path();
            let looked = self.guards.after_step(self.done, self.job, folder, group);
            looked.inspect_err(|_| self.distrust())?;
            if let Some(verdict) = overlap.see(&taken, group)? {
                self.reporter.overlap(verdict);
            }
            for text in self.pace.see(&taken, group)? {
                self.reporter.warn(&text);
            }
            let score = self.evaluate_if_due(group)?;
            self.save_if_due(score, group)?;
            let at_end = self.done == total || self.stopped_early;
            let leave = self.pauses().then_some(Leave::Paused).or(taken.votes.verdict());
            if let Some(leave) = leave.filter(|_| !at_end) {
                return Err(self.leave(leave, score, group));
            }
        }
        // The others wait for rank 0 meanwhile: that it saves tells them to be patient.
        enter(Phase::Saving);
        self.saver.wait()?;
        self.tell_news();
        if self.judges_average() {
            self.job.replica.swap_average()?;
        }
        match self.best {
            Some(best) => self.job.replica.restore(&best),
            None => Ok(()),
        }
    }

    fn step(
        &mut self,
        loader: &mut Loader,
        overlap: &Overlap,
        lr: f64,
        group: &mut Group,
    ) -> Result<StepReport> {
        let votes = self.wishes.votes();
        let Job { card, replica, .. } = &mut *self.job;
        let (overlap, limit) = (overlap.next(), self.guards.limit());
        let loss_scale = self.guards.loss_scale();
        let leaves = self.leaves.as_mut();
        let settings = Settings { card, overlap, leaves, votes, loss_scale, limit };
        let taken = step::take(replica, loader, group, settings, self.done, lr)?;
        if taken.updated {
            if let Some(spike) = self.guards.updated(&taken) {
                self.reporter.warn(&format!("step {}: {spike}", self.done + 1));
            }
            self.reporter.step(self.done, &taken)?;
        } else {
            let mut why = self.guards.withheld(self.done, &taken, self.job, group)?;
            if let Some(rewind) = self.rewind.as_ref().filter(|_| taken.is_finite()) {
                rewind.apply(&mut self.job.replica)?;
                why += &self.guards.went_back(rewind.step(), self.done + 1);
            }
            self.reporter.skip(self.done, &taken, &why)?;
        }
        self.done += 1;
        let swa = self.job.card.train.swa.as_ref();
        if swa.is_some_and(|swa| self.job.plan.averages_after(swa, self.done)) {
            self.job.replica.take_into_average()?;
        }
        Ok(taken)
    }

    /// Evaluates if it is due after this step, and tells of the epoch that ends with it; gives how good the
    /// parameters are. Where the run pauses it evaluates, too: that is written down and has no other effect, so that a
    /// run which goes on later is the one that never paused.
    fn evaluate_if_due(&mut self, group: &mut Group) -> Result<Option<f64>> {
        let (card, plan) = (&self.job.card, self.job.plan);
        let due = plan.evaluates_after(&card.train, self.done);
        let Some(test) = self.job.test.clone().filter(|_| due || self.pauses()) else {
            return self.reporter.evaluation(self.done - 1, None).map(|()| None);
        };
        let (wanted, eval_batch) = (Wanted::by(card), card.train.eval_batch);
        let average = self.judges_average();
        if average {
            self.job.replica.swap_average()?;
        }
        let eval = evaluate::run(&self.job.replica, test.as_ref(), eval_batch, wanted, group)?;
        self.reporter.evaluation(self.done - 1, Some(&eval))?;
        let gain = if due { Some(self.judge(eval)?) } else { None };
        if average {
            self.job.replica.swap_average()?;
        }
        Ok(gain)
    }

    /// Whether the average of the parameters is judged and delivered in their place.
    fn judges_average(&self) -> bool {
        self.job.card.train.judges_average() && self.job.replica.has_average()
    }

    /// What an evaluation means for the run; gives how good the parameters are.
    fn judge(&mut self, eval: Evaluation) -> Result<f64> {
        let (monitor, mode) = self.job.card.monitor();
        let gain = monitor.gain(mode, eval.value(monitor));
        if let Some(plateau) = &mut self.plateau {
            let watched = plateau.rule().monitor;
            if let Some(lr) = plateau.see(self.done, eval.value(watched)) {
                self.reporter.drops(lr, watched);
            }
        }
        if let Some(watcher) = &mut self.watcher {
            let verdict = watcher.see(eval.value(monitor));
            if verdict.improved && watcher.restores_best() {
                self.best = Some(self.job.replica.snapshot()?);
                self.reporter.best = Some(eval);
            }
            if verdict.stop {
                self.reporter.stopped_early(self.done);
                self.stopped_early = true;
            }
        }
        Ok(gain)
    }

    /// Whether the run has come to where the card wants it to pause.
    fn pauses(&self) -> bool {
        self.job.plan.pause(&self.job.card).is_some_and(|pause| self.done >= pause)
    }

    /// Keeps the state to go back to after a loss spike, if the card wants that.
    fn mark(&mut self) -> Result<()> {
        let spike = self.job.card.guards.spike.as_ref();
        if spike.is_some_and(|spike| spike.action == SpikeAction::Rewind) {
            self.rewind = Some(Rewind::of(&self.job.replica, self.done)?);
        }
        Ok(())
    }

    /// Saves, on rank 0, when a rule of the card or the file `SAVE` says so.
    fn save_if_due(&mut self, score: Option<f64>, group: &mut Group) -> Result<()> {
        self.saver.look()?;
        let plan = self.job.plan;
        let epochs = self.done.is_multiple_of(plan.steps_per_epoch);
        let epochs = epochs.then(|| self.done / plan.steps_per_epoch);
        let at_end = self.done == plan.total_steps || self.stopped_early;
        if is_due_by_count(&self.job.card.checkpoint, self.done, epochs) {
            self.mark()?;
        }
        let asked = self.wishes.takes_save();
        if asked || self.saver.is_due(self.done, epochs, at_end) {
            enter(Phase::Saving);
            let snapshot = self.snapshot(score, group)?;
            self.saver.save(snapshot)?;
        }
        self.tell_news();
        Ok(())
    }

    /// Takes checkpoints out of the row that may hold what made the replicas differ, so that no resume
    /// goes on from them by itself.
    fn distrust(&mut self) {
        let (Some(step), Some(folder)) =
            (self.guards.replicas().in_doubt_after(), self.reporter.folder_path())
        else {
            return;
        };
        // One that fails now is not there to be taken out; the error to tell is another.
        let _ = self.saver.wait();
        let text = match checkpoint::retire_newer(&folder.join(CHECKPOINTS), step) {
            Ok(none) if none.is_empty() => return,
            Ok(retired) => {
                let names: Vec<String> = retired.iter().map(|p| p.display().to_string()).collect();
                format!("set aside, they may hold what is wrong: {}", names.join(", "))
            }
            Err(error) => {
                format!("checkpoints newer than step {step} may hold what is wrong: {error}")
            }
        };
        self.reporter.warn(&text);
    }

    /// One checkpoint, waited for by all; then all leave together.
    fn leave(&mut self, leave: Leave, score: Option<f64>, group: &mut Group) -> Error {
        enter(Phase::Saving);
        let save = |run: &mut Self, group: &mut Group| {
            if run.saver.writes() {
                let snapshot = run.snapshot(score, group)?;
                run.saver.save_and_wait(snapshot)?;
            }
            Ok(())
        };
        let saved = save(self, group);
        if let Err(error) = group.together(saved) {
            return error;
        }
        self.farewell(leave, group)
    }

    fn farewell(&mut self, leave: Leave, group: &mut Group) -> Error {
        self.wishes.granted();
        self.reporter.leaves(leave);
        let how = match leave {
            Leave::Paused => "without it, or with a later one, the run goes on from there",
            _ => "the same command goes on from there",
        };
        let text = format!("{}: saved at step {}; {how}", leave.reason(), self.done);
        group.common_failure(Error::Preempted(text))
    }

    fn snapshot(&self, score: Option<f64>, group: &Group) -> Result<Snapshot> {
        let (job, plan) = (&*self.job, self.job.plan);
        let shapes = job.replica.shapes();
        let (about, moments) = optimizer::pack(job.replica.optimizer_state(), &shapes)?;
        let rewind = self.rewind.as_ref().filter(|rewind| rewind.step() != self.done);
        let rewind = rewind.map(|rewind| rewind.pack(&shapes)).transpose()?;
        let (rewind, rewind_groups) = rewind.unzip();
        let story = Story {
            seed: job.card.seed,
            data: job.fingerprint.clone(),
            optimizer: about,
            watched: self.watcher.as_ref().map(Watched::of),
            plateau: self.plateau.as_ref().map(Plateau::state),
            stopped_early: self.stopped_early,
            sums: self.reporter.sums(),
            processor: Some(processor::kind()),
            ledger_bytes: self.ledger.lines().map_or(0, Lines::bytes),
            guards: self.guards.state(),
            rewind,
        };
        let tensors = |name: &str, tensors| checkpoint::Group { name: name.to_owned(), tensors };
        let mut groups = vec![tensors("model", job.replica.snapshot()?)];
        groups.push(tensors("optimizer", moments));
        groups.extend(job.replica.carried().map(|states| tensors(CARRIED, vec![states])));
        groups.extend(rewind_groups.into_iter().flatten());
        groups.extend(self.best.iter().map(|best| tensors("best", best.clone())));
        let files = [self.reporter.metrics(), self.ledger.lines()];
        let in_epoch = self.done % plan.steps_per_epoch;
        Ok(Snapshot {
            step: self.done,
            epoch: self.done / plan.steps_per_epoch,
            position: in_epoch * plan.sampler.global_batch,
            metrics_bytes: self.reporter.metrics().map_or(0, Lines::bytes),
            world_size: group.size() as u64,
            proven: self.guards.replicas().same_after(self.done, group.size()),
            score,
            state: story.to_value()?,
            card: job.card.to_json_pretty()?,
            groups,
            companions: files.into_iter().flatten().map(Lines::on_disk).collect(),
        })
    }

    fn tell_news(&mut self) {
        for text in self.saver.take_news() {
            self.reporter.warn(&text);
        }
    }
}

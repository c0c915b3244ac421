//! Writing in a thread, so that training goes on: the caller copies its tensors into a snapshot and
//! hands it over. At most one is in flight; the next has to wait for it, and that wait is measured.

use super::snapshot::Snapshot;
use super::store::{Saved, Store};
use crate::error::{Error, Result};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What the writing took altogether.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Checkpoints written.
    pub written: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Bytes of the checkpoints written.
    pub bytes: u64,
    /// Time spent writing, in the thread.
    pub writing: Duration,
    /// Time that callers waited for the thread: what checkpoints cost the training.
    pub waited: Duration,
}

type Outcome = Result<(Saved, Snapshot)>;

/// A store with a thread that writes to it.
pub struct Writer {
    /// `None` only while it is being dropped.
    jobs: Option<Sender<Snapshot>>,
    outcomes: Receiver<Outcome>,
    thread: Option<JoinHandle<()>>,
    in_flight: bool,
    totals: Totals,
    spare: Option<Snapshot>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`Error::Internal`] when the system gives no thread.
    pub fn start(store: Store) -> Result<Writer> {
        let (jobs, inbox) = channel::<Snapshot>();
        let (outbox, outcomes) = channel();
        let work = move || {
            while let Ok(snapshot) = inbox.recv() {
                let outcome = store.save(&snapshot).map(|saved| (saved, snapshot));
                if outbox.send(outcome).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(work)
            .map_err(|e| Error::Internal(format!("cannot start the checkpoint thread: {e}")))?;
        Ok(Writer {
            jobs: Some(jobs),
            outcomes,
            thread: Some(thread),
            in_flight: false,
            totals: Totals::default(),
            spare: None,
        })
    }

    /// Hands a snapshot over, after waiting for the one before. Gives the outcome of the one before;
    /// **also with an error this snapshot is being written**, so that a caller may warn and go on.
    ///
    /// # Errors
    /// Those of [`Store::save`] for the snapshot before; [`Error::Internal`] when the thread died.
    pub fn submit(&mut self, snapshot: Snapshot) -> Result<Option<Saved>> {
        let before = self.wait();
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(snapshot).is_ok());
        self.in_flight = sent;
        if !sent && before.is_ok() {
            return Err(died());
        }
        before
    }

    /// The outcome of the snapshot in flight if it is there, without waiting.
    ///
    /// # Errors
    /// As [`Writer::submit`].
    pub fn poll(&mut self) -> Result<Option<Saved>> {
        if !self.in_flight {
            return Ok(None);
        }
        match self.outcomes.try_recv() {
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => self.take_in(Err(died())),
            Ok(outcome) => self.take_in(outcome),
        }
    }

    /// Waits for the snapshot in flight; `None` when there is none.
    ///
    /// # Errors
    /// As [`Writer::submit`].
    pub fn wait(&mut self) -> Result<Option<Saved>> {
        if !self.in_flight {
            return Ok(None);
        }
        let began = Instant::now();
        let outcome = self.outcomes.recv().unwrap_or_else(|_| Err(died()));
        self.totals.waited += began.elapsed();
        self.take_in(outcome)
    }

    /// The snapshot last written, to be filled again; an empty one when there is none.
    #[must_use]
    pub fn spare(&mut self) -> Snapshot {
        self.spare.take().unwrap_or_default()
    }

    /// What the writing took so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    fn take_in(&mut self, outcome: Outcome) -> Result<Option<Saved>> {
        self.in_flight = false;
        match outcome {
            Err(error) => {
                self.totals.failed += 1;
                Err(error)
            }
            Ok((saved, snapshot)) => {
                self.totals.written += 1;
                self.totals.bytes += saved.bytes;
                self.totals.writing += saved.took;
                self.spare = Some(snapshot);
                Ok(Some(saved))
            }
        }
    }
}

impl Drop for Writer {
    /// Lets the snapshot in flight be written to its end.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been told by the panic hook.
            let _ = thread.join();
        }
    }
}

fn died() -> Error {
    Error::Internal("the checkpoint thread died; what it said stands above".to_owned())
}

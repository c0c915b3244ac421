//! How long a rank waits for another, and what it does in the end.
//!
//! In a ring a single stopped rank makes every other one wait, each for its own left neighbour. The
//! neighbour is rarely the culprit, so a rank that gives up first calls the roll ([`super::roll_call`]):
//! every rank that is still waiting answers with where it stands, and whoever stays silent is named. A
//! rank that is called gives up, too, and calls for itself: so every survivor can say who it was.
//!
//! The same for every transport; each brings its own [`Line`].

use super::roll_call::{self, RollCall};
use super::{DEFAULT_DEADLINE, Patience};
use crate::error::{Error, Result};
use crate::util::whereabouts::{self, Place};
use std::time::{Duration, Instant};

/// How long a roll call waits for answers at most. A rank that waits answers within milliseconds.
const ROLL_CALL: Duration = Duration::from_millis(500);

/// What ranks tell each other beside their data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Word {
    /// Where are you?
    Where,
    /// Here.
    Here(Place),
}

/// The way of [`Word`]s between ranks. Nobody waits for their arrival.
pub trait Line {
    /// Sends a word to rank `to`, which may be dead.
    ///
    /// # Errors
    /// When the transport fails.
    fn say(&mut self, to: usize, word: Word) -> Result<()>;

    /// A word that has come, and from whom.
    ///
    /// # Errors
    /// When the transport fails.
    fn hear(&mut self) -> Result<Option<(usize, Word)>>;

    /// Whether `rank` is known to be gone: it is not worth waiting for.
    fn is_gone(&self, _rank: usize) -> bool {
        false
    }
}

/// One rank's rules for its waits.
pub struct Waiting {
    rank: usize,
    deadline: Duration,
    patience: Option<Patience>,
    names: Vec<String>,
    collective: u64,
    /// How long a rank that others have given up on waits for its end.
    given_up: Duration,
}

/// A wait that has been going on for a while.
pub struct Wait {
    since: Instant,
    /// Fruitless turns of the waiting loop.
    pub spins: u32,
    /// So long the wait may last beyond the deadline.
    granted: Duration,
}

impl Wait {
    /// A wait that begins.
    pub fn start() -> Wait {
        Wait { since: Instant::now(), spins: 0, granted: Duration::ZERO }
    }
}

impl Waiting {
    /// The rules of `rank` of `size`. A rank that the others have given up on waits for `given_up` to be
    /// ended by them before it speaks for itself.
    pub fn new(rank: usize, size: usize, given_up: Duration) -> Waiting {
        Waiting {
            rank,
            deadline: DEFAULT_DEADLINE,
            patience: None,
            names: (0..size).map(|r| format!("rank {r}")).collect(),
            collective: 0,
            given_up,
        }
    }

    /// Sets how long a wait may last.
    pub fn until(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    /// Sets what decides whether to wait on after that.
    pub fn be_patient(&mut self, patience: Option<Patience>) {
        self.patience = patience;
    }

    /// Sets how to call each rank.
    pub fn introduce(&mut self, names: Vec<String>) {
        self.names = names;
    }

    /// Sets the number of the collective that this rank is in.
    pub fn announce(&mut self, collective: u64) {
        self.collective = collective;
    }

    /// How to call a rank.
    pub fn name(&self, rank: usize) -> &str {
        &self.names[rank]
    }

    /// To be called now and then by a rank that waits for `whom`: answers roll calls and minds the
    /// deadline.
    ///
    /// # Errors
    /// [`Error::PeerLost`] when the wait is vain.
    pub fn look(&self, line: &mut dyn Line, wait: &mut Wait, whom: usize) -> Result<()> {
        // Asked first: what a rank left behind before it went has been looked for since.
        let gone = line.is_gone(whom);
        let called = self.answer(line)?;
        let waited = wait.since.elapsed();
        if called.is_none() && !gone {
            if waited < self.deadline.max(wait.granted) {
                return Ok(());
            }
            if self.patience.as_ref().is_some_and(|wait_on| wait_on(waited)) {
                wait.granted = waited + Duration::from_secs(1);
                return Ok(());
            }
        }
        // Whoever calls has given up, so this rank's wait is vain as well.
        let (me, names, answers) = (self.rank, self.names.clone(), self.call_the_roll(line)?);
        if let Some(caller) = called.filter(|&r| waited < self.deadline && answers[r].is_none()) {
            // That rank has named this one and is ending the job: this one has the word only if it is
            // still here when all is over.
            std::thread::sleep(self.given_up);
            return Err(Error::PeerLost(roll_call::too_late(self.name(caller))));
        }
        let call = RollCall { me, whom, waited, answers, names }.keep();
        Err(Error::PeerLost(call.verdict()))
    }

    fn standing(&self) -> Place {
        Place { collective: self.collective, ..whereabouts::place() }
    }

    /// Tells whoever asks where this rank stands; gives who did.
    fn answer(&self, line: &mut dyn Line) -> Result<Option<usize>> {
        let mut called = None;
        while let Some((from, word)) = line.hear()? {
            if word == Word::Where {
                line.say(from, Word::Here(self.standing()))?;
                called = Some(from);
            }
        }
        Ok(called)
    }

    /// Asks all other ranks where they stand; `None` for those that do not answer in time.
    fn call_the_roll(&self, line: &mut dyn Line) -> Result<Vec<Option<Place>>> {
        let mut answers = vec![None; self.names.len()];
        answers[self.rank] = Some(self.standing());
        for rank in (0..answers.len()).filter(|&r| r != self.rank) {
            line.say(rank, Word::Where)?;
        }
        let limit = self.deadline.min(ROLL_CALL);
        let start = Instant::now();
        while start.elapsed() < limit && answers.contains(&None) {
            self.hear_out(line, &mut answers)?;
        }
        // Ranks whose deadline comes a moment later ask the same question: stay for them.
        let stay = Instant::now();
        while stay.elapsed() < limit / 4 {
            self.hear_out(line, &mut answers)?;
        }
        Ok(answers)
    }

    /// Answers those who ask and takes down who answers.
    fn hear_out(&self, line: &mut dyn Line, answers: &mut [Option<Place>]) -> Result<()> {
        while let Some((from, word)) = line.hear()? {
            match word {
                Word::Where => line.say(from, Word::Here(self.standing()))?,
                Word::Here(place) => answers[from] = Some(place),
            }
        }
        std::thread::sleep(Duration::from_micros(500));
        Ok(())
    }
}

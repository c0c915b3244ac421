//! What a run is asked to do from outside: save, or save and leave.
//!
//! | asked by | the run |
//! |---|---|
//! | SIGUSR1 to any rank, `train.max_time_s`, a file `STOP` in the run folder | saves and leaves: `preempted` |
//! | SIGTERM to any rank | saves and leaves: `interrupted` |
//! | a file `SAVE` in the run folder | saves and goes on |
//! | the end of the process that [`SEARCH`] names | saves and leaves: `interrupted` |
//!
//! One rank's wish to leave is every rank's: the wishes travel as [`Votes`] with the sums of each step,
//! which costs nothing, so all ranks leave after the same step.

use crate::config::Card;
use crate::error::{Error, Result};
use crate::util::{processes, whereabouts};
use signal_hook::consts::{SIGTERM, SIGUSR1};
use signal_hook::flag;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How often rank 0 looks for the files: one look takes a system call on what may be a network disk.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The file that asks the run to leave.
pub const STOP: &str = "STOP";
/// The file that asks for a checkpoint.
pub const SAVE: &str = "SAVE";

/// The variable that says which process this run is a trial of: `HOST PID`. Where that process has ended, nobody
/// waits for the run.
pub const SEARCH: &str = "ANNULUS_SEARCH";

/// What the signals of this process have said.
struct Ears {
    born: Instant,
    usr1: Arc<AtomicBool>,
    term: Arc<AtomicBool>,
}

static EARS: OnceLock<Ears> = OnceLock::new();

/// From now on SIGUSR1 and SIGTERM are wishes and do not end the process. To be called once, as early
/// as can be: a batch system may send them at any time.
///
/// # Errors
/// [`Error::Internal`] when the system refuses.
pub fn hear_signals() -> Result<()> {
    let born = Instant::now();
    let (usr1, term) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    for (signal, heard) in [(SIGUSR1, &usr1), (SIGTERM, &term)] {
        flag::register(signal, Arc::clone(heard))
            .map_err(|e| Error::Internal(format!("cannot listen to signal {signal}: {e}")))?;
    }
    // A second call would find the same signals registered twice, which changes nothing.
    let _ = EARS.set(Ears { born, usr1, term });
    Ok(())
}

/// How many ranks ask the run to leave, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Votes(pub [f64; 4]);

/// Why a run leaves before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Somebody ended the job: SIGTERM.
    Terminated,
    /// SIGUSR1: the batch system needs the machine, or its time is nearly up.
    Signalled,
    /// `train.max_time_s` is over.
    OutOfTime,
    /// The file `STOP` is in the run folder.
    Asked,
    /// `train.pause_at_step` or `pause_at_epoch`: the card's own wish, of all ranks at once.
    Paused,
}

const REASONS: [(Leave, &str); 5] = [
    (Leave::Terminated, "SIGTERM or the end of its search ended the job"),
    (Leave::Signalled, "SIGUSR1 asked the run to leave"),
    (Leave::OutOfTime, "train.max_time_s is over"),
    (Leave::Asked, "the file STOP asked the run to leave"),
    (Leave::Paused, "the card asked for a pause (train.pause_at_step, train.pause_at_epoch)"),
];

impl Leave {
    /// In words.
    #[must_use]
    pub fn reason(self) -> &'static str {
        REASONS.iter().find(|(leave, _)| *leave == self).map_or("", |(_, words)| words)
    }
}

impl Votes {
    /// What the votes of all ranks, added up, come to: the first of the reasons that a rank has.
    #[must_use]
    pub fn verdict(&self) -> Option<Leave> {
        REASONS.iter().zip(self.0).find(|(_, votes)| *votes > 0.0).map(|((leave, _), _)| *leave)
    }
}

/// One rank's ear for wishes.
pub struct Wishes {
    /// The run folder, on the rank that looks for files.
    folder: Option<PathBuf>,
    looked: Option<Instant>,
    stop: bool,
    save: bool,
    /// The process of this host without which the run leaves.
    search: Option<u32>,
    abandoned: bool,
    limit: Option<Duration>,
    opened: Instant,
}

impl Wishes {
    /// Wishes for a run whose folder is `folder`, if this rank writes it.
    #[must_use]
    pub fn new(card: &Card, folder: Option<&Path>) -> Wishes {
        Wishes {
            folder: folder.map(Path::to_owned),
            looked: None,
            stop: false,
            save: false,
            search: search(),
            abandoned: false,
            limit: card.train.max_time_s.map(Duration::from_secs_f64),
            opened: Instant::now(),
        }
    }

    /// This rank's votes, to be added to those of the others in the step that begins.
    pub fn votes(&mut self) -> Votes {
        self.look();
        let heard = |signal: fn(&Ears) -> &AtomicBool| {
            EARS.get().is_some_and(|ears| signal(ears).load(Relaxed))
        };
        let since = EARS.get().map_or(self.opened, |ears| ears.born).elapsed();
        let yes = [
            heard(|ears| &ears.term) || self.abandoned,
            heard(|ears| &ears.usr1),
            self.limit.is_some_and(|limit| since >= limit),
            self.stop,
        ];
        Votes(yes.map(|yes| f64::from(u8::from(yes))))
    }

    /// Whether a checkpoint is asked for; asked once, answered once.
    pub fn takes_save(&mut self) -> bool {
        std::mem::take(&mut self.save)
    }

    /// Takes the file `STOP` away once the run leaves, so that the next start is not stopped by it.
    pub fn granted(&self) {
        if let Some(folder) = &self.folder {
            // One that cannot be removed stops the next start, which then says why.
            let _ = std::fs::remove_file(folder.join(STOP));
        }
    }

    fn look(&mut self) {
        let Some(folder) = &self.folder else { return };
        if self.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return;
        }
        self.looked = Some(Instant::now());
        self.stop = folder.join(STOP).exists();
        let ended = |pid| processes::state(pid) == processes::State::Gone;
        self.abandoned = self.search.is_some_and(ended);
        let save = folder.join(SAVE);
        if save.exists() {
            // If it cannot be removed, a checkpoint is written at each look: rather that than none.
            let _ = std::fs::remove_file(&save);
            self.save = true;
        }
    }
}

/// The process that this run is a trial of, if it is on this host.
fn search() -> Option<u32> {
    let named = std::env::var(SEARCH).ok()?;
    let (host, pid) = named.rsplit_once(' ')?;
    (host == whereabouts::host_name()).then(|| pid.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> Card {
        serde_json::from_str(include_str!("../../configs/lenet-mnist.json")).unwrap()
    }

    #[test]
    fn one_vote_is_enough_and_sigterm_wins() {
        assert_eq!(Votes::default().verdict(), None);
        assert_eq!(Votes([0.0, 1.0, 0.0, 3.0]).verdict(), Some(Leave::Signalled));
        assert_eq!(Votes([1.0, 1.0, 0.0, 0.0]).verdict(), Some(Leave::Terminated));
    }

    #[test]
    fn files_are_wishes_of_the_rank_that_has_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(SAVE), "").unwrap();
        std::fs::write(folder.path().join(STOP), "").unwrap();
        let mut wishes = Wishes::new(&card(), Some(folder.path()));
        assert_eq!(wishes.votes().verdict(), Some(Leave::Asked));
        assert!(wishes.takes_save() && !wishes.takes_save());
        assert!(!folder.path().join(SAVE).exists());
        wishes.granted();
        assert!(!folder.path().join(STOP).exists());
        assert_eq!(Wishes::new(&card(), None).votes().verdict(), None);
    }

    #[test]
    fn a_trial_leaves_when_its_search_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let mut wishes = Wishes::new(&card(), Some(folder.path()));
        for (search, verdict) in
            [(None, None), (Some(1), None), (Some(4_000_000_000), Some(Leave::Terminated))]
        {
            (wishes.search, wishes.looked) = (search, None);
            assert_eq!(wishes.votes().verdict(), verdict);
        }
    }

    #[test]
    fn the_time_limit_is_a_vote_once_it_is_over() {
        let mut card = card();
        card.train.max_time_s = Some(3600.0);
        assert_eq!(Wishes::new(&card, None).votes().verdict(), None);
        card.train.max_time_s = Some(1e-9);
        assert_eq!(Wishes::new(&card, None).votes().verdict(), Some(Leave::OutOfTime));
    }
}

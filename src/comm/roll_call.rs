//! Who is missing? Asked when a wait has passed its deadline.
//!
//! What the ranks answered, as bytes and in words; who asks when is [`super::waiting`].

use crate::util::whereabouts::{Phase, Place};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Bytes of an answer.
pub const BYTES: usize = 32;

/// A wait that passed its deadline, and what the other ranks said.
#[derive(Debug, Clone, PartialEq)]
pub struct RollCall {
    /// The rank that called.
    pub me: usize,
    /// The rank that it had waited for.
    pub whom: usize,
    /// How long.
    pub waited: Duration,
    /// Where each rank stands; `None` for those that did not answer in time.
    pub answers: Vec<Option<Place>>,
    /// How to call each rank: `rank 1 (node16, pid 4242)`.
    pub names: Vec<String>,
}

/// The last one of this process, for the report on it.
static LAST: Mutex<Option<RollCall>> = Mutex::new(None);

/// The roll call that ended this process's last wait, if one did.
#[must_use]
pub fn last() -> Option<RollCall> {
    LAST.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// What a rank says that comes back to find that the others have given up on it.
#[must_use]
pub fn too_late(caller: &str) -> String {
    format!(
        "{caller} has given up waiting: this rank was stopped or busy for longer than the deadline \
         (comm.deadline_s)"
    )
}

/// The bytes of an answer.
#[must_use]
pub fn to_bytes(place: Place) -> [u8; BYTES] {
    let bucket = place.bucket.map_or(u64::MAX, |k| k as u64);
    bytemuck::cast([place.collective, place.step, place.phase as u64, bucket].map(u64::to_le))
}

/// The answer of these bytes.
#[must_use]
pub fn from_bytes(bytes: [u8; BYTES]) -> Place {
    let [collective, step, phase, bucket] =
        bytemuck::cast::<[u8; BYTES], [u64; 4]>(bytes).map(u64::from_le);
    Place {
        collective,
        step,
        phase: Phase::from_number(u8::try_from(phase).unwrap_or(0)),
        bucket: usize::try_from(bucket).ok().filter(|_| bucket != u64::MAX),
    }
}

impl RollCall {
    /// Keeps it for [`last`].
    pub fn keep(self) -> RollCall {
        *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.clone());
        self
    }

    /// The ranks that did not answer.
    #[must_use]
    pub fn silent(&self) -> Vec<usize> {
        self.others(|answer| answer.is_none())
    }

    /// The ranks that answered from another collective than the caller's.
    #[must_use]
    pub fn elsewhere(&self) -> Vec<usize> {
        let here = self.here();
        self.others(|answer| answer.is_some_and(|place| place.collective != here))
    }

    /// One sentence on who is to blame.
    #[must_use]
    pub fn verdict(&self) -> String {
        let (here, seconds) = (self.here(), self.waited.as_secs_f64());
        let (silent, elsewhere) = (self.silent(), self.elsewhere());
        if !silent.is_empty() {
            let waiting = match self.others(Option::is_some) {
                none if none.is_empty() => String::new(),
                some => format!("; {} answered and wait as well", self.list(&some)),
            };
            return format!(
                "nothing from {} for {seconds:.1} s in collective {here}: no sign of life: dead, \
                 stopped, or computing for longer than the deadline{waiting}",
                self.list(&silent)
            );
        }
        let nothing = format!("nothing from {} for {seconds:.1} s", self.names[self.whom]);
        if elsewhere.is_empty() {
            return format!(
                "{nothing} in collective {here}: all ranks answer and are in the same collective: \
                 messages are lost, or the network is slower than the deadline (comm.deadline_s)"
            );
        }
        let at = elsewhere.iter().filter_map(|&r| {
            let place = self.answers[r]?;
            let (name, collective) = (&self.names[r], place.collective);
            Some(format!("{name} is at collective {collective} (step {})", place.step))
        });
        format!(
            "{nothing}: {}, this rank at {here}: a rank skipped or repeated a collective",
            at.collect::<Vec<_>>().join(", ")
        )
    }

    fn here(&self) -> u64 {
        self.answers[self.me].map_or(0, |place| place.collective)
    }

    fn others(&self, test: impl Fn(&Option<Place>) -> bool) -> Vec<usize> {
        (0..self.answers.len()).filter(|&r| r != self.me && test(&self.answers[r])).collect()
    }

    fn list(&self, ranks: &[usize]) -> String {
        let names: Vec<&str> = ranks.iter().map(|&r| self.names[r].as_str()).collect();
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(collective: u64) -> Option<Place> {
        Some(Place { collective, step: 3, phase: Phase::Reduce, bucket: Some(2) })
    }

    fn verdict(answers: &[Option<Place>]) -> String {
        let call = RollCall {
            me: 0,
            whom: answers.len() - 1,
            waited: Duration::from_secs(2),
            answers: answers.to_vec(),
            names: (0..answers.len()).map(|r| format!("rank {r}")).collect(),
        };
        call.verdict()
    }

    #[test]
    fn answers_survive_the_journey() {
        for bucket in [None, Some(0), Some(7)] {
            let place = Place { collective: 812, step: 7, phase: Phase::Saving, bucket };
            assert_eq!(from_bytes(to_bytes(place)), place);
        }
    }

    #[test]
    fn the_silent_rank_is_blamed_and_the_waiting_ones_are_not() {
        let text = verdict(&[at(5), at(5), None]);
        assert!(
            text.starts_with("nothing from rank 2 for 2.0 s in collective 5: no sign"),
            "{text}"
        );
        assert!(text.contains("rank 1 answered"), "{text}");
    }

    #[test]
    fn a_rank_in_another_collective_is_named_with_its_number() {
        let text = verdict(&[at(5), at(5), at(6)]);
        assert!(text.contains("rank 2 is at collective 6 (step 3), this rank at 5"), "{text}");
    }
}

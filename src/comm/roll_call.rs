//! Who is missing? Asked when a wait has passed its deadline.
//!
//! In a ring a single stopped rank makes every other one wait, each for its own left neighbour. The
//! neighbour is rarely the culprit, so a rank that gives up first calls the roll: every rank that is
//! still waiting inside MPI answers with where it stands, and whoever stays silent is named.

/// Where a rank stands, as it travels in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Number of the collective that it is in.
    pub collective: u64,
    /// The optimizer step that it is in.
    pub step: u64,
}

impl Standing {
    /// The bytes of an answer.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.collective.to_le_bytes());
        bytes[8..].copy_from_slice(&self.step.to_le_bytes());
        bytes
    }

    /// The answer of these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Standing {
        let [collective, step] = bytemuck::cast::<[u8; 16], [[u8; 8]; 2]>(bytes);
        Standing { collective: u64::from_le_bytes(collective), step: u64::from_le_bytes(step) }
    }
}

/// One sentence on who is to blame, from the answers by rank (`None` = silent).
///
/// `me` called the roll while it stood at `answers[me]`.
#[must_use]
pub fn verdict(answers: &[Option<Standing>], me: usize, names: &[String]) -> String {
    let list = |ranks: Vec<usize>| {
        let names: Vec<&str> = ranks.iter().map(|&r| names[r].as_str()).collect();
        names.join(", ")
    };
    let ranks = |test: &dyn Fn(&Option<Standing>) -> bool| -> Vec<usize> {
        (0..answers.len()).filter(|&r| r != me && test(&answers[r])).collect()
    };
    let here = answers[me].map_or(0, |s| s.collective);
    let silent = ranks(&|a| a.is_none());
    let elsewhere = ranks(&|a| a.is_some_and(|s| s.collective != here));
    if !silent.is_empty() {
        let waiting = ranks(&Option::is_some);
        let others = match waiting.len() {
            0 => String::new(),
            _ => format!("; {} answered and wait as well", list(waiting)),
        };
        return format!(
            "no sign of life from {}: dead, stopped, or computing for longer than the deadline{others}",
            list(silent)
        );
    }
    if elsewhere.is_empty() {
        return "all ranks answer and are in the same collective: messages are lost, or the \
                network is slower than the deadline (comm.deadline_s)"
            .to_owned();
    }
    let at = elsewhere.iter().filter_map(|&r| {
        answers[r]
            .map(|s| format!("{} is at collective {} (step {})", names[r], s.collective, s.step))
    });
    format!(
        "{}, this rank at {here}: a rank skipped or repeated a collective",
        at.collect::<Vec<_>>().join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|r| format!("rank {r}")).collect()
    }

    #[test]
    fn standings_survive_the_journey() {
        let s = Standing { collective: 812, step: 7 };
        assert_eq!(Standing::from_bytes(s.to_bytes()), s);
    }

    #[test]
    fn the_silent_rank_is_blamed_and_the_waiting_ones_are_not() {
        let here = Some(Standing { collective: 5, step: 1 });
        let text = verdict(&[here, here, None], 0, &names(3));
        assert!(text.starts_with("no sign of life from rank 2:"), "{text}");
        assert!(text.contains("rank 1 answered"), "{text}");
    }

    #[test]
    fn a_rank_in_another_collective_is_named_with_its_number() {
        let at = |collective| Some(Standing { collective, step: 3 });
        let text = verdict(&[at(5), at(5), at(6)], 0, &names(3));
        assert!(text.contains("rank 2 is at collective 6 (step 3), this rank at 5"), "{text}");
    }
}

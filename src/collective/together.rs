//! Steps that all ranks take together: an error on one is an error on all, told once.

use super::Group;
use crate::error::{Error, Result};

impl Group {
    /// Shares the outcome of something that each rank did alone. When it failed anywhere, every rank
    /// gets the same error, which names the ranks where it happened if they are not all.
    ///
    /// # Errors
    /// The first failing rank's error, or one of the exchange itself.
    pub fn together<T>(&mut self, outcome: Result<T>) -> Result<T> {
        let mine = match &outcome {
            Ok(_) => Vec::new(),
            Err(e) => [&[e.exit_code()], e.to_string().as_bytes()].concat(),
        };
        let all = self.all_gather(&mine)?;
        let Some(first) = all.iter().find(|bytes| !bytes.is_empty()) else {
            return outcome;
        };
        let same: Vec<usize> = (0..all.len()).filter(|&r| all[r] == *first).collect();
        let message = String::from_utf8_lossy(&first[1..]).into_owned();
        let error = Error::from_exit_code(first[0], message);
        let error = self.common_failure(error);
        if same.len() == all.len() {
            return Err(error);
        }
        let ranks: Vec<String> =
            same.iter().map(|&r| format!("{r} ({})", self.hosts()[r])).collect();
        Err(error.context(format!("on rank {} only", ranks.join(", "))))
    }

    /// Lets rank 0 do something alone and gives every rank the bytes that came of it, or its error.
    ///
    /// # Errors
    /// Rank 0's error, on every rank, or one of the exchange itself.
    pub fn from_rank_0(&mut self, work: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
        let outcome = if self.rank() == 0 { work() } else { Ok(Vec::new()) };
        let mine = match outcome {
            Ok(bytes) => [&[0], bytes.as_slice()].concat(),
            Err(e) => [&[e.exit_code()], e.to_string().as_bytes()].concat(),
        };
        let mut all = self.all_gather(&mine)?;
        let mut first = all.swap_remove(0);
        let code = first.remove(0);
        if code == 0 {
            return Ok(first);
        }
        let text = String::from_utf8_lossy(&first).into_owned();
        Err(self.common_failure(Error::from_exit_code(code, text)))
    }

    /// Checks that all ranks hold the same text.
    ///
    /// # Errors
    /// [`Error::Config`] on every rank, with both values, when one differs from rank 0's.
    pub fn require_equal(&mut self, what: &str, value: &str) -> Result<()> {
        let all = self.all_gather(value.as_bytes())?;
        let Some(odd) = (1..all.len()).find(|&r| all[r] != all[0]) else { return Ok(()) };
        let (first, other) = (String::from_utf8_lossy(&all[0]), String::from_utf8_lossy(&all[odd]));
        let (first, other) = first_difference(&first, &other);
        let text = format!(
            "the ranks do not agree on {what}: rank 0 on {} has {first}, rank {odd} on {} has {other}",
            self.hosts()[0],
            self.hosts()[odd],
        );
        Err(self.common_failure(Error::Config(text)))
    }
}

/// The first lines in which two texts differ, quoted.
fn first_difference(a: &str, b: &str) -> (String, String) {
    let (mut left, mut right) = (a.lines(), b.lines());
    loop {
        match (left.next(), right.next()) {
            (Some(x), Some(y)) if x == y => {}
            (x, y) => {
                let show = |line: Option<&str>| {
                    line.map_or("nothing there".to_owned(), |text| format!("`{}`", text.trim()))
                };
                return (show(x), show(y));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads;

    /// Runs `f` on each rank of a group of threads.
    fn run<R: Send>(size: usize, f: impl Fn(Group) -> R + Sync) -> Vec<R> {
        std::thread::scope(|scope| {
            let ranks: Vec<_> = threads::world(size)
                .into_iter()
                .map(|peer| scope.spawn(|| f(Group::meet(Box::new(peer)).unwrap())))
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    #[test]
    fn an_error_of_one_rank_is_the_error_of_all_and_names_the_rank() {
        let errors = run(3, |mut group| {
            let mine = match group.rank() {
                1 => Err(Error::NoInput("no such file".into())),
                _ => Ok(()),
            };
            group.together(mine).unwrap_err()
        });
        for error in errors {
            assert_eq!(error.exit_code(), 66);
            assert!(error.to_string().starts_with("on rank 1 ("), "{error}");
        }
    }

    #[test]
    fn an_error_of_all_ranks_is_told_as_it_is() {
        let errors = run(2, |mut group| {
            group.together::<()>(Err(Error::Data("bad".into()))).unwrap_err().to_string()
        });
        assert_eq!(errors, ["bad", "bad"]);
    }

    #[test]
    fn what_rank_0_did_alone_reaches_all_as_bytes_or_as_its_error() {
        let of = |outcome: fn() -> Result<Vec<u8>>| run(3, move |mut g| g.from_rank_0(outcome));
        assert!(of(|| Ok(vec![7, 0])).into_iter().all(|got| got.unwrap() == [7, 0]));
        for error in of(|| Err(Error::Data("damaged".into()))) {
            let error = error.unwrap_err();
            assert_eq!((error.exit_code(), error.to_string().as_str()), (65, "damaged"));
        }
    }

    #[test]
    fn a_difference_between_ranks_shows_both_values() {
        let errors = run(3, |mut group| {
            let value = if group.rank() == 2 { "seed 1\nlr 0.2" } else { "seed 1\nlr 0.1" };
            group.require_equal("the card", value).unwrap_err()
        });
        for error in errors {
            assert_eq!(error.exit_code(), 78);
            let text = error.to_string();
            assert!(text.contains("has `lr 0.1`") && text.contains("has `lr 0.2`"), "{text}");
        }
    }
}

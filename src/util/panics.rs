//! Panics of a library that is given foreign bytes, as errors.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`; a panic in it becomes its message. What `f` was changing must not be used after one.
///
/// # Errors
/// The words of the panic.
pub fn caught<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    let before = EXPECTED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    EXPECTED.set(before);
    result.map_err(|payload| {
        let words = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
        let words = words.or_else(|| payload.downcast_ref::<String>().cloned());
        words.unwrap_or_else(|| "no message".to_owned())
    })
}

/// Whether a panic of this thread will be caught: a panic hook has nothing to tell then.
#[must_use]
pub fn expected() -> bool {
    EXPECTED.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_words_and_is_expected_only_inside() {
        assert_eq!(caught(|| 3), Ok(3));
        let words = caught(|| {
            assert!(expected());
            let n = [1, 2].iter().sum::<usize>();
            [0; 2][n]
        });
        assert!(words.unwrap_err().contains("index out of bounds"));
        assert!(!expected());
    }
}

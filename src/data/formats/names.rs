//! Labels as people write them: whole numbers, or names that become 0, 1, 2, … in sorted order.

use crate::error::{Error, Result};
use std::collections::{BTreeSet, HashMap};
use std::fmt::Display;

/// Different names in an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    list: Vec<String>,
    places: HashMap<String, u32>,
}

impl Names {
    /// These names.
    pub fn new(list: Vec<String>) -> Names {
        let places = list.iter().cloned().zip(0..).collect();
        Names { list, places }
    }

    /// All of them, in order.
    pub fn list(&self) -> &[String] {
        &self.list
    }

    /// The place of a name.
    pub fn place(&self, name: &str) -> Option<u32> {
        self.places.get(name).copied()
    }
}

/// How the text of a label becomes a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Classes {
    /// Labels are the numbers themselves, below this.
    Numbers(usize),
    /// The class of each name is its place.
    Names(Names),
}

impl Classes {
    /// The classes of the labels that were found in `place`: numbers if all of them are, else names in
    /// the order of their bytes.
    ///
    /// # Errors
    /// [`Error::Config`] if there are not as many names as `classes`.
    pub fn found(labels: BTreeSet<String>, classes: usize, place: impl Display) -> Result<Classes> {
        if labels.iter().all(|label| label.parse::<u32>().is_ok()) {
            return Ok(Classes::Numbers(classes));
        }
        Classes::named(labels.into_iter().collect(), classes, place)
    }

    /// These names in their order.
    ///
    /// # Errors
    /// [`Error::Config`] if there are not as many as `classes`.
    pub fn named(names: Vec<String>, classes: usize, place: impl Display) -> Result<Classes> {
        if names.len() != classes {
            return Err(Error::Config(format!(
                "data.classes: is {classes}; {place} has {} classes: {}",
                names.len(),
                list(&names)
            )));
        }
        Ok(Classes::Names(Names::new(names)))
    }

    /// The number of the label `text`; else why it has none.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn number(&self, text: &str) -> std::result::Result<u32, String> {
        let shown = text.escape_debug();
        match self {
            Classes::Numbers(classes) => {
                let label = text.parse().ok().filter(|&label: &u32| (label as usize) < *classes);
                label.ok_or_else(|| {
                    format!(
                        "`{shown}` is not a whole number from 0 to {}; data.classes is {classes}",
                        classes - 1
                    )
                })
            }
            Classes::Names(names) => names.place(text).ok_or_else(|| {
                format!("`{shown}` is not one of the classes: {}", list(names.list()))
            }),
        }
    }
}

/// The first names, and how many more there are.
pub fn list(names: &[String]) -> String {
    let shown: Vec<_> = names.iter().take(8).map(|n| n.escape_debug().to_string()).collect();
    let more = names.len() - shown.len();
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(labels: &[&str]) -> BTreeSet<String> {
        labels.iter().map(|&label| label.to_owned()).collect()
    }

    #[test]
    fn whole_numbers_are_themselves_and_anything_else_is_a_name_in_sorted_order() {
        let numbers = Classes::found(set(&["10", "2", "0"]), 11, "x").unwrap();
        assert_eq!(["0", "2", "10"].map(|label| numbers.number(label).unwrap()), [0, 2, 10]);
        let names = Classes::found(set(&["10", "b", "2"]), 3, "x").unwrap();
        assert_eq!(["10", "2", "b"].map(|label| names.number(label).unwrap()), [0, 1, 2]);
    }

    #[test]
    fn what_is_no_class_is_told_which_there_are() {
        let numbers = Classes::Numbers(3);
        for text in ["3", "-1", "1.0", "", "a\n"] {
            assert!(numbers.number(text).unwrap_err().contains("from 0 to 2"));
        }
        let names: Vec<String> = (0..10).map(|i| format!("n{i}")).collect();
        let error = Classes::Names(Names::new(names.clone())).number("x\u{1b}").unwrap_err();
        assert!(error.contains(r"`x\u{1b}`") && error.ends_with("n6, n7 and 2 more"), "{error}");
        let error = Classes::named(names, 3, "train.csv").unwrap_err();
        assert!(error.exit_code() == 78 && error.to_string().contains("train.csv has 10 classes"));
    }
}

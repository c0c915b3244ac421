//! Which parameters have a weight decay or a learning rate of their own.

use crate::config;
use crate::error::{Error, Result};

/// Learning rate, as a factor, weight decay and penalties of each parameter.
pub(super) struct Groups {
    /// Of each parameter the place in the lists.
    of: Vec<usize>,
    /// First the card's own.
    list: Vec<(f64, f64)>,
    /// L1 and L2.
    penalties: Vec<(f64, f64)>,
}

impl Groups {
    /// The card's groups of parameters with these names.
    ///
    /// # Errors
    /// [`Error::Config`] when a pattern is the name of no parameter.
    pub(super) fn new(card: &config::Optimizer, names: &[&str]) -> Result<Groups> {
        let mut list = vec![(1.0, card.weight_decay)];
        let mut penalties = vec![(card.l1, card.l2)];
        let mut of = vec![0; names.len()];
        for (i, group) in card.groups.iter().enumerate() {
            list.push((group.lr_factor, group.weight_decay.unwrap_or(card.weight_decay)));
            penalties.push((group.l1.unwrap_or(card.l1), group.l2.unwrap_or(card.l2)));
            for pattern in &group.parameters {
                let found: Vec<usize> =
                    (0..names.len()).filter(|&at| fits(pattern, names[at])).collect();
                if found.is_empty() {
                    return Err(Error::Config(format!(
                        "optimizer.groups.{i}.parameters: `{}` is the name of no parameter; they are {}",
                        pattern.escape_debug(),
                        names.join(", ")
                    )));
                }
                for at in found {
                    if of[at] == 0 {
                        of[at] = i + 1;
                    }
                }
            }
        }
        Ok(Groups { of, list, penalties })
    }

    /// What `make` makes of the learning rate's factor and the weight decay of each group.
    pub(super) fn each<T>(&self, make: impl Fn(f64, f64) -> T) -> Vec<T> {
        self.list.iter().map(|&(factor, decay)| make(factor, decay)).collect()
    }

    /// L1 and L2 of a parameter.
    pub(super) fn penalties(&self, parameter: usize) -> (f64, f64) {
        self.penalties[self.of[parameter]]
    }

    /// The group of a parameter.
    pub(super) fn of(&self, parameter: usize) -> usize {
        self.of[parameter]
    }
}

/// Whether `name` is `pattern`, in which each `*` stands for any characters.
fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    // `split` gives at least one part.
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut last = None;
    for part in parts {
        if let Some(before) = last.replace(part) {
            let Some(at) = rest.find(before) else { return false };
            rest = &rest[at + before.len()..];
        }
    }
    last.map_or(rest.is_empty(), |end| rest.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, name) in [
            ("*", "a.b"),
            ("a.b", "a.b"),
            ("*.bias", "fc1.bias"),
            ("bl.*.ln1.*", "bl.10.ln1.weight"),
            ("a*a", "aa"),
            ("*ln*", "ln.weight"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("a", "a.b"), ("a*a", "a"), ("*.bias", "bias.weight"), ("", "a"), ("b*", "ab")]
        {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn the_first_group_counts_and_a_pattern_without_a_parameter_is_refused() {
        let group = |pattern: &str, weight_decay, lr_factor| config::ParameterGroup {
            parameters: vec![pattern.to_owned()],
            weight_decay,
            lr_factor,
            l1: None,
            l2: None,
        };
        let card = config::Optimizer {
            weight_decay: 0.1,
            groups: vec![group("*.bias", Some(0.0), 1.0), group("a.*", None, 0.5)],
            ..Default::default()
        };
        let groups = Groups::new(&card, &["a.bias", "a.weight", "b.weight"]).unwrap();
        let values = groups.each(|factor, decay| (factor, decay));
        let of = [0, 1, 2].map(|i| values[groups.of(i)]);
        assert_eq!(of, [(1.0, 0.0), (0.5, 0.1), (1.0, 0.1)]);
        let error = Groups::new(&card, &["a.weight"]).err().unwrap();
        assert_eq!(error.exit_code(), 78);
        assert!(
            error.to_string().contains("groups.0.parameters: `*.bias` is the name of no"),
            "{error}"
        );
    }
}

//! The all-reduce algorithms that a bench compares, under the names that people know them by.

use crate::collective::{Algorithm, Group, Op};
use crate::error::{Error, Result};

/// An algorithm in a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entrant(pub Algorithm);

/// What trains: the algorithm that is chosen by size and place.
pub const OURS: Entrant = Entrant(Algorithm::Auto);
/// The yardstick.
pub const MPI: Entrant = Entrant(Algorithm::Mpi);

/// All of them, the automatic choice first and MPI's own last.
pub fn all() -> impl Iterator<Item = Entrant> {
    Algorithm::ALL.into_iter().map(|(algorithm, _)| Entrant(algorithm))
}

impl Entrant {
    /// Its name in tables and files.
    #[must_use]
    pub fn name(self) -> &'static str {
        let found = Algorithm::ALL.iter().find(|(algorithm, _)| *algorithm == self.0);
        found.filter(|_| self != OURS).map_or("ours", |(_, name)| name)
    }
}

/// The entrant of a name: `ours`, or an algorithm's name in cards.
pub fn parse(text: &str) -> std::result::Result<Entrant, String> {
    let wanted = if text == "auto" { OURS.name() } else { text };
    all().find(|entrant| entrant.name() == wanted).ok_or_else(|| {
        let names: Vec<&str> = all().map(Entrant::name).collect();
        format!("expected one of {}", names.join(", "))
    })
}

/// Those of `wanted`, or of all, that the ranks at hand have, in the order of [`all`].
///
/// # Errors
/// [`Error::Usage`] when one was asked for by name and is not available.
pub fn available(wanted: Option<&[Entrant]>, group: &mut Group) -> Result<Vec<Entrant>> {
    let mut found = Vec::new();
    for entrant in all() {
        if wanted.is_some_and(|wanted| !wanted.contains(&entrant)) {
            continue;
        }
        let mut data = [0f32; 16];
        let here = match entrant {
            MPI => group.mpi_sum(&[0f32; 16], &mut data)?,
            _ => group.all_reduce_by(entrant.0, &mut data, Op::Sum)?,
        };
        if here {
            found.push(entrant);
        } else if wanted.is_some() {
            return Err(group.common_failure(missing(entrant, group)));
        }
    }
    Ok(found)
}

fn missing(entrant: Entrant, group: &Group) -> Error {
    let why = match (entrant, group.shared_memory()) {
        (MPI, _) => {
            "this process was started without mpirun or srun, so there is no MPI. Start it with mpirun -n 2"
        }
        (_, Err(why)) => why,
        _ => "the ranks at hand have no use for it. Leave it out",
    };
    Error::Usage(format!("--algorithms {}: {why}", entrant.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entrant_is_found_by_the_name_it_is_shown_with() {
        assert_eq!(all().next(), Some(OURS));
        assert_eq!(all().last(), Some(MPI));
        for entrant in all() {
            assert_eq!(parse(entrant.name()), Ok(entrant));
        }
        assert_eq!(parse("auto"), Ok(OURS));
        let error = parse("tree").unwrap_err();
        assert!(error.contains("ours, shared, ring, doubling, mpi"), "{error}");
    }

    #[test]
    fn what_was_asked_for_by_name_and_is_not_there_is_refused() {
        let mut group = Group::meet(Box::new(crate::comm::threads::alone())).unwrap();
        let error = available(Some(&[OURS, MPI]), &mut group).unwrap_err();
        assert_eq!(error.exit_code(), 64);
        assert!(error.to_string().contains("--algorithms mpi"), "{error}");
        let found = available(None, &mut group).unwrap();
        assert!(found.contains(&OURS) && !found.contains(&MPI), "{found:?}");
    }
}

//! The all-reduce algorithms that a bench compares, under the names that people know them by.

use super::pending::{Algorithm, Pending};
use crate::collective::{Group, Op};
use crate::error::{Error, Result};

/// An algorithm in a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entrant(pub Algorithm);

/// All of them, the automatic choice first and MPI's own last.
pub const ALL: [Entrant; 5] = [
    Entrant(Algorithm::Auto),
    Entrant(Algorithm::Shared),
    Entrant(Algorithm::Ring),
    Entrant(Algorithm::Doubling),
    Entrant(Algorithm::Mpi),
];

/// What trains: the algorithm that is chosen by size and place.
pub const OURS: Entrant = Entrant(Algorithm::Auto);
/// The yardstick.
pub const MPI: Entrant = Entrant(Algorithm::Mpi);

impl std::fmt::Display for Entrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Algorithm::Auto => f.write_str("ours"),
            other => other.fmt(f),
        }
    }
}

/// The entrant of a name: `ours`, or an algorithm's own.
pub fn parse(text: &str) -> std::result::Result<Entrant, String> {
    if text == "ours" {
        return Ok(OURS);
    }
    text.parse().map(Entrant).map_err(|_| {
        let names: Vec<String> = ALL.iter().map(ToString::to_string).collect();
        format!("expected one of {}", names.join(", "))
    })
}

/// Those of `wanted`, or of all, that the ranks at hand have, in the order of [`ALL`].
///
/// # Errors
/// [`Error::Usage`] when one was asked for by name and is not available.
pub fn available(wanted: Option<&[Entrant]>, group: &mut Group) -> Result<Vec<Entrant>> {
    let mut found = Vec::new();
    for entrant in ALL {
        if wanted.is_some_and(|wanted| !wanted.contains(&entrant)) {
            continue;
        }
        if group.all_reduce_by(entrant.0, &mut [0f32; 16], Op::Sum)? {
            found.push(entrant);
        } else if wanted.is_some() {
            return Err(group.common_failure(missing(entrant)));
        }
    }
    Ok(found)
}

fn missing(entrant: Entrant) -> Error {
    let why = match entrant.0 {
        Algorithm::Mpi => {
            "this process was started without mpirun or srun, so there is no MPI. Start it with \
             mpirun -n 2"
        }
        Algorithm::Shared => "no two ranks share a host and its memory. Leave it out",
        _ => "these ranks cannot use it. Leave it out",
    };
    Error::Usage(format!("--algorithms {entrant}: {why}, or see `annulus doctor`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entrant_is_found_by_the_name_it_is_shown_with() {
        for entrant in ALL {
            assert_eq!(parse(&entrant.to_string()), Ok(entrant));
        }
        assert_eq!(parse("auto"), Ok(OURS));
        let error = parse("tree").unwrap_err();
        assert!(error.contains("ours, shared, ring, doubling, mpi"), "{error}");
    }
}

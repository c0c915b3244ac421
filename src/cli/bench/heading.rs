//! What every table stands under: machine, ranks, MPI, and how far the cores are apart.

use crate::collective::Group;
use crate::comm;
use crate::error::{Error, Result};
use crate::report::console::say;
use crate::util::files;
use serde_json::{Map, Value, json};
use std::path::Path;

/// The circumstances of a measurement.
pub struct Heading {
    ranks: usize,
    hosts: Vec<String>,
    machine: String,
    cores: usize,
    mpi: Option<String>,
    core_to_core_ns: Option<f64>,
}

impl Heading {
    /// Finds out the circumstances; all ranks must call it.
    ///
    /// # Errors
    /// When a rank is late.
    pub fn find(group: &mut Group) -> Result<Heading> {
        let mut hosts = group.hosts().to_vec();
        hosts.sort_unstable();
        hosts.dedup();
        let core_to_core_ns = group.core_to_core_ns()?;
        Ok(Heading {
            ranks: group.size(),
            hosts,
            machine: processor(),
            cores: group.local_cores(),
            mpi: comm::launcher::from_env().map(|_| comm::library_version()),
            core_to_core_ns,
        })
    }

    /// Prints it, on rank 0.
    pub fn print(&self, group: &Group, what: &str, budget: &str) {
        if group.rank() != 0 {
            return;
        }
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        let (ranks, hosts) = (self.ranks, self.hosts.len());
        let mut names = self.hosts.clone();
        if hosts > 4 {
            names.truncate(3);
            names.push(format!("{} more", hosts - 3));
        }
        let fact = |label: &str, text: &str| say(&format!("  {label:<13} {}", cut(text, 84)));
        say(&format!("annulus {} bench {what}", env!("CARGO_PKG_VERSION")));
        let cores = format!("{} core{} for this host's ranks", self.cores, plural(self.cores));
        fact("machine", &format!("{}, {cores}", self.machine));
        let place = format!("{hosts} host{} ({})", plural(hosts), names.join(", "));
        fact("ranks", &format!("{ranks} on {place}"));
        fact("mpi", self.mpi.as_deref().unwrap_or("none: started without mpirun or srun"));
        match self.core_to_core_ns {
            Some(ns) => fact("core to core", &format!("{ns:.0} ns one way")),
            None if ranks == 1 => fact("core to core", "one rank: nothing to measure"),
            None => fact("core to core", "not measured"),
        }
        fact("time", budget);
    }

    /// One host's ranks share memory, so a memory limit is a limit of the collective.
    #[must_use]
    pub fn one_host(&self) -> bool {
        self.hosts.len() == 1
    }

    /// The same as the head of a JSON object, to which the part's figures are added.
    #[must_use]
    pub fn to_json(&self, what: &str) -> Map<String, Value> {
        let Value::Object(head) = json!({
            "annulus": env!("CARGO_PKG_VERSION"),
            "bench": what,
            "machine": self.machine,
            "cores": self.cores,
            "ranks": self.ranks,
            "hosts": self.hosts,
            "mpi": self.mpi,
            "core_to_core_ns": self.core_to_core_ns,
        }) else {
            return Map::new();
        };
        head
    }
}

/// Makes sure, before anything is measured, that the figures can be written in the end.
///
/// # Errors
/// [`Error::CannotCreate`] on all ranks when the folder is not there or cannot be written to.
pub fn check_writable(path: Option<&Path>, group: &mut Group) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let outcome = if group.rank() == 0 { files::write_whole(path, b"{}\n") } else { Ok(()) };
    group.together(outcome)
}

/// Writes the figures, on rank 0, and says where they are.
///
/// # Errors
/// The same on all ranks, when the file cannot be written.
pub fn write_json(
    path: Option<&Path>,
    figures: Map<String, Value>,
    group: &mut Group,
) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let write = || {
        let text = serde_json::to_string_pretty(&figures)
            .map_err(|e| Error::Internal(format!("figures as JSON: {e}")))?;
        files::write_whole(path, format!("{text}\n").as_bytes())?;
        say(&format!("\n  all figures are in {}", path.display()));
        Ok(())
    };
    let outcome = if group.rank() == 0 { write() } else { Ok(()) };
    group.together(outcome)
}

/// The first `width` characters of a text, with a sign that there are more.
fn cut(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        None => text.to_owned(),
        Some(_) => text.chars().take(width - 1).chain(['…']).collect(),
    }
}

/// The processor's name, where the system tells it.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim().to_owned());
    name.unwrap_or_else(|| format!("{} processor", std::env::consts::ARCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_facts_are_cut_between_characters() {
        assert_eq!(cut("höchstens", 9), "höchstens");
        assert_eq!(cut("höchstens", 4), "höc…");
    }
}

//! The signs of life of a run's ranks: who writes them, and who cannot.

use super::postmortem;
use super::reporter::Reporter;
use crate::collective::Group;
use crate::error::{Error, Result};
use crate::report::heartbeat::{self, Heartbeat};
use std::path::Path;

/// A rank's signs of life while a run goes on; nothing where the run folder is out of sight.
pub struct Vitals {
    heart: Option<Heartbeat>,
    /// Whether every rank writes into the folder.
    all: bool,
}

impl Vitals {
    /// Begins to write signs of life into the run folder `out`. Ranks that do not see the folder of
    /// rank 0 (another host, no shared file system) do without, and rank 0 says so once.
    ///
    /// # Errors
    /// When a rank is late or dead.
    pub fn start(out: &Path, reporter: &Reporter, group: &mut Group) -> Result<Vitals> {
        // A folder that cannot be written is the checkpoints' to complain of.
        let job = group.from_rank_0(|| Ok(heartbeat::prepare(out).unwrap_or_default()))?;
        let sees = !job.is_empty() && heartbeat::is_shared(out, &job);
        let heart = match sees {
            true => Heartbeat::start(out, group.rank()).ok(),
            false => None,
        };
        if sees {
            postmortem::prepare(out);
        }
        let all = group.all_gather(&[u8::from(heart.is_some())])?;
        let without: Vec<String> = (0..all.len())
            .filter(|&rank| all[rank] != [1])
            .map(|rank| format!("{rank} ({})", group.hosts()[rank]))
            .collect();
        if !without.is_empty() {
            reporter.warn(&format!(
                "ranks that cannot write into {}: {}. If one of them falls silent, its last step is \
                 not known; put the run folder on a file system that all hosts share",
                out.display(),
                without.join(", ")
            ));
        }
        Ok(Vitals { heart, all: without.is_empty() })
    }

    /// The folder with the signs of all ranks, if it has them.
    #[must_use]
    pub fn of_all<'a>(&self, out: &'a Path) -> Option<&'a Path> {
        self.all.then_some(out)
    }

    /// The run ends, well or with this outcome.
    pub fn end(self, outcome: &Result<()>) {
        if let (Some(heart), Ok(()) | Err(Error::Preempted(_))) = (self.heart, outcome) {
            heart.end_well();
        }
    }
}

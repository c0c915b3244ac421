//! How each trial is started: alone, or as several ranks under a launcher.
//!
//! A search is one process, and no MPI program: its trials are. Under `mpirun -n 4 annulus tune …` the first of the
//! four conducts and the others leave at once; each trial is started by the same command up to the program's
//! name, which is to be seen in the process that started this one.

use crate::comm::launcher;
use crate::error::{Error, Result};
use crate::util::processes;
use std::path::Path;
use std::process::Command;

/// Variables by which a launcher tells a process its rank: a trial must not take them for its own.
const OF_RANKS: [&str; 9] = [
    "OMPI_",
    "PMIX_",
    "PMI_",
    "PRTE_",
    "HYDI_",
    "HYDRA_",
    "MPI_LOCAL",
    "MPIR_CVAR_CH3_",
    "SLURM_STEP",
];
/// But these are the user's.
const OF_USERS: &str = "OMPI_ALLOW_RUN_AS_ROOT";

/// What stands before the program in the command that starts a trial.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Launch {
    words: Vec<String>,
}

/// Whether this process is one of several that a launcher started, and not the first of them.
#[must_use]
pub fn is_superfluous() -> bool {
    launcher::rank_hint() != 0
}

impl Launch {
    /// The command that was `given` with `--launch`, or the one that this process was started by, or Slurm's
    /// inside a job of several tasks; none of these: trials of one rank.
    ///
    /// # Errors
    /// [`Error::Usage`] when this process is one of several and it cannot be told how they were started.
    pub fn find(given: Option<&str>) -> Result<Launch> {
        if let Some(text) = given {
            return Ok(Launch { words: text.split_whitespace().map(str::to_owned).collect() });
        }
        let of = |name: &str| std::env::var(name).ok();
        match launcher::from_env() {
            Some(launch) if launch.size > 1 => above().ok_or_else(|| {
                Error::Usage(format!(
                    "tune was started as {} processes by {} and cannot tell by which command; start it once, and \
                     give it the command for its trials: annulus tune CARD --launch 'mpirun -n {}'",
                    launch.size, launch.name, launch.size
                ))
            }),
            Some(_) => Ok(Launch::default()),
            None => Ok(Launch { words: in_slurm(&of) }),
        }
    }

    /// The command that starts `program`.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = match self.words.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        if launcher::from_env().is_some() {
            for (name, _) in std::env::vars_os() {
                let plain = name.to_string_lossy();
                let told = OF_RANKS.iter().any(|prefix| plain.starts_with(prefix));
                if told && !plain.starts_with(OF_USERS) {
                    command.env_remove(&name);
                }
            }
        }
        command
    }

    /// In words, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        if self.words.is_empty() { "one rank".to_owned() } else { self.words.join(" ") }
    }
}

/// The launcher among the ancestors of this process, as it was called, up to this program's name.
fn above() -> Option<Launch> {
    let ours: Vec<String> = std::env::args().skip(1).collect();
    let mut pid = std::process::id();
    for _ in 0..8 {
        pid = processes::parent(pid)?;
        if let Some(words) = before_program(&processes::arguments(pid), &ours) {
            return Some(Launch { words });
        }
    }
    None
}

/// What stands before the program in `command`, if it is a command that starts a program with the arguments `ours`.
fn before_program(command: &[String], ours: &[String]) -> Option<Vec<String>> {
    let before = command.strip_suffix(ours)?;
    let (_, launcher) = before.split_last()?;
    // A shell that started this program is no launcher.
    let name = Path::new(launcher.first()?).file_name()?.to_str()?;
    let known = ["mpirun", "mpiexec", "orterun", "prterun", "prun"];
    known.iter().any(|known| name.starts_with(known)).then(|| launcher.to_vec())
}

/// In the batch script of a job with several tasks: one rank per task.
fn in_slurm(var: &impl Fn(&str) -> Option<String>) -> Vec<String> {
    let tasks = var("SLURM_NTASKS").and_then(|tasks| tasks.parse::<usize>().ok()).unwrap_or(1);
    if var("SLURM_JOB_ID").is_none() || tasks < 2 {
        return Vec::new();
    }
    let pmi = var("ANNULUS_PMI").unwrap_or_else(|| "pmix".to_owned());
    ["srun", "--kill-on-bad-exit=1", &format!("--mpi={pmi}")].map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_launchers_command_is_what_stands_before_the_program() {
        let ours = words("tune c.json --set seed=2");
        let of = |text: &str| before_program(&words(text), &ours).map(|words| words.join(" "));
        let found = of("/usr/bin/mpirun -H a,b -n 4 numactl -l ./annulus tune c.json --set seed=2");
        assert_eq!(found.as_deref(), Some("/usr/bin/mpirun -H a,b -n 4 numactl -l"));
        assert_eq!(
            of("mpiexec.hydra -n 2 annulus tune c.json --set seed=2").unwrap(),
            "mpiexec.hydra -n 2"
        );
        assert_eq!(of("mpirun -n 2 annulus tune other.json"), None);
        assert_eq!(of("bash annulus tune c.json --set seed=2"), None);
        assert_eq!(of("annulus tune c.json --set seed=2"), None);
    }

    #[test]
    fn slurm_starts_the_tasks_of_a_job_that_has_several() {
        let of = |vars: &'static [(&'static str, &'static str)]| {
            in_slurm(&|key: &str| {
                vars.iter().find(|(k, _)| *k == key).map(|(_, v)| (*v).to_owned())
            })
        };
        assert!(of(&[]).is_empty());
        assert!(of(&[("SLURM_NTASKS", "4")]).is_empty());
        assert!(of(&[("SLURM_JOB_ID", "7"), ("SLURM_NTASKS", "1")]).is_empty());
        let job = of(&[("SLURM_JOB_ID", "7"), ("SLURM_NTASKS", "4"), ("ANNULUS_PMI", "pmi2")]);
        assert_eq!(job.join(" "), "srun --kill-on-bad-exit=1 --mpi=pmi2");
    }

    #[test]
    fn a_given_command_is_taken_as_it_is() {
        let launch = Launch::find(Some("mpirun  -n 2")).unwrap();
        assert_eq!(launch.describe(), "mpirun -n 2");
        let command = launch.command(Path::new("/bin/annulus"));
        assert_eq!(command.get_program(), "mpirun");
        let args: Vec<_> = command.get_args().collect();
        assert_eq!(args, ["-n", "2", "/bin/annulus"]);
    }
}

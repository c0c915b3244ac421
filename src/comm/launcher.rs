//! What the launcher says in the environment, before MPI is asked.
//!
//! MPI's answer is the truth about rank and size; the environment only tells whether there is a
//! launcher at all, and whether the two agree. Inside a Slurm batch script every rank under `mpirun`
//! sees `SLURM_PROCID=0`, so Slurm's variables count only inside a step that `srun` started.

/// A launcher's promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Who speaks.
    pub name: &'static str,
    /// Number of ranks that it started.
    pub size: usize,
    /// The rank that it gave this process, if it says so.
    pub rank: Option<usize>,
    /// The variable that says so.
    pub rank_variable: &'static str,
}

/// What the process's environment says; `None` when no launcher started it.
#[must_use]
pub fn from_env() -> Option<Launch> {
    read(|key| std::env::var(key).ok())
}

/// The rank for deciding who prints an error before MPI is up; 0 without a launcher.
#[must_use]
pub fn rank_hint() -> usize {
    from_env().and_then(|launch| launch.rank).unwrap_or(0)
}

fn read(var: impl Fn(&str) -> Option<String>) -> Option<Launch> {
    let number = |key: &str| var(key).and_then(|value| value.parse::<usize>().ok());
    let launch = |name, size, rank_variable| {
        Some(Launch { name, size: number(size)?, rank: number(rank_variable), rank_variable })
    };
    let step = || {
        let inside = var("SLURM_STEP_ID").or_else(|| var("SLURM_STEPID"))?;
        let numbered = inside.parse::<u32>().is_ok();
        numbered.then(|| launch("srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID")).flatten()
    };
    launch("mpirun of Open MPI", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")
        .or_else(|| launch("a PMI launcher (mpiexec of MPICH, or srun)", "PMI_SIZE", "PMI_RANK"))
        .or_else(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(vars: &[(&str, &str)]) -> Option<Launch> {
        read(|key| vars.iter().find(|(k, _)| *k == key).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn each_launcher_is_recognised_by_its_own_variables() {
        assert_eq!(with(&[]), None);
        let ompi = with(&[("OMPI_COMM_WORLD_SIZE", "4"), ("OMPI_COMM_WORLD_RANK", "3")]).unwrap();
        assert_eq!((ompi.size, ompi.rank), (4, Some(3)));
        let mpich = with(&[("PMI_SIZE", "2"), ("PMI_RANK", "1")]).unwrap();
        assert_eq!((mpich.size, mpich.rank), (2, Some(1)));
    }

    #[test]
    fn slurm_counts_only_inside_a_step_and_not_in_the_batch_script() {
        let batch = [("SLURM_NTASKS", "4"), ("SLURM_PROCID", "0")];
        assert_eq!(with(&batch), None);
        let step = [("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", "4"), ("SLURM_PROCID", "2")];
        assert_eq!(with(&step).unwrap().size, 4);
        assert_eq!(with(&[("SLURM_STEP_ID", "batch"), ("SLURM_STEP_NUM_TASKS", "1")]), None);
    }
}

//! Names inside `checkpoints/`: what is a checkpoint, what is a left-over, and whose.

use crate::util::processes::is_alive;
use crate::util::whereabouts;

/// Name of the file that names the checkpoint last written.
pub(super) const LATEST: &str = "latest";
/// Everything that is being written or removed begins with this.
const TEMPORARY: &str = ".tmp-";

/// The folder of a step's checkpoint; eight digits or more, so that names sort as steps do.
pub(super) fn folder(step: u64) -> String {
    format!("step-{step:08}")
}

/// The step of a checkpoint folder's name; `None` for every other name.
pub(super) fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step-")?.parse().ok()?;
    (folder(step) == name).then_some(step)
}

/// The name of `what` while this process writes or removes it.
pub(super) fn temporary(what: &str) -> String {
    format!("{TEMPORARY}{what}-{}-{}", own_host(), std::process::id())
}

/// Whether this is a name given by [`temporary`], in whatever process.
pub(super) fn is_temporary(name: &str) -> bool {
    name.starts_with(TEMPORARY)
}

/// Whether the process that gave a temporary name is surely no longer at work: it ran on this host
/// and is dead, or had this process's number (which has written nothing before it sweeps).
pub(super) fn is_orphan(name: &str) -> bool {
    let Some((rest, pid)) = name.rsplit_once('-') else { return false };
    let Ok(pid) = pid.parse::<u32>() else { return false };
    rest.ends_with(&format!("-{}", own_host())) && (pid == std::process::id() || !is_alive(pid))
}

/// This host's name as part of a file name.
fn own_host() -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' };
    whereabouts::host_name().chars().take(64).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_step_folders_are_checkpoints() {
        assert_eq!(step_of(&folder(1200)), Some(1200));
        assert_eq!(step_of(&folder(u64::MAX)), Some(u64::MAX));
        for name in ["step-1200", "step-+0001200", "step-00001200x", "step--0001200", "latest"] {
            assert_eq!(step_of(name), None, "{name}");
        }
    }

    #[test]
    fn a_left_over_is_an_orphan_only_if_its_writer_is_surely_gone() {
        let mine = temporary(&folder(7));
        assert!(is_temporary(&mine) && is_orphan(&mine), "{mine}");
        // Process 1 always lives; no process has the number 4,000,000,000.
        let host = own_host();
        assert!(!is_orphan(&format!(".tmp-step-00000007-{host}-1")));
        assert!(is_orphan(&format!(".tmp-step-00000007-{host}-4000000000")));
        assert!(!is_orphan(".tmp-step-00000007-elsewhere-4000000000"));
        assert!(!is_orphan(".tmp-x"));
    }
}

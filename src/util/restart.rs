//! Settings that libraries read when a program starts, set by starting it again.
//!
//! * `GLIBC_TUNABLES=glibc.malloc.hugetlb=1`: `malloc` asks for huge pages. Parameters and activations of
//!   large models are read in every step, and on small pages address translation is a fifth of that
//!   (20 million parameters: 545 instead of 450 samples/s in a prototype).
//! * `CANDLE_NUM_THREADS=1`: Candle's own operations run on a pool that spins on a barrier, in every rank
//!   as many threads as the machine has cores. With two ranks on two cores that alone took 35 % of the
//!   time of a Transformer's backward pass. What is worth threads is in our layers, which use Rayon's pool.

use std::process::Command;

const TUNABLES: &str = "GLIBC_TUNABLES";
const HUGE_PAGES: &str = "glibc.malloc.hugetlb=1";
const CANDLE_THREADS: &str = "CANDLE_NUM_THREADS";

/// Starts this program again in this process, with the settings above where the user has not set
/// them. To be called first of all; returns where there is nothing to do or the system does not want
/// to. It takes about a millisecond.
pub fn with_settings() {
    let tunables = std::env::var(TUNABLES).unwrap_or_default();
    let paged = tunables.contains("glibc.malloc.hugetlb");
    if paged && std::env::var_os(CANDLE_THREADS).is_some() {
        return;
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if let Ok(program) = std::env::current_exe() {
        use std::os::unix::process::CommandExt;
        let mut args = std::env::args_os();
        let mut again = Command::new(program);
        if let Some(name) = args.next() {
            again.arg0(name);
        }
        if !paged {
            let separator = if tunables.is_empty() { "" } else { ":" };
            again.env(TUNABLES, format!("{tunables}{separator}{HUGE_PAGES}"));
        }
        if std::env::var_os(CANDLE_THREADS).is_none() {
            again.env(CANDLE_THREADS, "1");
        }
        // Comes back only when it fails, and then the program goes on as it is.
        let _ = again.args(args).exec();
    }
}

//! Tells glibc's allocator to keep memory between steps, on huge pages.
//!
//! By default it gives large blocks back to the kernel as soon as they are freed, and every step
//! faults all of its activations in again: 379,000 page faults a step for an MLP of 20 M parameters,
//! a third of the time of a LeNet step.
#![allow(unsafe_code)]

/// Read by glibc when a program starts.
const TUNABLES: &str = "GLIBC_TUNABLES";
const HUGE_PAGES: &str = "glibc.malloc.hugetlb=1";

/// To be called once, before the first large allocation. Does nothing on other C libraries.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only sets parameters of the allocator; a value that it does not like is
    // refused by a return code, and then freed memory goes back to the kernel as before.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}

/// Starts this program again, in this process, with huge pages for `malloc`: parameters and
/// activations of large models are read in every step, and address translation is a fifth of that
/// on small pages. glibc reads the setting at the start of a program only. To be called first of
/// all; returns where there is nothing to do, the user has set it, or the system does not want to.
pub fn use_huge_pages() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::os::unix::process::CommandExt;
        let before = std::env::var(TUNABLES).unwrap_or_default();
        let Ok(program) = std::env::current_exe() else { return };
        if before.contains("glibc.malloc.hugetlb") {
            return;
        }
        let tunables = if before.is_empty() {
            HUGE_PAGES.to_owned()
        } else {
            format!("{before}:{HUGE_PAGES}")
        };
        let mut args = std::env::args_os();
        let mut again = std::process::Command::new(program);
        if let Some(name) = args.next() {
            again.arg0(name);
        }
        // Comes back only when it fails, and then the program goes on as it is.
        let _ = again.args(args).env(TUNABLES, tunables).exec();
    }
}

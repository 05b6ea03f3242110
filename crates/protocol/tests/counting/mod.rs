//! An allocator that counts, for tests that promise how much memory something takes.
//!
//! Counts are kept per thread, so that tests may run side by side.
#![expect(unsafe_code, reason = "an allocator is unsafe to implement")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Passes everything on to the system's allocator, and counts.
pub(crate) struct Counting;

/// What one piece of code took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Most bytes held at the same time.
    pub(crate) peak: usize,
    /// How many allocations were made or grown.
    pub(crate) allocations: usize,
}

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// Runs `action` and tells what it took on this thread.
pub(crate) fn usage_of<T>(action: impl FnOnce() -> T) -> (T, Usage) {
    let before = HELD.get();
    PEAK.set(before);
    ALLOCATIONS.set(0);
    let result = action();
    let peak = usize::try_from(PEAK.get() - before).unwrap_or(0);
    (result, Usage { peak, allocations: ALLOCATIONS.get() })
}

fn count(change: isize) {
    HELD.set(HELD.get() + change);
    PEAK.set(PEAK.get().max(HELD.get()));
    if change > 0 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
    }
}

// SAFETY: every call goes to the system's allocator with the caller's own arguments, and counting
// neither allocates (the thread-locals are constants without destructors) nor touches the memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(memory, layout, size) }
    }
}

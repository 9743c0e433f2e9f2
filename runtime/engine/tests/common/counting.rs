//! An allocator that counts, for tests of what allocates nothing. A test file that has this module uses it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

thread_local! {
    /// Allocations of this thread: the test harness has threads of its own.
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

/// Allocations of all threads.
static ALL: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counting.
struct Counting;

// SAFETY: every method passes its arguments on to `System` unchanged and returns what it returns; counting touches a constant-initialised
// thread-local without a destructor and an atomic, which neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        ALL.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise about `layout` is the one `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System.alloc` above with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations so far, of this thread.
#[allow(dead_code, reason = "every test file uses its own part")]
pub(crate) fn this_thread() -> usize {
    COUNT.get()
}

/// Allocations so far, of all threads.
#[allow(dead_code, reason = "every test file uses its own part")]
pub(crate) fn all_threads() -> usize {
    ALL.load(Ordering::Relaxed)
}

//! `run` allocates nothing: counted by the allocator itself.
#![allow(missing_docs, clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use vitlet_engine::Engine;
use vitlet_kernels::Kernel;
use vitlet_plan::{AlignedBytes, Plan, testing};

thread_local! {
    /// Allocations of this thread: the test harness has threads of its own.
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counting.
struct Counting;

// SAFETY: every method passes its arguments on to `System` unchanged and returns what it returns; counting touches a constant-initialised
// thread-local without a destructor, which neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
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

#[test]
fn neither_parsing_nor_running_allocates() {
    let bytes = testing::tiny_plan(1);
    let image = testing::tiny_image(1);
    let len = Plan::parse(&bytes).unwrap().arena_len(1);
    let mut arena = AlignedBytes::zeroed(len);
    for kernel in Kernel::available() {
        let before = COUNT.get();
        let plan = Plan::parse(&bytes).unwrap();
        let mut engine = Engine::new(&plan, kernel);
        let mut sum = 0_i64;
        for _ in 0..10 {
            sum += engine
                .run(&mut arena, &image)
                .unwrap()
                .iter()
                .map(|&v| i64::from(v))
                .sum::<i64>();
        }
        assert_eq!(COUNT.get() - before, 0, "{}", kernel.name());
        assert_ne!(std::hint::black_box(sum), 0);
    }
    let before = COUNT.get();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(COUNT.get() - before, 1, "the counter counts");
}

//! `run` allocates nothing: counted by the allocator itself.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "common/counting.rs"]
mod counting;

use vitlet_engine::Engine;
use vitlet_kernels::Kernel;
use vitlet_plan::{AlignedBytes, Plan, testing};

#[test]
fn neither_parsing_nor_running_allocates() {
    let bytes = testing::tiny_plan(1);
    let image = testing::tiny_image(1);
    let len = Plan::parse(&bytes).unwrap().arena_len(1);
    let mut arena = AlignedBytes::zeroed(len);
    for kernel in Kernel::available() {
        let before = counting::this_thread();
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
        assert_eq!(counting::this_thread() - before, 0, "{}", kernel.name());
        assert_ne!(std::hint::black_box(sum), 0);
    }
    let before = counting::this_thread();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(counting::this_thread() - before, 1, "the counter counts");
}

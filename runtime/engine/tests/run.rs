//! The engine's promises: the same bytes whatever the kernel, the threads and the arena's past; errors that say what to do.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use common::{Backwards, Counting, Scoped, tensors_after, trace};
use vitlet_engine::{Engine, EngineError, Serial};
use vitlet_kernels::Kernel;
use vitlet_plan::{AlignedBytes, Plan, testing};

#[test]
fn every_op_gives_the_same_bytes_on_any_kernel_and_any_number_of_threads() {
    for seed in 0..5 {
        let bytes = testing::tiny_plan(seed);
        let plan = Plan::parse(&bytes).unwrap();
        let image = testing::tiny_image(seed);
        let expected = trace(&plan, Kernel::SCALAR, Serial, &image, 0).unwrap();
        assert_eq!(expected.len(), plan.ops().len());
        for kernel in Kernel::available() {
            for threads in [1, 2, 3, 5, 8, 16, 40] {
                let found = trace(&plan, kernel, Scoped(threads), &image, 0xA5).unwrap();
                assert_eq!(
                    found,
                    expected,
                    "{} on {threads} threads, seed {seed}",
                    kernel.name()
                );
            }
        }
    }
}

/// Without an observer, threads run neighbouring ops on their own rows before they wait for each other. Jobs that run backwards show it
/// if a job needed what an earlier one writes.
#[test]
fn ops_that_run_together_leave_the_arena_as_ops_that_run_one_by_one() {
    for seed in 0..20 {
        for bytes in [
            testing::tiny_plan(seed),
            testing::tiny_plan_without_strips(seed),
            testing::tiny_block_plan(seed),
        ] {
            let plan = Plan::parse(&bytes).unwrap();
            let (kernel, image) = (Kernel::detect(), testing::tiny_image(seed));
            let expected = tensors_after(&plan, kernel, Serial, &image, 0xA5).unwrap();
            for threads in [2, 3, 5, 16] {
                let found = tensors_after(&plan, kernel, Backwards(threads), &image, 0xA5);
                assert_eq!(found.unwrap(), expected, "seed {seed}, {threads} threads");
                let found = tensors_after(&plan, kernel, Scoped(threads), &image, 0xA5);
                assert_eq!(found.unwrap(), expected, "seed {seed}, {threads} threads");
            }
        }
    }
}

/// How often all threads wait for each other in a plain run, and in one where every op is observed.
#[test]
fn threads_wait_less_often_when_nobody_looks() {
    let bytes = testing::tiny_plan(1);
    let plan = Plan::parse(&bytes).unwrap();
    let image = testing::tiny_image(1);
    let count = |observed: bool| {
        let threads = Counting::default();
        let mut engine = Engine::with_threads(&plan, Kernel::detect(), &threads);
        let mut arena = AlignedBytes::zeroed(engine.arena_len());
        if observed {
            engine.run_traced(&mut arena, &image, &mut |_, _, _| {})
        } else {
            engine.run(&mut arena, &image)
        }
        .unwrap();
        threads.forks.get()
    };
    let [plain, observed] = [false, true].map(count);
    println!("{plain} forks in a plain run, {observed} in an observed one");
    assert!(plain < observed);
}

/// Strips change where and when rows are computed, never what.
#[test]
fn strips_give_the_bytes_of_whole_ops() {
    for seed in 0..20 {
        let [strips, whole] = [
            testing::tiny_plan(seed),
            testing::tiny_plan_without_strips(seed),
        ];
        let [strips, whole] = [&strips, &whole].map(|bytes| Plan::parse(bytes).unwrap());
        assert_eq!((strips.strips().len(), whole.strips().len()), (2, 0));
        let image = testing::tiny_image(seed);
        let expected = trace(&whole, Kernel::SCALAR, Serial, &image, 0).unwrap();
        for threads in [1, 2, 3] {
            let found = trace(&strips, Kernel::detect(), Scoped(threads), &image, 0xA5).unwrap();
            assert_eq!(found, expected, "seed {seed}, {threads} threads");
        }
    }
}

/// The numeric contract in one number per seed: these are the same on every machine, and only a change of `docs/numerics.md` (or of
/// the tiny network) may change them.
#[test]
fn every_op_gives_the_bytes_that_other_machines_gave() {
    const TRACES: [u32; 4] = [0x20f7_5621, 0xd886_8b24, 0xa1a7_d292, 0x3a89_e0e0];
    let found = [0, 1, 2, 3].map(|seed| {
        let bytes = testing::tiny_plan(seed);
        let plan = Plan::parse(&bytes).unwrap();
        let image = testing::tiny_image(seed);
        let outputs = trace(&plan, Kernel::detect(), Serial, &image, 0).unwrap();
        crc32fast::hash(&outputs.concat())
    });
    assert_eq!(
        found,
        TRACES,
        "on kernel {}: {found:#010x?}",
        Kernel::detect().name()
    );
}

#[test]
fn the_last_op_on_its_own_writes_the_logits_again() {
    let bytes = testing::tiny_plan(3);
    let plan = Plan::parse(&bytes).unwrap();
    let mut arena = AlignedBytes::zeroed(plan.arena_len(1));
    let mut engine = Engine::new(&plan, Kernel::detect());
    let image = testing::tiny_image(3);
    let logits = engine.run(&mut arena, &image).unwrap().to_vec();
    let last = plan.ops().len() - 1;
    let range = plan.output().arena_range().unwrap();
    let expected = arena[range.clone()].to_vec();
    arena[range.clone()].fill(0x55);
    engine.run_single(&mut arena, last).unwrap();
    assert_eq!(arena[range], expected);
    assert_eq!(expected.len(), 4 * logits.len());

    let short = plan.arena_len(1) - 1;
    assert!(engine.run_single(&mut arena[..short], last).is_err());
    // One that runs strip by strip, and none.
    let hidden = plan.strips().next().unwrap().ops().start + 1;
    engine.run_single(&mut arena, hidden).unwrap();
    assert!(engine.run_single(&mut arena, last + 1).is_err());
}

#[test]
fn a_second_run_and_another_image_in_the_same_arena_start_afresh() {
    let bytes = testing::tiny_plan(7);
    let plan = Plan::parse(&bytes).unwrap();
    let (one, two) = (testing::tiny_image(1), testing::tiny_image(2));
    let mut arena = AlignedBytes::zeroed(plan.arena_len(1));
    let mut engine = Engine::new(&plan, Kernel::detect());
    let first = engine.run(&mut arena, &one).unwrap().to_vec();
    let other = engine.run(&mut arena, &two).unwrap().to_vec();
    let again = engine.run(&mut arena, &one).unwrap().to_vec();
    assert_eq!(first, again);
    assert_ne!(first, other);
}

#[test]
fn the_tiny_plan_exercises_its_types_fully() {
    let bytes = testing::tiny_plan(3);
    let plan = Plan::parse(&bytes).unwrap();
    let outputs = trace(&plan, Kernel::SCALAR, Serial, &testing::tiny_image(3), 0).unwrap();
    for (op, bytes) in plan.ops().zip(&outputs) {
        let distinct: std::collections::BTreeSet<u8> = bytes.iter().copied().collect();
        assert!(
            distinct.len() > 16.min(bytes.len() / 2),
            "{} has only {} distinct bytes",
            op.name,
            distinct.len()
        );
    }
    let kinds: std::collections::BTreeSet<&str> = plan.ops().map(|op| op.kind.name()).collect();
    assert_eq!(kinds.len(), 10);
}

#[test]
fn logits_are_the_last_op_s_output() {
    let bytes = testing::tiny_plan(4);
    let plan = Plan::parse(&bytes).unwrap();
    let image = testing::tiny_image(4);
    let outputs = trace(&plan, Kernel::SCALAR, Serial, &image, 0).unwrap();
    let mut arena = AlignedBytes::zeroed(plan.arena_len(1));
    let logits = Engine::new(&plan, Kernel::SCALAR)
        .run(&mut arena, &image)
        .unwrap()
        .to_vec();
    let expected: Vec<i32> = outputs
        .last()
        .unwrap()
        .chunks_exact(4)
        .map(|b| i32::from_ne_bytes(b.try_into().unwrap()))
        .collect();
    assert_eq!(logits, expected);
    assert_eq!(logits.len(), testing::TINY_CLASSES);
}

#[test]
fn what_does_not_fit_is_refused_with_the_sizes() {
    let bytes = testing::tiny_plan(1);
    let plan = Plan::parse(&bytes).unwrap();
    let image = testing::tiny_image(1);
    let mut engine = Engine::new(&plan, Kernel::SCALAR);
    let needed = plan.arena_len(1);

    let mut arena = AlignedBytes::zeroed(needed);
    let short = engine.run(&mut arena, &image[1..]).unwrap_err();
    assert_eq!(
        short,
        EngineError::Image {
            found: 767,
            expected: 768
        }
    );
    let small = engine.run(&mut arena[..needed - 1], &image).unwrap_err();
    assert_eq!(
        small,
        EngineError::ArenaTooSmall {
            found: needed - 1,
            needed,
            threads: 1
        }
    );
    assert!(small.to_string().contains("Plan::arena_len(1)"), "{small}");
    let mut arena = AlignedBytes::zeroed(needed + 16);
    let unaligned = engine.run(&mut arena[16..], &image).unwrap_err();
    assert_eq!(unaligned, EngineError::ArenaMisaligned);
    let mut one_thread = AlignedBytes::zeroed(needed);
    let two = Engine::with_threads(&plan, Kernel::SCALAR, Scoped(2))
        .run(&mut one_thread, &image)
        .unwrap_err();
    assert!(matches!(two, EngineError::ArenaTooSmall { threads: 2, .. }));
}

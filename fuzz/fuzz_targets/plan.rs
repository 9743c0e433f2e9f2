//! Any plan with a right checksum: either an error, or a plan that runs, with the same bytes out of every op on every kernel, and the same logits when rows
//! are split and several ops run together.
//!
//! Input that starts with a plan's magic bytes is taken as a file. Anything else is a list of edits to the tiny plan (2 bytes: which word
//! of the header and records; 4 bytes: what to write there), so that the fuzzer gets past the shell without a corpus.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vitlet_engine::{Engine, Serial, Threads};
use vitlet_kernels::Kernel;
use vitlet_plan::{AlignedBytes, Plan, format, testing};

/// Plans that ask for more than this are parsed, not run.
const MAX_WORK: u64 = 2_000_000;
const MAX_ARENA: usize = 16 << 20;

fuzz_target!(|data: &[u8]| {
    let mut bytes = if data.starts_with(&format::MAGIC) { AlignedBytes::copy_of(data) } else { edited(data) };
    testing::reseal(&mut bytes);
    let Ok(plan) = Plan::parse(&bytes) else { return };
    let (height, width) = plan.input();
    let image_len = height as usize * width as usize * 3;
    if testing::work(&plan) > MAX_WORK || plan.arena_len(Backwards.count()) > MAX_ARENA {
        return;
    }
    let image: Vec<u8> = (0..image_len).map(|i| (i * 89 % 251) as u8).collect();
    let expected = outputs(&plan, Kernel::SCALAR, &image, 0);
    for kernel in Kernel::available() {
        assert!(outputs(&plan, kernel, &image, 0x80) == expected, "{} differs from scalar", kernel.name());
    }
    assert!(logits(&plan, Backwards, &image, 0x80) == logits(&plan, Serial, &image, 0), "run together, ops differ");
});

/// The jobs of three threads, last one first: what a job must not need of an earlier one is then not there.
#[derive(Clone, Copy)]
struct Backwards;

impl Threads for Backwards {
    fn count(&self) -> usize {
        3
    }

    fn least_work(&self) -> u64 {
        1
    }

    fn for_each<J: Send>(&self, jobs: &mut [J], work: impl Fn(&mut J) + Sync) {
        jobs.iter_mut().rev().for_each(work);
    }
}

/// The logits of a plain run, in an arena that holds `dirt` before.
fn logits(plan: &Plan<'_>, threads: impl Threads, image: &[u8], dirt: u8) -> Vec<i32> {
    let mut engine = Engine::with_threads(plan, Kernel::detect(), threads);
    let mut arena = AlignedBytes::zeroed(engine.arena_len());
    arena.fill(dirt);
    engine.run(&mut arena, image).expect("an accepted plan runs").to_vec()
}

/// The bytes out of every op, in an arena that holds `dirt` before.
fn outputs(plan: &Plan<'_>, kernel: Kernel, image: &[u8], dirt: u8) -> Vec<u8> {
    let mut arena = AlignedBytes::zeroed(plan.arena_len(1));
    arena.fill(dirt);
    let mut outputs = Vec::new();
    let run = Engine::new(plan, kernel).run_traced(&mut arena, image, &mut |_, _, bytes| outputs.extend_from_slice(bytes));
    run.expect("an accepted plan runs");
    outputs
}

fn edited(data: &[u8]) -> AlignedBytes {
    let mut plan = testing::tiny_plan(1);
    let data_at = format::header::DATA;
    let words = u32::from_le_bytes([plan[data_at], plan[data_at + 1], plan[data_at + 2], plan[data_at + 3]]) / 4;
    for edit in data.chunks_exact(6) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % words as usize * 4;
        plan[at..at + 4].copy_from_slice(&edit[2..]);
    }
    plan
}

//! A plan that the reader accepts runs, whatever its bytes: every field is changed, with the checksum made right again.
//!
//! "Runs" is more than "does not panic": all kernels must still agree, on one thread and with rows split three ways, in an arena full of dirt. So a field whose
//! bad values slip through verification shows here even if it only lets an op read stale bytes.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod common;

use common::{Backwards, tensors_after, trace};
use proptest::prelude::*;
use vitlet_engine::Serial;
use vitlet_kernels::Kernel;
use vitlet_plan::{AlignedBytes, Plan, format, testing};

/// A plan may ask for more work than a test wants to do; such ones are only parsed.
const MAX_WORK: u64 = 20_000_000;
const MAX_ARENA: usize = 64 << 20;

/// Which changes are tried: each, or, under an emulator, every fifth. All are tried on this machine, where what the reader accepts is the
/// same; with `VITLET_FULL` under the emulator, too.
fn stride() -> usize {
    let is_set = |name| std::env::var_os(name).is_some();
    let emulated = cfg!(target_arch = "aarch64") && is_set("VITLET_QEMU_CPU");
    if emulated && !is_set("VITLET_FULL") {
        5
    } else {
        1
    }
}

/// Returns whether the plan was accepted.
fn parse_and_run(bytes: &mut AlignedBytes) -> bool {
    testing::reseal(bytes);
    let plan = match Plan::parse(bytes) {
        Ok(plan) => plan,
        Err(error) => {
            let text = error.to_string();
            assert!(!text.contains('\n') && text.len() < 300, "{text}");
            return false;
        }
    };
    let (height, width) = plan.input();
    let pixels = height as usize * width as usize;
    if testing::work(&plan) > MAX_WORK || plan.arena_len(3) > MAX_ARENA || pixels > 1 << 20 {
        return true;
    }
    let image: Vec<u8> = (0..pixels * 3).map(|i| (i * 89 % 251) as u8).collect();
    let expected = trace(&plan, Kernel::SCALAR, Serial, &image, 0).unwrap();
    for kernel in Kernel::available() {
        let found = trace(&plan, kernel, Backwards(3), &image, 0x80).unwrap();
        assert!(found == expected, "{} differs from scalar", kernel.name());
    }
    // Nor does it show that threads run several ops before they wait for each other.
    let [expected, found] = [
        tensors_after(&plan, Kernel::detect(), Serial, &image, 0x80),
        tensors_after(&plan, Kernel::detect(), Backwards(3), &image, 0x80),
    ];
    assert!(
        found.unwrap() == expected.unwrap(),
        "run together, ops differ"
    );
    true
}

/// Bytes before the data section: header, records and strings.
fn records_len(plan: &[u8]) -> usize {
    let at = format::header::DATA;
    u32::from_le_bytes(plan[at..at + 4].try_into().unwrap()) as usize
}

#[test]
fn every_word_of_the_header_and_the_records_may_hold_anything() {
    let (mut changes, mut tried, mut accepted) = (0, 0, 0);
    let originals = [testing::tiny_plan(1), testing::tiny_block_plan(1)];
    let words = originals
        .iter()
        .flat_map(|plan| (0..records_len(plan)).step_by(4).map(move |at| (plan, at)));
    for (original, at) in words {
        let word = u32::from_le_bytes(original[at..at + 4].try_into().unwrap());
        let values = [
            0,
            1,
            2,
            u32::MAX,
            0x8000_0000,
            0x7F80_0000,
            word.wrapping_add(1),
            word.wrapping_sub(1),
            word.wrapping_add(64),
            word.wrapping_sub(64),
            word.wrapping_mul(2),
            word / 2,
            word ^ 0x0001_0000,
        ];
        for value in values.into_iter().filter(|&value| value != word) {
            changes += 1;
            if changes % stride() != 0 {
                continue;
            }
            let mut plan = original.clone();
            plan[at..at + 4].copy_from_slice(&value.to_le_bytes());
            accepted += usize::from(parse_and_run(&mut plan));
            tried += 1;
        }
    }
    println!("{tried} changed words: {accepted} plans accepted and run, the others refused");
    assert!(tried > 5000 / stride() && accepted > 100 / stride());
}

#[test]
fn every_byte_may_hold_anything() {
    let original = testing::tiny_plan(2);
    let (mut tried, mut accepted) = (0, 0);
    for at in (0..original.len()).step_by(stride()) {
        let mut plan = original.clone();
        plan[at] ^= [0x80, 0x01, 0xFF][at % 3];
        accepted += usize::from(parse_and_run(&mut plan));
        tried += 1;
    }
    println!("{tried} changed bytes: {accepted} plans accepted and run, the others refused");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000 / stride() as u32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn several_fields_may_hold_anything(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u32>(), 0..4_u8), 1..6),
        seed in 0..3_u64,
    ) {
        let mut plan = testing::tiny_plan(seed);
        let words = records_len(&plan) / 4;
        for (index, random, how) in changes {
            let at = index.index(words) * 4;
            let old = u32::from_le_bytes(plan[at..at + 4].try_into().unwrap());
            let new = match how {
                0 => random,
                1 => old.wrapping_add(random % 9).wrapping_sub(4),
                2 => (random % 128) * 64,
                _ => random % 32,
            };
            plan[at..at + 4].copy_from_slice(&new.to_le_bytes());
        }
        parse_and_run(&mut plan);
    }
}

//! Bits that flip in flash.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use rayon::prelude::*;
use vitlet_firmware::Slot;
use vitlet_plan::testing;

use super::inputs::Film;
use super::{A53, OLD};
use crate::film;
use crate::flash::Chip;
use crate::machine::{Boot, Machine, exit};
use crate::run::outcomes;

/// Seeded numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % limit.max(1) as u64) as usize
    }
}

/// 200 bits, each alone, in the plan's header, tables and weights: every one is noticed before anything runs.
pub(super) fn check(machine: &Machine) -> Result<()> {
    const FLIPS: usize = 200;
    let plan = testing::tiny_plan(OLD);
    let chip = Chip::with_plans(&[&plan])?;
    let film = machine.file("flips-film");
    film::write(&film, 100_000, &Film::Three.shots().unwrap_or_default())?;
    let data = u32::from_le_bytes(*plan[64..].first_chunk().context("a header")?) as usize;
    let parts = [
        ("header", 0..256, 50),
        ("tables", 256..data, 50),
        ("weights", data..plan.len(), 100),
    ];
    let mut random = Random(2026);
    let mut places = Vec::new();
    for (part, range, count) in parts {
        for _ in 0..count {
            let byte = range.start + random.below(range.len());
            places.push((part, byte, random.below(8)));
        }
    }
    assert_eq!(places.len(), FLIPS);
    let flip = |(turn, (part, byte, bit)): (usize, &(&str, usize, usize))| -> Result<String> {
        let name = format!("flip-{turn}");
        let flash = machine.file(&name);
        let mut chip = Chip(chip.0.clone());
        chip.0.flip(Chip::plan_offset(Slot::A, *byte), *bit);
        chip.write(&flash)?;
        let boot = Boot {
            cpu: A53,
            flash: Some(&flash),
            film: Some(&film),
            ..Boot::default()
        };
        let ended = machine.boot(&name, &boot)?;
        fs::remove_file(&flash)?;
        ensure!(
            ended.code == exit::NO_PLAN && outcomes(&ended)?.is_empty(),
            "bit {bit} of byte {byte} ({part}): ended with {}:\n{}",
            ended.code,
            ended.log.join("\n")
        );
        let reason = ended
            .log
            .iter()
            .find_map(|line| line.split_once("slot A: "));
        let reason = reason
            .map(|(_, reason)| reason)
            .context("no reason was logged")?;
        Ok(reason
            .split(|c: char| c == ':' || c.is_ascii_digit())
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned())
    };
    let mut reasons: Vec<String> = places
        .par_iter()
        .enumerate()
        .map(flip)
        .collect::<Result<_>>()?;
    reasons.sort();
    println!(
        "  {:<24} {FLIPS} flipped bits, {} rejected:",
        "flips",
        reasons.len()
    );
    for group in reasons.chunk_by(|a, b| a == b) {
        println!("  {:<24} {:>4} × {}", "", group.len(), group[0]);
    }
    Ok(())
}

//! `test`: on bare metal the zoo's models give the bytes that they give under Linux, at the same cost.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use rayon::prelude::*;
use vitlet::{Model, Options, Session};
use vitlet_firmware::{FrameSet, Shot, write_frame_set};
use vitlet_plan::AlignedBytes;

use crate::film::{self, MODES};
use crate::flash::Chip;
use crate::image::{Budget, Counts};
use crate::machine::{Boot, Machine, exit};
use crate::run::{Outcome, outcomes};

/// The boards' CPUs, and the kernel that each chooses.
const CPUS: [(&str, &str); 4] = [
    ("cortex-a53", "neon"),
    ("cortex-a72", "neon"),
    ("cortex-a76", "neon-dotprod"),
    ("max", "neon-i8mm"),
];
/// Simulated microseconds between frames: more than an inference takes at a nanosecond an instruction.
const INTERVAL_US: u32 = 400_000;

/// What is compared.
pub(crate) struct Subject<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) models: &'a [PathBuf],
    pub(crate) photos: &'a Path,
    pub(crate) frames: usize,
    /// budgets/firmware.toml.
    pub(crate) budget: &'a Path,
    /// Write the instructions there.
    pub(crate) bless: bool,
    pub(crate) instructions: &'a Path,
    pub(crate) rustc: &'a str,
}

/// The Linux engine's hash of each frame; `None` for frames that are no frames.
pub(crate) fn expected(plan: &[u8], shots: &[Shot]) -> Result<Vec<Option<String>>> {
    let model = Model::from_bytes(plan, "plan");
    let plan = model.plan()?;
    let mut session = Session::new(&plan, &Options::default())?;
    let block = write_frame_set(INTERVAL_US, shots);
    let film = FrameSet::parse(&block)?;
    let frames = (0..film.count()).filter_map(|index| film.get(index));
    frames
        .map(|captured| {
            let Ok(frame) = captured.frame() else {
                return Ok(None);
            };
            session.classify_frame(&frame, 1)?;
            Ok(Some(session.output_hash().to_string()))
        })
        .collect()
}

/// budgets/instructions.toml: instructions under Linux, by compiler.
#[derive(serde::Deserialize)]
struct Linux {
    measured: BTreeMap<String, Counts>,
}

/// A model on a CPU.
struct Row {
    model: String,
    cpu: &'static str,
    instructions: u64,
    linux: Option<u64>,
    stack: u64,
}

impl Row {
    /// Percent above Linux's.
    fn above(&self) -> Option<f64> {
        self.linux
            .map(|linux| 100.0 * (self.instructions as f64 / linux as f64 - 1.0))
    }
}

pub(crate) fn check(subject: &Subject<'_>) -> Result<()> {
    let text = fs::read_to_string(subject.instructions)?;
    let linux: Linux = toml::from_str(&text)?;
    let linux = linux.measured.get(subject.rustc);
    let budget = Budget::read(subject.budget)?;
    let pairs = subject
        .models
        .iter()
        .flat_map(|model| CPUS.map(|cpu| (model, cpu)));
    let pairs: Vec<_> = pairs.collect();
    let shots = shots(subject)?;
    let rows = pairs
        .into_par_iter()
        .map(|(model, cpu)| row(subject, &shots, model, cpu, linux))
        .collect::<Result<Vec<Row>>>()?;
    println!(
        "  {:<24} {} frames a model, equal to Linux's byte for byte:",
        "equality", subject.frames
    );
    println!(
        "  {:<28} {:<11} {:>13} {:>9} {:>14}",
        "model", "CPU", "instructions", "of Linux", "stack (bytes)"
    );
    for row in &rows {
        let above = row
            .above()
            .map_or("unknown".to_owned(), |above| format!("{above:+.2} %"));
        println!(
            "  {:<28} {:<11} {:>13} {above:>9} {:>14}",
            row.model, row.cpu, row.instructions, row.stack
        );
    }
    let mut counts = Counts::new();
    for row in &rows {
        let of_cpus = counts.entry(row.model.clone()).or_default();
        of_cpus.insert(row.cpu.to_owned(), row.instructions);
        let most = budget.instructions_percent;
        ensure!(
            row.above().is_none_or(|above| above.abs() <= most),
            "{} on {}: {} instructions are more than {most} % from Linux's",
            row.model,
            row.cpu,
            row.instructions
        );
        ensure!(
            row.stack <= budget.stack_bytes,
            "{} on {}: {} bytes of stack, the budget is {}",
            row.model,
            row.cpu,
            row.stack,
            budget.stack_bytes
        );
    }
    if subject.bless {
        return budget.bless(subject.budget, subject.rustc, counts);
    }
    budget.check_measured(subject.rustc, &counts)
}

/// Photos in all of the camera's modes, one after the other.
fn shots(subject: &Subject<'_>) -> Result<Vec<Shot>> {
    let photos = film::photos(subject.photos, subject.frames)?;
    let times = (1..).map(|n| n * INTERVAL_US);
    let modes = MODES.iter().cycle();
    let shots = photos.iter().zip(modes).zip(times);
    shots
        .map(|(((_, photo), mode), at_us)| film::shot(photo, *mode, at_us))
        .collect()
}

fn row(
    subject: &Subject<'_>,
    shots: &[Shot],
    folder: &Path,
    (cpu, kernel): (&'static str, &str),
    linux: Option<&Counts>,
) -> Result<Row> {
    let model = folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let file = |what: &str| subject.machine.file(&format!("{model}-{cpu}-{what}"));
    let (flash, film) = (file("flash"), file("film"));
    let path = folder.join("model.vitlet");
    let plan = fs::read(&path).with_context(|| path.display().to_string())?;
    let plan = AlignedBytes::copy_of(&plan);
    Chip::with_plans(&[&plan])?.write(&flash)?;
    film::write(&film, INTERVAL_US, shots)?;
    let boot = Boot {
        cpu,
        flash: Some(&flash),
        film: Some(&film),
        ..Boot::default()
    };
    let ended = subject.machine.boot(&format!("{model}-{cpu}"), &boot)?;
    fs::remove_file(&flash)?;
    let log = || ended.log.join("\n");
    ensure!(
        ended.code == exit::DONE,
        "{model} on {cpu}: ended with {}:\n{}",
        ended.code,
        log()
    );
    let chosen = format!("kernel {kernel}");
    ensure!(
        ended.log.iter().any(|line| line.ends_with(&chosen)),
        "{model} on {cpu}: not {chosen}:\n{}",
        log()
    );
    let outcomes: Vec<Outcome> = outcomes(&ended)?;
    let hashes: Vec<_> = outcomes
        .iter()
        .map(|outcome| Some(outcome.output_hash.clone()))
        .collect();
    let expected = expected(&plan, shots)?;
    ensure!(
        hashes == expected,
        "{model} on {cpu}: {hashes:?} instead of {expected:?}:\n{}",
        log()
    );
    let stack = ended.log.iter().find_map(|line| {
        line.split_once("stack: ")?
            .1
            .split(' ')
            .next()?
            .parse()
            .ok()
    });
    let instructions = outcomes.last().map_or(0, |outcome| outcome.instructions);
    Ok(Row {
        linux: linux.and_then(|models| models.get(&model)?.get(cpu).copied()),
        model,
        cpu,
        instructions,
        stack: stack.context("the log does not say how much stack was used")?,
    })
}

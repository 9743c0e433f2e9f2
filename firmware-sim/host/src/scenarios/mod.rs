//! `test`: what can go wrong, one boot or several each, with the expected log beside it in `scenarios/`.
//!
//! The scenarios run the tiny network, whose inference takes a millisecond, on the image with feature `inject`; [`equality`] runs the zoo's
//! models on the image that ships.
//!
//! | module | has |
//! |---|---|
//! | `table` | the scenarios, as data |
//! | `inputs` | what the camera shows, and what is in flash |
//! | `normal` | a log without what changes with every build |
//! | `flips` | 200 wrong bits |
//! | `power` | power that fails at every step of an update |

mod flips;
mod inputs;
mod normal;
mod power;
mod table;

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use rayon::prelude::*;
use vitlet_firmware::Shot;
use vitlet_plan::testing;

use self::inputs::{Film, Flash};
use self::normal::normalised;
use self::table::SCENARIOS;
use crate::equality;
use crate::film;
use crate::machine::{Boot, Ended, Machine};
use crate::run::outcomes;

/// Run every scenario, and the zoo's models on every CPU.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image that ships
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// The image with feature `inject`
    #[arg(long, value_name = "FILE")]
    inject: PathBuf,
    /// budgets/firmware.toml
    #[arg(long, value_name = "FILE")]
    budget: PathBuf,
    /// budgets/instructions.toml, whose counts are Linux's
    #[arg(long, value_name = "FILE")]
    instructions: PathBuf,
    /// Version of the compiler that built the image
    #[arg(long, value_name = "VERSION")]
    rustc: String,
    /// The zoo's models: folders with a model.vitlet
    #[arg(long, value_name = "DIR", num_args = 1..)]
    models: Vec<PathBuf>,
    /// Photos for them
    #[arg(long, value_name = "DIR")]
    photos: PathBuf,
    /// Expected logs
    #[arg(long, value_name = "DIR")]
    logs: PathBuf,
    /// Run only scenarios whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Write the expected logs and the instructions of budgets/firmware.toml anew
    #[arg(long)]
    bless: bool,
    /// 10 frames of each model instead of 3
    #[arg(long)]
    full: bool,
}

/// A scenario whose boots follow one another on the same flash.
struct Scenario {
    name: &'static str,
    cpu: &'static str,
    flash: Flash,
    film: Film,
    /// Words of the command line, and how the boot ends.
    boots: &'static [(&'static [&'static str], i32)],
}

/// The smallest of the boards' CPUs, for what does not depend on it.
const A53: &str = "cortex-a53";

/// Seeds of the plans: that in slot A, and the newer one.
const OLD: u64 = 1;
const NEW: u64 = 2;

pub(crate) fn verb(args: &Args) -> Result<()> {
    let start = Instant::now();
    let machine = Machine::new(&args.inject)?;
    let is_asked = |name: &str| {
        args.only
            .as_ref()
            .is_none_or(|text| name.contains(text.as_str()))
    };
    let asked: Vec<&Scenario> = SCENARIOS.iter().filter(|s| is_asked(s.name)).collect();
    fs::create_dir_all(&args.logs)?;
    let results: Vec<Result<()>> = asked.par_iter().map(|s| s.check(&machine, args)).collect();
    let mut failed = 0;
    for (scenario, result) in asked.iter().zip(results) {
        match result {
            Ok(()) => println!("  {:<24} ok", scenario.name),
            Err(error) => {
                failed += 1;
                println!("  {:<24} FAILED: {error:#}", scenario.name);
            }
        }
    }
    ensure!(failed == 0, "{failed} of {} scenarios failed", asked.len());
    if is_asked("flips") {
        flips::check(&machine)?;
    }
    if is_asked("power") {
        power::check(&machine)?;
    }
    if is_asked("equality") {
        let frames = if args.full { 10 } else { 3 };
        equality::check(&equality::Subject {
            machine: &Machine::new(&args.image)?,
            models: &args.models,
            photos: &args.photos,
            frames,
            budget: &args.budget,
            bless: args.bless,
            instructions: &args.instructions,
            rustc: &args.rustc,
        })?;
    }
    println!(
        "firmware: all passed in {:.1} s",
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

impl Scenario {
    fn check(&self, machine: &Machine, args: &Args) -> Result<()> {
        let file = |what: &str| machine.file(&format!("{}-{what}", self.name));
        let flash = file("flash");
        self.flash.chip()?.write(&flash)?;
        let film = self.film.shots();
        let film_file = file("film");
        if let Some(shots) = &film {
            film::write(&film_file, 100_000, shots)?;
        }
        let update = file("update");
        let new = testing::tiny_plan(NEW);
        inputs::write_update(&update, film.as_ref().map(|_| &*new))?;
        let mut text = String::new();
        for (turn, (options, code)) in self.boots.iter().enumerate() {
            let ended = machine.boot(
                self.name,
                &Boot {
                    cpu: self.cpu,
                    flash: Some(&flash),
                    film: film.as_ref().map(|_| film_file.as_path()),
                    update: Some(&update),
                    options: options.iter().map(|word| (*word).to_owned()).collect(),
                    at_el2: self.name == "el2",
                },
            )?;
            ensure!(
                ended.code == *code,
                "boot {}: ended with {} instead of {code}:\n{}",
                turn + 1,
                ended.code,
                ended.log.join("\n")
            );
            if let Some(shots) = &film {
                check_results(&ended, shots)?;
            }
            text += &format!(
                "== boot {} [{}]: exit {code}\n",
                turn + 1,
                options.join(" ")
            );
            text += &normalised(&ended);
        }
        self.compare(args, &text)
    }

    fn compare(&self, args: &Args, text: &str) -> Result<()> {
        let path = args.logs.join(format!("{}.log", self.name));
        if args.bless {
            return Ok(fs::write(path, text)?);
        }
        let expected = fs::read_to_string(&path)
            .with_context(|| format!("{}; write it by --bless, and look at it", path.display()))?;
        for (at, (expected, line)) in expected.lines().zip(text.lines()).enumerate() {
            ensure!(
                expected == line,
                "{} line {}:\n  expected: {expected}\n  logged:   {line}\n(--bless writes the logs anew)",
                path.display(),
                at + 1
            );
        }
        let [lines, expected] = [text, &expected].map(|text| text.lines().count());
        ensure!(
            lines == expected,
            "{lines} lines logged, {expected} expected in {}",
            path.display()
        );
        Ok(())
    }
}

/// Every result is the Linux engine's for one of the two plans.
fn check_results(ended: &Ended, shots: &[Shot]) -> Result<()> {
    let plans = [OLD, NEW].map(testing::tiny_plan);
    let expected = plans
        .iter()
        .map(|plan| equality::expected(plan, shots))
        .collect::<Result<Vec<_>>>()?;
    for outcome in outcomes(ended)? {
        let mut of_plans = expected
            .iter()
            .filter_map(|of_plan| of_plan.get(outcome.frame));
        ensure!(
            of_plans.any(|expected| expected.as_ref() == Some(&outcome.output_hash)),
            "frame {}: hash {} is that of neither plan on Linux",
            outcome.frame,
            outcome.output_hash
        );
    }
    Ok(())
}

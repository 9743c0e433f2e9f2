//! `test`: what can go wrong, one boot or several each, with the expected log beside it in `scenarios/`.
//!
//! The scenarios run the tiny network, whose inference takes a millisecond, on the image with feature `inject`; [`equality`] runs the zoo's
//! models on the image that ships.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use rayon::prelude::*;
use vitlet_firmware::{Shot, Slot};
use vitlet_plan::{AlignedBytes, testing};
use vitlet_preprocess::PixelFormat;

use crate::equality;
use crate::film;
use crate::flash::Chip;
use crate::image::Budget;
use crate::machine::{Boot, Ended, Machine, exit};
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
    /// Write the expected logs anew
    #[arg(long)]
    bless: bool,
    /// 10 frames of each model instead of 3
    #[arg(long)]
    full: bool,
}

/// What the camera shows.
#[derive(Clone, Copy)]
enum Film {
    /// Nothing: its memory is empty.
    None,
    /// Three frames, a tenth of a second apart.
    Three,
    /// The second of three is shorter than it says, the third of a format that does not exist.
    WrongSize,
    /// Three frames, then twenty of them at ten times the rate and more than the queue can take, then one.
    Burst,
    /// Two frames, nothing for a second, two frames.
    Gap,
}

/// What is in flash.
#[derive(Clone, Copy)]
enum Flash {
    Empty,
    /// A plan in slot A.
    One,
    /// An older plan in A, a newer one in B.
    Two,
    /// The newer plan breaks off in the middle.
    Truncated,
    /// The newer plan is of a later version of the format.
    LaterVersion,
    /// Both plans have a wrong bit.
    BothDamaged,
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

const A53: &str = "cortex-a53";
const ONCE: &[(&[&str], i32)] = &[(&[], exit::DONE)];

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "frames",
        cpu: A53,
        flash: Flash::One,
        film: Film::Three,
        boots: ONCE,
    },
    Scenario {
        name: "el2",
        cpu: A53,
        flash: Flash::One,
        film: Film::Three,
        boots: ONCE,
    },
    Scenario {
        name: "boot-counter",
        cpu: A53,
        flash: Flash::Two,
        film: Film::Three,
        boots: &[(&[], exit::DONE), (&[], exit::DONE), (&[], exit::DONE)],
    },
    Scenario {
        name: "no-plan",
        cpu: A53,
        flash: Flash::Empty,
        film: Film::Three,
        boots: &[(&[], exit::NO_PLAN)],
    },
    Scenario {
        name: "no-frames",
        cpu: A53,
        flash: Flash::One,
        film: Film::None,
        boots: &[(&[], exit::CAMERA)],
    },
    Scenario {
        name: "truncated-slot",
        cpu: A53,
        flash: Flash::Truncated,
        film: Film::Three,
        boots: ONCE,
    },
    Scenario {
        name: "later-version",
        cpu: A53,
        flash: Flash::LaterVersion,
        film: Film::Three,
        boots: ONCE,
    },
    Scenario {
        name: "both-damaged",
        cpu: A53,
        flash: Flash::BothDamaged,
        film: Film::Three,
        boots: &[(&[], exit::NO_PLAN)],
    },
    Scenario {
        name: "frame-of-wrong-size",
        cpu: A53,
        flash: Flash::One,
        film: Film::WrongSize,
        boots: ONCE,
    },
    Scenario {
        name: "burst",
        cpu: A53,
        flash: Flash::One,
        film: Film::Burst,
        boots: ONCE,
    },
    Scenario {
        name: "stalled-camera",
        cpu: A53,
        flash: Flash::One,
        film: Film::Gap,
        boots: ONCE,
    },
    Scenario {
        name: "small-arena",
        cpu: A53,
        flash: Flash::One,
        film: Film::Three,
        boots: &[(&["arena=4096"], exit::NO_PLAN)],
    },
    Scenario {
        name: "stack-overflow",
        cpu: A53,
        flash: Flash::One,
        film: Film::Three,
        boots: &[(&["inject=overflow"], exit::EXCEPTION)],
    },
    Scenario {
        name: "undefined-instruction",
        cpu: A53,
        flash: Flash::One,
        film: Film::Three,
        boots: &[(&["inject=udf"], exit::EXCEPTION)],
    },
    Scenario {
        name: "write-to-plan",
        cpu: A53,
        flash: Flash::One,
        film: Film::Three,
        boots: &[(&["inject=write-plan"], exit::EXCEPTION)],
    },
    Scenario {
        name: "stalled-inference",
        cpu: A53,
        flash: Flash::One,
        film: Film::Three,
        boots: &[(&["inject=stall"], exit::WATCHDOG)],
    },
    Scenario {
        name: "missing-kernel",
        cpu: A53,
        flash: Flash::One,
        film: Film::Three,
        boots: &[
            (&["kernel=neon-i8mm"], exit::OPTIONS),
            (&["kernel=avx2"], exit::OPTIONS),
            (&["kernel=neno"], exit::OPTIONS),
        ],
    },
    Scenario {
        name: "unknown-option",
        cpu: A53,
        flash: Flash::One,
        film: Film::Three,
        boots: &[(&["updat"], exit::OPTIONS)],
    },
    Scenario {
        name: "forced-kernel",
        cpu: "max",
        flash: Flash::One,
        film: Film::Three,
        boots: &[
            (&["kernel=scalar"], exit::DONE),
            (&["kernel=neon"], exit::DONE),
            (&["kernel=neon-dotprod"], exit::DONE),
            (&["kernel=neon-i8mm"], exit::DONE),
        ],
    },
    Scenario {
        name: "update",
        cpu: A53,
        flash: Flash::One,
        film: Film::Three,
        boots: &[(&["update"], exit::DONE), (&[], exit::DONE)],
    },
    Scenario {
        name: "update-without-plan",
        cpu: A53,
        flash: Flash::One,
        film: Film::None,
        boots: &[(&["update"], exit::UPDATE)],
    },
    Scenario {
        name: "plan-without-result",
        cpu: A53,
        flash: Flash::One,
        film: Film::Three,
        boots: &[
            (&[], exit::DONE),
            (&["update", "inject=hang"], exit::POWER_LOST),
            (&["inject=hang"], exit::POWER_LOST),
            (&["inject=hang"], exit::POWER_LOST),
            (&[], exit::DONE),
        ],
    },
];

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
        flips(&machine)?;
    }
    if is_asked("power") {
        power(&machine)?;
    }
    if is_asked("equality") {
        let frames = if args.full { 10 } else { 3 };
        equality::check(&equality::Subject {
            machine: &Machine::new(&args.image)?,
            models: &args.models,
            photos: &args.photos,
            frames,
            budget: &Budget::read(&args.budget)?,
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
        let new = testing::tiny_plan(NEW);
        let update = file("update");
        // The firmware's layout: the length, then the plan at 64.
        let mut bytes = vec![0; 64];
        if film.is_some() {
            bytes[..8].copy_from_slice(&(new.len() as u64).to_le_bytes());
            bytes.extend_from_slice(&new);
        }
        fs::write(&update, bytes)?;
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

impl Film {
    fn shots(self) -> Option<Vec<Shot>> {
        let at = |ms: &[u32]| ms.iter().map(|ms| tiny_shot(*ms)).collect::<Vec<_>>();
        Some(match self {
            Self::None => return None,
            Self::Three => at(&[100, 200, 300]),
            Self::WrongSize => {
                let mut shots = at(&[100, 200, 300]);
                shots[1].data.truncate(1000);
                shots[2].width = 20_000;
                shots
            }
            Self::Burst => {
                let burst = (0..20).map(|n| 400_000 + n * 100);
                let mut shots = at(&[100, 200, 300]);
                shots.extend(burst.map(|at_us| Shot {
                    at_us,
                    ..tiny_shot(at_us / 100)
                }));
                shots.push(tiny_shot(500));
                shots
            }
            Self::Gap => at(&[100, 200, 1200, 1300]),
        })
    }
}

/// A frame with a pattern of its own.
fn tiny_shot(at_ms: u32) -> Shot {
    let (width, height) = (32, 24);
    let pixel = |n: u32| (n.wrapping_mul(at_ms + 7) >> 3) as u8;
    Shot {
        at_us: at_ms * 1000,
        format: PixelFormat::Yuyv,
        width,
        height,
        data: (0..width * height * 2).map(pixel).collect(),
    }
}

impl Flash {
    fn chip(self) -> Result<Chip> {
        let [old, new] = [OLD, NEW].map(testing::tiny_plan);
        let two = || Chip::with_plans(&[&old, &new]);
        let at = Chip::plan_offset;
        Ok(match self {
            Self::Empty => Chip::empty(),
            Self::One => Chip::with_plans(&[&old])?,
            Self::Two => two()?,
            Self::Truncated => {
                let mut chip = two()?;
                chip.0
                    .fill(at(Slot::B, new.len() / 2)..at(Slot::B, new.len()), 0xff);
                chip
            }
            Self::LaterVersion => {
                let mut later = AlignedBytes::copy_of(&new);
                later[8] += 1;
                testing::reseal(&mut later);
                // As a later firmware would install it: this one's `install` refuses.
                let mut chip = two()?;
                for (byte, value) in later.iter().enumerate() {
                    chip.0
                        .fill(at(Slot::B, byte)..at(Slot::B, byte + 1), *value);
                }
                chip
            }
            Self::BothDamaged => {
                let mut chip = two()?;
                chip.0.flip(at(Slot::A, 12_345), 3);
                chip.0.flip(at(Slot::B, 400), 5);
                chip
            }
        })
    }
}

/// The log without what changes with every build: times, sizes, addresses, counts of instructions.
fn normalised(ended: &Ended) -> String {
    let is_size = |line: &&String| {
        ["image: ", "RAM: "]
            .iter()
            .any(|part| line[6..].starts_with(part))
    };
    let kept = ended.log.iter().filter(|line| !is_size(line));
    kept.map(|line| normalised_line(line) + "\n").collect()
}

fn normalised_line(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let is_result = words.iter().any(|word| *word == "result");
    let word = |at: usize| {
        let word = words[at];
        let next = words.get(at + 1).copied().unwrap_or_default();
        let is_time = ["us", "us,", "ms", "ms:"].contains(&next);
        let is_stack = at > 0 && words[at - 1] == "stack:";
        let is_count = is_result && at + 1 == words.len();
        let is_address = word.starts_with("0x") && word.len() > 7;
        if is_address {
            let end = word.trim_start_matches(|c: char| c.is_ascii_alphanumeric());
            return format!("0x…{end}");
        }
        if is_time || is_stack || is_count {
            "…".to_owned()
        } else {
            word.to_owned()
        }
    };
    (0..words.len()).map(word).collect::<Vec<_>>().join(" ")
}

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
fn flips(machine: &Machine) -> Result<()> {
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

/// An update whose power fails before, and amid, each of its steps: the next boot runs a whole plan.
fn power(machine: &Machine) -> Result<()> {
    let [old, new] = [OLD, NEW].map(testing::tiny_plan);
    let chip = Chip::with_plans(&[&old])?;
    let shots = Film::Three.shots().unwrap_or_default();
    let film = machine.file("power-film");
    film::write(&film, 100_000, &shots)?;
    let update = machine.file("power-update");
    let mut bytes = vec![0; 64];
    bytes[..8].copy_from_slice(&(new.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&new);
    fs::write(&update, bytes)?;
    let boot = |name: &str, flash: &std::path::Path, options: &[&str]| {
        let options = options.iter().map(|word| (*word).to_owned()).collect();
        let boot = Boot {
            cpu: A53,
            flash: Some(flash),
            film: Some(&film),
            update: Some(&update),
            options,
            at_el2: false,
        };
        machine.boot(name, &boot)
    };
    let flash = machine.file("power-whole");
    chip.write(&flash)?;
    let whole = boot("power-whole", &flash, &["update"])?;
    let steps = whole.log.iter().find_map(|line| {
        line.split_once("update: ")?
            .1
            .strip_suffix(" steps")?
            .parse::<usize>()
            .ok()
    });
    let steps = steps.context("the log does not say how many steps the update has")?;
    let of_plans = [&old, &new].map(|plan| equality::expected(plan, &shots));
    let [of_old, of_new] = of_plans;
    let (of_old, of_new) = (of_old?, of_new?);
    let cut = |(step, word): (usize, &str)| -> Result<bool> {
        let name = format!("{word}-{step}");
        let flash = machine.file(&name);
        chip.write(&flash)?;
        let lost = boot(&name, &flash, &["update", &format!("inject={word}:{step}")])?;
        ensure!(
            lost.code == exit::POWER_LOST,
            "{word} {step}: ended with {}",
            lost.code
        );
        let after = boot(&name, &flash, &[])?;
        fs::remove_file(&flash)?;
        let hashes: Vec<_> = outcomes(&after)?
            .into_iter()
            .map(|outcome| Some(outcome.output_hash))
            .collect();
        if after.code == exit::DONE && hashes == of_old {
            return Ok(false);
        }
        // Only the last step, cut after its last bit was written, may have got through.
        if after.code == exit::DONE && hashes == of_new && step + 1 == steps {
            return Ok(true);
        }
        bail!(
            "{word} {step}: the next boot ended with {}:\n{}",
            after.code,
            after.log.join("\n")
        )
    };
    let cuts: Vec<(usize, &str)> = (0..steps)
        .flat_map(|step| [(step, "power"), (step, "power-amid")])
        .collect();
    let new_ran: Vec<bool> = cuts.into_par_iter().map(cut).collect::<Result<_>>()?;
    println!(
        "  {:<24} {} power cuts in {steps} steps: a whole plan ran after each",
        "power",
        new_ran.len()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_with_every_build_is_left_out_of_logs() {
        let lines = [
            (
                "info  frame 0: class 8, preprocess 70 us, age 1290 us",
                "info  frame 0: class 8, preprocess … us, age … us",
            ),
            ("info  result 0 788b 8 123456", "info  result 0 788b 8 …"),
            (
                "info  stack: 9312 of 32768 bytes used",
                "info  stack: … of 32768 bytes used",
            ),
            (
                "error exception: data abort at 0x40168300, esr 0x96000047",
                "error exception: data abort at 0x…, esr 0x…",
            ),
            (
                "info  fault at 400 ms: bad frame, 1, 1 times",
                "info  fault at … ms: bad frame, 1, 1 times",
            ),
        ];
        for (line, expected) in lines {
            assert_eq!(normalised_line(line), expected);
        }
    }
}

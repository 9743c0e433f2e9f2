//! `run`: a plan on some frames.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use crate::film::{self, MODES};
use crate::flash::Chip;
use crate::machine::{Boot, Ended, Machine, exit};

/// Run a plan on frames, on bare metal in QEMU.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
With --json, a line for each frame:
  {\"frame\",\"output_hash\",\"top\",\"instructions\"}
output_hash is that of `vitlet classify --json` for the same pixels; instructions are those of the inference.")]
pub(crate) struct Args {
    /// The image
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// A CPU that QEMU knows: cortex-a53, cortex-a72, cortex-a76, max
    #[arg(long, value_name = "C", default_value = "cortex-a53")]
    cpu: String,
    /// The plan, made by `vitlet compile`
    #[arg(long, value_name = "FILE")]
    plan: PathBuf,
    /// A folder of photos, which become the camera's frames
    #[arg(long, value_name = "DIR")]
    frames: PathBuf,
    /// Frames at most
    #[arg(long, value_name = "N", default_value_t = 3)]
    count: usize,
    /// Frames a second of the simulated camera; an instruction takes a nanosecond
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    fps: u32,
    /// Force a kernel: scalar, neon, neon-dotprod, neon-i8mm
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// Print JSON lines instead of the firmware's log
    #[arg(long)]
    json: bool,
}

/// A frame's result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Outcome {
    pub(crate) frame: usize,
    pub(crate) output_hash: String,
    pub(crate) top: usize,
    pub(crate) instructions: u64,
}

/// The results in a log: `result FRAME HASH CLASS INSTRUCTIONS`.
pub(crate) fn outcomes(ended: &Ended) -> Result<Vec<Outcome>> {
    let results = ended.log.iter();
    let results = results.filter_map(|line| line.get(6..)?.strip_prefix("result "));
    results
        .map(|result| {
            let words: Vec<&str> = result.split_whitespace().collect();
            let [frame, hash, top, instructions] = words[..] else {
                bail!("a result of {} words: {result}", words.len());
            };
            Ok(Outcome {
                frame: frame.parse()?,
                output_hash: hash.to_owned(),
                top: top.parse()?,
                instructions: instructions.parse()?,
            })
        })
        .collect()
}

pub(crate) fn verb(args: &Args) -> Result<()> {
    let machine = Machine::new(&args.image)?;
    let plan = fs::read(&args.plan).with_context(|| args.plan.display().to_string())?;
    let (flash, film) = (machine.file("flash"), machine.file("film"));
    // `install` verifies; a plan at an address of 64 is what it asks for.
    Chip::with_plans(&[&vitlet_plan::AlignedBytes::copy_of(&plan)])?.write(&flash)?;
    let interval_us = 1_000_000 / args.fps;
    let photos = film::photos(&args.frames, args.count)?;
    let times = (1..).map(|n| n * interval_us);
    let shots = times
        .zip(&photos)
        .map(|(at_us, (_, photo))| film::shot(photo, MODES[0], at_us));
    film::write(&film, interval_us, &shots.collect::<Result<Vec<_>>>()?)?;
    let kernel = args.kernel.iter().map(|name| format!("kernel={name}"));
    let ended = machine.boot(
        "run",
        &Boot {
            cpu: &args.cpu,
            flash: Some(&flash),
            film: Some(&film),
            options: kernel.collect(),
            ..Boot::default()
        },
    )?;
    if args.json && ended.code == exit::DONE {
        for outcome in outcomes(&ended)? {
            println!("{}", serde_json::to_string(&outcome)?);
        }
    } else {
        ended.log.iter().for_each(|line| println!("{line}"));
    }
    if ended.code != exit::DONE {
        bail!("the firmware ended with {}", ended.code);
    }
    Ok(())
}

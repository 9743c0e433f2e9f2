//! `cargo xtask camera-rate`: what of the benchmark's rate `vitlet camera` keeps.
//!
//! `vitlet bench` classifies one image again and again. The camera pipeline has a picture made, resized and classified, and all of its
//! threads share the CPUs. Where the source is the faster one, only inference should take time. Both are run in turns, the first of a
//! pair by turns, too. It is a report, not a test: no figure of it fails. The system test has the same on the boards' program.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::dist;
use crate::machine::Machine;
use crate::pairs::{Running, Spread, bench_per_s};
use crate::project::Project;
use crate::quantile::median;

/// Compare frames a second of `vitlet camera test:` at full speed with `vitlet bench` on as many threads; prints a table for
/// docs/reliability.md.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Pairs that are run
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// Inferences of each program
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..))]
    frames: u32,
    /// Threads of an inference
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Frames a second of the source
    #[arg(long, value_name = "RATE", default_value_t = 1000)]
    fps: u32,
    /// The pictures' size
    #[arg(long, value_name = "WIDTHxHEIGHT", default_value = "640x480", value_parser = size)]
    size: (u32, u32),
    /// The program to measure [default: target/release/vitlet, built anew]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// Inferences a second.
struct Pair {
    /// By the median time of one.
    bench: f64,
    /// Frames by the time they took.
    camera: f64,
}

pub(crate) fn verb(project: &Project, args: &Args) -> Result<()> {
    let program = dist::chosen(project, args.program.as_deref())?;
    let bench = || bench_per_s(&Running::start(project, bench(&program, args))?.finish()?);
    let camera = || camera_per_s(&Running::start(project, camera(&program, args))?.finish()?);
    println!("    bench   camera  ratio");
    let mut pairs = Vec::new();
    for index in 0..args.pairs {
        let pair = if index % 2 == 0 {
            let bench = bench()?;
            let camera = camera()?;
            Pair { bench, camera }
        } else {
            let camera = camera()?;
            let bench = bench()?;
            Pair { bench, camera }
        };
        println!(
            "{:9.1} {:8.1} {:6.2}",
            pair.bench,
            pair.camera,
            pair.ratio()
        );
        pairs.push(pair);
    }
    let machine = Machine::this(project)?.now(project)?;
    print!("{}", report(args, &pairs, &machine));
    Ok(())
}

/// 640 and 480 from `640x480`.
fn size(text: &str) -> Result<(u32, u32)> {
    let (width, height) = text.split_once('x').context("write it as 640x480")?;
    Ok((width.parse()?, height.parse()?))
}

fn bench(program: &Path, args: &Args) -> Command {
    let mut command = Command::new(program);
    command.args(["bench", "--json", "--iterations", &args.frames.to_string()]);
    command.args(["--threads", &args.threads.to_string()]);
    command
}

fn camera(program: &Path, args: &Args) -> Command {
    let mut command = Command::new(program);
    command.args(["camera", "test:", "--json", "--fps", &args.fps.to_string()]);
    let (width, height) = args.size;
    command.args([
        "--width",
        &width.to_string(),
        "--height",
        &height.to_string(),
    ]);
    command.args(["--frames", &args.frames.to_string()]);
    command.args(["--threads", &args.threads.to_string()]);
    command
}

/// The rate in the last record of `vitlet camera`, which must have had more frames than it could classify.
fn camera_per_s(records: &str) -> Result<f64> {
    let last = records.lines().last().unwrap_or_default();
    let end: Value = serde_json::from_str(last).context("the end record of vitlet camera")?;
    let number = |name: &str| {
        let value = end[name].as_f64();
        value.with_context(|| format!("no {name} in vitlet camera's last record: {end}"))
    };
    ensure!(
        number("dropped")? > number("frames")?,
        "the source was not twice as fast as inference; give it more --fps: {end}"
    );
    number("per_s")
}

impl Pair {
    fn ratio(&self) -> f64 {
        self.camera / self.bench
    }
}

fn report(args: &Args, pairs: &[Pair], machine: &str) -> String {
    let (width, height) = args.size;
    let of = |figure: fn(&Pair) -> f64| median(pairs.iter().map(figure));
    format!(
        "threads of an inference: {}; a source of {} frames/s of {width}x{height}; medians of {} pairs\n\
         {machine}\n\
         vitlet bench, 1000/median ms   {:.1}\n\
         vitlet camera, frames/s        {:.1}\n\
         ratio, pair by pair            {}\n",
        args.threads,
        args.fps,
        pairs.len(),
        of(|pair| pair.bench),
        of(|pair| pair.camera),
        Spread::of(pairs.iter().map(Pair::ratio)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        let pairs = [(100.0, 90.0), (10.0, 9.5), (50.0, 40.0)];
        let pairs = pairs.map(|(bench, camera)| Pair { bench, camera });
        let args = Args {
            pairs: 3,
            frames: 400,
            threads: 1,
            fps: 1000,
            size: (640, 480),
            program: None,
        };
        let report = report(&args, &pairs, "a machine");
        assert!(report.contains("1000 frames/s of 640x480"), "{report}");
        assert!(report.contains("1000/median ms   50.0\n"), "{report}");
        assert!(report.contains("frames/s        40.0\n"), "{report}");
        assert!(report.contains("median 0.90"), "{report}");
    }

    #[test]
    fn sizes_are_read() {
        assert!(size("320x240").is_ok_and(|size| size == (320, 240)));
        assert!(
            ["320", "x240", "320*240"]
                .iter()
                .all(|text| size(text).is_err())
        );
    }

    #[test]
    fn a_source_that_inference_waits_for_says_nothing() -> Result<()> {
        let records = |dropped| {
            format!(
                "{{\"event\":\"frame\"}}\n{{\"frames\":400,\"dropped\":{dropped},\"per_s\":99.5}}\n"
            )
        };
        assert_eq!(camera_per_s(&records(900))?, 99.5);
        assert!(camera_per_s(&records(400)).is_err());
        assert!(camera_per_s("").is_err());
        Ok(())
    }
}

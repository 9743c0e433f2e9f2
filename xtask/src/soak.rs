//! `cargo xtask soak`: `vitlet camera` at full speed for an hour, with viewers and, every other minute, with attackers.
//!
//! A moving test picture comes faster than it can be classified, so that nothing ever waits. Minute by minute: frames a second,
//! memory, age and times of frames. At the end a SIGINT, which the program must answer with its summary. A report for
//! docs/reliability.md, and a failure where frames were late, memory grew, the stop was missed, or attackers took its rate.

mod attack;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::dist;
use crate::machine::Machine;
use crate::project::Project;
use crate::quantile::{median, quantile};
use crate::soak::attack::Traffic;

/// Minutes at the start that memory may still grow in: buffers are made when they are first needed.
const WARM_UP: usize = 3;
/// Memory that may come and go: a viewer's connection has a buffer and a picture.
const SLACK: f64 = 8e6;
/// Attackers share the CPU with what they attack, so this is for minutes in which both have a core.
const KEPT: f64 = 0.8;

/// Run the camera pipeline at full speed and watch its rate and memory; prints a table for docs/reliability.md.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Minutes to run; at least 4
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(4..))]
    minutes: u64,
    /// The program to run [default: target/release/vitlet, built anew]
    #[arg(long, value_name = "FILE")]
    program: Option<std::path::PathBuf>,
}

/// What was seen in a minute.
struct Minute {
    attacked: bool,
    per_s: f64,
    rss: f64,
    inference: f64,
    age: f64,
    late: usize,
}

pub(crate) fn verb(project: &Project, args: &Args) -> Result<()> {
    let program = dist::chosen(project, args.program.as_deref())?;
    let mut camera = Camera::start(&program)?;
    let traffic = Traffic::start(&camera.url)?;
    let mut minutes = vec![];
    println!("{HEADER}");
    for index in 0..args.minutes {
        // The first minutes are quiet, then every other one.
        let attacked = index as usize >= WARM_UP && index % 2 == 1;
        traffic.attack(attacked);
        let minute = camera.minute(attacked)?;
        println!("{}", minute.row(index + 1));
        minutes.push(minute);
    }
    traffic.attack(false);
    let (stop, end) = camera.stop()?;
    let served = traffic.stop();
    print!(
        "{}",
        report(&minutes, stop, &end, &served, &Machine::this(project)?)
    );
    check(&minutes, &end)
}

/// The program, and the lines it prints.
struct Camera {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    url: String,
}

impl Camera {
    fn start(program: &std::path::Path) -> Result<Self> {
        let mut child = Command::new(program)
            .args(["camera", "test:", "--fps", "100000", "--json"])
            .args(["--preview", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} cannot be run", program.display()))?;
        let stdout = child
            .stdout
            .take()
            .context("its standard output is a pipe")?;
        let mut lines = BufReader::new(stdout).lines();
        let start: Value = serde_json::from_str(&lines.next().context("no start record")??)?;
        let url = start["preview"].as_str().context("no preview")?.to_owned();
        Ok(Self { child, lines, url })
    }

    fn record(&mut self) -> Result<Option<Value>> {
        let Some(line) = self.lines.next() else {
            return Ok(None);
        };
        Ok(Some(serde_json::from_str(&line?)?))
    }

    /// Reads frames for a minute.
    fn minute(&mut self, attacked: bool) -> Result<Minute> {
        let start = Instant::now();
        let (mut inference, mut age, mut late) = (vec![], vec![], 0);
        while start.elapsed() < Duration::from_secs(60) {
            let frame = self.record()?.context("it ended by itself")?;
            ensure!(frame["event"] == "frame", "an unexpected record: {frame}");
            inference.push(number(&frame["ms"]["inference"])?);
            age.push(number(&frame["age_ms"])?);
            late += usize::from(frame["late"] == true);
        }
        Ok(Minute {
            attacked,
            per_s: inference.len() as f64 / start.elapsed().as_secs_f64(),
            rss: resident(self.child.id())?,
            inference: median(inference),
            age: quantile(age, 0.99),
            late,
        })
    }

    /// Asks it to stop; the time until it has, and its last record.
    fn stop(mut self) -> Result<(Duration, Value)> {
        let start = Instant::now();
        let process = self.child.id().to_string();
        let status = Command::new("kill")
            .args(["-s", "INT", &process])
            .status()?;
        ensure!(status.success(), "kill failed");
        let mut last = Value::Null;
        while let Some(record) = self.record()? {
            last = record;
        }
        let status = self.child.wait()?;
        ensure!(status.success(), "it ended with {status}");
        ensure!(last["reason"] == "signal", "the last record is {last}");
        Ok((start.elapsed(), last))
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        // Already gone, if all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn number(value: &Value) -> Result<f64> {
    value
        .as_f64()
        .with_context(|| format!("{value} is no number"))
}

/// Bytes of memory of a process.
fn resident(process: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))
        .context("no VmRSS: this needs Linux")?;
    Ok(kilobytes.trim().parse::<f64>()? * 1024.0)
}

const HEADER: &str = "| minute | attacked | frames/s | RSS, MB | inference, ms | age p99, ms | late |\n\
                      |---|---|---|---|---|---|---|";

impl Minute {
    fn row(&self, number: u64) -> String {
        let Self {
            attacked,
            per_s,
            rss,
            inference,
            age,
            late,
        } = self;
        let attacked = if *attacked { "yes" } else { "" };
        let rss = rss / 1e6;
        format!(
            "| {number} | {attacked} | {per_s:.1} | {rss:.2} | {inference:.2} | {age:.1} | {late} |"
        )
    }
}

/// Frames per second of attacked minutes by those of the quiet minutes beside them.
fn kept(minutes: &[Minute]) -> f64 {
    let ratios = minutes.windows(3).filter_map(|window| match window {
        [before, attacked, after] if attacked.attacked => {
            Some(2.0 * attacked.per_s / (before.per_s + after.per_s))
        }
        _ => None,
    });
    median(ratios)
}

fn grown(minutes: &[Minute]) -> f64 {
    let settled = minutes.get(WARM_UP..).unwrap_or_default();
    let (first, rest) = settled.split_at(settled.len() / 2);
    let most = |minutes: &[Minute]| minutes.iter().map(|minute| minute.rss).fold(0.0, f64::max);
    most(rest) - most(first)
}

fn report(
    minutes: &[Minute],
    stop: Duration,
    end: &Value,
    served: &attack::Served,
    machine: &Machine,
) -> String {
    format!(
        "\n{} minutes on {} ({} CPUs)\n\
         frames: {} classified, {} dropped, {} late\n\
         memory: the second half's most is {:.2} MB above the first half's\n\
         viewers: {} pictures read; attackers: {} connections, {} answers without 401 or 4xx\n\
         rate under attack: {:.2} of the minutes beside\n\
         SIGINT to end: {:.0} ms\n",
        minutes.len(),
        machine.cpu,
        machine.cpus,
        end["frames"],
        end["dropped"],
        end["late"],
        grown(minutes) / 1e6,
        served.pictures,
        served.attacks,
        served.wrong,
        kept(minutes),
        stop.as_secs_f64() * 1e3,
    )
}

fn check(minutes: &[Minute], end: &Value) -> Result<()> {
    ensure!(end["late"] == 0, "{} frames were late", end["late"]);
    let grown = grown(minutes);
    ensure!(grown < SLACK, "memory grew by {:.1} MB", grown / 1e6);
    let kept = kept(minutes);
    // NaN if there was no attacked minute between two others.
    ensure!(
        kept.is_nan() || kept >= KEPT,
        "attackers left {kept:.2} of its rate"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute(attacked: bool, per_s: f64, rss: f64) -> Minute {
        Minute {
            attacked,
            per_s,
            rss,
            inference: 1.0,
            age: 1.0,
            late: 0,
        }
    }

    #[test]
    fn growth_and_attacks_are_seen() {
        let flat: Vec<Minute> = (0..9).map(|i| minute(i % 2 == 1, 10.0, 20e6)).collect();
        let end = serde_json::json!({"late": 0});
        assert!(check(&flat, &end).is_ok());
        assert!(check(&flat, &serde_json::json!({"late": 1})).is_err());
        let growing: Vec<Minute> = (0..9)
            .map(|i| minute(false, 10.0, 20e6 + f64::from(i) * 4e6))
            .collect();
        assert!(check(&growing, &end).is_err());
        let slowed: Vec<Minute> = (0..9)
            .map(|i| minute(i % 2 == 1, if i % 2 == 1 { 5.0 } else { 10.0 }, 20e6))
            .collect();
        assert!(check(&slowed, &end).is_err());
    }
}

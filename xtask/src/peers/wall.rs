//! Time, memory and agreement, on this machine.
//!
//! Machines are shared and clocks change, so a time means little by itself. Every contender is therefore timed in pairs with the
//! reference: both programs wait with the model loaded, and take turns of some inferences each, A B A B. The figure is the median over
//! the pairs of the ratio of the two turns' medians.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use xshell::cmd;

use super::contender::Contender;
use super::programs::Programs;
use super::subject::{COMPARED, Subject};
use crate::machine::Machine;
use crate::quantile::{median, quantile};

/// Processes that load and first inference are measured in.
const LOADS: usize = 5;
pub(super) const THREADS: [usize; 2] = [1, 2];
/// A turn is this long, or three inferences.
const TURN_MS: f64 = 200.0;
const FEWEST: usize = 3;
const MOST: usize = 40;
/// Pairs of turns that quartiles need.
const FEWEST_PAIRS: usize = 5;
/// Engines keep their threads spinning for some milliseconds after an inference, which is not to slow the other's turn.
const PAUSE: Duration = Duration::from_millis(50);
/// What f32 outputs must agree to, or the programs do not run the same network on the same image.
const SAME: f64 = 0.9999;

/// What was measured of a model.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Timed {
    pub(super) date: String,
    /// The commit of vitlet.
    pub(super) commit: String,
    pub(super) machine: Machine,
    pub(super) rows: BTreeMap<String, TimedRow>,
}

/// Of a contender; an engine may fail on a model.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum TimedRow {
    Failed(String),
    Measured(Measured),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Measured {
    /// What the engine says of itself.
    pub(super) detail: String,
    pub(super) load_ms: f64,
    pub(super) first_ms: f64,
    pub(super) vm_hwm_bytes: u64,
    /// With the reference's f32 outputs, over all images.
    pub(super) cosine: f64,
    /// Images whose best class is that of the reference's f32 outputs.
    pub(super) top1: usize,
    pub(super) images: usize,
    /// By number of threads.
    pub(super) times: BTreeMap<usize, Paired>,
}

/// A contender's time beside the reference's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Paired {
    /// Median of the turns.
    pub(super) ms: f64,
    /// Of the contender's time to the reference's: first quartile, median, third quartile over the pairs.
    pub(super) ratio: [f64; 3],
    pub(super) pairs: usize,
}

/// What a program prints.
#[derive(Debug, Clone, Deserialize)]
struct Report {
    detail: String,
    load_ms: f64,
    first_ms: f64,
    ms: Vec<f64>,
    vm_hwm_bytes: u64,
    outputs: Vec<Vec<f32>>,
}

pub(super) fn measure(programs: &Programs<'_>, subject: &Subject, pairs: usize) -> Result<Timed> {
    let truth = Peer::start(programs, subject, Contender::TRUTH, 1, COMPARED)?;
    let truth = &truth.report.outputs;
    let mut rows = BTreeMap::new();
    for contender in Contender::ALL {
        let label = contender.label();
        let pairs = match contender {
            Contender::VITLET => pairs,
            _ => pairs.div_ceil(4).max(FEWEST_PAIRS),
        };
        let row = match measure_one(programs, subject, contender, pairs, truth) {
            Ok(measured) => TimedRow::Measured(measured),
            Err(error) => {
                println!("{}: {label}: FAILED: {error:#}", subject.name);
                TimedRow::Failed(format!("{error:#}"))
            }
        };
        rows.insert(label, row);
    }
    let sh = &programs.project.sh;
    Ok(Timed {
        date: cmd!(sh, "date -u +%Y-%m-%d").quiet().read()?,
        commit: cmd!(sh, "git rev-parse --short HEAD").quiet().read()?,
        machine: Machine::this(programs.project)?,
        rows,
    })
}

fn measure_one(
    programs: &Programs<'_>,
    subject: &Subject,
    contender: Contender,
    pairs: usize,
    truth: &[Vec<f32>],
) -> Result<Measured> {
    let report = Peer::start(programs, subject, contender, 1, COMPARED)?
        .report
        .clone();
    let (cosine, top1) = agreement(&report.outputs, truth)?;
    ensure!(
        contender.int8 || cosine > SAME,
        "its outputs are not those of {}: cosine {cosine}",
        Contender::TRUTH.label()
    );
    let mut loads = Vec::new();
    for _ in 0..LOADS {
        let mut peer = Peer::start(programs, subject, contender, 1, 1)?;
        peer.run(FEWEST)?;
        loads.push(peer.report.clone());
    }
    let of = |figure: fn(&Report) -> f64| median(loads.iter().map(figure));
    let mut times = BTreeMap::new();
    for threads in THREADS {
        let paired = race(programs, subject, contender, threads, pairs)?;
        println!(
            "{}: {}, {threads} threads: {:.2} ms, {:.3} of {}",
            subject.name,
            contender.label(),
            paired.ms,
            paired.ratio[1],
            Contender::REFERENCE.label()
        );
        times.insert(threads, paired);
    }
    Ok(Measured {
        detail: report.detail,
        load_ms: of(|report| report.load_ms),
        first_ms: of(|report| report.first_ms),
        vm_hwm_bytes: of(|report| report.vm_hwm_bytes as f64) as u64,
        cosine,
        top1,
        images: truth.len(),
        times,
    })
}

/// The contender and the reference in turns; the reference against itself shows how much the machine's noise is.
fn race(
    programs: &Programs<'_>,
    subject: &Subject,
    contender: Contender,
    threads: usize,
    pairs: usize,
) -> Result<Paired> {
    let mut peers = [
        Peer::start(programs, subject, Contender::REFERENCE, threads, 1)?,
        Peer::start(programs, subject, contender, threads, 1)?,
    ];
    let mut turns = [0; 2];
    for (peer, turn) in peers.iter_mut().zip(&mut turns) {
        let time = median(peer.run(FEWEST)?);
        *turn = ((TURN_MS / time) as usize).clamp(FEWEST, MOST);
    }
    let (mut times, mut ratios) = (vec![], vec![]);
    for _ in 0..pairs {
        let mut pair = [0.0; 2];
        for ((peer, &turn), time) in peers.iter_mut().zip(&turns).zip(&mut pair) {
            thread::sleep(PAUSE);
            // The first finds the caches full of the other's data.
            *time = median(peer.run(turn + 1)?.split_off(1));
        }
        times.push(pair[1]);
        ratios.push(pair[1] / pair[0]);
    }
    Ok(Paired {
        ms: median(times),
        ratio: [0.25, 0.5, 0.75].map(|part| quantile(ratios.iter().copied(), part)),
        pairs,
    })
}

/// A contender's program that waits with the model loaded.
struct Peer {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// The last.
    report: Report,
}

impl Peer {
    fn start(
        programs: &Programs<'_>,
        subject: &Subject,
        contender: Contender,
        threads: usize,
        images: usize,
    ) -> Result<Self> {
        let command = programs.native.command(contender, subject);
        let all = subject.images(programs.project, contender.engine)?;
        let images = all
            .iter()
            .take(images)
            .flat_map(|image| ["--image".as_ref(), image.as_os_str()]);
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .args(images)
            .args(["--serve", "--threads", &threads.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| command[0].display().to_string())?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("it is piped")?;
        let mut stdout = BufReader::new(stdout);
        let report = read(&mut stdout);
        if report.is_err() {
            child.wait()?;
        }
        let report = report.with_context(|| contender.label())?;
        Ok(Self {
            child,
            stdin,
            stdout,
            report,
        })
    }

    /// The times of `count` inferences, in milliseconds.
    fn run(&mut self, count: usize) -> Result<Vec<f64>> {
        let stdin = self.stdin.as_mut().context("open until it is dropped")?;
        writeln!(stdin, "run {count}")?;
        self.report = read(&mut self.stdout)?;
        Ok(self.report.ms.clone())
    }
}

impl Drop for Peer {
    /// The end of its input ends the program.
    fn drop(&mut self) {
        drop(self.stdin.take());
        // Whether it then fails changes no figure.
        let _ = self.child.wait();
    }
}

fn read(stdout: &mut BufReader<ChildStdout>) -> Result<Report> {
    let mut line = String::new();
    stdout.read_line(&mut line)?;
    ensure!(!line.is_empty(), "the program ended; it says why above");
    serde_json::from_str(&line).with_context(|| format!("it printed '{}'", line.trim_end()))
}

/// The cosine of all outputs, and how many have the same best class.
fn agreement(outputs: &[Vec<f32>], truth: &[Vec<f32>]) -> Result<(f64, usize)> {
    let lens = |outputs: &[Vec<f32>]| outputs.iter().map(Vec::len).collect::<Vec<_>>();
    ensure!(
        lens(outputs) == lens(truth),
        "{:?} logits instead of {:?}",
        lens(outputs),
        lens(truth)
    );
    let dot = |a: &[Vec<f32>], b: &[Vec<f32>]| -> f64 {
        let pairs = a.iter().flatten().zip(b.iter().flatten());
        pairs.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    };
    let cosine = dot(outputs, truth) / (dot(outputs, outputs) * dot(truth, truth)).sqrt();
    let top1 = outputs
        .iter()
        .zip(truth)
        .filter(|(a, b)| best(a) == best(b));
    Ok((cosine, top1.count()))
}

fn best(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_compared_by_angle_and_by_best_class() {
        let truth = vec![vec![1.0, 0.0], vec![0.0, 1.0]];
        let (cosine, top1) = agreement(&truth, &truth).unwrap_or_default();
        assert_eq!((cosine, top1), (1.0, 2));
        let other = vec![vec![2.0, 0.0], vec![2.0, 0.0]];
        let (cosine, top1) = agreement(&other, &truth).unwrap_or_default();
        assert_eq!((cosine, top1), (0.5, 1));
        assert!(agreement(&truth[..1], &truth).is_err());
        assert!(agreement(&[vec![1.0], vec![1.0]], &truth).is_err());
    }
}

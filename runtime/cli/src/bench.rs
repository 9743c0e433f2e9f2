//! `vitlet bench`: the time of an inference. The amount of work depends on the options alone, never on the clock, so that instruction
//! counts of N and N+1 iterations differ by one inference.

use std::fmt::{self, Display};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;
use vitlet::{Photo, Session};

use crate::args::{ModelArgs, SessionArgs, at_least_one};
use crate::failure::{OrInvalid as _, Outcome};
use crate::output::{Out, Table, milliseconds};

const EXAMPLES: &str = "\
Examples:
  vitlet bench
  vitlet bench -m model.vitlet --threads 4 --iterations 200
  vitlet bench -m model.vitlet --threads 2 --cores big
  vitlet bench --kernel scalar --json

Only the network is timed, on pixels of the model's size. The inferences follow
each other without a pause; inferences/s is their number by the time of all.

With --json:
  {\"kernel\",\"threads\",\"cores\",\"output_hash\",\"per_s\",
   \"ms\":{\"min\",\"median\",\"mean\",\"p90\",\"p99\"}}
where \"cores\" is null without --cores.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    runs: RunArgs,
    #[command(flatten)]
    session: SessionArgs,
}

/// How often, and on what.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Timed inferences
    #[arg(long, value_name = "N", default_value = "50", value_parser = at_least_one())]
    pub(crate) iterations: usize,
    /// Inferences before them that are not timed
    #[arg(long, value_name = "N", default_value_t = 5)]
    warmup: u32,
    /// Run on this photo instead of noise from a fixed seed
    #[arg(long, value_name = "PHOTO")]
    input: Option<PathBuf>,
}

impl RunArgs {
    /// Runs the inferences that are not timed; returns the pixels for those that are.
    pub(crate) fn warm_up(&self, session: &mut Session<'_>) -> anyhow::Result<Vec<u8>> {
        let image = match &self.input {
            Some(path) => {
                let photo = Photo::open(path).or_invalid()?;
                session.preprocess(&photo).or_invalid()?
            }
            None => {
                let (height, width) = session.plan().input();
                noise(height as usize * width as usize * 3)
            }
        };
        for _ in 0..self.warmup {
            session.run(&image)?;
        }
        Ok(image)
    }
}

impl Display for RunArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {} to warm up", self.iterations, self.warmup)
    }
}

#[derive(Serialize)]
struct Record {
    kernel: &'static str,
    threads: usize,
    cores: Option<String>,
    output_hash: String,
    per_s: f64,
    ms: Milliseconds,
}

/// How long inferences took.
#[derive(Serialize)]
pub(crate) struct Milliseconds {
    min: f64,
    median: f64,
    mean: f64,
    p90: f64,
    p99: f64,
}

pub(crate) fn verb(args: &Args, out: &mut Out) -> anyhow::Result<Outcome> {
    let model = args.model.load()?;
    let plan = model.plan().or_invalid()?;
    let mut session = args.session.session(&plan)?;
    let image = args.runs.warm_up(&mut session)?;
    let mut times = Vec::with_capacity(args.runs.iterations);
    for _ in 0..args.runs.iterations {
        let start = Instant::now();
        session.run(&image)?;
        times.push(start.elapsed());
    }
    let ms = summary(times);
    let record = Record {
        kernel: session.kernel().kernel.name(),
        threads: session.threads(),
        cores: session.cores().map(|cores| cores.cpus.to_string()),
        output_hash: session.output_hash().to_string(),
        per_s: 1e3 / ms.mean,
        ms,
    };
    out.record(&record)?;
    let mut table = Table::default();
    table.entry("model", model.name());
    table.entry(
        "kernel",
        format_args!("{} ({})", record.kernel, session.kernel().reason),
    );
    table.entry("threads", record.threads);
    match session.cores() {
        Some(cores) => table.entry("cores", cores),
        None => table.entry("cores", "any"),
    }
    table.entry("inferences", &args.runs);
    table.entry("ms", &record.ms);
    table.entry("inferences/s", format_args!("{:.1}", record.per_s));
    table.entry("output hash", &record.output_hash);
    out.line(table)?;
    Ok(Outcome::Done)
}

/// Bytes that look random and are the same everywhere: the high bytes of Knuth's MMIX generator (TAOCP 3.3.4), seed 1.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut byte = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| byte()).collect()
}

impl Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            min,
            median,
            mean,
            p90,
            p99,
        } = self;
        write!(
            f,
            "median {median:.3}, min {min:.3}, mean {mean:.3}, p90 {p90:.3}, p99 {p99:.3}"
        )
    }
}

/// The percentile of sorted times by nearest rank: always a time that was measured.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

pub(crate) fn summary(mut times: Vec<Duration>) -> Milliseconds {
    times.sort_unstable();
    let percentile = |percent| milliseconds(percentile(&times, percent));
    let total: Duration = times.iter().sum();
    Milliseconds {
        min: percentile(0),
        median: percentile(50),
        mean: milliseconds(total) / times.len().max(1) as f64,
        p90: percentile(90),
        p99: percentile(99),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let ms = summary((1..=10).rev().map(Duration::from_millis).collect());
        assert_eq!([ms.min, ms.median, ms.p90, ms.p99], [1.0, 5.0, 9.0, 10.0]);
        assert!((ms.mean - 5.5).abs() < 1e-9);
        let one = summary(vec![Duration::from_millis(3)]);
        assert_eq!([one.min, one.median, one.p99], [3.0; 3]);
    }

    #[test]
    fn noise_is_fixed() {
        assert_eq!(noise(4), noise(8)[..4]);
        assert_ne!(noise(8)[..4], noise(8)[4..]);
    }
}

//! `vitlet bench`: the time of an inference. The amount of work depends on the options alone, never on the clock, so that instruction
//! counts of N and N+1 iterations differ by one inference.

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
  vitlet bench --kernel scalar --json

Only the network is timed, on pixels of the model's size.

With --json:
  {\"kernel\",\"threads\",\"output_hash\",\"ms\":{\"min\",\"median\",\"mean\",\"p90\",\"p99\"}}";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Timed inferences
    #[arg(long, value_name = "N", default_value = "50", value_parser = at_least_one())]
    iterations: usize,
    /// Inferences before them that are not timed
    #[arg(long, value_name = "N", default_value_t = 5)]
    warmup: u32,
    /// Run on this photo instead of noise from a fixed seed
    #[arg(long, value_name = "PHOTO")]
    input: Option<PathBuf>,
    #[command(flatten)]
    session: SessionArgs,
}

#[derive(Serialize)]
struct Record {
    kernel: &'static str,
    threads: usize,
    output_hash: String,
    ms: Milliseconds,
}

#[derive(Serialize)]
struct Milliseconds {
    min: f64,
    median: f64,
    mean: f64,
    p90: f64,
    p99: f64,
}

pub(crate) fn verb(args: &Args, out: &mut Out) -> anyhow::Result<Outcome> {
    let model = args.model.load()?;
    let plan = model.plan().or_invalid()?;
    let mut session = Session::new(&plan, &args.session.options()).or_invalid()?;
    let image = match &args.input {
        Some(path) => {
            let photo = Photo::open(path).or_invalid()?;
            session.preprocess(&photo).or_invalid()?
        }
        None => {
            let (height, width) = plan.input();
            noise(height as usize * width as usize * 3)
        }
    };
    for _ in 0..args.warmup {
        session.run(&image)?;
    }
    let mut times = Vec::with_capacity(args.iterations);
    for _ in 0..args.iterations {
        let start = Instant::now();
        session.run(&image)?;
        times.push(start.elapsed());
    }
    let record = Record {
        kernel: session.kernel().kernel.name(),
        threads: session.threads(),
        output_hash: session.output_hash().to_string(),
        ms: summary(times),
    };
    out.record(&record)?;
    let mut table = Table::default();
    table.entry("model", model.name());
    table.entry(
        "kernel",
        format_args!("{} ({})", record.kernel, session.kernel().reason),
    );
    table.entry("threads", record.threads);
    table.entry(
        "inferences",
        format_args!("{} after {} to warm up", args.iterations, args.warmup),
    );
    let ms = &record.ms;
    table.entry(
        "ms",
        format_args!(
            "median {:.3}, min {:.3}, mean {:.3}, p90 {:.3}, p99 {:.3}",
            ms.median, ms.min, ms.mean, ms.p90, ms.p99
        ),
    );
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

/// Percentiles are by nearest rank: always a time that was measured.
fn summary(mut times: Vec<Duration>) -> Milliseconds {
    times.sort_unstable();
    let percentile = |percent: usize| {
        let rank = (times.len() * percent).div_ceil(100).max(1);
        milliseconds(times.get(rank - 1).copied().unwrap_or_default())
    };
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

//! Programs that are timed in turns, and the ratio pair by pair: what else the machine does meets both of a pair.

use std::fmt;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::quantile::quantile;

/// A program that runs. Its output must fit in a pipe, or be read by [`Running::finish`] at once.
pub(crate) struct Running {
    child: Child,
    name: String,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        let name = command.get_program().display().to_string();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{name} cannot be run"))?;
        Ok(Self { child, name })
    }

    /// Waits for its end: what it printed.
    pub(crate) fn finish(mut self) -> Result<String> {
        let mut output = String::new();
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout.read_to_string(&mut output)?;
        }
        let status = self.child.wait()?;
        ensure!(status.success(), "{} failed: {status}", self.name);
        Ok(output)
    }
}

/// Inferences a second in the record of `vitlet bench`, by the median time of one: what else the machine does in between is left out.
pub(crate) fn bench_per_s(record: &str) -> Result<f64> {
    let record: Value = serde_json::from_str(record).context("the record of vitlet bench")?;
    let median = record["ms"]["median"].as_f64();
    Ok(1e3 / median.context("vitlet bench prints a median")?)
}

/// How measured ratios lie.
pub(crate) struct Spread(Vec<f64>);

impl Spread {
    pub(crate) fn of(ratios: impl IntoIterator<Item = f64>) -> Self {
        Self(ratios.into_iter().collect())
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |part| quantile(self.0.iter().copied(), part);
        write!(
            f,
            "median {:.2}, quartiles {:.2} to {:.2}, all {:.2} to {:.2}",
            at(0.5),
            at(0.25),
            at(0.75),
            at(0.0),
            at(1.0),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bench_is_read() -> Result<()> {
        assert_eq!(bench_per_s(r#"{"ms": {"median": 4.0}}"#)?, 250.0);
        assert!(bench_per_s("{}").is_err());
        assert!(bench_per_s("").is_err());
        Ok(())
    }

    #[test]
    fn a_spread_is_shown_whole() {
        let shown = Spread::of([0.9, 0.8, 0.95]).to_string();
        assert_eq!(
            shown,
            "median 0.90, quartiles 0.80 to 0.95, all 0.80 to 0.95"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_program_that_fails_is_named() {
        let running = Running::start(Command::new("false"));
        let error = running.and_then(Running::finish).map_err(|e| e.to_string());
        assert!(error.is_err_and(|error| error.starts_with("false failed")));
    }
}

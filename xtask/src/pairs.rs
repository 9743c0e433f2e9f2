//! Programs that are timed in turns, and the ratio pair by pair: what else the machine does meets both of a pair.

use std::fmt;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::project::Project;
use crate::quantile::quantile;

/// A program that runs. It prints to a file: a reader of a pipe would be woken for every line, and take time from what is measured.
pub(crate) struct Running {
    child: Child,
    name: String,
    printed: PathBuf,
}

impl Running {
    pub(crate) fn start(project: &Project, mut command: Command) -> Result<Self> {
        let name = command.get_program().display().to_string();
        let printed = project.scratch()?.join(file_name());
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&printed)?)
            .spawn()
            .with_context(|| format!("{name} cannot be run"))?;
        Ok(Self {
            child,
            name,
            printed,
        })
    }

    /// Waits for its end: what it printed.
    pub(crate) fn finish(mut self) -> Result<String> {
        let status = self.child.wait()?;
        let output = fs::read_to_string(&self.printed)?;
        fs::remove_file(&self.printed)?;
        ensure!(status.success(), "{} failed: {status}", self.name);
        Ok(output)
    }
}

/// Of this process and this program alone: two may run together.
fn file_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("printed-{}-{number}.txt", std::process::id())
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
    fn what_a_program_prints_is_returned() -> Result<()> {
        let project = Project::find()?;
        let mut command = Command::new("echo");
        command.arg("yes");
        let running = Running::start(&project, command)?;
        let printed = running.printed.clone();
        assert_eq!(running.finish()?, "yes\n");
        assert!(!printed.exists());
        let failing = Running::start(&project, Command::new("false"))?;
        let error = failing.finish().map_err(|e| e.to_string());
        assert!(error.is_err_and(|error| error.starts_with("false failed")));
        Ok(())
    }
}

//! The boards' program under QEMU, and its instructions.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::dist;
use crate::project::Project;
use crate::qemu::{Counted, Mark, Plugin};

/// What one run measured.
pub(crate) struct Count {
    pub(crate) instructions: u64,
    pub(super) kernel: String,
}

/// A whole run of the program.
pub(super) struct Run {
    /// What it printed: one JSON record.
    pub(super) record: serde_json::Value,
    /// Instructions, and those before each mark that the program set (`vitlet profile --marks`).
    instructions: u64,
    pub(super) marks: Vec<Mark>,
}

/// The boards' program and the plugin that counts its instructions.
pub(crate) struct Counter<'a> {
    project: &'a Project,
    program: PathBuf,
    plugin: Plugin,
}

impl<'a> Counter<'a> {
    /// Builds both.
    pub(crate) fn new(project: &'a Project) -> Result<Self> {
        Ok(Self {
            project,
            program: dist::device(project)?,
            plugin: Plugin::build(project)?,
        })
    }

    /// Counts the instructions of one inference of a plan on a CPU that QEMU knows.
    pub(crate) fn one_inference(&self, plan: &Path, cpu: &str) -> Result<Count> {
        let bench = |iterations| self.run("bench", plan, cpu, ["--iterations", iterations]);
        let (one, two) = (bench("1")?, bench("2")?);
        let instructions = two.instructions.checked_sub(one.instructions);
        Ok(Count {
            instructions: instructions
                .context("two inferences took fewer instructions than one")?,
            kernel: two.kernel()?.to_owned(),
        })
    }

    /// Counts a run of a verb of `vitlet`, on one thread and without warming up.
    pub(super) fn run(
        &self,
        verb: &str,
        plan: &Path,
        cpu: &str,
        options: impl IntoIterator<Item = &'static str>,
    ) -> Result<Run> {
        let Self {
            project,
            program,
            plugin,
        } = self;
        let mut command: Vec<OsString> =
            vec![program.into(), verb.into(), "-m".into(), plan.into()];
        let fixed = ["--threads", "1", "--warmup", "0", "--json"];
        command.extend(fixed.into_iter().chain(options).map(Into::into));
        let Counted {
            instructions,
            marks,
            printed,
        } = plugin.count(project, cpu, &command)?;
        let record = serde_json::from_str(&printed)
            .with_context(|| format!("vitlet {verb} --json printed '{printed}'"))?;
        Ok(Run {
            record,
            instructions,
            marks,
        })
    }
}

impl Run {
    pub(super) fn kernel(&self) -> Result<&str> {
        match self
            .record
            .get("kernel")
            .and_then(serde_json::Value::as_str)
        {
            Some(kernel) => Ok(kernel),
            None => bail!("vitlet printed no \"kernel\": {}", self.record),
        }
    }
}

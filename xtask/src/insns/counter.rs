//! The boards' program under QEMU, and the plugin that counts its instructions (`xtask/qemu-plugin/insns.c`).

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use xshell::cmd;

use crate::dist;
use crate::project::Project;

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// 0 where an inference starts, then 1 more than the op that was done.
    pub(super) mark: usize,
    pub(super) instructions: u64,
}

/// The boards' program and the plugin that counts its instructions.
pub(crate) struct Counter<'a> {
    project: &'a Project,
    program: PathBuf,
    plugin: PathBuf,
}

impl<'a> Counter<'a> {
    /// Builds both.
    pub(crate) fn new(project: &'a Project) -> Result<Self> {
        Ok(Self {
            project,
            program: dist::device(project)?,
            plugin: build_plugin(project)?,
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
        let sh = &project.sh;
        // Of this process alone: another one may be counting, too.
        let name = format!("insns-{}.txt", std::process::id());
        let out = project.scratch()?.join(name);
        let mut plugin_arg = plugin.clone().into_os_string();
        plugin_arg.push(",out=");
        plugin_arg.push(&out);
        let printed = cmd!(
            sh,
            "qemu-aarch64 -cpu {cpu} -plugin {plugin_arg} {program}
             {verb} -m {plan} --threads 1 --warmup 0 --json {options...}"
        )
        .quiet()
        .read()
        .context("if QEMU refused the plugin: it must be a dynamic build with plugins, as Debian's qemu-user is")?;
        let record = serde_json::from_str(&printed)
            .with_context(|| format!("vitlet {verb} --json printed '{printed}'"))?;
        let (marks, instructions) = parse(&sh.read_file(&out)?).context("what the plugin wrote")?;
        sh.remove_path(&out)?;
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

/// Reads the plugin's file: a line for every mark, with the instructions before it, then a line with all instructions.
fn parse(text: &str) -> Option<(Vec<Mark>, u64)> {
    let mut lines = text.lines();
    let total = lines.next_back()?.parse().ok()?;
    let mark = |line: &str| {
        let (mark, instructions) = line.split_once(' ')?;
        Some(Mark {
            mark: mark.parse().ok()?,
            instructions: instructions.parse().ok()?,
        })
    };
    Some((lines.map(mark).collect::<Option<_>>()?, total))
}

/// Compiles the plugin for the QEMU that is installed.
fn build_plugin(project: &Project) -> Result<PathBuf> {
    let sh = &project.sh;
    let printed = cmd!(sh, "qemu-aarch64 --version").quiet().read()?;
    let major = qemu_major(&printed)
        .with_context(|| format!("qemu-aarch64 --version printed '{printed}'"))?;
    let api = format!("-DQEMU_PLUGIN_API={}", if major < 9 { 1 } else { 2 });
    let plugin = project.scratch()?.join("insns.so");
    let macos = cfg!(target_os = "macos").then_some("-Wl,-undefined,dynamic_lookup");
    cmd!(
        sh,
        "cc -O2 -Wall -Wextra -Werror -shared -fPIC {macos...} {api} -o {plugin} xtask/qemu-plugin/insns.c"
    )
    .run()?;
    Ok(plugin)
}

/// 7 from `qemu-aarch64 version 7.2.22 (Debian …)`.
fn qemu_major(printed: &str) -> Option<u32> {
    let version = printed
        .split_whitespace()
        .skip_while(|word| *word != "version")
        .nth(1)?;
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_before_the_total() {
        let mark = |mark, instructions| Mark { mark, instructions };
        assert_eq!(parse("1234\n"), Some((vec![], 1234)));
        let marked = parse("0 10\n1 25\n1234\n");
        assert_eq!(marked, Some((vec![mark(0, 10), mark(1, 25)], 1234)));
        assert_eq!(parse(""), None);
        assert_eq!(parse("0 10\n1 25\n"), None);
    }

    #[test]
    fn qemu_versions_are_read() {
        let debian = "qemu-aarch64 version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)";
        assert_eq!(qemu_major(debian), Some(7));
        assert_eq!(qemu_major("qemu-aarch64 version 10.0.2"), Some(10));
        assert_eq!(qemu_major("something else"), None);
    }
}

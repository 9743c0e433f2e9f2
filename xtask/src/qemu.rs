//! Counting the instructions of an aarch64 program, by QEMU and the plugin in `xtask/qemu-plugin`.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use xshell::cmd;

use crate::project::Project;

/// Where Debian's cross compiler has the shared libraries of dynamic programs; QEMU's own variable overrides it.
const SYSROOT: (&str, &str) = ("QEMU_LD_PREFIX", "/usr/aarch64-linux-gnu");

/// What a program did.
pub(crate) struct Counted {
    pub(crate) instructions: u64,
    /// Instructions before each mark that the program set (`vitlet profile --marks`).
    pub(crate) marks: Vec<Mark>,
    /// On its standard output.
    pub(crate) printed: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// 0 where an inference starts, then 1 more than the op that was done.
    pub(crate) mark: usize,
    pub(crate) instructions: u64,
}

/// The plugin that counts every executed instruction.
pub(crate) struct Plugin(PathBuf);

impl Plugin {
    /// Compiles it for the QEMU that is installed.
    pub(crate) fn build(project: &Project) -> Result<Self> {
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
        Ok(Self(plugin))
    }

    /// Runs a program with its arguments on a CPU that QEMU knows.
    pub(crate) fn count(
        &self,
        project: &Project,
        cpu: &str,
        command: &[OsString],
    ) -> Result<Counted> {
        let sh = &project.sh;
        // Of this process alone: another one may be counting, too.
        let name = format!("insns-{}.txt", std::process::id());
        let out = project.scratch()?.join(name);
        let mut plugin = self.0.clone().into_os_string();
        plugin.push(",out=");
        plugin.push(&out);
        let (prefix, sysroot) = SYSROOT;
        let sysroot = sh.var_os(prefix).unwrap_or_else(|| sysroot.into());
        let printed = cmd!(sh, "qemu-aarch64 -cpu {cpu} -plugin {plugin} {command...}")
            .env(prefix, sysroot)
            .quiet()
            .read()
            .context("if QEMU refused the plugin: it must be a dynamic build with plugins, as Debian's qemu-user is")?;
        let (marks, instructions) = parse(&sh.read_file(&out)?).context("what the plugin wrote")?;
        sh.remove_path(&out)?;
        Ok(Counted {
            instructions,
            marks,
            printed,
        })
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

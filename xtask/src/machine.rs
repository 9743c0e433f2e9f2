//! The machine that figures were measured on.

use std::thread;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use xshell::cmd;

use crate::project::Project;

/// A machine, as far as figures depend on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) features: Vec<String>,
    pub(crate) cpus: usize,
    pub(crate) rustc: String,
}

impl Machine {
    /// The one that this program runs on.
    pub(crate) fn this(project: &Project) -> Result<Self> {
        let sh = &project.sh;
        let info = sh.read_file("/proc/cpuinfo").unwrap_or_default();
        let rustc = cmd!(sh, "rustc --version").quiet().read()?;
        Ok(Self {
            cpu: field(&info, "model name").unwrap_or("unknown").to_owned(),
            features: features(&info),
            cpus: thread::available_parallelism()?.get(),
            rustc,
        })
    }

    /// The CPU, how busy it is, and the day: a line under figures.
    pub(crate) fn now(&self, project: &Project) -> Result<String> {
        let load = project.sh.read_file("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or("?");
        let date = cmd!(project.sh, "date --utc +%F").quiet().read()?;
        let Self { cpu, cpus, .. } = self;
        Ok(format!(
            "{cpu}, {cpus} CPUs, load {load} at the end, {date}"
        ))
    }
}

/// Of /proc/cpuinfo, of the first CPU.
fn field<'i>(info: &'i str, name: &str) -> Option<&'i str> {
    info.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

/// The features that int8 kernels are written for.
fn features(info: &str) -> Vec<String> {
    const INT8: [&str; 10] = [
        "avx2",
        "avx512f",
        "avx512bw",
        "avx512_vnni",
        "avx_vnni",
        "amx_int8",
        "asimd",
        "asimddp",
        "i8mm",
        "sve",
    ];
    let flags = field(info, "flags").or_else(|| field(info, "Features"));
    flags
        .unwrap_or_default()
        .split_whitespace()
        .filter(|flag| INT8.contains(flag))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpuinfo_is_read() {
        let info = "processor\t: 0\nmodel name\t: A CPU\nflags\t\t: sse2 avx2 avx512_vnni\n\nmodel name : B\n";
        assert_eq!(field(info, "model name"), Some("A CPU"));
        assert_eq!(features(info), ["avx2", "avx512_vnni"]);
        assert_eq!(features(""), [""; 0]);
    }
}

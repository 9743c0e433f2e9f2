//! `cargo xtask insns`: how many instructions one inference takes on a CPU of the boards, counted by QEMU.
//!
//! The boards' program runs `vitlet bench` twice, for one iteration and for two, under a QEMU plugin that counts every
//! executed instruction (`xtask/qemu-plugin/insns.c`): the difference is one inference. Unlike a time it is the same on
//! every machine, however busy, so a change of 2 % is a change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use xshell::cmd;

use crate::dist;
use crate::project::Project;
use crate::toolchain::{DEVICE, Toolchain};

/// What `budgets/instructions.toml` begins with.
const HEADER: &str = "\
# Instructions of one inference, by model and CPU (`cargo xtask insns`).
# `limit` is set by hand: never more than this.
# `measured` is what a compiler gave (`cargo xtask insns --bless` rewrites it); more than 2 % over it fails.

";
const FILE: &str = "budgets/instructions.toml";

/// With SDOT and without.
const DEFAULT_CPUS: [&str; 2] = ["cortex-a76", "cortex-a72"];

/// Count the instructions of one inference on the boards' CPUs, and compare with budgets/instructions.toml.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A CPU that QEMU knows; may be repeated. cortex-a53 and cortex-a72 have no SDOT, cortex-a76 has, max has all.
    #[arg(long, default_values = DEFAULT_CPUS)]
    cpu: Vec<String>,
    /// A plan to measure instead of the zoo's; it is compared with nothing.
    #[arg(short, long, value_name = "PLAN")]
    model: Option<PathBuf>,
    /// Write what was measured as the new baseline of this compiler.
    #[arg(long, conflicts_with = "model")]
    bless: bool,
}

/// Model, then CPU, then instructions.
type Counts = BTreeMap<String, BTreeMap<String, u64>>;

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    #[serde(default)]
    limit: Counts,
    /// By the compiler's version, since another one makes other code.
    #[serde(default)]
    measured: BTreeMap<String, Counts>,
}

/// How a count stands to its budget.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Within,
    /// This compiler has no baseline.
    Unmeasured,
    OverLimit(u64),
    OverBaseline(u64),
}

impl Budget {
    fn judge(&self, rustc: &str, model: &str, cpu: &str, count: u64) -> Verdict {
        let of = |counts: &Counts| counts.get(model).and_then(|cpus| cpus.get(cpu)).copied();
        if let Some(limit) = of(&self.limit).filter(|&limit| count > limit) {
            return Verdict::OverLimit(limit);
        }
        match self.measured.get(rustc).and_then(of) {
            None => Verdict::Unmeasured,
            Some(baseline) if count > baseline + baseline / 50 => Verdict::OverBaseline(baseline),
            Some(_) => Verdict::Within,
        }
    }
}

/// What one run measured.
pub(crate) struct Count {
    pub(crate) instructions: u64,
    kernel: String,
}

pub(crate) fn verb(project: &Project, args: &Args) -> Result<()> {
    run(project, &args.cpu, args.model.as_deref(), args.bless)
}

/// What `test` runs: the zoo on the default CPUs, compared.
pub(crate) fn check(project: &Project) -> Result<()> {
    run(project, &DEFAULT_CPUS.map(str::to_owned), None, false)
}

fn run(project: &Project, cpus: &[String], model: Option<&Path>, bless: bool) -> Result<()> {
    let counter = Counter::new(project)?;
    let toolchain = Toolchain::with_library(&project.sh, DEVICE)
        .context("a toolchain just built the program")?;
    let rustc = toolchain.version(&project.sh)?;
    let plans = match model {
        Some(plan) => vec![(plan.display().to_string(), plan.to_path_buf())],
        None => project
            .zoo()?
            .into_iter()
            .map(|model| (model.name.clone(), model.plan()))
            .collect(),
    };
    let mut counts = Counts::new();
    println!("{:>10}  {:<12} {:<13} model", "M insns", "CPU", "kernel");
    for (name, plan) in &plans {
        for cpu in cpus {
            let count = counter.one_inference(plan, cpu)?;
            println!(
                "{:>10.2}  {cpu:<12} {:<13} {name}",
                millions(count.instructions),
                count.kernel
            );
            counts
                .entry(name.clone())
                .or_default()
                .insert(cpu.clone(), count.instructions);
        }
    }
    if model.is_some() {
        return Ok(());
    }
    let mut budget: Budget =
        toml::from_str(&project.sh.read_file(FILE)?).with_context(|| FILE.to_owned())?;
    if bless {
        merge(budget.measured.entry(rustc.clone()).or_default(), &counts);
        project
            .sh
            .write_file(FILE, format!("{HEADER}{}", toml::to_string(&budget)?))?;
        println!("{FILE}: written for Rust {rustc}");
    }
    compare(&budget, &rustc, &counts)
}

fn merge(into: &mut Counts, counts: &Counts) {
    for (model, cpus) in counts {
        into.entry(model.clone()).or_default().extend(cpus.clone());
    }
}

fn compare(budget: &Budget, rustc: &str, counts: &Counts) -> Result<()> {
    let mut over = Vec::new();
    for (model, cpus) in counts {
        for (cpu, &count) in cpus {
            let measured = millions(count);
            match budget.judge(rustc, model, cpu, count) {
                Verdict::Within => {}
                Verdict::Unmeasured => println!(
                    "warning: {FILE} has no figure of Rust {rustc} for {model} on {cpu} ({measured:.2} M here): \
                     only the limit was checked; `cargo xtask insns --bless` writes one"
                ),
                Verdict::OverLimit(limit) => {
                    over.push(format!("{model} on {cpu}: {measured:.2} M, limit {:.2} M", millions(limit)));
                }
                Verdict::OverBaseline(baseline) => over.push(format!(
                    "{model} on {cpu}: {measured:.2} M, {:.2} M + 2 % allowed (if meant: cargo xtask insns --bless)",
                    millions(baseline)
                )),
            }
        }
    }
    ensure!(
        over.is_empty(),
        "more instructions than {FILE} allows: {}",
        over.join("; ")
    );
    Ok(())
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
        let one = self.bench(plan, cpu, 1)?;
        let two = self.bench(plan, cpu, 2)?;
        let instructions = two.instructions.checked_sub(one.instructions);
        Ok(Count {
            instructions: instructions
                .context("two inferences took fewer instructions than one")?,
            kernel: two.kernel,
        })
    }

    /// Counts a whole run of `vitlet bench`.
    fn bench(&self, plan: &Path, cpu: &str, iterations: u32) -> Result<Count> {
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
        let iterations = iterations.to_string();
        let printed = cmd!(
            sh,
            "qemu-aarch64 -cpu {cpu} -plugin {plugin_arg} {program}
             bench -m {plan} --threads 1 --iterations {iterations} --warmup 0 --json"
        )
        .quiet()
        .read()
        .context("if QEMU refused the plugin: it must be a dynamic build with plugins, as Debian's qemu-user is")?;
        let report: serde_json::Value = serde_json::from_str(&printed)
            .with_context(|| format!("vitlet bench --json printed '{printed}'"))?;
        let Some(kernel) = report.get("kernel").and_then(serde_json::Value::as_str) else {
            bail!("vitlet bench --json printed no \"kernel\": {printed}");
        };
        let instructions = sh
            .read_file(&out)?
            .trim()
            .parse()
            .context("the plugin's count")?;
        sh.remove_path(&out)?;
        Ok(Count {
            instructions,
            kernel: kernel.to_owned(),
        })
    }
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

#[allow(clippy::cast_precision_loss, reason = "for people to read")]
fn millions(count: u64) -> f64 {
    count as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> Budget {
        toml::from_str("[limit.m]\na76 = 2000\n[measured.\"1.95.0\".m]\na76 = 1000\n")
            .unwrap_or_default()
    }

    #[test]
    fn two_per_cent_over_the_baseline_is_allowed() {
        assert_eq!(budget().judge("1.95.0", "m", "a76", 1020), Verdict::Within);
        assert_eq!(
            budget().judge("1.95.0", "m", "a76", 1021),
            Verdict::OverBaseline(1000)
        );
    }

    #[test]
    fn another_compiler_is_held_to_the_limit_only() {
        assert_eq!(
            budget().judge("1.96.0", "m", "a76", 2000),
            Verdict::Unmeasured
        );
        assert_eq!(
            budget().judge("1.96.0", "m", "a76", 2001),
            Verdict::OverLimit(2000)
        );
    }

    #[test]
    fn a_budget_survives_writing() {
        let text = toml::to_string(&budget()).unwrap_or_default();
        assert_eq!(toml::from_str::<Budget>(&text).ok(), Some(budget()));
    }

    #[test]
    fn qemu_versions_are_read() {
        let debian = "qemu-aarch64 version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)";
        assert_eq!(qemu_major(debian), Some(7));
        assert_eq!(qemu_major("qemu-aarch64 version 10.0.2"), Some(10));
        assert_eq!(qemu_major("something else"), None);
    }
}

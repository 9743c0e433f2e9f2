//! `cargo xtask insns`: how many instructions one inference takes on a CPU of the boards, counted by QEMU.
//!
//! The boards' program runs `vitlet bench` twice, for one iteration and for two, under a QEMU plugin that counts every
//! executed instruction: the difference is one inference. Unlike a time it is the same on every machine, however busy, so
//! a change of 2 % is a change.
//!
//! | module | does |
//! |---|---|
//! | here | what is measured |
//! | `counter` | runs the program under QEMU with the plugin `xtask/qemu-plugin/insns.c` |
//! | `budget` | compares counts with `budgets/instructions.toml` |
//! | `ops` | counts op by op |

mod budget;
mod counter;
mod ops;

use std::path::PathBuf;

use anyhow::{Context as _, Result};

pub(crate) use self::counter::Counter;

use self::budget::{Budget, Counts};
use crate::models::{self, Named};
use crate::project::Project;
use crate::toolchain::{DEVICE, Toolchain};

/// With SDOT; without it, out of order and in order; with all that QEMU knows.
const CPUS: [&str; 4] = ["cortex-a76", "cortex-a72", "cortex-a53", "max"];

/// Count the instructions of one inference on the boards' CPUs, and compare with budgets/instructions.toml.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A CPU that QEMU knows; may be repeated. cortex-a53 and cortex-a72 have no SDOT, cortex-a76 has, max has all.
    /// [default: these four; with --ops cortex-a76]
    #[arg(long)]
    cpu: Vec<String>,
    /// A plan to measure instead of the zoo's; it is compared with nothing.
    #[arg(short, long, value_name = "PLAN")]
    model: Option<PathBuf>,
    /// Also Swin-T and Dual-ViT-S, exported with random weights (needs PyTorch, which is had as `test-models` has it)
    /// and kept under the target folder.
    #[arg(long, conflicts_with = "model")]
    all: bool,
    /// Write what was measured as the new baseline of this compiler.
    #[arg(long, conflicts_with = "model")]
    bless: bool,
    /// Count op by op, and compare with nothing.
    #[arg(long, conflicts_with = "bless")]
    ops: bool,
}

pub(crate) fn verb(project: &Project, args: &Args) -> Result<()> {
    let plans = match &args.model {
        Some(plan) => vec![(plan.display().to_string(), plan.clone())],
        None => models::plans(project, args.all)?,
    };
    let counter = Counter::new(project)?;
    if args.ops {
        for (name, plan) in &plans {
            for cpu in cpus(args, &CPUS[..1]) {
                ops::print(&counter, name, plan, &cpu)?;
            }
        }
        return Ok(());
    }
    let counts = count(&counter, &plans, &cpus(args, &CPUS))?;
    if args.model.is_some() {
        return Ok(());
    }
    judge(project, &counts, args.bless)
}

fn cpus(args: &Args, default: &[&str]) -> Vec<String> {
    match &args.cpu[..] {
        [] => default.iter().copied().map(str::to_owned).collect(),
        cpus => cpus.to_vec(),
    }
}

/// What `test` runs: the zoo, and with `all` the other families, compared.
pub(crate) fn check(project: &Project, all: bool) -> Result<()> {
    let plans = models::plans(project, all)?;
    let counter = Counter::new(project)?;
    let counts = count(&counter, &plans, &CPUS.map(str::to_owned))?;
    judge(project, &counts, false)
}

fn count(counter: &Counter<'_>, plans: &[Named], cpus: &[String]) -> Result<Counts> {
    let mut counts = Counts::new();
    println!("{:>10}  {:<12} {:<13} model", "M insns", "CPU", "kernel");
    for (name, plan) in plans {
        for cpu in cpus {
            let count = counter.one_inference(plan, cpu)?;
            println!(
                "{:>10.2}  {cpu:<12} {:<13} {name}",
                millions(count.instructions),
                count.kernel
            );
            let of_model = counts.entry(name.clone()).or_default();
            of_model.insert(cpu.clone(), count.instructions);
        }
    }
    Ok(counts)
}

fn judge(project: &Project, counts: &Counts, bless: bool) -> Result<()> {
    let toolchain = Toolchain::with_library(&project.sh, DEVICE)
        .context("a toolchain just built the program")?;
    let rustc = toolchain.version(&project.sh)?;
    let mut budget = Budget::read(project)?;
    if bless {
        budget.bless(project, &rustc, counts)?;
    }
    budget.compare(&rustc, counts)
}

#[allow(clippy::cast_precision_loss, reason = "for people to read")]
pub(crate) fn millions(count: u64) -> f64 {
    count as f64 / 1e6
}

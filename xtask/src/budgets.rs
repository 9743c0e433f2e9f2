//! `cargo xtask budgets`: sizes that must not grow unnoticed, against `budgets/sizes.toml`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use xshell::cmd;

use crate::dist;
use crate::models;
use crate::project::Project;

const FILE: &str = "budgets/sizes.toml";

/// Compare plan, arena and program sizes with budgets/sizes.toml.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also SepViT-Lite, Swin-T and Dual-ViT-S, exported with random weights (needs PyTorch, which is had as `test-models` has it)
    /// and kept under the target folder.
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    program: Program,
    /// By model: fields of `vitlet inspect --json` and the most each may be.
    plan: BTreeMap<String, BTreeMap<String, u64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Program {
    /// The boards' program.
    aarch64_bytes: u64,
    /// The same less the plan inside it.
    aarch64_bytes_without_plan: u64,
}

pub(crate) fn verb(project: &Project, args: &Args) -> Result<()> {
    check(project, args.all)
}

/// What `test` runs, too: the zoo, and with `all` the other families.
pub(crate) fn check(project: &Project, all: bool) -> Result<()> {
    let budget: Budget =
        toml::from_str(&project.sh.read_file(FILE)?).with_context(|| FILE.to_owned())?;
    let program = dist::device(project)?;
    let mut over = Vec::new();
    println!("{:>12} {:>12}  what", "is", "at most");
    let mut judge = |what: String, is: u64, at_most: u64| {
        println!("{is:>12} {at_most:>12}  {what}");
        if is > at_most {
            over.push(what);
        }
    };
    let whole = program.metadata()?.len();
    let inside = number(&inspected(project, &program, None)?, "plan_bytes")?;
    judge(
        "program, aarch64_bytes".to_owned(),
        whole,
        budget.program.aarch64_bytes,
    );
    judge(
        "program, aarch64_bytes_without_plan".to_owned(),
        whole.saturating_sub(inside),
        budget.program.aarch64_bytes_without_plan,
    );
    for (name, plan) in models::plans(project, all)? {
        let limits = budget.plan.get(&name);
        let limits = limits.with_context(|| format!("{FILE} has no [plan.{name}]"))?;
        let report = inspected(project, &program, Some(&plan))?;
        for (field, &at_most) in limits {
            let is = number(&report, field).with_context(|| FILE.to_owned())?;
            judge(format!("{name}, {field}"), is, at_most);
        }
    }
    ensure!(over.is_empty(), "over {FILE}: {}", over.join("; "));
    Ok(())
}

/// What the program prints of a plan, or of the one inside it.
fn inspected(project: &Project, program: &Path, plan: Option<&Path>) -> Result<serde_json::Value> {
    let printed = cmd!(
        project.sh,
        ".cargo/run-aarch64 {program} inspect {plan...} --json"
    )
    .quiet()
    .read()?;
    serde_json::from_str(&printed)
        .with_context(|| format!("vitlet inspect --json printed '{printed}'"))
}

fn number(report: &serde_json::Value, field: &str) -> Result<u64> {
    let number = report.get(field).and_then(serde_json::Value::as_u64);
    number.with_context(|| format!("vitlet inspect --json has no number '{field}'"))
}

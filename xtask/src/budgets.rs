//! `cargo xtask budgets`: sizes that must not grow unnoticed, against `budgets/sizes.toml`.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use xshell::cmd;

use crate::dist;
use crate::project::Project;

const FILE: &str = "budgets/sizes.toml";

/// Compare plan, arena and program sizes with budgets/sizes.toml.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

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
}

pub(crate) fn verb(project: &Project, _args: &Args) -> Result<()> {
    check(project)
}

/// What `test` runs, too.
pub(crate) fn check(project: &Project) -> Result<()> {
    let sh = &project.sh;
    let budget: Budget = toml::from_str(&sh.read_file(FILE)?).with_context(|| FILE.to_owned())?;
    let program = dist::device(project)?;
    let mut over = Vec::new();
    println!("{:>12} {:>12}  what", "is", "at most");
    let mut judge = |what: String, is: u64, at_most: u64| {
        println!("{is:>12} {at_most:>12}  {what}");
        if is > at_most {
            over.push(what);
        }
    };
    judge(
        "program, aarch64_bytes".to_owned(),
        program.metadata()?.len(),
        budget.program.aarch64_bytes,
    );
    for model in project.zoo()? {
        let limits = budget.plan.get(&model.name);
        let limits = limits.with_context(|| format!("{FILE} has no [plan.{}]", model.name))?;
        let plan = model.plan();
        let printed = cmd!(sh, ".cargo/run-aarch64 {program} inspect {plan} --json")
            .quiet()
            .read()?;
        let report: serde_json::Value = serde_json::from_str(&printed)
            .with_context(|| format!("vitlet inspect --json printed '{printed}'"))?;
        for (field, &at_most) in limits {
            let is = report.get(field).and_then(serde_json::Value::as_u64);
            let is = is.with_context(|| {
                format!("{FILE}: vitlet inspect --json has no number '{field}'")
            })?;
            judge(format!("{}, {field}", model.name), is, at_most);
        }
    }
    ensure!(over.is_empty(), "over {FILE}: {}", over.join("; "));
    Ok(())
}

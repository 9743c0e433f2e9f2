//! `budgets/instructions.toml`: what a count may be.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use super::millions;
use crate::project::Project;

/// What the file begins with.
const HEADER: &str = "\
# Instructions of one inference, by model and CPU (`cargo xtask insns`; of models that are not checked in, `--all`).
# `limit` is set by hand: never more than this.
# `measured` is what a compiler gave (`cargo xtask insns --all --bless` rewrites it); more than 2 % over it fails.

";
const FILE: &str = "budgets/instructions.toml";

/// Model, then CPU, then instructions.
pub(super) type Counts = BTreeMap<String, BTreeMap<String, u64>>;

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Budget {
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
    /// So much less than the baseline that the gain could be lost again unseen.
    UnderBaseline(u64),
    OverLimit(u64),
    OverBaseline(u64),
}

impl Budget {
    pub(super) fn read(project: &Project) -> Result<Self> {
        toml::from_str(&project.sh.read_file(FILE)?).with_context(|| FILE.to_owned())
    }

    /// Makes `counts` the baseline of a compiler.
    pub(super) fn bless(&mut self, project: &Project, rustc: &str, counts: &Counts) -> Result<()> {
        let baseline = self.measured.entry(rustc.to_owned()).or_default();
        for (model, cpus) in counts {
            let of_model = baseline.entry(model.clone()).or_default();
            of_model.extend(cpus.clone());
        }
        let text = format!("{HEADER}{}", toml::to_string(&self)?);
        project.sh.write_file(FILE, text)?;
        println!("{FILE}: written for Rust {rustc}");
        Ok(())
    }

    fn judge(&self, rustc: &str, model: &str, cpu: &str, count: u64) -> Verdict {
        let of = |counts: &Counts| counts.get(model).and_then(|cpus| cpus.get(cpu)).copied();
        if let Some(limit) = of(&self.limit).filter(|&limit| count > limit) {
            return Verdict::OverLimit(limit);
        }
        match self.measured.get(rustc).and_then(of) {
            None => Verdict::Unmeasured,
            Some(baseline) if count > baseline + baseline / 50 => Verdict::OverBaseline(baseline),
            Some(baseline) if count < baseline - baseline / 50 => Verdict::UnderBaseline(baseline),
            Some(_) => Verdict::Within,
        }
    }

    /// Says what is to be said of every count; an error if one is over its budget.
    pub(super) fn compare(&self, rustc: &str, counts: &Counts) -> Result<()> {
        let mut over = Vec::new();
        for (model, cpus) in counts {
            for (cpu, &count) in cpus {
                let measured = millions(count);
                match self.judge(rustc, model, cpu, count) {
                    Verdict::Within => {}
                    Verdict::Unmeasured => println!(
                        "warning: {FILE} has no figure of Rust {rustc} for {model} on {cpu} ({measured:.2} M here): \
                         only the limit was checked; `cargo xtask insns --bless` writes one"
                    ),
                    Verdict::UnderBaseline(baseline) => println!(
                        "better: {model} on {cpu}: {measured:.2} M, {:.2} M before: \
                         `cargo xtask insns --bless` records it, so that it stays",
                        millions(baseline)
                    ),
                    Verdict::OverLimit(limit) => over.push(format!(
                        "{model} on {cpu}: {measured:.2} M, limit {:.2} M",
                        millions(limit)
                    )),
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> Budget {
        toml::from_str("[limit.m]\na76 = 2000\n[measured.\"1.95.0\".m]\na76 = 1000\n")
            .unwrap_or_default()
    }

    fn judge(rustc: &str, count: u64) -> Verdict {
        budget().judge(rustc, "m", "a76", count)
    }

    #[test]
    fn two_per_cent_around_the_baseline_are_allowed() {
        assert_eq!(judge("1.95.0", 1020), Verdict::Within);
        assert_eq!(judge("1.95.0", 1021), Verdict::OverBaseline(1000));
        assert_eq!(judge("1.95.0", 980), Verdict::Within);
        assert_eq!(judge("1.95.0", 979), Verdict::UnderBaseline(1000));
    }

    #[test]
    fn another_compiler_is_held_to_the_limit_only() {
        assert_eq!(judge("1.96.0", 2000), Verdict::Unmeasured);
        assert_eq!(judge("1.96.0", 2001), Verdict::OverLimit(2000));
    }

    #[test]
    fn only_too_much_is_an_error() {
        let compare = |cpu: &str, count| {
            let cpus = BTreeMap::from([(cpu.to_owned(), count)]);
            budget().compare("1.95.0", &Counts::from([("m".to_owned(), cpus)]))
        };
        assert!(compare("a76", 1).is_ok());
        assert!(compare("a53", 5000).is_ok());
        let error = compare("a76", 1021).unwrap_err().to_string();
        assert!(error.contains("m on a76"), "{error}");
    }

    #[test]
    fn a_budget_survives_writing() {
        let text = toml::to_string(&budget()).unwrap_or_default();
        assert_eq!(toml::from_str::<Budget>(&text).ok(), Some(budget()));
    }
}

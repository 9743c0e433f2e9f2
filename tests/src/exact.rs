//! Runs of the `vitlet` programs whose bytes must be equal: every op of a plan on every kernel, here and on the boards' CPUs under
//! QEMU.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rayon::prelude::*;
use serde_json::Value;

use crate::{json_lines, on_cpu, program};

/// The boards' CPUs and the kernel that each must choose: NEON without SDOT, with it, and with SMMLA, too.
const CPUS: [(&str, &str); 3] = [
    ("cortex-a53", "neon"),
    ("cortex-a76", "neon-dotprod"),
    ("max", "neon-i8mm"),
];

/// What a run on a photo must have in common with every other.
#[derive(Debug, PartialEq)]
struct Outputs {
    output: String,
    ops: Vec<Value>,
    top: Value,
}

/// What has been found equal.
#[derive(Debug)]
pub struct Equal {
    /// Ops of the plan.
    pub ops: usize,
    /// Kernels, with their CPUs; the first is the scalar reference.
    pub kernels: Vec<String>,
}

/// Photos that a program under QEMU is given at a time.
const PART: usize = 25;

/// Runs a plan (the program's own if none is named) on photos with every kernel and compares the bytes out of every op for
/// `traced`, and the logits for `hashed`.
///
/// # Errors
/// When a program cannot run, chooses another kernel than its CPU should, or gives other bytes.
pub fn every_kernel(plan: Option<&Path>, traced: &[PathBuf], hashed: &[PathBuf]) -> Result<Equal> {
    let run = Run { plan };
    let reference = run.classify(host()?, "scalar", traced, true)?;
    let fast = chosen(host()?)?;
    ensure!(
        fast != "scalar",
        "this machine has no fast kernel, so nothing would be compared"
    );
    ensure_same(
        &reference,
        &run.classify(host()?, &fast, traced, true)?,
        &fast,
    )?;
    let outputs = run.classify(host()?, &fast, hashed, false)?;
    // QEMU takes a second for a photo: some photos at a time, on all cores.
    let parts: Vec<_> = CPUS
        .iter()
        .flat_map(|cpu| {
            (0..hashed.len())
                .step_by(PART)
                .map(move |first| (cpu, first))
        })
        .collect();
    parts
        .into_par_iter()
        .try_for_each(|(&(cpu, kernel), first)| {
            let part = first..hashed.len().min(first + PART);
            let found = run.classify(on_cpu(cpu)?, kernel, &hashed[part.clone()], false)?;
            let name = format!("{kernel} ({cpu}), photos from {first} on");
            ensure_same(&outputs[part], &found, &name)
        })?;
    let mut kernels = vec!["scalar".to_owned(), fast];
    for (cpu, kernel) in CPUS {
        ensure!(
            chosen(on_cpu(cpu)?)? == kernel,
            "{cpu} must choose {kernel}"
        );
        let name = format!("{kernel} ({cpu})");
        let found = run.classify(on_cpu(cpu)?, kernel, traced, true)?;
        ensure_same(&reference, &found, &name)?;
        kernels.push(name);
    }
    Ok(Equal {
        ops: reference.first().map_or(0, |r| r.ops.len()),
        kernels,
    })
}

/// Names the first op whose bytes differ, or the output.
fn ensure_same(wanted: &[Outputs], found: &[Outputs], kernel: &str) -> Result<()> {
    for (photo, (wanted, found)) in wanted.iter().zip(found).enumerate() {
        let differs = wanted.ops.iter().zip(&found.ops).position(|(a, b)| a != b);
        if let Some(op) = differs {
            anyhow::bail!(
                "{kernel}: photo {photo}: op {op} differs: {}",
                wanted.ops[op]
            );
        }
        ensure!(wanted == found, "{kernel}: photo {photo}: outputs differ");
    }
    ensure!(wanted.len() == found.len(), "{kernel}: other photos");
    Ok(())
}

struct Run<'a> {
    plan: Option<&'a Path>,
}

impl Run<'_> {
    /// Classifies with one kernel, which the program must itself report.
    fn classify(
        &self,
        mut command: Command,
        kernel: &str,
        photos: &[PathBuf],
        trace: bool,
    ) -> Result<Vec<Outputs>> {
        if photos.is_empty() {
            return Ok(Vec::new());
        }
        command
            .env("VITLET_KERNEL", kernel)
            .args(["classify", "--json"])
            .args(trace.then_some("--trace-hash"))
            .args(photos);
        if let Some(plan) = self.plan {
            command.arg("-m").arg(plan);
        }
        let lines = json_lines(&mut command)?;
        ensure!(
            lines.len() == photos.len(),
            "{} results for {} photos",
            lines.len(),
            photos.len()
        );
        let outputs = lines.into_iter().map(|line| outputs(&line, kernel, trace));
        outputs.collect()
    }
}

fn outputs(line: &Value, kernel: &str, trace: bool) -> Result<Outputs> {
    ensure!(
        line["kernel"] == kernel,
        "`{}` ran where `{kernel}` was asked for",
        line["kernel"]
    );
    let ops = line["ops"].as_array().cloned().unwrap_or_default();
    ensure!(ops.is_empty() != trace, "{} op hashes", ops.len());
    let output = line["output_hash"].as_str().context("no output_hash")?;
    Ok(Outputs {
        output: output.to_owned(),
        ops,
        top: line["top"].clone(),
    })
}

fn host() -> Result<Command> {
    Ok(Command::new(program()?))
}

/// The kernel that a program chooses by itself on its CPU.
fn chosen(mut command: Command) -> Result<String> {
    let lines = json_lines(command.env_remove("VITLET_KERNEL").args(["cpu", "--json"]))?;
    let chosen = lines.first().and_then(|l| l["chosen"].as_str());
    Ok(chosen.context("`vitlet cpu` names no kernel")?.to_owned())
}

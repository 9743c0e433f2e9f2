//! The bytes out of every op are the same on every kernel: the scalar reference, this machine's fast path, and the boards'
//! program on cortex-a53 (NEON without SDOT) and cortex-a76 (SDOT) under QEMU.
#![allow(clippy::print_stdout)] // a test

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vitlet_tests::{in_repository, json_lines, on_cpu, program, spread};

const TRACED: usize = 10;
const HASHED: usize = 50;

fn samples() -> Result<Vec<PathBuf>> {
    let folder = in_repository("models/samples");
    let mut all = std::fs::read_dir(folder)?
        .map(|e| Ok(e?.path()))
        .collect::<Result<Vec<_>>>()?;
    all.retain(|p| p.extension().is_some_and(|e| e == "jpg"));
    all.sort();
    ensure!(
        all.len() >= HASHED,
        "models/samples has {} photos",
        all.len()
    );
    Ok(spread(&all, HASHED))
}

/// What a run must have in common with every other.
#[derive(Debug, PartialEq)]
struct Outputs {
    output: String,
    ops: Vec<Value>,
    top: Value,
}

/// Classifies with one kernel, which the program must itself report.
fn classify(
    mut command: Command,
    kernel: &str,
    photos: &[PathBuf],
    trace: bool,
) -> Result<Vec<Outputs>> {
    command
        .env("VITLET_KERNEL", kernel)
        .args(["classify", "--json"])
        .args(trace.then_some("--trace-hash"))
        .args(photos);
    let lines = json_lines(&mut command)?;
    ensure!(
        lines.len() == photos.len(),
        "{} results for {} photos",
        lines.len(),
        photos.len()
    );
    lines
        .into_iter()
        .map(|line| {
            ensure!(
                line["kernel"] == kernel,
                "`{}` ran where `{kernel}` was asked for",
                line["kernel"]
            );
            let ops = line["ops"].as_array().cloned().unwrap_or_default();
            ensure!(ops.is_empty() != trace, "{} op hashes", ops.len());
            let output = line["output_hash"]
                .as_str()
                .context("no output_hash")?
                .to_owned();
            Ok(Outputs {
                output,
                ops,
                top: line["top"].clone(),
            })
        })
        .collect()
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

#[test]
fn every_op_on_every_kernel() -> Result<()> {
    let photos = samples()?;
    let traced = spread(&photos, TRACED);
    let reference = classify(host()?, "scalar", &traced, true)?;
    let ops = reference.first().map_or(0, |r| r.ops.len());
    let fast = chosen(host()?)?;
    ensure!(
        fast != "scalar",
        "this machine has no fast kernel, so nothing would be compared"
    );
    let outputs = classify(host()?, &fast, &photos, false)?;
    let mut ran = vec![fast.clone()];
    ensure!(
        classify(host()?, &fast, &traced, true)? == reference,
        "{fast} differs from scalar"
    );
    for (cpu, kernel) in [("cortex-a53", "neon"), ("cortex-a76", "neon-dotprod")] {
        ensure!(
            chosen(on_cpu(cpu)?)? == kernel,
            "{cpu} must choose {kernel}"
        );
        ensure!(
            classify(on_cpu(cpu)?, kernel, &traced, true)? == reference,
            "{kernel} on {cpu} differs from scalar"
        );
        ensure!(
            classify(on_cpu(cpu)?, kernel, &photos, false)? == outputs,
            "{kernel} on {cpu}: outputs differ"
        );
        ran.push(format!("{kernel} ({cpu})"));
    }
    println!(
        "{ops} ops on {TRACED} photos and outputs on {HASHED}: scalar = {}",
        ran.join(" = ")
    );
    Ok(())
}

#[test]
fn a_kernel_the_cpu_lacks_is_refused() -> Result<()> {
    let photo = in_repository("models/samples/glass102.jpg");
    let mut command = on_cpu("cortex-a53")?;
    let output = command
        .env("VITLET_KERNEL", "neon-dotprod")
        .arg("classify")
        .arg(photo)
        .output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !output.status.success() && output.status.code().is_some(),
        "ended by {:?}",
        output.status
    );
    ensure!(
        error.contains("neon-dotprod") && error.trim().lines().count() == 1,
        "{error}"
    );
    Ok(())
}

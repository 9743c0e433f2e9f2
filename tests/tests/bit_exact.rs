//! The bytes out of every op are the same on every kernel: the scalar reference, this machine's fast path, and the boards'
//! program on cortex-a53 (NEON without SDOT), cortex-a76 (SDOT) and max (SMMLA) under QEMU. Here for the program's own plan; the file `families`
//! does the same for the other networks.
#![allow(clippy::print_stdout)] // a test

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use vitlet_tests::exact::every_kernel;
use vitlet_tests::zoo::Subject;
use vitlet_tests::{full, in_repository, json_lines, on_cpu, program, samples, spread};

const TRACED: usize = 10;
const HASHED: usize = 50;
/// Photos of the plan's own validation set, in a full run: the accuracy that is measured here is then known to be that of the boards.
const VALIDATED: usize = 200;

/// Photos that the program's own plan is judged by.
fn validation_photos() -> Result<Vec<PathBuf>> {
    let plan = json_lines(Command::new(program()?).args(["inspect", "--json"]))?;
    let name = plan.first().and_then(|p| p["provenance"]["model"].as_str());
    let subject = Subject::named(name.context("the plan has no name")?)?;
    let photos = spread(&subject.photos()?.unwrap_or_default(), VALIDATED);
    Ok(photos.into_iter().map(|(_, photo)| photo).collect())
}

#[test]
fn every_op_on_every_kernel() -> Result<()> {
    let photos = samples()?;
    ensure!(
        photos.len() >= HASHED,
        "models/samples has {} photos",
        photos.len()
    );
    let mut hashed = spread(&photos, HASHED);
    let traced = spread(&hashed, TRACED);
    if full() {
        hashed.extend(validation_photos()?);
    }
    let equal = every_kernel(None, &traced, &hashed)?;
    println!(
        "{} ops on {TRACED} photos and outputs on {}: {}",
        equal.ops,
        hashed.len(),
        equal.kernels.join(" = ")
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

//! The bytes out of every op are the same on every kernel: the scalar reference, this machine's fast path, and the boards'
//! program on cortex-a53 (NEON without SDOT), cortex-a76 (SDOT) and max (SMMLA) under QEMU. Here for the program's own plan; the file `families`
//! does the same for the other networks.
#![allow(clippy::print_stdout)] // a test

use anyhow::{Result, ensure};
use vitlet_tests::exact::every_kernel;
use vitlet_tests::{in_repository, on_cpu, samples, spread};

const TRACED: usize = 10;
const HASHED: usize = 50;

#[test]
fn every_op_on_every_kernel() -> Result<()> {
    let photos = samples()?;
    ensure!(
        photos.len() >= HASHED,
        "models/samples has {} photos",
        photos.len()
    );
    let hashed = spread(&photos, HASHED);
    let equal = every_kernel(None, &spread(&hashed, TRACED), &hashed)?;
    println!(
        "{} ops on {TRACED} photos and outputs on {HASHED}: {}",
        equal.ops,
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

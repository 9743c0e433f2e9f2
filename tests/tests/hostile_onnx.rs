//! Damaged and foreign ONNX files: a one-line error that names the file, or a harmless run; never a panic.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test

use std::path::Path;

use anyhow::Result;
use vitlet_compiler::{Model, Normalisation};
use vitlet_tests::{calibrate, compile, full, in_repository, noise};

/// Opens `bytes` as a model and, when that works, goes all the way to a plan. Returns the error's text.
fn outcome(folder: &Path, bytes: &[u8]) -> Result<Option<String>> {
    let path = folder.join("damaged.onnx");
    std::fs::write(&path, bytes)?;
    let error = match Model::open(&path) {
        Ok(model) => {
            let image = noise(3, model.image_size());
            let ranges = calibrate(&model, std::slice::from_ref(&image));
            let plan = ranges.and_then(|r| compile(&model, &r));
            let check = model.check_lowering(&Normalisation::IMAGENET, &image);
            plan.err()
                .map(|e| e.to_string())
                .or(check.err().map(|e| e.to_string()))
        }
        Err(error) => Some(error.to_string()),
    };
    if let Some(text) = &error {
        assert!(
            !text.contains('\n') && text.len() > 10,
            "not one clear line: {text}"
        );
    }
    Ok(error)
}

#[test]
fn truncated_files_are_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let good = std::fs::read(in_repository("models/tiny/tiny_pvt.onnx"))?;
    for eighth in 0..8 {
        let error = outcome(folder.path(), &good[..good.len() * eighth / 8])?;
        assert!(
            error.is_some_and(|e| e.contains("damaged.onnx")
                || e.contains("output")
                || e.contains("input")),
            "{eighth}/8"
        );
    }
    Ok(())
}

#[test]
fn foreign_files_are_refused_by_name() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let photo = std::fs::read(in_repository("models/samples/glass102.jpg"))?;
    for bytes in [
        &b""[..],
        b"hello, world\n",
        &[0; 4096],
        &[0xff; 4096],
        &photo,
    ] {
        let error = outcome(folder.path(), bytes)?.unwrap_or_default();
        assert!(error.contains("damaged.onnx"), "{error}");
    }
    Ok(())
}

#[test]
fn flipped_bits_never_panic() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let good = std::fs::read(in_repository("models/tiny/tiny_pvt.onnx"))?;
    let flips = if full() { 1000 } else { 100 };
    let mut refused = 0;
    for i in 0..flips {
        let mut bytes = good.clone();
        // Most bytes are weights; every second flip goes to the last tenth, where names, nodes and shapes are too.
        let at = (i * 7919 + 13)
            % (if i % 2 == 0 {
                good.len()
            } else {
                good.len() / 10
            });
        let at = if i % 2 == 0 { at } else { good.len() - 1 - at };
        bytes[at] ^= 1 << (i % 8);
        refused += usize::from(outcome(folder.path(), &bytes)?.is_some());
    }
    println!(
        "{flips} flips: {refused} refused, {} harmless",
        flips - refused
    );
    Ok(())
}

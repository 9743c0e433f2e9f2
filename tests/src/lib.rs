//! Helpers shared by the cross-crate tests: where models, photos and programs are.
//!
//! Tests that need photos or models which are not part of the repository look in `VITLET_DATA`, else in `../shared` beside
//! the checkout. Without them they print `not run: no data` with the number of checks, and fail when `CI=true`.

pub mod accuracy;
pub mod exact;
pub mod zoo;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use vitlet::Photo;
use vitlet_compiler::{Calibration, Method, Model, Normalisation, Options, Ranges};
use vitlet_plan::AlignedBytes;
use vitlet_preprocess::{Frame, Interpolation, PixelFormat, Preprocess, Resize};

/// The project's folder.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A file or folder of the repository.
#[must_use]
pub fn in_repository(path: &str) -> PathBuf {
    repository().join(path)
}

/// A file or folder of the data beside the repository; `None` where it is absent, which CI does not accept.
///
/// # Errors
/// When `CI=true` and the data is absent.
#[allow(clippy::print_stdout)] // the notice is the point
pub fn data(path: &str, checks: usize) -> Result<Option<PathBuf>> {
    let root =
        std::env::var_os("VITLET_DATA").map_or_else(|| in_repository("../shared"), PathBuf::from);
    let path = root.join(path);
    if path.exists() {
        return Ok(Some(path));
    }
    println!(
        "not run: no data ({checks} checks); {} is absent",
        path.display()
    );
    ensure!(
        std::env::var("CI").as_deref() != Ok("true"),
        "CI must have {}",
        path.display()
    );
    Ok(None)
}

/// True for the long loops (`cargo xtask test --full`).
#[must_use]
pub fn full() -> bool {
    std::env::var_os("VITLET_FULL").is_some()
}

/// The host's `vitlet` program.
///
/// # Errors
/// When it has not been built.
pub fn program() -> Result<PathBuf> {
    built(
        "VITLET_BIN",
        "target/release/vitlet",
        "cargo build --release",
    )
}

/// The boards' `vitlet` program.
///
/// # Errors
/// When it has not been built.
pub fn device_program() -> Result<PathBuf> {
    built(
        "VITLET_AARCH64_BIN",
        "target/aarch64-unknown-linux-gnu/release/vitlet",
        "cargo xtask dist",
    )
}

fn built(variable: &str, path: &str, remedy: &str) -> Result<PathBuf> {
    let path = std::env::var_os(variable).map_or_else(|| in_repository(path), PathBuf::from);
    ensure!(
        path.is_file(),
        "{} is not there: run `{remedy}` first",
        path.display()
    );
    Ok(path)
}

/// The boards' program on one of QEMU's CPUs.
///
/// # Errors
/// When the program has not been built.
pub fn on_cpu(cpu: &str) -> Result<Command> {
    let mut command = Command::new("qemu-aarch64");
    command.arg("-cpu").arg(cpu).arg(device_program()?);
    Ok(command)
}

/// Runs a command and parses its standard output, one JSON object a line.
///
/// # Errors
/// When it cannot be started, fails, or prints something else.
pub fn json_lines(command: &mut Command) -> Result<Vec<serde_json::Value>> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let lines = String::from_utf8(output.stdout)?;
    lines
        .lines()
        .map(|l| serde_json::from_str(l).with_context(|| format!("not JSON: {l}")))
        .collect()
}

/// Photos of a folder of class folders, sorted, with the index of their class.
///
/// # Errors
/// When a folder cannot be read.
pub fn photos(folder: &Path) -> Result<Vec<(usize, PathBuf)>> {
    let list = |folder: &Path| -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(folder)
            .with_context(|| format!("cannot read {}", folder.display()))?;
        let mut paths = entries.map(|e| Ok(e?.path())).collect::<Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    };
    let mut photos = vec![];
    for (class, folder) in list(folder)?.into_iter().filter(|p| p.is_dir()).enumerate() {
        photos.extend(list(&folder)?.into_iter().map(|photo| (class, photo)));
    }
    ensure!(!photos.is_empty(), "no photos in {}", folder.display());
    Ok(photos)
}

/// The photos that are part of the repository, sorted.
///
/// # Errors
/// When the folder cannot be read.
pub fn samples() -> Result<Vec<PathBuf>> {
    files("models/samples", "jpg")
}

/// The files of a folder of the repository that end in `.extension`, sorted.
///
/// # Errors
/// When the folder cannot be read or has none.
pub fn files(folder: &str, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(in_repository(folder))
        .with_context(|| format!("cannot read {folder}"))?;
    let mut files = entries.map(|e| Ok(e?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|p| p.extension().is_some_and(|e| e == extension));
    files.sort();
    ensure!(!files.is_empty(), "no .{extension} file in {folder}");
    Ok(files)
}

/// `count` of `all`, evenly spread.
pub fn spread<T: Clone>(all: &[T], count: usize) -> Vec<T> {
    let count = count.clamp(1, all.len().max(1));
    (0..count)
        .filter_map(|i| all.get(i * all.len() / count).cloned())
        .collect()
}

/// A photo as an image of the model's size, squashed as the zoo's models were trained.
///
/// # Errors
/// When the photo cannot be decoded.
pub fn image(photo: &Path, [height, width]: [usize; 2]) -> Result<Vec<u8>> {
    let photo = Photo::open(photo)?;
    let preprocess = squash([height, width])?;
    let scratch = preprocess
        .scratch_len(photo.width, photo.height)
        .context("the photo is too large")?;
    let frame = Frame::new(
        PixelFormat::Rgb8,
        photo.width,
        photo.height,
        photo.width as usize * 3,
        &photo.rgb,
    )?;
    let mut out = vec![0; height * width * 3];
    preprocess.run(&frame, &mut vec![0; scratch], &mut out)?;
    Ok(out)
}

fn squash([height, width]: [usize; 2]) -> Result<Preprocess> {
    Ok(Preprocess::new(
        width.try_into()?,
        height.try_into()?,
        Resize::Squash,
        Interpolation::Bilinear,
    )?)
}

/// Calibrates on images.
///
/// # Errors
/// When the model cannot run.
pub fn calibrate(model: &Model, images: &[Vec<u8>]) -> Result<Ranges> {
    let mut calibrator = model.calibrator(&Calibration {
        normalisation: Normalisation::IMAGENET,
        preprocess: squash(model.image_size())?,
        method: Method::Mse,
        correct_bias: true,
        fold_norms: true,
    })?;
    for image in images {
        calibrator.add(image)?;
    }
    Ok(calibrator.finish()?)
}

/// Compiles with the zoo's preprocessing and no labels.
///
/// # Errors
/// When the model cannot be quantised.
pub fn compile(model: &Model, ranges: &Ranges) -> Result<AlignedBytes> {
    let options = Options {
        normalisation: Normalisation::IMAGENET,
        preprocess: squash(model.image_size())?,
        labels: &[],
        model_name: "test",
    };
    Ok(model.compile(ranges, &options)?)
}

/// Images of noise with a seed: `xorshift64*`, so that every machine sees the same bytes.
#[must_use]
pub fn noise(seed: u64, [height, width]: [usize; 2]) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    };
    (0..height * width * 3).map(|_| next()).collect()
}

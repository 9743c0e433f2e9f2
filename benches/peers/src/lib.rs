//! What the programs share, so that every engine is timed by the same code on the same input.
//!
//! A program loads a model, runs every `--image` once (that is the warm-up, and what engines are compared by), then runs the first
//! image again and again: `--iterations` times, or with `--serve` whenever a line `run N` arrives on its input. It prints a
//! [`Report`] as one line of JSON after loading (`--serve` only) and after each series of runs. Programs that wait in `--serve` can be
//! timed in turns, a fraction of a second apart.

use std::fs;
use std::io::{self, BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use serde::Serialize;

/// An inference engine with a model in it.
pub trait Engine: Sized {
    /// What an image is for it, in memory and ready to be run.
    type Image;

    /// Loads the model: everything that happens once, up to the first inference.
    ///
    /// # Errors
    /// If the engine refuses the model or the options.
    fn load(options: &Options) -> Result<Self>;

    /// What the engine says of itself, such as its kernels.
    fn detail(&self) -> String;

    /// Reads an image.
    ///
    /// # Errors
    /// If the file cannot be read or has another size than the model's input.
    fn image(&self, path: &Path) -> Result<Self::Image>;

    /// One inference, from an image in memory to logits.
    ///
    /// # Errors
    /// If the engine fails.
    fn run(&mut self, image: &Self::Image) -> Result<Vec<f32>>;
}

/// Time one engine on one model.
#[derive(Debug, Parser)]
pub struct Options {
    /// The model, in the engine's format.
    pub model: PathBuf,
    /// An image that `peer-image` wrote: `.rgb` for vitlet, `.f32` for the others. May be repeated; the first is timed.
    #[arg(long, required = true)]
    pub image: Vec<PathBuf>,
    /// Threads of one inference.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Timed inferences.
    #[arg(long, default_value_t = 10)]
    pub iterations: usize,
    /// Wait for lines `run N` instead; the end of the input ends the program.
    #[arg(long)]
    pub serve: bool,
    /// The shared library of an engine that is one.
    #[arg(long)]
    pub library: Option<PathBuf>,
}

/// What is printed, as one line of JSON.
#[derive(Debug, Serialize)]
struct Report<'a> {
    detail: &'a str,
    /// From the start of reading the model to being ready.
    load_ms: f64,
    /// The first inference after that.
    first_ms: f64,
    /// The timed inferences.
    ms: Vec<f64>,
    /// Most memory that was resident so far.
    vm_hwm_bytes: u64,
    /// Logits of every image.
    outputs: &'a [Vec<f32>],
}

/// The whole program of an engine.
///
/// # Errors
/// If loading or running fails, or a line on the input is no command.
pub fn run<E: Engine>() -> Result<()> {
    let options = Options::parse();
    let (engine, load_ms) = timed(|| E::load(&options));
    let mut engine = engine.with_context(|| options.model.display().to_string())?;
    let images = options
        .image
        .iter()
        .map(|path| {
            engine
                .image(path)
                .with_context(|| path.display().to_string())
        })
        .collect::<Result<Vec<_>>>()?;
    let mut outputs = Vec::with_capacity(images.len());
    let mut first_ms = 0.0;
    for image in &images {
        let (output, ms) = timed(|| engine.run(image));
        if outputs.is_empty() {
            first_ms = ms;
        }
        outputs.push(output?);
    }
    let detail = engine.detail();
    let mut series = |iterations: usize| -> Result<()> {
        let mut ms = Vec::with_capacity(iterations);
        for _ in 0..iterations {
            let (output, time) = timed(|| engine.run(&images[0]));
            output?;
            ms.push(time);
        }
        let report = Report {
            detail: &detail,
            load_ms,
            first_ms,
            ms,
            vm_hwm_bytes: vm_hwm_bytes()?,
            outputs: &outputs,
        };
        let mut out = io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
        Ok(out.flush()?)
    };
    if !options.serve {
        return series(options.iterations);
    }
    series(0)?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        match line.strip_prefix("run ").map(str::parse) {
            Some(Ok(iterations)) => series(iterations)?,
            _ => bail!("'{line}' is not 'run N'"),
        }
    }
    Ok(())
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed().as_secs_f64() * 1e3)
}

fn vm_hwm_bytes() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kib = status.lines().find_map(|line| {
        let value = line.strip_prefix("VmHWM:")?;
        value.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    });
    // QEMU's user mode has no such line.
    Ok(kib.unwrap_or(0) * 1024)
}

/// A `.f32` image: three planes, R, G, B, of a square.
///
/// # Errors
/// If the file cannot be read, or is none.
pub fn planes(path: &Path) -> Result<(usize, Vec<f32>)> {
    let bytes = fs::read(path)?;
    let (values, rest) = bytes.as_chunks::<4>();
    let side = (values.len() / 3).isqrt();
    if !rest.is_empty() || side == 0 || side * side * 3 != values.len() {
        bail!("not three square planes of f32, as peer-image writes them");
    }
    Ok((
        side,
        values.iter().map(|&v| f32::from_le_bytes(v)).collect(),
    ))
}

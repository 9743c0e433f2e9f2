//! Measures plans of one model beside the model itself in f32, for `cargo xtask accuracy`, which makes a page of it.
//!
//! ```text
//! accuracy-table NAME MODEL.onnx PHOTOS PLAN...
//! ```
//!
//! NAME says the data set, as the zoo's folders do; PHOTOS is how many of its validation photos, spread evenly, or `all`. A PLAN is a file
//! that ends in .vitlet, or options of `vitlet compile` in one argument (none, too): then it is made, with 64 of the set's training
//! photos. Prints JSON: a line about the set, and one for each plan, in their order. Progress goes to standard error.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use vitlet_compiler::Model;
use vitlet_plan::{AlignedBytes, Plan};
use vitlet_tests::accuracy::{Figures, measure};
use vitlet_tests::zoo::Subject;
use vitlet_tests::{program, spread};

const USAGE: &str = "accuracy-table NAME MODEL.onnx PHOTOS|all PLAN.vitlet|OPTIONS...";
/// A line of progress each so many photos.
const STEP: usize = 100;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, onnx, count, plans @ ..] = &*arguments else {
        bail!("usage: {USAGE}");
    };
    let subject = Subject::named(name)?;
    let photos = photos(&subject, count)?;
    let plans = plans.iter().map(|plan| read(&subject, onnx, plan));
    let plans = plans.collect::<Result<Vec<_>>>()?;
    let parsed: Vec<Plan<'_>> = plans
        .iter()
        .map(|bytes| Plan::parse(bytes))
        .collect::<Result<_, _>>()?;
    let model = Model::open(Path::new(onnx))?;
    let of = photos.len();
    let figures = measure(&model, &parsed, &photos, &|done| {
        if done % STEP == 0 || done == of {
            eprintln!("{name}: {done} of {of} photos");
        }
    })?;
    let set = json!({ "photos": subject.set.photos, "bounds": subject.bounds.to_string() });
    println!("{set}");
    for figures in &figures {
        println!("{}", record(&subject, figures));
    }
    Ok(())
}

/// So many of a model's photos, or all of them.
fn photos(subject: &Subject, count: &str) -> Result<Vec<(usize, PathBuf)>> {
    let all = subject.photos()?;
    let all = all.with_context(|| absent(subject))?;
    if count == "all" {
        return Ok(all);
    }
    let count = count.parse().with_context(|| format!("PHOTOS {count}"))?;
    Ok(spread(&all, count))
}

fn absent(subject: &Subject) -> String {
    format!("no photos of {}: set VITLET_DATA", subject.set.name)
}

/// A plan: a file's, or one that the program makes.
fn read(subject: &Subject, onnx: &str, plan: &str) -> Result<AlignedBytes> {
    let bytes = if plan.ends_with(".vitlet") {
        std::fs::read(plan).with_context(|| plan.to_owned())?
    } else {
        eprintln!("{}: vitlet compile {plan}", subject.name);
        compile(subject, onnx, plan)?
    };
    Ok(AlignedBytes::copy_of(&bytes))
}

fn compile(subject: &Subject, onnx: &str, options: &str) -> Result<Vec<u8>> {
    let photos = subject.training_photos()?;
    let photos = photos.with_context(|| absent(subject))?;
    let folder = TempDir::new()?;
    let plan = folder.path().join("plan.vitlet");
    let mut command = Command::new(program()?);
    command.args(["compile", onnx, "-o"]).arg(&plan);
    command.arg("--calib").arg(photos);
    let output = command.args(options.split_whitespace()).output()?;
    ensure!(
        output.status.success(),
        "vitlet compile {options}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(std::fs::read(plan)?)
}

fn record(subject: &Subject, figures: &Figures) -> Value {
    let fault = subject.bounds.check(figures, subject.set.photos).err();
    json!({
        "photos": figures.photos,
        "hits": figures.hits,
        "hits_f32": figures.hits_f32,
        "agreeing": figures.agreeing,
        "sqnr_db": figures.sqnr_db,
        "fault": fault.map(|fault| fault.to_string()),
    })
}

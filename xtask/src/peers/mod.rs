//! `cargo xtask peers`: vitlet and other engines side by side, on the same model and image, and the page that says what came out,
//! `docs/performance.md`.
//!
//! | module | does |
//! |---|---|
//! | `contender` | which engines, on which form of a model |
//! | `programs` | builds the programs of `benches/peers` and fetches what they load |
//! | `subject` | a model in the forms that the engines take |
//! | `wall` | time, memory and agreement, on this machine |
//! | `instructions` | instructions on the boards' CPUs, under QEMU |
//! | `page` | `docs/performance.md` |
//!
//! Everything lies under `target/peers`. Figures are kept there by model, so that time and instructions may be measured in two runs.

mod contender;
mod instructions;
mod page;
mod programs;
mod subject;
mod wall;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::contender::Engine;
use self::instructions::Counted;
use self::page::Row;
use self::programs::Programs;
use self::subject::Subject;
use self::wall::Timed;
use crate::project::Project;

/// The programs' crate, a workspace of its own.
pub(crate) const CRATE: &str = "benches/peers";
const PAGE: &str = "docs/performance.md";

/// Time vitlet against ONNX Runtime, tract and rten, count their instructions on the boards' CPUs, and write docs/performance.md.
///
/// The model of the zoo is always measured; `--models` adds SepViT-Lite, Swin-T and Dual-ViT-S. The first run builds tract twice and
/// fetches some 150 MB: half an hour. What is made is kept under target/peers, and so are the figures: the page has the newest of each
/// part. Needs npm, Python 3.11 and QEMU besides what `cargo xtask setup` installs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask peers --models target/onnx
  cargo xtask peers --models target/onnx --part time --only pvt_v2_b0
  (cd models && python -m vitlet_models export sepvit_lite -o ../target/onnx/sepvit_lite.onnx)")]
pub(crate) struct Args {
    /// A folder with sepvit_lite.onnx, swin_tiny_w7_224.onnx and dualvit_s.onnx, or some of them, from `python -m vitlet_models export`.
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Measure only these models; the page has the earlier figures of the others.
    #[arg(long, value_name = "NAME", num_args = 1..)]
    only: Vec<String>,
    /// Measure only this part; the page has the earlier figures of the other.
    #[arg(long)]
    part: Option<Part>,
    /// Count only these engines' instructions; the page has the earlier counts of the others. tract's program for the boards takes long
    /// to build.
    #[arg(long, value_name = "ENGINE", num_args = 1..)]
    count: Vec<Engine>,
    /// Pairs of turns that vitlet and ONNX Runtime are timed in; the others have a quarter as many, but 5 at least.
    #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u16).range(1..))]
    pairs: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Time, memory and agreement, on this machine.
    Time,
    /// Instructions on the boards' CPUs, under QEMU.
    Instructions,
}

pub(crate) fn verb(project: &Project, args: &Args) -> Result<()> {
    let root = project.target.join("peers");
    let subjects = Subject::all(project, &root, args.models.as_deref())?;
    let chosen = choose(&subjects, &args.only)?;
    let counted = counted_engines(args);
    let programs = Programs::prepare(project, &root, &counted)?;
    for (index, subject) in chosen.iter().enumerate() {
        println!("== {} ({} of {})", subject.name, index + 1, chosen.len());
        subject.prepare(&programs)?;
        if args.part != Some(Part::Instructions) {
            let timed = wall::measure(&programs, subject, usize::from(args.pairs))?;
            write(project, &subject.path("time.json"), &timed)?;
        }
        if args.part != Some(Part::Time) {
            let path = subject.path("instructions.json");
            let earlier = read(project, &path)?.unwrap_or_default();
            let counts = instructions::measure(&programs, subject, &counted, earlier)?;
            write(project, &path, &counts)?;
        }
    }
    let mut rows = subjects
        .iter()
        .map(|subject| row(project, subject))
        .collect::<Result<Vec<_>>>()?;
    rows.retain(|row| row.timed.is_some() || !row.counted.is_empty());
    let page = page::page(&programs, &rows)?;
    project.sh.write_file(PAGE, page)?;
    println!("{PAGE}: written");
    Ok(())
}

/// Engines whose instructions are to be counted.
fn counted_engines(args: &Args) -> Vec<Engine> {
    let asked = |engine: &Engine| args.count.is_empty() || args.count.contains(engine);
    let mut engines = Engine::ALL.to_vec();
    engines.retain(|engine| {
        args.part != Some(Part::Time) && engine.runs_under_qemu() && asked(engine)
    });
    engines
}

/// What is known of a model, from this run or an earlier one.
fn row<'s>(project: &Project, subject: &'s Subject) -> Result<Row<'s>> {
    Ok(Row {
        subject,
        timed: read::<Timed>(project, &subject.path("time.json"))?,
        counted: read::<Counted>(project, &subject.path("instructions.json"))?.unwrap_or_default(),
    })
}

/// The models that were asked for: all, or those named.
fn choose<'s>(subjects: &'s [Subject], only: &[String]) -> Result<Vec<&'s Subject>> {
    let known = |name: &String| subjects.iter().any(|subject| subject.name == *name);
    if let Some(unknown) = only.iter().find(|name| !known(name)) {
        let names: Vec<&str> = subjects.iter().map(|subject| subject.name).collect();
        bail!(
            "--only {unknown}: there are {} (--models DIR adds those whose ONNX files are in it)",
            names.join(", ")
        );
    }
    let wanted = |subject: &&Subject| only.is_empty() || only.iter().any(|o| o == subject.name);
    let chosen: Vec<&Subject> = subjects.iter().filter(wanted).collect();
    ensure!(!chosen.is_empty(), "no model to measure");
    Ok(chosen)
}

fn write<T: Serialize>(project: &Project, path: &Path, figures: &T) -> Result<()> {
    Ok(project
        .sh
        .write_file(path, serde_json::to_string_pretty(figures)?)?)
}

/// Figures of an earlier run; those of another version of this program are as good as none.
fn read<T: DeserializeOwned>(project: &Project, path: &Path) -> Result<Option<T>> {
    if !path.is_file() {
        return Ok(None);
    }
    Ok(serde_json::from_str(&project.sh.read_file(path)?).ok())
}

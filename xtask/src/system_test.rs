//! `cargo xtask system-test`: `vitlet camera` as its users run it, on a machine with a camera.
//!
//! The machine is QEMU's, its kernel Debian's, its camera that kernel's virtual one (vivid), its program the one that
//! `cargo xtask dist` builds for the boards.
//!
//! | module | does |
//! |---|---|
//! | `kernel` | fetches the kernel, its modules and a shell |
//! | `programs` | builds what runs in the machine |
//! | `initramfs` | packs the machine's files |
//! | `machine` | boots it; talks to it |
//! | `scenarios` | what is tried, and what must come of it |
//! | `outputs` | what a scenario left |
//! | `http` | fetches the preview's pages |
//!
//! `guest/` has what runs in the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::project::Project;
use crate::scenario::{self, Results};

mod http;
mod initramfs;
mod kernel;
mod machine;
mod outputs;
mod programs;
mod scenarios;

use machine::{Image, Machine};
use outputs::Outputs;
use scenarios::Scenario;

/// Boot a machine with a virtual camera, and use `vitlet camera` in it as people do.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask system-test
  cargo xtask system-test photos unplug

With --json, per scenario: {\"scenario\",\"ok\",\"seconds\"}, and where it failed \"error\".
What the programs and the machine printed stays in target/system-test.")]
pub(crate) struct Args {
    /// Only these; see xtask/src/system_test/guest/scenarios
    #[arg(value_name = "SCENARIO")]
    only: Vec<String>,
    /// One JSON object a scenario on standard output
    #[arg(long)]
    json: bool,
    /// Three times the photos, and thousands of frames
    #[arg(long)]
    full: bool,
}

pub(crate) fn verb(project: &Project, args: &Args) -> Result<()> {
    let all = scenarios::all();
    let chosen = scenario::chosen(&all, |scenario| scenario.name, &args.only)?;
    let folder = project.sh.create_dir(project.target.join("system-test"))?;
    let image = image(project, &folder, args.full)?;
    for old in ["machines", "scenarios"] {
        project.sh.remove_path(folder.join(old))?;
    }
    let mut run = Run {
        project,
        image,
        folder,
        machine: None,
        machines: 0,
        patience: if args.full { 4 } else { 1 },
    };
    let mut results = Results::new(args.json);
    for scenario in &chosen {
        let start = Instant::now();
        let done = run.scenario(scenario);
        results.add(scenario.name, start, &done);
    }
    let off = run.machine.take().map_or(Ok(()), Machine::power_off);
    results.check(project.shown(&run.folder).display())?;
    off
}

/// Every scenario: a step of `cargo xtask test`.
pub(crate) fn check(project: &Project, full: bool) -> Result<()> {
    let args = Args {
        full,
        ..Args::default()
    };
    verb(project, &args)
}

/// Everything that the machine boots.
fn image(project: &Project, folder: &Path, full: bool) -> Result<Image> {
    let debian = kernel::fetched(project, folder)?;
    let programs = programs::built(project)?;
    let files = programs::packed(project, &debian, &programs, full)?;
    let initramfs = folder.join("initramfs.cpio");
    fs::write(&initramfs, files)?;
    let frames = if full { 5000 } else { 300 };
    Ok(Image {
        kernel: debian.kernel,
        initramfs,
        variables: format!("SOAK_FRAMES={frames}"),
    })
}

/// Scenarios one after another, in one machine as long as that answers.
struct Run<'a> {
    project: &'a Project,
    image: Image,
    folder: PathBuf,
    machine: Option<Machine>,
    /// How many there were.
    machines: usize,
    /// Scenarios may take so many times their limits.
    patience: u32,
}

impl Run<'_> {
    fn scenario(&mut self, scenario: &Scenario) -> Result<()> {
        let mut machine = match self.machine.take() {
            Some(machine) => machine,
            None => self.boot()?,
        };
        // A machine that does not answer is switched off here, and the next scenario has a new one.
        let (outputs, done) = self.run(&mut machine, scenario)?;
        self.machine = Some(machine);
        self.keep(scenario, &outputs)?;
        done.and_then(|()| (scenario.check)(&outputs))
    }

    /// Every machine has a folder of its own for its logs.
    fn boot(&mut self) -> Result<Machine> {
        self.machines += 1;
        let folder = self.folder.join("machines").join(self.machines.to_string());
        Machine::boot(&self.image, &self.project.sh.create_dir(folder)?)
    }

    /// Runs the script: what it left, and whether it and this host's part went well.
    fn run(&self, machine: &mut Machine, scenario: &Scenario) -> Result<(Outputs, Result<()>)> {
        let deadline = Instant::now() + scenario.limit * self.patience;
        let mut outputs = Outputs::default();
        let mut visited = Ok(());
        machine.send(&format!("run {}", scenario.name))?;
        loop {
            let line = machine.line(deadline)?;
            match line.split_once(' ') {
                Some(("say", text)) => {
                    let meanwhile = scenario.meanwhile.context("nobody listens")?;
                    visited = meanwhile(text, machine.preview);
                    machine.send("heard")?;
                }
                Some(("file", file)) => {
                    let (name, len) = file.split_once(' ').context("a file without a length")?;
                    outputs.add(name, machine.bytes(len.trim().parse()?, deadline)?);
                }
                Some(("done", "0")) => return Ok((outputs, visited)),
                Some(("done", status)) => {
                    let log = outputs.text("script.log").unwrap_or_default().trim();
                    let error = anyhow!("its script ended with {status}: {log}");
                    return Ok((outputs, Err(error)));
                }
                _ => bail!("the machine said '{line}'"),
            }
        }
    }

    /// Keeps what it left, for people to look at.
    fn keep(&self, scenario: &Scenario, outputs: &Outputs) -> Result<()> {
        let sh = &self.project.sh;
        let folder = sh.create_dir(self.folder.join("scenarios").join(scenario.name))?;
        for (name, contents) in outputs.files() {
            fs::write(folder.join(name), contents)?;
        }
        Ok(())
    }
}

//! `vitlet`: compile, classify, camera, run, inspect, accuracy, compare, bench, profile, cpu.
//!
//! | module | says |
//! |---|---|
//! | `args` | the command line: verbs, and the options that several verbs share |
//! | one module per verb | its options, its records in JSON, what it does |
//! | `output` | standard output: lines, tables, JSON records |
//! | `failure` | which exit status, and errors as one line |
//! | `files` | outputs that appear whole or not at all |
//! | `dataset` | folders of photos |
//! | `progress` | a bar on a terminal |
//! | `builtin` | the plan inside the program |
//!
//! Exit status: 0 done; 1 the work failed (some photos could not be read, the disk is full); 2 the command line or a file it names
//! cannot be used.
#![forbid(unsafe_code)]

mod accuracy;
mod args;
mod bench;
mod builtin;
#[cfg(feature = "compiler")]
mod calibration_photos;
mod camera;
mod classify;
#[cfg(feature = "compiler")]
mod compare;
#[cfg(feature = "compiler")]
mod compile;
mod cpu;
mod dataset;
mod failure;
mod files;
mod inspect;
mod output;
mod profile;
mod progress;
mod run;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Cli, Verb};
use crate::failure::Outcome;
use crate::output::Out;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return failure::command_line(&error),
    };
    let mut out = Out::new(cli.json);
    let outcome = dispatch(&cli.verb, &mut out).and_then(|outcome| {
        out.flush()?;
        Ok(outcome)
    });
    match outcome {
        Ok(outcome) => outcome.exit_code(),
        Err(error) => failure::exit(&error),
    }
}

fn dispatch(verb: &Verb, out: &mut Out) -> anyhow::Result<Outcome> {
    match verb {
        #[cfg(feature = "compiler")]
        Verb::Compile(args) => compile::verb(args, out),
        #[cfg(not(feature = "compiler"))]
        Verb::Compile { .. } => Err(failure::invalid(
            "compile: this program was built without the compiler; compile on a workstation and copy the plan",
        )),
        #[cfg(feature = "compiler")]
        Verb::Compare(args) => compare::verb(args, out),
        #[cfg(not(feature = "compiler"))]
        Verb::Compare { .. } => Err(failure::invalid(
            "compare: this program was built without the compiler, which reads ONNX; compare on a workstation",
        )),
        Verb::Classify(args) => classify::verb(args, out),
        Verb::Camera(args) => camera::verb(args, out),
        Verb::Run(args) => run::verb(args, out),
        Verb::Inspect(args) => inspect::verb(args, out),
        Verb::Accuracy(args) => accuracy::verb(args, out),
        Verb::Bench(args) => bench::verb(args, out),
        Verb::Profile(args) => profile::verb(args, out),
        Verb::Cpu => cpu::verb(out),
    }
}

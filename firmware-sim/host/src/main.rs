//! The firmware's host side: `cargo xtask firmware` builds the images and calls it.
//!
//! | module | does |
//! |---|---|
//! | `machine` | one boot: QEMU with flash, frames and options; exit status and log |
//! | `log` | the log, decoded by the image's table of strings |
//! | `flash` | a file that is the machine's flash |
//! | `film` | photos as the frames of a camera |
//! | `image` | sizes of the image's parts |
//! | `run` | `run`: a plan on some frames |
//! | `scenarios` | `test`: what can go wrong, each with its log beside it |
//! | `equality` | `test`: the zoo's models give the Linux engine's bytes |

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program"
)]

mod equality;
mod film;
mod flash;
mod image;
mod log;
mod machine;
mod run;
mod scenarios;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Boots the firmware in QEMU. (`cargo xtask firmware` builds the images and passes them on.)
#[derive(Debug, Parser)]
#[command(name = "cargo xtask firmware")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(run::Args),
    Test(scenarios::Args),
    Sizes(image::Args),
}

fn main() -> ExitCode {
    let done: Result<()> = match Cli::parse().verb {
        Verb::Run(args) => run::verb(&args),
        Verb::Test(args) => scenarios::verb(&args),
        Verb::Sizes(args) => image::verb(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

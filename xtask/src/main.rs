//! `cargo xtask <verb>`: the project's one entry point, the same on a laptop and in CI.
//!
//! | module | does |
//! |---|---|
//! | `setup` | finds, and installs, what the other verbs need |
//! | `test` | every check there is, in order |
//! | `test_models` | the tests of the Python package in `models/` |
//! | `models` | the large models: exported, compiled, compared; writes `docs/models.md` |
//! | `variants` | the same networks from other code and other exporters: all lower, to the same operations |
//! | `dist` | the release programs |
//! | `firmware` | the bare-metal image, booted in QEMU |
//! | `system_test` | `vitlet camera` on a machine with a virtual camera, booted in QEMU |
//! | `page_test` | the page of `vitlet camera`, used in a browser |
//! | `scenario` | named scenarios of the two, chosen and told of |
//! | `camera_rate` | what of the benchmark's rate `vitlet camera` keeps: a report |
//! | `soak` | the camera pipeline for an hour, with viewers and attackers; for `docs/reliability.md` |
//! | `peers` | vitlet and other engines side by side; writes `docs/performance.md` |
//! | `insns` | instructions of one inference, counted by QEMU, against `budgets/instructions.toml` |
//! | `mca` | cycles of the kernels' inner loops by LLVM's models of the boards' cores; writes `docs/cost-model.md` |
//! | `threads` | what two threads make of two cores: a report |
//! | `budgets` | sizes against `budgets/sizes.toml` |
//! | `zoo` | the checked-in plans are what the compiler makes today |
//! | `accuracy` | every method of calibration on the zoo's models; writes `docs/accuracy.md` |
//! | `cache` | what need not be made again |
//! | `machine` | the machine that figures were measured on |
//! | `pairs` | programs that are timed in turns |
//! | `project` | where things are, and how commands are run |
//! | `python` | Python environments under the target folder |
//! | `qemu` | instructions of a program, counted |
//! | `toolchain` | which Rust toolchain can build for which target |

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program"
)]

mod accuracy;
mod budgets;
mod cache;
mod camera_rate;
mod dist;
mod firmware;
mod insns;
mod machine;
mod mca;
mod models;
mod page_test;
mod pairs;
mod peers;
mod project;
mod python;
mod qemu;
mod quantile;
mod scenario;
mod setup;
mod soak;
mod system_test;
mod test;
mod test_models;
mod threads;
mod toolchain;
mod variants;
mod zoo;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::project::Project;

/// Builds, tests and measures vitlet. On a fresh machine `cargo xtask test` is all it takes: it does the set-up too.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Setup(setup::Args),
    Test(test::Args),
    TestModels(test_models::Args),
    Models(models::Args),
    Variants(variants::Args),
    Dist(dist::Args),
    Firmware(firmware::Args),
    SystemTest(system_test::Args),
    PageTest(page_test::Args),
    CameraRate(camera_rate::Args),
    Soak(soak::Args),
    Peers(peers::Args),
    Insns(insns::Args),
    Mca(mca::Args),
    Threads(threads::Args),
    Budgets(budgets::Args),
    Zoo(zoo::Args),
    Accuracy(accuracy::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = Project::find().and_then(|project| match &cli.verb {
        Verb::Setup(args) => setup::verb(&project, args),
        Verb::Test(args) => test::verb(&project, args),
        Verb::TestModels(args) => test_models::verb(&project, args),
        Verb::Models(args) => models::verb(&project, args),
        Verb::Variants(args) => variants::verb(&project, args),
        Verb::Dist(args) => dist::verb(&project, args),
        Verb::Firmware(args) => firmware::verb(&project, args),
        Verb::SystemTest(args) => system_test::verb(&project, args),
        Verb::PageTest(args) => page_test::verb(&project, args),
        Verb::CameraRate(args) => camera_rate::verb(&project, args),
        Verb::Soak(args) => soak::verb(&project, args),
        Verb::Peers(args) => peers::verb(&project, args),
        Verb::Insns(args) => insns::verb(&project, args),
        Verb::Mca(args) => mca::verb(&project, args),
        Verb::Threads(args) => threads::verb(&project, args),
        Verb::Budgets(args) => budgets::verb(&project, args),
        Verb::Zoo(args) => zoo::verb(&project, args),
        Verb::Accuracy(args) => accuracy::verb(&project, args),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

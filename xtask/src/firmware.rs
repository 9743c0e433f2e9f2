//! `cargo xtask firmware`: the bare-metal image, booted in QEMU.
//!
//! This builds; `firmware-sim/host` boots, feeds, decodes and compares. Both lie in a workspace of their own.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use xshell::cmd;

use crate::project::Project;
use crate::toolchain::{BARE_METAL, Core};

const WORKSPACE: &str = "firmware-sim/Cargo.toml";
const BUDGET: &str = "budgets/firmware.toml";
/// The models that every CPU runs on bare metal.
const MODELS: [&str; 2] = ["pvt_v2_b0", "sepvit_lite"];

/// Build the bare-metal firmware, run a plan on it in QEMU, or run all its scenarios.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask firmware run --cpu cortex-a53 --plan model.vitlet --frames photos --json
  cargo xtask firmware test
  cargo xtask firmware test -- --only update --bless")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build the image and print its sizes
    Build,
    /// Classify the photos of a folder (`run -- --help` has the options)
    #[command(disable_help_flag = true)]
    Run(Passed),
    /// Run every scenario and the zoo's models on every CPU (`test -- --help` has the options)
    #[command(disable_help_flag = true)]
    Test(Passed),
}

/// Handed on to the host side.
#[derive(Debug, clap::Args)]
struct Passed {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// The images, and the program that boots them.
struct Built {
    image: PathBuf,
    inject: PathBuf,
    host: PathBuf,
    rustc: String,
}

pub(crate) fn verb(project: &Project, args: &Args) -> Result<()> {
    let built = build(project)?;
    let Built {
        image,
        inject,
        host,
        rustc,
    } = &built;
    let sh = &project.sh;
    match &args.verb {
        Verb::Build => {
            cmd!(sh, "{host} sizes --image {image} --budget {BUDGET}").run()?;
        }
        Verb::Run(Passed { args }) => {
            cmd!(sh, "{host} run --image {image} {args...}")
                .quiet()
                .run()?;
        }
        Verb::Test(Passed { args }) => {
            let models = models(project)?;
            cmd!(
                sh,
                "{host} test --image {image} --inject {inject} --budget {BUDGET} --instructions budgets/instructions.toml
                 --rustc {rustc} --photos models/samples --logs firmware-sim/host/scenarios --models {models...} {args...}"
            )
            .run()?;
            cmd!(sh, "{host} sizes --image {image} --budget {BUDGET}").run()?;
        }
    }
    Ok(())
}

fn models(project: &Project) -> Result<Vec<PathBuf>> {
    let zoo = project.zoo()?.into_iter();
    let known = zoo.filter(|model| MODELS.iter().any(|name| model.name.starts_with(name)));
    Ok(known.map(|model| model.folder).collect())
}

fn build(project: &Project) -> Result<Built> {
    let sh = &project.sh;
    let target = project.target.join("firmware");
    let core =
        Core::find(sh).context("no Rust core for bare aarch64; `cargo xtask setup` installs it")?;
    let (toolchain, from_source) = match core {
        Core::Prebuilt(toolchain) => (toolchain, None),
        Core::FromSource(toolchain) => (toolchain, Some("-Zbuild-std=core")),
    };
    let plus = toolchain.plus();
    // rustup's toolchains bring a linker along, distributions' do not.
    let linker = from_source.map(|_| "ld.lld");
    let image = |feature: Option<&str>, name: &str| -> Result<PathBuf> {
        let features = feature.map(|feature| format!("--features={feature}"));
        cmd!(
            sh,
            "cargo {plus...} build --locked --manifest-path {WORKSPACE} --package vitlet-firmware-virt --profile firmware
             --target {BARE_METAL} --target-dir {target} {features...} {from_source...}"
        )
        .envs(from_source.map(|_| ("RUSTC_BOOTSTRAP", "1")))
        .envs(linker.map(|linker| ("CARGO_TARGET_AARCH64_UNKNOWN_NONE_LINKER", linker)))
        .run()?;
        // The next build writes the same file.
        let kept = target.join(name);
        let made = target
            .join(BARE_METAL)
            .join("firmware/vitlet-firmware-virt");
        sh.copy_file(made, &kept)?;
        Ok(kept)
    };
    let inject = image(Some("inject"), "firmware-inject.elf")?;
    let image = image(None, "firmware.elf")?;
    cmd!(
        sh,
        "cargo build --locked --release --manifest-path {WORKSPACE} --package vitlet-firmware-host --target-dir {target}"
    )
    .run()?;
    Ok(Built {
        image,
        inject,
        host: target.join("release/vitlet-firmware-host"),
        rustc: toolchain.version(sh)?,
    })
}

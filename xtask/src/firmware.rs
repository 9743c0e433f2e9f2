//! `cargo xtask firmware`: the bare-metal image, booted in QEMU.
//!
//! This builds; `firmware-sim/host` boots, feeds, decodes and compares. Both lie in a workspace of their own.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use xshell::cmd;

use crate::project::Project;
use crate::toolchain::{BARE_METAL, Core, Toolchain};

const WORKSPACE: &str = "firmware-sim/Cargo.toml";
const BUDGET: &str = "budgets/firmware.toml";
/// The models that every CPU runs on bare metal.
const MODELS: [&str; 2] = ["pvt_v2_b0_trashnet", "sepvit_lite_trashnet"];

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

/// Every scenario, every CPU, and the sizes: a step of `cargo xtask test`. `full` compares more frames.
pub(crate) fn check(project: &Project, full: bool) -> Result<()> {
    let args = full.then(|| OsString::from("--full"));
    let verb = Verb::Test(Passed {
        args: args.into_iter().collect(),
    });
    self::verb(project, &Args { verb })
}

/// Clippy for the image and for the programs that boot it.
pub(crate) fn lint(project: &Project) -> Result<()> {
    let sh = &project.sh;
    let target = project.target.join("firmware");
    cmd!(
        sh,
        "cargo clippy --locked --release --manifest-path {WORKSPACE} --package vitlet-firmware-host --all-targets
         --target-dir {target} -- --deny warnings"
    )
    .run()?;
    Cross::find(project)?.cargo(
        project,
        "clippy",
        &["--all-features", "--", "--deny", "warnings"],
    )
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
    let known = zoo.filter(|model| MODELS.contains(&model.name.as_str()));
    Ok(known.map(|model| model.folder).collect())
}

/// What builds for the boards without an operating system.
struct Cross {
    toolchain: Toolchain,
    from_source: bool,
}

impl Cross {
    fn find(project: &Project) -> Result<Self> {
        let core = Core::find(&project.sh)
            .context("no Rust core for bare aarch64; `cargo xtask setup` installs it")?;
        let (toolchain, from_source) = match core {
            Core::Prebuilt(toolchain) => (toolchain, false),
            Core::FromSource(toolchain) => (toolchain, true),
        };
        Ok(Self {
            toolchain,
            from_source,
        })
    }

    /// Runs cargo's `verb` for the image.
    fn cargo(&self, project: &Project, verb: &str, args: &[&str]) -> Result<()> {
        let plus = self.toolchain.plus();
        let target = project.target.join("firmware");
        let from_source = self.from_source.then_some("-Zbuild-std=core");
        // rustup's toolchains bring a linker along, distributions' do not.
        let linker = self.from_source.then_some("ld.lld");
        cmd!(
            project.sh,
            "cargo {plus...} {verb} --locked --manifest-path {WORKSPACE} --package vitlet-firmware-virt --profile firmware
             --target {BARE_METAL} --target-dir {target} {from_source...} {args...}"
        )
        .envs(from_source.map(|_| ("RUSTC_BOOTSTRAP", "1")))
        .envs(linker.map(|linker| ("CARGO_TARGET_AARCH64_UNKNOWN_NONE_LINKER", linker)))
        .run()?;
        Ok(())
    }
}

fn build(project: &Project) -> Result<Built> {
    let sh = &project.sh;
    let target = project.target.join("firmware");
    let cross = Cross::find(project)?;
    let image = |features: &[&str], name: &str| -> Result<PathBuf> {
        cross.cargo(project, "build", features)?;
        // The next build writes the same file.
        let kept = target.join(name);
        let made = target
            .join(BARE_METAL)
            .join("firmware/vitlet-firmware-virt");
        sh.copy_file(made, &kept)?;
        Ok(kept)
    };
    let inject = image(&["--features=inject"], "firmware-inject.elf")?;
    let image = image(&[], "firmware.elf")?;
    cmd!(
        sh,
        "cargo build --locked --release --manifest-path {WORKSPACE} --package vitlet-firmware-host --target-dir {target}"
    )
    .run()?;
    Ok(Built {
        image,
        inject,
        host: target.join("release/vitlet-firmware-host"),
        rustc: cross.toolchain.version(sh)?,
    })
}

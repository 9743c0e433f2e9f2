//! `cargo xtask dist`: the release programs, each at the path that the README promises.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use xshell::cmd;

use crate::project::Project;
use crate::toolchain::{DEVICE, Toolchain};

/// Build the release programs: this machine's, and the boards' (aarch64, static, without `vitlet compile`).
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Build only this machine's program.
    #[arg(long, conflicts_with = "device")]
    native: bool,
    /// Build only the boards' program.
    #[arg(long)]
    device: bool,
}

pub(crate) fn verb(project: &Project, args: &Args) -> Result<()> {
    let mut programs = Vec::new();
    if !args.device {
        programs.push(native(project)?);
    }
    if !args.native {
        programs.push(device(project)?);
    }
    for program in &programs {
        let bytes = program.metadata()?.len();
        println!("{:>12} bytes  {}", bytes, project.shown(program).display());
    }
    Ok(())
}

/// The program that an option named, or else this machine's, fresh.
pub(crate) fn chosen(project: &Project, named: Option<&Path>) -> Result<PathBuf> {
    named.map_or_else(|| native(project), |program| Ok(program.to_path_buf()))
}

/// Builds this machine's program; nothing happens when it is fresh.
pub(crate) fn native(project: &Project) -> Result<PathBuf> {
    eprintln!("this machine's program (on a clean checkout tract takes some minutes):");
    cmd!(
        project.sh,
        "cargo build --locked --release --package vitlet-cli"
    )
    .run()?;
    Ok(project.target.join("release/vitlet"))
}

/// Boards have little flash, and nobody debugs on them: no symbols, and none of the tables (an eighth of the program) by which a panic
/// would clean up before the program ends, or a debugger find a function's caller.
const SMALL: [&str; 6] = [
    "--config",
    "profile.release.strip=\"symbols\"",
    "--config",
    "profile.release.panic=\"abort\"",
    "--config",
    "target.aarch64-unknown-linux-gnu.rustflags=[\"-Cforce-unwind-tables=no\"]",
];

/// Builds the boards' program, with its built-in plan and without tract; nothing happens when it is fresh.
pub(crate) fn device(project: &Project) -> Result<PathBuf> {
    let sh = &project.sh;
    let toolchain = Toolchain::with_library(sh, DEVICE).with_context(|| {
        format!("no Rust toolchain here has the library of {DEVICE}: run `cargo xtask setup`")
    })?;
    eprintln!("the boards' program, by Rust {}:", toolchain.version(sh)?);
    let plus = toolchain.plus();
    cmd!(
        sh,
        "cargo {plus...} build --locked --release --package vitlet-cli --no-default-features --features builtin-plan --target {DEVICE} {SMALL...}"
    )
    .run()?;
    let program = project.target.join(DEVICE).join("release/vitlet");
    ensure_static(&sh.read_binary_file(&program)?)
        .with_context(|| project.shown(&program).display().to_string())?;
    Ok(program)
}

/// A program that names an interpreter (the dynamic linker) would need the glibc it was built with.
fn ensure_static(elf: &[u8]) -> Result<()> {
    const PT_INTERP: usize = 3;
    let field = |offset: usize, len: usize| -> Result<usize> {
        let bytes = elf
            .get(offset..offset + len)
            .context("the ELF file is cut short")?;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | usize::from(byte)))
    };
    ensure!(
        elf.starts_with(b"\x7fELF\x02\x01"),
        "not a little-endian 64-bit ELF file"
    );
    let (table, entry_len, entries) = (field(0x20, 8)?, field(0x36, 2)?, field(0x38, 2)?);
    for entry in 0..entries {
        if field(table + entry * entry_len, 4)? == PT_INTERP {
            bail!("it is dynamically linked; boards need a static one (see .cargo/config.toml)");
        }
    }
    Ok(())
}

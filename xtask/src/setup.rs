//! `cargo xtask setup`: finds what the other verbs need, and installs what is missing.
//!
//! In this order: by rustup, by `cargo install`, by Debian's packages. What none of them provides is listed with what
//! to install by hand; nothing is left out silently.

use std::env;

use anyhow::{Result, bail};
use xshell::cmd;

use crate::mca::Llvm;
use crate::project::Project;
use crate::toolchain::{BARE_METAL, Core, DEVICE, Toolchain};

const CARGO_DENY: &str = "0.20.2";
const CARGO_FUZZ: &str = "0.13.2";

/// Find what the other verbs need, and install what is missing.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also what `test --full` needs.
    #[arg(long)]
    full: bool,
}

/// Something that a verb needs from outside the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    CCompiler,
    Rustfmt,
    Clippy,
    DeviceLibrary,
    DeviceLinker,
    DeviceClippy,
    Qemu,
    QemuSystem,
    BareMetal,
    BareMetalLinker,
    CargoDeny,
    CargoFuzz,
    LlvmMca,
    Chromium,
}

/// A way to install a tool without a person.
enum Install {
    RustupTarget(&'static str),
    RustupComponent(&'static str),
    Cargo {
        name: &'static str,
        version: &'static str,
    },
    None,
}

impl Tool {
    const ALWAYS: &[Self] = &[
        Self::CCompiler,
        Self::Rustfmt,
        Self::Clippy,
        Self::DeviceLibrary,
        Self::DeviceLinker,
        Self::DeviceClippy,
        Self::Qemu,
        Self::QemuSystem,
        Self::BareMetal,
        Self::BareMetalLinker,
        Self::CargoDeny,
    ];
    const FULL: &[Self] = &[Self::CargoFuzz, Self::LlvmMca, Self::Chromium];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::CCompiler => "C and C++ compiler",
            Self::Rustfmt => "rustfmt",
            Self::Clippy => "clippy",
            Self::DeviceLibrary => "Rust library for aarch64 Linux",
            Self::DeviceLinker => "aarch64 linker and static glibc",
            Self::DeviceClippy => "clippy for aarch64 Linux",
            Self::Qemu => "qemu-aarch64",
            Self::QemuSystem => "qemu-system-aarch64",
            Self::BareMetal => "Rust core for bare aarch64",
            Self::BareMetalLinker => "linker for bare aarch64",
            Self::CargoDeny => "cargo-deny",
            Self::CargoFuzz => "cargo-fuzz",
            Self::LlvmMca => "llvm-mca",
            Self::Chromium => "Chromium",
        }
    }

    /// What was found, or nothing.
    pub(crate) fn found(self, project: &Project) -> Option<String> {
        let sh = &project.sh;
        match self {
            Self::CCompiler => first_line(project, "cc", &["--version"])
                .filter(|_| first_line(project, "c++", &["--version"]).is_some()),
            Self::Rustfmt => first_line(project, "cargo", &["fmt", "--version"]),
            Self::Clippy => first_line(project, "cargo", &["clippy", "--version"]),
            Self::DeviceLibrary => {
                let toolchain = Toolchain::with_library(sh, DEVICE)?;
                Some(format!(
                    "Rust {}{}",
                    toolchain.version(sh).ok()?,
                    by(toolchain)
                ))
            }
            Self::DeviceLinker => linker_with_static_glibc(project),
            Self::DeviceClippy => {
                let plus = Toolchain::with_library(sh, DEVICE)?.plus();
                let args: Vec<&str> = plus.into_iter().chain(["clippy", "--version"]).collect();
                first_line(project, "cargo", &args)
            }
            Self::Qemu => first_line(project, "qemu-aarch64", &["--version"]),
            Self::QemuSystem => first_line(project, "qemu-system-aarch64", &["--version"]),
            Self::BareMetal => Some(match Core::find(sh)? {
                Core::Prebuilt(toolchain) => format!("prebuilt{}", by(toolchain)),
                Core::FromSource(toolchain) => format!("from source{}", by(toolchain)),
            }),
            // rustup's toolchains bring one along, distributions' do not.
            Self::BareMetalLinker => match Core::find(sh) {
                Some(Core::Prebuilt(_)) => Some("rust-lld".to_owned()),
                _ => first_line(project, "ld.lld", &["--version"]),
            },
            Self::CargoDeny => first_line(project, "cargo", &["deny", "--version"]),
            Self::CargoFuzz => first_line(project, "cargo", &["fuzz", "--version"]),
            Self::LlvmMca => llvm(project).map(|llvm| format!("LLVM {}", llvm.version)),
            Self::Chromium => first_line(project, chromium(project)?, &["--version"]),
        }
    }

    const fn install(self) -> Install {
        match self {
            Self::DeviceLibrary => Install::RustupTarget(DEVICE),
            Self::BareMetal => Install::RustupTarget(BARE_METAL),
            Self::Rustfmt => Install::RustupComponent("rustfmt"),
            Self::Clippy => Install::RustupComponent("clippy"),
            Self::CargoDeny => Install::Cargo {
                name: "cargo-deny",
                version: CARGO_DENY,
            },
            Self::CargoFuzz => Install::Cargo {
                name: "cargo-fuzz",
                version: CARGO_FUZZ,
            },
            Self::CCompiler
            | Self::DeviceLinker
            | Self::DeviceClippy
            | Self::Qemu
            | Self::QemuSystem
            | Self::BareMetalLinker
            | Self::LlvmMca
            | Self::Chromium => Install::None,
        }
    }

    /// Debian's packages that provide it, where rustup or cargo did not.
    const fn debian_packages(self) -> &'static [&'static str] {
        match self {
            Self::CCompiler => &["gcc", "g++", "libc6-dev"],
            Self::DeviceLibrary => &["rustc-web", "cargo-web", "libstd-rust-web-dev:arm64"],
            Self::DeviceClippy => &["rust-web-clippy"],
            Self::DeviceLinker => &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
            Self::Qemu => &["qemu-user"],
            Self::QemuSystem => &["qemu-system-arm"],
            Self::BareMetalLinker => &["lld"],
            Self::LlvmMca => &["llvm-19"],
            Self::Chromium => &["chromium"],
            Self::BareMetal => &["rustc-web", "cargo-web", "rust-web-src"],
            Self::Rustfmt | Self::Clippy | Self::CargoDeny | Self::CargoFuzz => &[],
        }
    }

    /// What to do by hand where nothing above worked.
    const fn advice(self) -> &'static str {
        match self {
            Self::CCompiler => {
                "install a C and a C++ compiler as `cc` and `c++` (macOS: xcode-select --install; Fedora: gcc gcc-c++)"
            }
            Self::Rustfmt => "rustup component add rustfmt",
            Self::Clippy => "rustup component add clippy",
            Self::DeviceLibrary => "rustup target add aarch64-unknown-linux-gnu",
            Self::DeviceLinker => {
                "install a cross gcc with a static glibc; if it is not called aarch64-linux-gnu-gcc, set \
                 CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER to its name (macOS: Homebrew's tap messense/macos-cross-toolchains, \
                 aarch64-unknown-linux-gnu-gcc; Arch: aarch64-linux-gnu-gcc; Fedora packages no cross glibc: use a Debian container)"
            }
            Self::DeviceClippy => {
                "rustup component add clippy, and rustup target add aarch64-unknown-linux-gnu"
            }
            Self::Qemu => {
                "install QEMU's user-mode emulator, qemu-aarch64 (Fedora: qemu-user; Arch: qemu-user; there is none on macOS: use a Debian container)"
            }
            Self::QemuSystem => {
                "install QEMU's system emulator for ARM (Fedora: qemu-system-aarch64; Arch: qemu-system-aarch64; Homebrew: qemu)"
            }
            Self::BareMetal => "rustup target add aarch64-unknown-none",
            Self::BareMetalLinker => "install LLVM's linker, ld.lld (Fedora, Arch, Homebrew: lld)",
            Self::CargoDeny => "cargo install --locked cargo-deny",
            Self::CargoFuzz => "cargo install --locked cargo-fuzz",
            Self::LlvmMca => "install LLVM's tools, 17 or newer (Fedora, Arch, Homebrew: llvm)",
            Self::Chromium => "install Chromium or Chrome (Fedora, Arch: chromium)",
        }
    }
}

pub(crate) fn verb(project: &Project, args: &Args) -> Result<()> {
    let missing = run(project, args.full)?;
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|tool| tool.name()).collect();
    bail!(
        "still missing, to be installed by hand as said above: {}",
        names.join(", ")
    )
}

/// Installs what is missing, says what it does, and returns what it could not install.
pub(crate) fn run(project: &Project, full: bool) -> Result<Vec<Tool>> {
    let extra = if full { Tool::FULL } else { &[] };
    let tools: Vec<Tool> = Tool::ALWAYS.iter().chain(extra).copied().collect();
    let missing = report(project, &tools, "missing");
    if missing.is_empty() {
        return Ok(missing);
    }
    for tool in &missing {
        install_by_rust(project, *tool);
    }
    let missing = still_missing(project, &missing);
    install_by_debian(project, &missing)?;
    println!("after installing:");
    let missing = report(project, &tools, "STILL MISSING");
    for tool in &missing {
        println!("to install by hand: {}: {}", tool.name(), tool.advice());
    }
    Ok(missing)
}

fn report(project: &Project, tools: &[Tool], absent: &str) -> Vec<Tool> {
    let mut missing = Vec::new();
    for &tool in tools {
        match tool.found(project) {
            Some(found) => println!("  {:<32} {found}", tool.name()),
            None => {
                println!("  {:<32} {absent}", tool.name());
                missing.push(tool);
            }
        }
    }
    missing
}

fn still_missing(project: &Project, tools: &[Tool]) -> Vec<Tool> {
    tools
        .iter()
        .copied()
        .filter(|tool| tool.found(project).is_none())
        .collect()
}

/// By rustup or cargo. A failure is no error here: Debian's packages are tried next, and what then lacks is listed.
fn install_by_rust(project: &Project, tool: Tool) {
    let sh = &project.sh;
    let command = match tool.install() {
        Install::None => return,
        Install::RustupTarget(target) => cmd!(sh, "rustup target add {target}"),
        Install::RustupComponent(component) => cmd!(sh, "rustup component add {component}"),
        // Unoptimised: it runs for a second, and builds in half the time.
        Install::Cargo { name, version } => {
            let folder = project.target.join("xtask/cargo-install");
            cmd!(
                sh,
                "cargo install --locked --debug {name} --version {version} --target-dir {folder}"
            )
        }
    };
    println!("installing {}:", tool.name());
    // rustup would add a backtrace of itself.
    if let Err(error) = command.env("RUST_BACKTRACE", "0").run() {
        println!("  did not work: {error}");
    }
}

/// By Debian's packages, where this is a Debian (or Ubuntu) and root's rights can be had.
fn install_by_debian(project: &Project, missing: &[Tool]) -> Result<()> {
    let sh = &project.sh;
    let mut packages: Vec<&str> = missing
        .iter()
        .flat_map(|tool| tool.debian_packages())
        .copied()
        .collect();
    packages.sort_unstable();
    packages.dedup();
    let rust = packages.contains(&"rustc-web");
    if packages.is_empty() || first_line(project, "apt-get", &["--version"]).is_none() {
        return Ok(());
    }
    println!("installing Debian's packages {}:", packages.join(" "));
    let arm64 = packages.iter().any(|package| package.ends_with(":arm64"));
    update_package_lists(project, arm64)?;
    let as_root = as_root(project)?;
    cmd!(
        sh,
        "{as_root} DEBIAN_FRONTEND=noninteractive apt-get install -qq -o Dpkg::Use-Pty=0 --yes --no-install-recommends {packages...}"
    )
    .run_or_say();
    if rust {
        cmd!(sh, "rustup toolchain link debian /usr").run_or_say();
    }
    Ok(())
}

/// Fetches Debian's lists of packages, with those for arm64 if asked to.
pub(crate) fn update_package_lists(project: &Project, arm64: bool) -> Result<()> {
    let sh = &project.sh;
    let as_root = as_root(project)?;
    if arm64 {
        cmd!(sh, "{as_root} dpkg --add-architecture arm64").run_or_say();
    }
    cmd!(sh, "{as_root} apt-get update -qq").run_or_say();
    Ok(())
}

/// What a command is given to, to be run as root. Both take variables before the command.
fn as_root(project: &Project) -> Result<&'static str> {
    let is_root = cmd!(project.sh, "id -u").quiet().read()? == "0";
    Ok(if is_root { "env" } else { "sudo" })
}

trait RunOrSay {
    /// Runs it; a failure is printed, and what it was to install is found missing later.
    fn run_or_say(self);
}

impl RunOrSay for xshell::Cmd<'_> {
    fn run_or_say(self) {
        if let Err(error) = self.run() {
            println!("  did not work: {error}");
        }
    }
}

/// The linker's version, if it finds a static C library.
fn linker_with_static_glibc(project: &Project) -> Option<String> {
    let linker = env::var("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER")
        .unwrap_or_else(|_| "aarch64-linux-gnu-gcc".to_owned());
    // gcc prints the bare name when it has no such file.
    let libc = first_line(project, &linker, &["-print-file-name=libc.a"])?;
    if libc == "libc.a" {
        return None;
    }
    first_line(project, &linker, &["--version"])
}

/// LLVM's tools, of the first version that is there and has models of the boards' cores: Neoverse N1 came with 17.
pub(crate) fn llvm(project: &Project) -> Option<Llvm> {
    ["-19", "", "-22", "-21", "-20", "-18", "-17"]
        .into_iter()
        .find_map(|suffix| {
            let printed = cmd!(project.sh, "llvm-mca{suffix} --version")
                .quiet()
                .ignore_stderr()
                .read()
                .ok()?;
            let version = llvm_version(&printed)?;
            Some(Llvm {
                suffix: suffix.to_owned(),
                version,
            })
        })
}

/// The browser of `page-test`, by the name that it has here.
pub(crate) fn chromium(project: &Project) -> Option<&'static str> {
    ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| first_line(project, name, &["--version"]).is_some())
}

/// `19.1.7` of `Debian LLVM version 19.1.7`, if it is new enough.
fn llvm_version(printed: &str) -> Option<String> {
    let version = printed.split("LLVM version ").nth(1)?;
    let version = version.split_whitespace().next()?;
    let major: u32 = version.split('.').next()?.parse().ok()?;
    (major >= 17).then(|| version.to_owned())
}

fn first_line(project: &Project, program: &str, args: &[&str]) -> Option<String> {
    let printed = cmd!(project.sh, "{program} {args...}")
        .quiet()
        .ignore_stderr()
        .read()
        .ok()?;
    printed.lines().next().map(str::to_owned)
}

const fn by(toolchain: Toolchain) -> &'static str {
    match toolchain {
        Toolchain::Default => "",
        Toolchain::Debian => ", Debian's",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvm_before_17_will_not_do() {
        let debian = |version| format!("Debian LLVM version {version}\n  Optimized build.\n");
        assert_eq!(llvm_version(&debian("19.1.7")).as_deref(), Some("19.1.7"));
        assert_eq!(llvm_version(&debian("14.0.6")), None);
        assert_eq!(llvm_version("no version"), None);
    }
}

//! Which Rust toolchain can build for which target.
//!
//! Rustup is the normal way to another target's library. Where it cannot download, Debian's own Rust has the libraries
//! too: `rustup toolchain link debian /usr` makes it `cargo +debian`. The one that has what is asked for is used.

use std::path::Path;

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

/// The boards' target.
pub(crate) const DEVICE: &str = "aarch64-unknown-linux-gnu";
/// A target without an operating system, to prove that crates are `no_std`.
pub(crate) const BARE_METAL: &str = "aarch64-unknown-none";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// The one that builds everything else.
    Default,
    /// Debian's, linked into rustup as `debian`.
    Debian,
}

/// How `core` for bare metal is had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Core {
    Prebuilt(Toolchain),
    /// From the library's source, by `-Zbuild-std`.
    FromSource(Toolchain),
}

impl Toolchain {
    const ALL: [Self; 2] = [Self::Default, Self::Debian];

    /// The first argument of `cargo` and `rustc` that chooses it.
    pub(crate) const fn plus(self) -> Option<&'static str> {
        match self {
            Self::Default => None,
            Self::Debian => Some("+debian"),
        }
    }

    /// The first toolchain that has the standard library of `target`.
    pub(crate) fn with_library(sh: &Shell, target: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|toolchain| toolchain.has_library(sh, target))
    }

    fn has_library(self, sh: &Shell, target: &str) -> bool {
        self.rustc(sh, &["--print", "target-libdir", "--target", target])
            .is_some_and(|folder| holds_core(sh, Path::new(&folder)))
    }

    fn has_source(self, sh: &Shell) -> bool {
        self.rustc(sh, &["--print", "sysroot"]).is_some_and(|root| {
            Path::new(&root)
                .join("lib/rustlib/src/rust/library/core")
                .is_dir()
        })
    }

    /// The version of its compiler, such as `1.95.0`.
    pub(crate) fn version(self, sh: &Shell) -> Result<String> {
        let printed = self
            .rustc(sh, &["--version"])
            .context("rustc --version failed; install Rust (https://rustup.rs)")?;
        let version = printed.split_whitespace().nth(1);
        Ok(version
            .context("rustc --version prints no version")?
            .to_owned())
    }

    fn rustc(self, sh: &Shell, args: &[&str]) -> Option<String> {
        let plus = self.plus();
        cmd!(sh, "rustc {plus...} {args...}")
            .quiet()
            .ignore_stderr()
            .read()
            .ok()
    }
}

fn holds_core(sh: &Shell, folder: &Path) -> bool {
    sh.read_dir(folder).is_ok_and(|files| {
        files.iter().any(|file| {
            file.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("libcore-"))
        })
    })
}

impl Core {
    pub(crate) fn find(sh: &Shell) -> Option<Self> {
        Toolchain::with_library(sh, BARE_METAL)
            .map(Self::Prebuilt)
            .or_else(|| {
                Toolchain::ALL
                    .into_iter()
                    .find(|toolchain| toolchain.has_source(sh))
                    .map(Self::FromSource)
            })
    }
}

//! What the benches run on: the checked-in plans, and those of the other families where they have been made.
//!
//! ```sh
//! cargo bench -p vitlet-benches                            # all of it
//! cargo bench -p vitlet-benches --bench models
//! cargo bench -p vitlet-benches --bench preprocess          # resizing a camera's frame
//! cargo bench -p vitlet-benches --bench kernels -- depthwise
//! cargo bench -p vitlet-benches --bench kernels -- 'linear.*avx2'
//! cargo bench -p vitlet-benches -- --save-baseline before   # then change something, and
//! cargo bench -p vitlet-benches -- --baseline before
//! ```
//!
//! Operations and their shapes are those of the plans, so there is no second list of them. `cargo xtask insns --all` makes the plans of
//! the families that are not checked in.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use vitlet::{Model, Plan};

/// A name for people, and a plan's file in memory.
pub struct Network {
    /// As the plan's file or folder is called.
    pub name: String,
    model: Model,
}

impl Network {
    fn open(name: &str, path: &Path) -> Result<Self> {
        let model = Model::open(path)?;
        Ok(Self {
            name: name.to_owned(),
            model,
        })
    }

    /// The verified plan.
    ///
    /// # Errors
    /// If the file is no plan.
    pub fn plan(&self) -> Result<Plan<'_>> {
        Ok(self.model.plan()?)
    }
}

/// Every network that has a plan: those of the zoo first. What is not there is named on standard error.
///
/// # Errors
/// If a file cannot be read, or the zoo is empty.
pub fn networks() -> Result<Vec<Network>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("benches lies in the project's root")?;
    let mut networks = Vec::new();
    for (name, folder) in entries(&root.join("models/zoo"))? {
        let plan = folder.join("model.vitlet");
        if plan.is_file() {
            networks.push(Network::open(&name, &plan)?);
        }
    }
    anyhow::ensure!(
        !networks.is_empty(),
        "models/zoo: no folder there holds a model.vitlet"
    );
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let made = target.join("models-zoo");
    for name in ["sepvit_lite", "swin_tiny_w7_224", "dualvit_s"] {
        let plan = made.join(name).with_extension("vitlet");
        if plan.is_file() {
            networks.push(Network::open(name, &plan)?);
        } else {
            say(&format!(
                "{name}: has no plan yet; `cargo xtask insns --all` makes it"
            ));
        }
    }
    Ok(networks)
}

/// What lies in a folder, by name.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut entries = Vec::new();
    for entry in folder
        .read_dir()
        .with_context(|| folder.display().to_string())?
    {
        let entry = entry?;
        entries.push((
            entry.file_name().to_string_lossy().into_owned(),
            entry.path(),
        ));
    }
    entries.sort();
    Ok(entries)
}

#[allow(clippy::print_stderr, reason = "programs use it")]
fn say(line: &str) {
    eprintln!("{line}");
}

/// Bytes of an image that are the same everywhere; no kernel's time depends on them.
#[must_use]
pub fn image(plan: &Plan<'_>) -> Vec<u8> {
    let (height, width) = plan.input();
    let bytes = 0..height as usize * width as usize * 3;
    bytes.map(|index| (index * 37 % 251) as u8).collect()
}

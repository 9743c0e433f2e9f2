//! `cargo xtask test-models`: the tests of the Python package in `models/`.
//!
//! Not one of `cargo xtask test`'s steps: PyTorch is gigabytes, and nothing that vitlet builds or runs needs it. The
//! Python environment lies under the target folder. It is made once, and anew when `models/pyproject.toml` changes.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xshell::cmd;

use crate::project::Project;

/// Test the network definitions in models/: makes a Python environment with PyTorch under target/, then runs pytest.
///
/// On Linux pip takes PyTorch with its CUDA libraries, some gigabytes, unless
/// `PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu` offers it a smaller one. Python 3.11 or newer is needed,
/// as `python3` or as the variable PYTHON says.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What pytest is to be told, after `--`: as `-- -k swin`.
    #[arg(last = true)]
    pytest: Vec<String>,
}

pub(crate) fn verb(project: &Project, args: &Args) -> Result<()> {
    let python = environment(project)?;
    let sh = &project.sh;
    let _folder = sh.push_dir("models");
    let arguments = &args.pytest;
    println!("== pytest in models/");
    cmd!(sh, "{python} -m pytest {arguments...}").run()?;
    Ok(())
}

/// The Python of an environment that holds what the tests need.
pub(crate) fn environment(project: &Project) -> Result<PathBuf> {
    let sh = &project.sh;
    let venv = project.target.join("models-venv");
    let python = venv.join("bin/python");
    let wanted = sh.read_file("models/pyproject.toml")?;
    // A copy of the project file says what was installed; it is written last.
    let installed = venv.join("installed.toml");
    let shown = project.shown(&venv).display();
    if installed.is_file() && sh.read_file(&installed)? == wanted {
        println!("== {shown}: what models/pyproject.toml asks for is installed");
        return Ok(python);
    }
    println!("== {shown}: made anew, with what models/pyproject.toml asks for (PyTorch: minutes)");
    install(project, &venv, &python)?;
    sh.write_file(&installed, wanted)?;
    Ok(python)
}

fn install(project: &Project, venv: &Path, python: &Path) -> Result<()> {
    let sh = &project.sh;
    let system = sh.var_os("PYTHON").unwrap_or_else(|| "python3".into());
    cmd!(sh, "{system} -m venv --clear {venv}")
        .run()
        .context("Python 3.11 or newer with its module venv is needed (Debian: python3-venv)")?;
    // Editable: the tests run the sources as they are, whatever was installed when.
    cmd!(
        sh,
        "{python} -m pip install --quiet --disable-pip-version-check --editable models[test]"
    )
    .run()?;
    Ok(())
}

//! `cargo xtask test-models`: the tests of the Python package in `models/`.
//!
//! Not one of `cargo xtask test`'s steps: PyTorch is gigabytes, and nothing that vitlet builds or runs needs it. The
//! Python environment lies under the target folder. It is made once, and anew when `models/pyproject.toml` changes.

use std::path::PathBuf;

use anyhow::Result;
use xshell::cmd;

use crate::project::Project;
use crate::python::Environment;

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
    Environment {
        folder: &project.target.join("models-venv"),
        wanted: "models/pyproject.toml",
        // Editable: the tests run the sources as they are, whatever was installed when.
        pip: &["--editable", "models[test]"],
        note: "PyTorch: minutes",
    }
    .python(project)
}

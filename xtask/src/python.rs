//! Python environments under the target folder: made once, and anew when what they are to hold changes.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xshell::cmd;

use crate::project::Project;

/// What an environment holds.
pub(crate) struct Environment<'a> {
    /// Where it lies.
    pub(crate) folder: &'a Path,
    /// The file that says what it holds.
    pub(crate) wanted: &'a str,
    /// How pip is asked for that.
    pub(crate) pip: &'a [&'a str],
    /// How long that takes, and why.
    pub(crate) note: &'a str,
}

impl Environment<'_> {
    /// Its Python, after installing what is wanted.
    pub(crate) fn python(&self, project: &Project) -> Result<PathBuf> {
        let sh = &project.sh;
        let Self { folder, wanted, .. } = *self;
        let python = folder.join("bin/python");
        let contents = sh.read_file(wanted)?;
        // A copy of the file says what was installed; it is written last.
        let installed = folder.join("installed.txt");
        let shown = project.shown(folder).display();
        if installed.is_file() && sh.read_file(&installed)? == contents {
            println!("== {shown}: what {wanted} asks for is installed");
            return Ok(python);
        }
        println!(
            "== {shown}: made anew, with what {wanted} asks for ({})",
            self.note
        );
        self.install(project, &python)?;
        sh.write_file(&installed, contents)?;
        Ok(python)
    }

    fn install(&self, project: &Project, python: &Path) -> Result<()> {
        let sh = &project.sh;
        let Self { folder, pip, .. } = *self;
        let system = sh.var_os("PYTHON").unwrap_or_else(|| "python3".into());
        cmd!(sh, "{system} -m venv --clear {folder}")
            .run()
            .context(
                "Python 3.11 or newer with its module venv is needed (Debian: python3-venv)",
            )?;
        cmd!(
            sh,
            "{python} -m pip install --quiet --disable-pip-version-check {pip...}"
        )
        .run()?;
        Ok(())
    }
}

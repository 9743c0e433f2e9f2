//! Where the project's files are, and how commands are run in it.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xshell::Shell;

/// The checkout that this program was built from.
pub(crate) struct Project {
    /// Runs commands, in the checkout's root.
    pub(crate) sh: Shell,
    pub(crate) root: PathBuf,
    /// Cargo's target folder.
    pub(crate) target: PathBuf,
    /// Whether CI runs this: what a laptop may leave out is then an error.
    pub(crate) ci: bool,
}

/// A model that is checked in under `models/zoo`.
pub(crate) struct ZooModel {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
}

impl ZooModel {
    pub(crate) fn onnx(&self) -> PathBuf {
        self.folder.join("model.onnx")
    }

    pub(crate) fn plan(&self) -> PathBuf {
        self.folder.join("model.vitlet")
    }
}

impl Project {
    pub(crate) fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask lies in the project's root")?
            .to_path_buf();
        let sh = Shell::new()?;
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(
            || root.join("target"),
            |folder| env::current_dir().unwrap_or_default().join(folder),
        );
        sh.change_dir(&root);
        // A child's `cargo` is to find its own toolchain, not the one that ran this program.
        sh.set_var("CARGO_TARGET_DIR", &target);
        let ci = env::var("CI").is_ok_and(|value| value == "true");
        Ok(Self {
            sh,
            root,
            target,
            ci,
        })
    }

    /// A folder for files that only this program makes and reads.
    pub(crate) fn scratch(&self) -> Result<PathBuf> {
        Ok(self.sh.create_dir(self.target.join("xtask"))?)
    }

    /// `path` as a person in the root would type it.
    pub(crate) fn shown<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }

    /// The models under `models/zoo`, in the order of their names.
    pub(crate) fn zoo(&self) -> Result<Vec<ZooModel>> {
        let zoo = self.root.join("models/zoo");
        let mut models: Vec<ZooModel> = self
            .sh
            .read_dir(&zoo)?
            .into_iter()
            .filter(|folder| folder.join("model.onnx").is_file())
            .map(|folder| ZooModel {
                name: folder
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                folder,
            })
            .collect();
        models.sort_by(|a, b| a.name.cmp(&b.name));
        anyhow::ensure!(
            !models.is_empty(),
            "{}: no folder there holds a model.onnx",
            self.shown(&zoo).display()
        );
        Ok(models)
    }
}

//! The programs of `benches/peers`, and what they load: ONNX Runtime's libraries, and the Python that quantises.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xshell::cmd;

use super::CRATE;
use super::contender::{Contender, Engine};
use super::subject::Subject;
use crate::dist;
use crate::project::Project;
use crate::python::Environment;
use crate::qemu::Plugin;
use crate::toolchain::{DEVICE, Toolchain};

/// Of the npm package onnxruntime-node, the newest whose library for aarch64 runs under QEMU 7.2.
pub(super) const DEVICE_ONNX_RUNTIME: &str = "1.24.3";

pub(super) struct Programs<'a> {
    pub(super) project: &'a Project,
    /// `target/peers`.
    pub(super) root: PathBuf,
    /// The Python with ONNX Runtime's tools.
    pub(super) python: PathBuf,
    /// The `vitlet` program, which compiles plans.
    pub(super) vitlet: PathBuf,
    pub(super) native: Build,
    pub(super) device: Build,
    pub(super) plugin: Plugin,
}

/// The programs for one target.
pub(super) struct Build {
    folder: PathBuf,
    /// ONNX Runtime's shared library.
    pub(super) library: PathBuf,
}

impl Build {
    pub(super) fn program(&self, engine: Engine) -> PathBuf {
        self.folder.join(engine.program())
    }

    /// Writes the engines' input of photos.
    pub(super) fn image_program(&self) -> PathBuf {
        self.folder.join("peer-image")
    }

    /// A contender's program with its arguments, up to the images.
    pub(super) fn command(&self, contender: Contender, subject: &Subject) -> Vec<OsString> {
        let mut command: Vec<OsString> = vec![
            self.program(contender.engine).into(),
            subject.model(contender).into(),
        ];
        if contender.engine == Engine::OnnxRuntime {
            command.extend(["--library".into(), self.library.clone().into()]);
        }
        command
    }
}

impl<'a> Programs<'a> {
    /// Builds and fetches all of it, for the boards the programs of the engines that are to be counted; little happens when it is there.
    pub(super) fn prepare(project: &'a Project, root: &Path, counted: &[Engine]) -> Result<Self> {
        project.sh.create_dir(root)?;
        let python = Environment {
            folder: &root.join("venv"),
            wanted: "benches/peers/requirements.txt",
            pip: &["--requirement", "benches/peers/requirements.txt"],
            note: "ONNX Runtime and its tools",
        }
        .python(project)?;
        let native = Build {
            folder: build_native(project, root)?,
            library: native_library(project, &python)?,
        };
        // A folder of its own: cargo would let only one of two targets be built at a time.
        let folder = root.join("build-device");
        if !counted.is_empty() {
            build_device(project, &folder, counted)?;
        }
        let device = Build {
            folder: folder.join(DEVICE).join("release"),
            library: device_library(project, root)?,
        };
        Ok(Self {
            project,
            root: root.to_path_buf(),
            python,
            vitlet: dist::native(project)?,
            native,
            device,
            plugin: Plugin::build(project)?,
        })
    }
}

/// Builds this machine's programs, and returns the folder they are in.
fn build_native(project: &Project, root: &Path) -> Result<PathBuf> {
    let sh = &project.sh;
    let folder = root.join("build");
    let cargo = build_options("this machine", &Engine::ALL);
    let _folder = sh.push_dir(CRATE);
    cmd!(sh, "cargo build {cargo...} --target-dir {folder}").run()?;
    Ok(folder.join("release"))
}

/// Builds the boards' programs of some engines.
fn build_device(project: &Project, folder: &Path, engines: &[Engine]) -> Result<()> {
    let sh = &project.sh;
    let toolchain = Toolchain::with_library(sh, DEVICE).with_context(|| {
        format!("no Rust toolchain here has the library of {DEVICE}: run `cargo xtask setup`")
    })?;
    let plus = toolchain.plus();
    let cargo = build_options(DEVICE, engines);
    let _folder = sh.push_dir(CRATE);
    // Dynamic, unlike the boards' program: a static one cannot load ONNX Runtime's library.
    cmd!(
        sh,
        "cargo {plus...} build {cargo...} --target-dir {folder} --target {DEVICE}"
    )
    .env("RUSTFLAGS", "-Ctarget-feature=-crt-static")
    .run()?;
    Ok(())
}

/// How cargo is asked for the programs of some engines.
fn build_options(target: &str, engines: &[Engine]) -> Vec<String> {
    let features: Vec<&str> = engines
        .iter()
        .map(|engine| engine.program().trim_start_matches("peer-"))
        .collect();
    let features = features.join(",");
    println!("the engines' programs for {target} (tract takes some minutes, once): {features}");
    ["--locked", "--release", "--features", &features]
        .map(str::to_owned)
        .into()
}

/// This machine's library lies in the Python package.
fn native_library(project: &Project, python: &Path) -> Result<PathBuf> {
    let find = "import glob, onnxruntime, os; \
                print(*glob.glob(os.path.dirname(onnxruntime.__file__) + '/capi/libonnxruntime.so.*'))";
    let found = cmd!(project.sh, "{python} -c {find}").quiet().read()?;
    anyhow::ensure!(
        !found.is_empty() && !found.contains(' '),
        "the Python package onnxruntime holds no shared library of its own ('{found}'); \
         another version may, see benches/peers/requirements.txt"
    );
    Ok(found.into())
}

/// The library for aarch64 lies in the npm package.
fn device_library(project: &Project, root: &Path) -> Result<PathBuf> {
    const IN_PACKAGE: &str = "package/bin/napi-v6/linux/arm64/libonnxruntime.so.1";
    let sh = &project.sh;
    let folder = root.join("npm");
    let package = format!("onnxruntime-node@{DEVICE_ONNX_RUNTIME}");
    let archive = folder.join(format!("onnxruntime-node-{DEVICE_ONNX_RUNTIME}.tgz"));
    let unpacked = folder.join(DEVICE_ONNX_RUNTIME);
    let library = unpacked.join(IN_PACKAGE);
    // The archive goes last: without it, the library is whole.
    if library.is_file() && !archive.is_file() {
        return Ok(library);
    }
    println!("{package}: fetching it (86 MB)");
    sh.create_dir(&unpacked)?;
    cmd!(
        sh,
        "npm pack --silent {package} --pack-destination {folder}"
    )
    .run()
    .context("npm is needed to fetch ONNX Runtime's library for aarch64 (Debian: npm)")?;
    cmd!(sh, "tar -xzf {archive} -C {unpacked} {IN_PACKAGE}").run()?;
    sh.remove_path(&archive)?;
    Ok(library)
}

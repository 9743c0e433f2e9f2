//! What runs in the machine: the boards' program, and the helpers that prepare a camera for it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use xshell::cmd;

use super::initramfs::Initramfs;
use super::kernel::Debian;
use super::scenarios;
use crate::dist;
use crate::project::Project;
use crate::toolchain::{DEVICE, Toolchain};

/// The package that has the helpers as its examples.
const PACKAGE: &str = "vitlet-camera";
const HELPERS: [&str; 3] = ["set-controls", "show-photos", "tiny-plan"];
const PHOTOS: &str = "models/samples";

/// Builds them; nothing happens when they are fresh.
pub(crate) fn built(project: &Project) -> Result<Vec<PathBuf>> {
    let sh = &project.sh;
    let program = dist::device(project)?;
    let toolchain = Toolchain::with_library(sh, DEVICE)
        .with_context(|| format!("no Rust library of {DEVICE}: run `cargo xtask setup`"))?;
    let plus = toolchain.plus();
    let examples = HELPERS.iter().flat_map(|name| ["--example", name]);
    cmd!(
        sh,
        "cargo {plus...} build --locked --release --target {DEVICE} --package {PACKAGE} {examples...}"
    )
    .run()?;
    let folder = project.target.join(DEVICE).join("release/examples");
    let mut programs = vec![program];
    programs.extend(HELPERS.iter().map(|name| folder.join(name)));
    Ok(programs)
}

/// The machine's files.
pub(crate) fn packed(
    project: &Project,
    debian: &Debian,
    programs: &[PathBuf],
    full: bool,
) -> Result<Vec<u8>> {
    let mut files = Initramfs::default();
    for folder in ["bin", "dev", "etc", "proc", "sys"] {
        files.folder(folder)?;
    }
    files.program("init", include_bytes!("guest/init.sh"))?;
    files.program("bin/busybox", &fs::read(&debian.busybox)?)?;
    for program in programs {
        let name = program.file_name().context("a program's name")?;
        let path = format!("bin/{}", name.display());
        files.program(&path, &fs::read(program).with_context(|| path.clone())?)?;
    }
    files.folder("guest")?;
    files.folder("guest/scenarios")?;
    files.file("guest/lib.sh", include_bytes!("guest/lib.sh"))?;
    for scenario in scenarios::all() {
        let path = format!("guest/scenarios/{}.sh", scenario.name);
        files.file(&path, scenario.script.as_bytes())?;
    }
    pack_modules(&mut files, debian)?;
    pack_photos(&mut files, project, full)?;
    files.finish()
}

fn pack_modules(files: &mut Initramfs, debian: &Debian) -> Result<()> {
    files.folder("modules")?;
    let mut order = String::new();
    for module in &debian.modules {
        let name = module.file_name().context("a module's name")?.display();
        files.file(&format!("modules/{name}"), &fs::read(module)?)?;
        order += &format!("{name}\n");
    }
    files.file("modules/order", order.as_bytes())
}

/// One photo of each kind, or with `full` three.
fn pack_photos(files: &mut Initramfs, project: &Project, full: bool) -> Result<()> {
    files.folder("photos")?;
    let mut photos = project.sh.read_dir(PHOTOS)?;
    photos.retain(|path| path.extension().is_some_and(|extension| extension == "jpg"));
    photos.sort();
    let mut of_kind = BTreeMap::new();
    for photo in photos {
        let name = photo
            .file_name()
            .context("a photo's name")?
            .to_string_lossy();
        // `glass` of `glass102.jpg`.
        let kind = name.split(|c: char| c.is_ascii_digit()).next();
        let kind = kind.unwrap_or_default().to_owned();
        let packed = of_kind.entry(kind).or_insert(0);
        if *packed < if full { 3 } else { 1 } {
            files.file(&format!("photos/{name}"), &fs::read(&photo)?)?;
            *packed += 1;
        }
    }
    Ok(())
}

//! A kernel with a virtual camera, and a shell: Debian's packages for arm64, unpacked and never installed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use xshell::cmd;

use crate::project::Project;
use crate::setup;

/// Names the package of the newest kernel.
const KERNEL: &str = "linux-image-arm64:arm64";
const SHELL: &str = "busybox-static:arm64";
/// The bus of QEMU's devices, the port to this program, the network, the camera.
const MODULES: [&str; 4] = ["virtio_pci", "virtio_console", "virtio_net", "vivid"];

/// What was unpacked.
pub(crate) struct Debian {
    pub(crate) kernel: PathBuf,
    pub(crate) busybox: PathBuf,
    /// In the order in which they can be loaded.
    pub(crate) modules: Vec<PathBuf>,
}

/// Fetches the packages, unless those that Debian has now are there already.
pub(crate) fn fetched(project: &Project, folder: &Path) -> Result<Debian> {
    let sh = &project.sh;
    let folder = folder.join("debian");
    let kept = folder.join("packages");
    let had = fs::read_to_string(&kept).ok();
    let mut packages = match (Packages::offered(project), &had) {
        (Some(packages), _) => packages,
        // Without a network, or without Debian: what was fetched before will do.
        (None, Some(_)) => return Debian::read(&folder),
        (None, None) => Packages::after_update(project)?,
    };
    if had.as_ref() == Some(&packages.key()) {
        return Debian::read(&folder);
    }
    // Beside what is there, which stays good if this fails.
    let fresh = folder.with_extension("new");
    if let Err(error) = packages.unpack(project, &fresh) {
        if let Some(had) = had {
            eprintln!("did not work ({error:#}); going on with {had}");
            return Debian::read(&folder);
        }
        eprintln!("did not work ({error:#}); the lists of packages may be old:");
        packages = Packages::after_update(project)?;
        packages.unpack(project, &fresh)?;
    }
    fs::write(fresh.join("packages"), packages.key())?;
    sh.remove_path(&folder)?;
    fs::rename(&fresh, &folder)?;
    Debian::read(&folder)
}

/// What Debian offers.
struct Packages {
    /// The package that holds the kernel.
    kernel: String,
    versions: Vec<String>,
}

impl Packages {
    fn offered(project: &Project) -> Option<Self> {
        let shown = cmd!(
            project.sh,
            "apt-cache show --no-all-versions {KERNEL} {SHELL}"
        )
        .quiet()
        .ignore_stderr()
        .read()
        .ok()?;
        Self::parse(&shown)
    }

    fn after_update(project: &Project) -> Result<Self> {
        if cmd!(project.sh, "apt-get --version")
            .quiet()
            .ignore_stdout()
            .ignore_stderr()
            .run()
            .is_err()
        {
            bail!(
                "no apt-get here, to fetch a kernel with; run this in a Debian container, or copy target/system-test/debian from a Debian \
                 machine on which it ran"
            );
        }
        setup::update_package_lists(project, true)?;
        Self::offered(project).with_context(|| {
            format!(
                "apt-cache knows no {KERNEL} and {SHELL}: is /etc/apt/sources.list one of Debian's?"
            )
        })
    }

    /// Reads what `apt-cache show` prints of the two.
    fn parse(shown: &str) -> Option<Self> {
        let fields = |name: &'static str| {
            shown
                .lines()
                .filter_map(move |line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        let kernel = fields("Depends")
            .flat_map(|depends| depends.split([',', ' ']))
            .find(|name| name.starts_with("linux-image-"))?;
        let versions: Vec<String> = fields("Version").map(str::to_owned).collect();
        (versions.len() == 2).then(|| Self {
            kernel: kernel.to_owned(),
            versions,
        })
    }

    /// Differs when anything is new.
    fn key(&self) -> String {
        format!("{} {}\n", self.kernel, self.versions.join(" "))
    }

    /// Keeps the kernel, busybox, and the modules that are needed of three thousand.
    fn unpack(&self, project: &Project, folder: &Path) -> Result<()> {
        let sh = &project.sh;
        eprintln!("fetching {} and busybox of Debian:", self.kernel);
        sh.remove_path(folder)?;
        let whole = sh.create_dir(folder.join("whole"))?;
        let kernel = format!("{}:arm64", self.kernel);
        {
            let _inside = sh.push_dir(&whole);
            // As the user that this is: the other one may not be able to write here.
            cmd!(
                sh,
                "apt-get download -q -o APT::Sandbox::User=root {kernel} {SHELL}"
            )
            .run()?;
            for package in with_suffix(&files(&whole)?, ".deb") {
                cmd!(sh, "dpkg -x {package} .").run()?;
            }
        }
        let all = files(&whole)?;
        let one = |suffix: &str| {
            let found = all.iter().find(|path| path.ends_with(suffix));
            found.with_context(|| format!("{kernel} and {SHELL} hold no {suffix}"))
        };
        let image = all
            .iter()
            .find(|path| path.to_string_lossy().contains("/boot/vmlinuz-"))
            .with_context(|| format!("{kernel} holds no vmlinuz"))?;
        sh.copy_file(image, folder.join("vmlinuz"))?;
        sh.copy_file(one("bin/busybox")?, folder.join("busybox"))?;
        let builtin = fs::read_to_string(one("modules.builtin")?)?;
        Modules::new(project, &all, &builtin).copy(folder)?;
        Ok(sh.remove_path(&whole)?)
    }
}

impl Debian {
    fn read(folder: &Path) -> Result<Self> {
        let order = fs::read_to_string(folder.join("modules"))
            .with_context(|| format!("{}: remove it, to fetch it again", folder.display()))?;
        Ok(Self {
            kernel: folder.join("vmlinuz"),
            busybox: folder.join("busybox"),
            modules: order.lines().map(|name| folder.join(name)).collect(),
        })
    }
}

/// A kernel's modules.
struct Modules<'a> {
    project: &'a Project,
    /// By name: files have dashes where the kernel has underscores.
    files: BTreeMap<String, &'a Path>,
    builtin: &'a str,
    /// Those that are needed, each after those it needs.
    order: Vec<(String, Vec<u8>)>,
}

impl<'a> Modules<'a> {
    fn new(project: &'a Project, files: &'a [PathBuf], builtin: &'a str) -> Self {
        let named = |path: &'a PathBuf| {
            let (name, _) = path.file_name()?.to_str()?.split_once(".ko")?;
            Some((name.replace('-', "_"), path.as_path()))
        };
        Self {
            project,
            files: files.iter().filter_map(named).collect(),
            builtin,
            order: Vec::new(),
        }
    }

    fn copy(mut self, folder: &Path) -> Result<()> {
        for name in MODULES {
            self.need(name)?;
        }
        let mut names = String::new();
        for (name, bytes) in self.order {
            fs::write(folder.join(format!("{name}.ko")), bytes)?;
            names += &format!("{name}.ko\n");
        }
        Ok(fs::write(folder.join("modules"), names)?)
    }

    /// Adds a module after those it needs, unless it is there or part of the kernel.
    fn need(&mut self, name: &str) -> Result<()> {
        let name = name.replace('-', "_");
        if self.order.iter().any(|(had, _)| *had == name) {
            return Ok(());
        }
        let Some(path) = self.files.get(&name) else {
            let file = format!("/{name}.ko");
            ensure!(
                self.builtin.replace('-', "_").contains(&file),
                "this kernel has no module {name}"
            );
            return Ok(());
        };
        let sh = &self.project.sh;
        // Newer Debians compress them.
        let bytes = if path.extension().is_some_and(|extension| extension == "xz") {
            cmd!(sh, "xz --decompress --stdout {path}")
                .quiet()
                .output()?
                .stdout
        } else {
            fs::read(path)?
        };
        for needed in dependencies(&bytes).with_context(|| format!("{}", path.display()))? {
            self.need(&needed)?;
        }
        self.order.push((name, bytes));
        Ok(())
    }
}

/// The modules that a module names in its section `.modinfo`; the package has no modules.dep, which its installation would make.
fn dependencies(module: &[u8]) -> Result<Vec<String>> {
    const FIELD: &[u8] = b"\0depends=";
    let start = module
        .windows(FIELD.len())
        .position(|window| window == FIELD)
        .context("not a kernel module: it does not say what it depends on")?;
    let names = module[start + FIELD.len()..]
        .split(|&byte| byte == 0)
        .next();
    let names = std::str::from_utf8(names.unwrap_or_default())?;
    Ok(names
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect())
}

/// All files under a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.append(&mut files(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn with_suffix<'a>(paths: &'a [PathBuf], suffix: &str) -> impl Iterator<Item = &'a Path> {
    let ends = move |path: &&PathBuf| path.to_string_lossy().ends_with(suffix);
    paths.iter().filter(ends).map(PathBuf::as_path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_package_is_what_the_first_one_depends_on() {
        let shown = "Package: linux-image-arm64\nVersion: 6.1.192-3\nDepends: linux-image-6.1.0-57-arm64 (= 6.1.192-3)\n\n\
                     Package: busybox-static\nVersion: 1:1.35.0-4\n";
        let packages = Packages::parse(shown).map(|packages| (packages.kernel, packages.versions));
        let versions = ["6.1.192-3", "1:1.35.0-4"].map(str::to_owned).to_vec();
        assert_eq!(
            packages,
            Some(("linux-image-6.1.0-57-arm64".to_owned(), versions))
        );
        assert!(Packages::parse("Package: busybox-static\nVersion: 1:1.35.0-4\n").is_none());
    }

    #[test]
    fn a_module_says_what_it_depends_on() -> Result<()> {
        let of = |module: &[u8]| dependencies(module);
        assert_eq!(
            of(b"\x7fELF\0license=GPL\0depends=mc,v4l2-tpg\0name=vivid\0")?,
            ["mc", "v4l2-tpg"]
        );
        assert_eq!(of(b"\x7fELF\0depends=\0name=mc\0")?, [""; 0]);
        assert!(of(b"\x7fELF").is_err());
        Ok(())
    }
}

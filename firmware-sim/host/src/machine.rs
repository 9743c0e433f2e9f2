//! One boot of QEMU's `virt` machine with the firmware.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::log::Decoder;

/// Where the firmware looks for frames and for a new plan (`firmware-sim/virt/src/memory_map.rs`).
const CAMERA: &str = "0x48000000";
const UPDATE: &str = "0x44000000";
/// Of real time: the longest run takes a few seconds.
const PATIENCE: Duration = Duration::from_secs(300);

/// The firmware's exit codes (`firmware-sim/virt/src/exit.rs`).
pub(crate) mod exit {
    pub(crate) const DONE: i32 = 0;
    pub(crate) const NO_PLAN: i32 = 10;
    pub(crate) const EXCEPTION: i32 = 11;
    pub(crate) const WATCHDOG: i32 = 13;
    pub(crate) const OPTIONS: i32 = 14;
    pub(crate) const UPDATE: i32 = 15;
    pub(crate) const CAMERA: i32 = 16;
    pub(crate) const POWER_LOST: i32 = 17;
}

/// An image, its log's strings, and a folder for files.
pub(crate) struct Machine {
    image: PathBuf,
    decoder: Decoder,
    folder: tempfile::TempDir,
}

/// What a boot is given.
#[derive(Clone, Default)]
pub(crate) struct Boot<'a> {
    pub(crate) cpu: &'a str,
    /// A file of 64 MB.
    pub(crate) flash: Option<&'a Path>,
    /// A frame set.
    pub(crate) film: Option<&'a Path>,
    /// A plan to install: what the firmware expects at its address.
    pub(crate) update: Option<&'a Path>,
    /// Words of the command line.
    pub(crate) options: Vec<String>,
    /// Start at EL2.
    pub(crate) at_el2: bool,
}

/// How a boot ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) log: Vec<String>,
}

impl Machine {
    pub(crate) fn new(image: &Path) -> Result<Self> {
        let bytes = fs::read(image).with_context(|| {
            format!(
                "{}; build it by `cargo xtask firmware build`",
                image.display()
            )
        })?;
        Ok(Self {
            image: image.to_path_buf(),
            decoder: Decoder::new(&bytes)?,
            folder: tempfile::tempdir()?,
        })
    }

    /// A file's path in the machine's folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Boots and waits for the end. `name` is of the log's file: no two boots at a time may have the same.
    pub(crate) fn boot(&self, name: &str, boot: &Boot<'_>) -> Result<Ended> {
        let log = self.file(&format!("{name}.log"));
        let mut options = vec!["enable=on,target=native,arg=vitlet".to_owned()];
        options.extend(boot.options.iter().map(|word| format!("arg={word}")));
        let machine = if boot.at_el2 {
            "virt,virtualization=on"
        } else {
            "virt"
        };
        let mut qemu = Command::new("qemu-system-aarch64");
        qemu.args(["-M", machine, "-cpu", boot.cpu, "-m", "384M"])
            .args(["-nic", "none", "-display", "none", "-monitor", "none"])
            // A nanosecond an instruction, and no waiting: the same log in every run.
            .args(["-icount", "shift=0,sleep=off"])
            .args(["-semihosting-config", &options.join(",")])
            .args(["-serial", &format!("file:{}", log.display())]);
        if let Some(flash) = boot.flash {
            let drive = format!("if=pflash,index=1,format=raw,file={}", flash.display());
            qemu.args(["-drive", &drive]);
        }
        for (file, address) in [(boot.film, CAMERA), (boot.update, UPDATE)] {
            if let Some(file) = file {
                let file = file.display();
                let loader = format!("loader,file={file},addr={address},force-raw=on");
                qemu.args(["-device", &loader]);
            }
        }
        qemu.arg("-kernel").arg(&self.image);
        let code = wait(&mut qemu)?;
        let bytes = fs::read(&log).context("the serial port's file")?;
        Ok(Ended {
            code,
            log: self.decoder.lines(&bytes)?,
        })
    }
}

fn wait(qemu: &mut Command) -> Result<i32> {
    let mut child = qemu
        .stdin(Stdio::null())
        .spawn()
        .context("qemu-system-aarch64 does not start; `cargo xtask setup` installs it")?;
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return status.code().context("QEMU was killed");
        }
        if start.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            bail!("QEMU did not end within {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

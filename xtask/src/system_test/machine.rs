//! The machine: QEMU, its console in a file, and a port over which this program and the machine's first process talk.
//!
//! The port is QEMU's standard input and output; what goes over it is described in `guest/init.sh`. Nothing else writes there, so
//! records do not mix with the kernel's messages.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Emulated on two busy cores it boots in ten seconds.
const BOOT: Duration = Duration::from_secs(120);
const POWER_OFF: Duration = Duration::from_secs(20);
/// The port that the machine's program listens on, see `guest/scenarios/preview.sh`.
const PREVIEW: u16 = 8080;

/// What a machine boots.
pub(crate) struct Image {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
    /// Variables for its first process: the kernel hands on what it does not know itself.
    pub(crate) variables: String,
}

/// A machine that runs. Dropped, it is switched off.
pub(crate) struct Machine {
    qemu: Child,
    to: ChildStdin,
    from: Receiver<Vec<u8>>,
    /// What came and was not read.
    pending: Vec<u8>,
    console: PathBuf,
    /// Port of this host that is the machine's port [`PREVIEW`].
    pub(crate) preview: u16,
}

impl Machine {
    /// Boots it. `folder` gets its logs.
    pub(crate) fn boot(image: &Image, folder: &Path) -> Result<Self> {
        let console = folder.join("console.log");
        let errors = File::create(folder.join("qemu.log"))?;
        let preview = free_port()?;
        let mut qemu = Command::new("qemu-system-aarch64")
            .args(arguments(image, &console, preview))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .context("qemu-system-aarch64: cannot be run; `cargo xtask setup` installs it")?;
        let to = qemu.stdin.take().context("QEMU's input")?;
        let mut output = qemu.stdout.take().context("QEMU's output")?;
        let (sender, from) = mpsc::channel();
        // Ends with QEMU.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                if sender.send(buffer[..read].to_vec()).is_err() {
                    break;
                }
            }
        });
        let mut machine = Self {
            qemu,
            to,
            from,
            pending: Vec::new(),
            console,
            preview,
        };
        let ready = machine.line(Instant::now() + BOOT)?;
        if ready != "ready" {
            bail!("the machine said '{ready}', not 'ready'");
        }
        Ok(machine)
    }

    pub(crate) fn send(&mut self, line: &str) -> Result<()> {
        writeln!(self.to, "{line}").context("the machine has ended")
    }

    /// Reads the next line.
    pub(crate) fn line(&mut self, deadline: Instant) -> Result<String> {
        loop {
            if let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') {
                let mut line = self.take(end + 1);
                line.pop();
                return String::from_utf8(line).context("the machine sent no text");
            }
            self.wait(deadline)?;
        }
    }

    /// Reads so many bytes.
    pub(crate) fn bytes(&mut self, len: usize, deadline: Instant) -> Result<Vec<u8>> {
        while self.pending.len() < len {
            self.wait(deadline)?;
        }
        Ok(self.take(len))
    }

    fn take(&mut self, len: usize) -> Vec<u8> {
        let rest = self.pending.split_off(len);
        std::mem::replace(&mut self.pending, rest)
    }

    fn wait(&mut self, deadline: Instant) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.from.recv_timeout(left) {
            Ok(bytes) => self.pending.extend(bytes),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bail!("the machine did not answer in time; {}", self.last_words())
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                bail!("the machine has ended; {}", self.last_words())
            }
        }
        Ok(())
    }

    /// The end of its console's log, or what QEMU complained of.
    pub(crate) fn last_words(&self) -> String {
        const LINES: usize = 40;
        let console = fs::read(&self.console).unwrap_or_default();
        let complaint = fs::read(self.console.with_file_name("qemu.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&console).replace('\r', "")
            + &String::from_utf8_lossy(&complaint);
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LINES)..];
        format!(
            "its console ({}) ended with\n{}",
            self.console.display(),
            tail.join("\n")
        )
    }

    /// Switches it off, and waits until it is.
    pub(crate) fn power_off(mut self) -> Result<()> {
        self.send("off")?;
        let deadline = Instant::now() + POWER_OFF;
        while self.qemu.try_wait()?.is_none() {
            if Instant::now() > deadline {
                bail!(
                    "the machine did not switch itself off; {}",
                    self.last_words()
                );
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn arguments(image: &Image, console: &Path, preview: u16) -> Vec<String> {
    let Image {
        kernel,
        initramfs,
        variables,
    } = image;
    let line = format!("console=ttyAMA0 loglevel=5 panic=-1 oops=panic {variables}");
    let network = format!("user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{preview}-:{PREVIEW}");
    let console = format!("file:{}", console.display());
    [
        // A Raspberry Pi 5's core.
        &[
            "-machine",
            "virt",
            "-cpu",
            "cortex-a76",
            "-smp",
            "2",
            "-m",
            "1G",
        ][..],
        &[
            "-display",
            "none",
            "-monitor",
            "none",
            "-no-reboot",
            "-nodefaults",
        ],
        &["-kernel", &kernel.display().to_string()],
        &["-initrd", &initramfs.display().to_string()],
        &["-append", &line],
        &["-serial", &console],
        &[
            "-chardev",
            "stdio,id=host,signal=off",
            "-device",
            "virtio-serial-pci",
        ],
        &["-device", "virtserialport,chardev=host,name=vitlet"],
        &[
            "-netdev",
            &network,
            "-device",
            "virtio-net-pci,netdev=net,romfile=",
        ],
    ]
    .concat()
    .into_iter()
    .map(str::to_owned)
    .collect()
}

/// A port that nobody listens on. Somebody else may take it before QEMU does, which then says so and ends.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

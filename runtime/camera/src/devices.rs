//! The cameras of this machine, and who uses them.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// A camera that is connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Camera {
    /// Its device file.
    pub device: PathBuf,
    /// What its driver calls it.
    pub name: String,
    /// What it delivers; nothing if it could not be asked.
    pub formats: Vec<Offer>,
    /// Why it could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A format a camera delivers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Offer {
    /// Its four-character code.
    pub format: String,
    /// Whether vitlet reads it.
    pub usable: bool,
    /// The sizes, as `640x480`; a range as `16x16..1920x1080`.
    pub sizes: Vec<String>,
}

/// A program that has a device open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process.
    pub process: u32,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {})", self.name, self.process)
    }
}

/// The devices that capture video, by number. Those that may not be opened are among them, with the reason.
pub fn cameras() -> Vec<Camera> {
    let entries = fs::read_dir("/sys/class/video4linux").into_iter().flatten();
    let mut numbers: Vec<u32> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_prefix("video")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers.into_iter().filter_map(camera).collect()
}

/// The camera with a number; `None` if that device does not capture.
#[cfg(target_os = "linux")]
fn camera(number: u32) -> Option<Camera> {
    use linuxvideo::{BufType, CapabilityFlags, Device};
    let device = PathBuf::from(format!("/dev/video{number}"));
    let name = fs::read_to_string(format!("/sys/class/video4linux/video{number}/name"));
    let name = name.unwrap_or_default().trim().to_owned();
    let opened = Device::open(&device).and_then(|opened| {
        let flags = opened.capabilities()?.device_capabilities();
        Ok((opened, flags))
    });
    let (formats, problem) = match opened {
        Ok((_, flags)) if !flags.contains(CapabilityFlags::VIDEO_CAPTURE) => return None,
        Ok((opened, _)) => {
            let formats = opened.formats(BufType::VIDEO_CAPTURE).map_while(Result::ok);
            let offers = formats.map(|format| offer(&opened, format.pixel_format()));
            (offers.collect(), None)
        }
        Err(error) => (vec![], Some(error.to_string())),
    };
    Some(Camera {
        device,
        name,
        formats,
        problem,
    })
}

#[cfg(not(target_os = "linux"))]
fn camera(_: u32) -> Option<Camera> {
    None
}

#[cfg(target_os = "linux")]
fn offer(device: &linuxvideo::Device, code: linuxvideo::format::PixelFormat) -> Offer {
    use linuxvideo::format::FrameSizes;
    let sizes = match device.frame_sizes(code) {
        Ok(FrameSizes::Discrete(sizes)) => sizes
            .iter()
            .map(|size| format!("{}x{}", size.width(), size.height()))
            .collect(),
        Ok(FrameSizes::Stepwise(range) | FrameSizes::Continuous(range)) => vec![format!(
            "{}x{}..{}x{}",
            range.min_width(),
            range.min_height(),
            range.max_width(),
            range.max_height()
        )],
        Err(_) => vec![],
    };
    let code = code.as_fourcc();
    Offer {
        format: String::from_utf8_lossy(&code).into_owned(),
        usable: crate::Format::from_fourcc(code).is_some(),
        sizes,
    }
}

/// The programs that have a device open, as far as this user may look: root sees all, others their own.
#[cfg(target_os = "linux")]
pub(crate) fn holders_of(device: &Path) -> Vec<Holder> {
    let device = fs::canonicalize(device).unwrap_or_else(|_| device.to_owned());
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    processes
        .filter(|process| *process != std::process::id() && has_open(*process, &device))
        .map(|process| Holder {
            process,
            name: fs::read_to_string(format!("/proc/{process}/comm"))
                .map_or_else(|_| "a program".to_owned(), |name| name.trim().to_owned()),
        })
        .collect()
}

#[cfg(target_os = "linux")]
fn has_open(process: u32, device: &Path) -> bool {
    let files = fs::read_dir(format!("/proc/{process}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    files
        .filter_map(|file| fs::read_link(file.path()).ok())
        .any(|target| target == device)
}

/// The group that may open a device: on most systems `video`.
#[cfg(target_os = "linux")]
pub(crate) fn group_of(device: &Path) -> String {
    use std::os::unix::fs::MetadataExt as _;
    let named = || {
        let id = fs::metadata(device).ok()?.gid();
        let groups = fs::read_to_string("/etc/group").ok()?;
        groups.lines().find_map(|line| {
            // name:password:id:members
            let mut fields = line.split(':');
            let (name, group) = (fields.next()?, fields.nth(1)?);
            // Root's own device is no reason to become root.
            (id != 0 && group.parse() == Ok(id)).then(|| name.to_owned())
        })
    };
    named().unwrap_or_else(|| "video".to_owned())
}

#[cfg(test)]
#[cfg(target_os = "linux")]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_program_that_has_a_file_open_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device");
        let file = fs::File::create(&path).unwrap();
        assert_eq!(holders_of(&path), []);
        let mut child = Command::new("sleep")
            .arg("60")
            .stdin(Stdio::from(file))
            .spawn()
            .unwrap();
        let holders = holders_of(&path);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(holders.len(), 1);
        assert_eq!(holders[0].process, child.id());
    }

    #[test]
    fn groups_have_names() {
        assert_eq!(group_of(Path::new("/dev/none")), "video");
    }
}

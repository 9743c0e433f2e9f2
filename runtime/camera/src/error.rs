//! What can go wrong with a camera or a clip, in one line each: the thing, the place, the remedy.

use std::io;
use std::path::PathBuf;

use crate::{Format, Holder};

/// Why there are no frames, or no preview. Every message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CameraError {
    /// The source is none that is known.
    #[error(
        "{uri}: no such source; give /dev/video0, v4l2:///dev/video0, a .mjpeg or .y4m file, a folder of photos, - for standard input, or test:"
    )]
    Uri {
        /// As it was given.
        uri: String,
    },
    /// There is no such device.
    #[error("{}: no such device{}", device.display(), instead(others))]
    NoDevice {
        /// The device asked for.
        device: PathBuf,
        /// Those there are.
        others: Vec<PathBuf>,
    },
    /// The device may not be opened.
    #[error(
        "{}: permission denied; it belongs to group {group}: `sudo usermod -aG {group} $USER`, then log in again",
        device.display()
    )]
    Permission {
        /// The device.
        device: PathBuf,
        /// The group whose members may open it.
        group: String,
    },
    /// Another program uses the device.
    #[error("{}: busy, used by {}; stop that program, or use another camera (`vitlet camera list`)", device.display(), holders(held_by))]
    Busy {
        /// The device.
        device: PathBuf,
        /// The programs that have it open, as far as this user may see them.
        held_by: Vec<Holder>,
    },
    /// The device is not a camera.
    #[error("{}: does not capture video ({error}); `vitlet camera list` shows which devices do", device.display())]
    NotACamera {
        /// The device.
        device: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// The camera has no format that can be used.
    #[error("{}: delivers {}, {}; {}", device.display(), list(offered), wanted(*asked), format_remedy(*asked))]
    NoFormat {
        /// The device.
        device: PathBuf,
        /// The four-character codes it offers.
        offered: Vec<String>,
        /// The one asked for, if one was.
        asked: Option<Format>,
    },
    /// The camera was unplugged.
    #[error("{}: unplugged", device.display())]
    Gone {
        /// The device.
        device: PathBuf,
    },
    /// The camera does not do what it is asked to.
    #[error("{}: {doing}: {error}", device.display())]
    Device {
        /// The device.
        device: PathBuf,
        /// What was asked of it.
        doing: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// V4L2 is of Linux.
    #[error("{}: V4L2 cameras are of Linux; on this system use a file, a folder or a pipe", device.display())]
    NotLinux {
        /// The device.
        device: PathBuf,
    },
    /// A clip, a folder or a pipe could not be read.
    #[error("{name}: cannot be read: {error}")]
    Read {
        /// The file, or `standard input`.
        name: String,
        /// What the system said.
        error: io::Error,
    },
    /// A clip or a pipe holds something else.
    #[error("{name}: {problem}; {remedy}")]
    Clip {
        /// The file, or `standard input`.
        name: String,
        /// What is wrong.
        problem: String,
        /// What helps.
        remedy: &'static str,
    },
    /// No frames in a folder.
    #[error("{}: has no photos; put .jpg, .jpeg or .png files into it", folder.display())]
    EmptyFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// An option that this source does not have.
    #[error("{name}: {problem}")]
    Option {
        /// The source.
        name: String,
        /// Which option, and why not.
        problem: String,
    },
    /// The preview's address cannot be used.
    #[error("preview: {address}: {error}; give another HOST:PORT, port 0 for any free one")]
    Address {
        /// The address.
        address: String,
        /// What the system said.
        error: io::Error,
    },
    /// The preview's token cannot be used or made.
    #[error("preview: {problem}")]
    Token {
        /// What is wrong with it.
        problem: String,
    },
    /// The preview could not be started.
    #[error("preview: cannot be started: {error}")]
    Preview {
        /// What the system said.
        error: io::Error,
    },
    /// A thread could not be started.
    #[error("the thread for {purpose} cannot be started: {error}")]
    Thread {
        /// What for.
        purpose: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// The network could not be run.
    #[error(transparent)]
    Model(#[from] vitlet::Error),
}

fn instead(devices: &[PathBuf]) -> String {
    if devices.is_empty() {
        return "; no camera is connected, or its driver is not loaded (a camera on a ribbon cable may need libcamera: \
                docs/camera.md)"
            .to_owned();
    }
    let names: Vec<String> = devices.iter().map(|d| d.display().to_string()).collect();
    format!("; there are {} (`vitlet camera list`)", names.join(", "))
}

fn holders(holders: &[Holder]) -> String {
    if holders.is_empty() {
        return "another user's program (`sudo fuser -v` on the device shows it)".to_owned();
    }
    let names: Vec<String> = holders.iter().map(Holder::to_string).collect();
    names.join(" and ")
}

fn list(codes: &[String]) -> String {
    if codes.is_empty() {
        "no formats".to_owned()
    } else {
        codes.join(", ")
    }
}

fn wanted(asked: Option<Format>) -> String {
    match asked {
        Some(format) => format!("not {format}"),
        None => format!("none of {}", Format::names()),
    }
}

const fn format_remedy(asked: Option<Format>) -> &'static str {
    match asked {
        Some(_) => "leave --format out to have one chosen",
        None => "convert outside: `ffmpeg -i … -f yuv4mpegpipe - | vitlet camera -`",
    }
}

//! Sources of frames: devices, files, folders, pipes, a test picture.
//!
//! | module | says |
//! |---|---|
//! | `device` | V4L2 (Linux) |
//! | `folder` | photos in the order of their names |
//! | `clip` | files and pipes: which of the next three they hold |
//! | `mjpeg` | JPEG after JPEG |
//! | `y4m` | uncompressed video with a header |
//! | `raw` | uncompressed video without one |
//! | `planes` | chroma planes to the layouts the resizer reads |
//! | `pattern` | `test:` |
//! | `paced` | a file, played as fast as a camera would |

mod clip;
#[cfg(target_os = "linux")]
mod device;
mod folder;
mod mjpeg;
mod paced;
mod pattern;
mod planes;
mod raw;
mod y4m;

use std::io::{self, Read};

use serde::Serialize;

use crate::{CameraError, CameraFrame, Format, Uri};

/// How frames are captured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SourceSettings {
    /// Pixels in a row, and rows: what a device is asked for (it may choose the nearest it has), what a raw pipe holds.
    pub size: Option<(u32, u32)>,
    /// Frames per second that a device is asked for, or that a file is played at.
    pub per_s: Option<f64>,
    /// The format a device is asked for, or that a raw pipe holds.
    pub format: Option<Format>,
    /// Files and folders begin again at their end.
    pub repeat: bool,
}

/// What a source delivers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Description {
    /// The device, file or folder.
    pub source: String,
    /// Four-character code, or what the file is.
    pub format: String,
    /// Pixels in a row, if all frames are alike.
    pub width: Option<u32>,
    /// Rows, if all frames are alike.
    pub height: Option<u32>,
    /// Frames per second, if it is known.
    #[serde(rename = "fps")]
    pub per_s: Option<f64>,
    /// Frames come when they come: those that nobody takes are dropped. Otherwise they wait.
    #[serde(skip)]
    pub live: bool,
}

/// What [`Source::next`] found.
#[derive(Debug)]
pub enum Step {
    /// A frame.
    Frame,
    /// Nothing yet. (No call takes much longer than a quarter of a second, except of pipes.)
    Nothing,
    /// A frame that cannot be used: cut off, or marked as damaged by the driver.
    Damaged,
    /// The camera has gone; the next calls look for it.
    Lost(CameraError),
    /// The camera is back.
    Found,
    /// There are no more frames.
    End,
}

/// Something that delivers frames.
pub trait Source: Send {
    /// What it delivers.
    fn description(&self) -> Description;

    /// Waits for the next frame and puts it into `frame`, whose memory is used again.
    ///
    /// # Errors
    /// If there will be no more frames, though this is not the end.
    fn next(&mut self, frame: &mut CameraFrame) -> Result<Step, CameraError>;
}

/// Opens a source.
///
/// # Errors
/// If it is not there, may not be used, holds no frames, or lacks what the settings ask for.
pub fn open(uri: &Uri, settings: &SourceSettings) -> Result<Box<dyn Source>, CameraError> {
    let source: Box<dyn Source> = match uri {
        #[cfg(target_os = "linux")]
        Uri::Device(path) => return Ok(Box::new(device::Device::open(path, settings)?)),
        #[cfg(not(target_os = "linux"))]
        Uri::Device(path) => {
            return Err(CameraError::NotLinux {
                device: path.clone(),
            });
        }
        Uri::Stdin => return clip::pipe("standard input", Box::new(io::stdin()), settings),
        Uri::Pattern => return Ok(Box::new(pattern::Pattern::new(settings)?)),
        Uri::Clip(path) => clip::file(path, settings)?,
        Uri::Folder(path) => Box::new(folder::Folder::open(path, settings)?),
    };
    Ok(match settings.per_s {
        Some(per_s) => Box::new(paced::Paced::new(source, per_s)),
        None => source,
    })
}

/// A source of what `reader` delivers: MJPEG, Y4M, or with a format and a size raw video. It is live, as a pipe is.
///
/// `name` stands for it in messages.
///
/// # Errors
/// If the first bytes cannot be read, or are of nothing that is known.
pub fn from_reader(
    name: &str,
    reader: Box<dyn Read + Send>,
    settings: &SourceSettings,
) -> Result<Box<dyn Source>, CameraError> {
    clip::pipe(name, reader, settings)
}

/// Refuses options that a source does not have.
fn refuse(name: &str, problem: &str, given: bool) -> Result<(), CameraError> {
    if given {
        return Err(CameraError::Option {
            name: name.to_owned(),
            problem: problem.to_owned(),
        });
    }
    Ok(())
}

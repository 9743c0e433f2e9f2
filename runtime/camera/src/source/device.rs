//! V4L2 devices.
//!
//! By the crate linuxvideo: plain ioctls in Rust, so nothing is generated from C headers when it is built (the better known `v4l`
//! needs libclang for that) and cross-compiling takes no effort; no call of it that is made here panics when a camera is unplugged
//! (streams of `v4l` and of its fork `moq-v4l` do when they are dropped at the wrong moment).

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use linuxvideo::format::{FrameIntervals, PixFormat, PixelFormat};
use linuxvideo::stream::ReadStream;
use linuxvideo::{BufType, Fract};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::mjpeg::with_tables;
use super::planes::{Plane, to_nv12};
use super::{Description, Source, SourceSettings, Step};
use crate::devices::{cameras, group_of, holders_of};
use crate::frame::Layout;
use crate::{CameraError, CameraFrame, Format};

/// Size and rate that are asked for when the user asks for none.
const SIZE: (u32, u32) = (640, 480);
const PER_S: f64 = 30.0;
/// How long one call waits for a frame, or before a camera that has gone is looked for again.
const WAIT: Duration = Duration::from_millis(200);
/// A camera that delivers nothing for so long is opened anew, which helps many of those on USB.
const STALL: Duration = Duration::from_secs(5);

/// A camera.
pub(super) struct Device {
    path: PathBuf,
    settings: SourceSettings,
    description: Description,
    /// `None` while it is unplugged.
    stream: Option<Stream>,
    number: u64,
    /// When the last frame came, or the camera was opened.
    last: Instant,
}

/// A camera that delivers frames.
struct Stream {
    stream: ReadStream,
    format: Format,
    width: u32,
    height: u32,
    /// Bytes from a row of the driver's buffer to the next, of the first plane.
    stride: usize,
    per_s: Option<f64>,
}

/// What the driver's buffer gave.
enum Dequeued {
    Frame(Layout),
    Damaged,
}

impl Device {
    pub(super) fn open(path: &Path, settings: &SourceSettings) -> Result<Self, CameraError> {
        let stream = Stream::open(path, settings)?;
        Ok(Self {
            path: path.to_owned(),
            settings: *settings,
            description: Description {
                source: path.display().to_string(),
                format: stream.format.to_string(),
                width: Some(stream.width),
                height: Some(stream.height),
                per_s: stream.per_s,
                live: true,
            },
            stream: Some(stream),
            number: 0,
            last: Instant::now(),
        })
    }

    /// Looks for a camera that has gone.
    fn look(&mut self) -> Step {
        thread::sleep(WAIT);
        match Stream::open(&self.path, &self.settings) {
            Ok(stream) => {
                self.stream = Some(stream);
                self.last = Instant::now();
                Step::Found
            }
            // Not there yet, or just being set up: udev gives it to its group a moment after it appears.
            Err(_) => Step::Nothing,
        }
    }

    /// The camera has gone. Its file is closed, or its name would not be free for it when it is back.
    fn lose(&mut self, error: io::Error) -> Step {
        self.stream = None;
        // Drivers say different things of a camera that is no longer there (vivid EINVAL, most ENODEV).
        if !self.path.exists() {
            let device = self.path.clone();
            return Step::Lost(CameraError::Gone { device });
        }
        Step::Lost(device_error(&self.path, "reading a frame", error))
    }

    /// No frame now.
    fn nothing(&mut self) -> Step {
        if self.last.elapsed() < STALL {
            return Step::Nothing;
        }
        let stalled = io::Error::new(io::ErrorKind::TimedOut, "none came for 5 s");
        self.lose(stalled)
    }
}

impl Source for Device {
    fn description(&self) -> Description {
        self.description.clone()
    }

    fn next(&mut self, frame: &mut CameraFrame) -> Result<Step, CameraError> {
        let Some(stream) = &mut self.stream else {
            return Ok(self.look());
        };
        match stream.is_ready() {
            Ok(true) => {}
            Ok(false) => return Ok(self.nothing()),
            Err(error) => return Ok(self.lose(error)),
        }
        frame.number = self.number;
        match stream.dequeue(frame) {
            Ok(dequeued) => {
                self.number += 1;
                self.last = frame.dequeued;
                Ok(match dequeued {
                    Dequeued::Damaged => Step::Damaged,
                    Dequeued::Frame(layout) => {
                        frame.layout = layout;
                        Step::Frame
                    }
                })
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Step::Nothing),
            Err(error) => Ok(self.lose(error)),
        }
    }
}

impl Stream {
    fn open(path: &Path, settings: &SourceSettings) -> Result<Self, CameraError> {
        let device = linuxvideo::Device::open(path).map_err(|error| open_error(path, error))?;
        let (width, height) = settings.size.unwrap_or(SIZE);
        let format = choose(path, &device, settings)?;
        let asked = PixFormat::new(width, height, PixelFormat::from_fourcc(format.fourcc()));
        let device = device
            .video_capture(asked)
            .map_err(|error| device_error(path, "setting the format", error))?;
        let got = device.format();
        let fourcc = got.pixel_format().as_fourcc();
        if Format::from_fourcc(fourcc) != Some(format) {
            return Err(CameraError::NoFormat {
                device: path.to_owned(),
                offered: vec![String::from_utf8_lossy(&fourcc).into_owned()],
                asked: Some(format),
            });
        }
        let (width, height) = (got.width(), got.height());
        let stride = got.bytes_per_line() as usize;
        // A camera that cannot be told keeps its rate.
        let interval = device.set_frame_interval(interval(settings.per_s.unwrap_or(PER_S)));
        let stream = device
            .into_stream()
            .map_err(|error| device_error(path, "starting to stream", error))?;
        Ok(Self {
            stream,
            format,
            width,
            height,
            stride,
            per_s: interval.ok().and_then(per_s),
        })
    }

    /// Whether a frame is there; waits for one for [`WAIT`].
    fn is_ready(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.stream, PollFlags::IN)];
        let wait = Timespec {
            tv_sec: 0,
            tv_nsec: WAIT.subsec_nanos().into(),
        };
        match poll(&mut fds, Some(&wait)) {
            Ok(0) | Err(Errno::INTR) => Ok(false),
            // Of an error, dequeueing tells which.
            Ok(_) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Copies the next frame out of the driver's buffer, which the camera gets back at once.
    fn dequeue(&mut self, frame: &mut CameraFrame) -> io::Result<Dequeued> {
        let (format, size, stride) = (self.format, (self.width, self.height), self.stride);
        self.stream.dequeue(|view| {
            frame.dequeued = Instant::now();
            let layout = if view.is_error() {
                None
            } else {
                copy(format, size, stride, &view, &mut frame.bytes)
            };
            frame.capture = frame.dequeued.elapsed();
            Ok(layout.map_or(Dequeued::Damaged, Dequeued::Frame))
        })
    }
}

/// The frame as the pipeline wants it; `None` if it is not whole.
fn copy(
    format: Format,
    (width, height): (u32, u32),
    stride: usize,
    buffer: &[u8],
    bytes: &mut Vec<u8>,
) -> Option<Layout> {
    let Some(pixels) = format.pixels() else {
        with_tables(buffer, bytes)?;
        return Some(Layout::Encoded);
    };
    let stride = match format {
        Format::Yu12 => {
            let luma = stride * height as usize;
            let chroma = stride / 2 * (height as usize).div_ceil(2);
            let plane = |from: usize, len, stride| {
                let bytes = buffer.get(from..from + len)?;
                Some(Plane { bytes, stride })
            };
            let [y, u, v] = [
                plane(0, luma, stride)?,
                plane(luma, chroma, stride / 2)?,
                plane(luma + chroma, chroma, stride / 2)?,
            ];
            to_nv12((width, height), y, [u, v], bytes)
        }
        _ => {
            bytes.clear();
            bytes.extend_from_slice(buffer);
            stride
        }
    };
    let layout = Layout::Pixels {
        format: pixels,
        width,
        height,
        stride,
    };
    // Some drivers deliver a frame cut off, without a word.
    vitlet::Frame::new(pixels, width, height, stride, bytes)
        .is_ok()
        .then_some(layout)
}

/// The format to ask for: the user's, or the first of ours that the camera delivers at the wanted size and rate, or the first at all.
fn choose(
    path: &Path,
    device: &linuxvideo::Device,
    settings: &SourceSettings,
) -> Result<Format, CameraError> {
    let offered: Vec<[u8; 4]> = device
        .formats(BufType::VIDEO_CAPTURE)
        .map_while(Result::ok)
        .map(|format| format.pixel_format().as_fourcc())
        .collect();
    if offered.is_empty() {
        return Err(CameraError::NotACamera {
            device: path.to_owned(),
            error: io::Error::other("it lists no formats"),
        });
    }
    let ours: Vec<Format> = Format::ALL
        .into_iter()
        .filter(|ours| {
            offered
                .iter()
                .any(|code| Format::from_fourcc(*code) == Some(*ours))
        })
        .collect();
    let size = settings.size.unwrap_or(SIZE);
    let wanted = settings.per_s.unwrap_or(PER_S);
    let fast = |format: &&Format| {
        fastest(device, **format, size).is_none_or(|per_s| per_s + 0.5 >= wanted)
    };
    let chosen = match settings.format {
        Some(asked) => ours.iter().find(|format| **format == asked),
        // Over USB, a large frame fits only as a JPEG.
        None => ours.iter().find(fast).or(ours.first()),
    };
    chosen.copied().ok_or_else(|| CameraError::NoFormat {
        device: path.to_owned(),
        offered: offered
            .iter()
            .map(|code| String::from_utf8_lossy(code).into_owned())
            .collect(),
        asked: settings.format,
    })
}

/// Frames per second that the camera delivers at most in a format and size; `None` if it does not say.
fn fastest(
    device: &linuxvideo::Device,
    format: Format,
    (width, height): (u32, u32),
) -> Option<f64> {
    let code = PixelFormat::from_fourcc(format.fourcc());
    match device.frame_intervals(code, width, height).ok()? {
        FrameIntervals::Discrete(intervals) => intervals
            .iter()
            .filter_map(|interval| per_s(*interval.fract()))
            .reduce(f64::max),
        FrameIntervals::Stepwise(range) | FrameIntervals::Continuous(range) => per_s(*range.min()),
    }
}

/// Seconds per frame as a fraction.
fn interval(per_s: f64) -> Fract {
    Fract::new(1000, (per_s * 1000.0).clamp(1.0, 1e9) as u32)
}

/// Frames per second of a time per frame.
fn per_s(interval: Fract) -> Option<f64> {
    let (seconds, parts) = (interval.numerator(), interval.denominator());
    (seconds > 0 && parts > 0).then(|| f64::from(parts) / f64::from(seconds))
}

/// Why a device could not be opened.
fn open_error(path: &Path, error: io::Error) -> CameraError {
    let device = path.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => CameraError::NoDevice {
            device,
            others: cameras().into_iter().map(|camera| camera.device).collect(),
        },
        io::ErrorKind::PermissionDenied => CameraError::Permission {
            group: group_of(path),
            device,
        },
        _ => match Errno::from_io_error(&error) {
            // Not a device of V4L2, or not one at all.
            Some(Errno::NOTTY | Errno::INVAL | Errno::ISDIR) => {
                CameraError::NotACamera { device, error }
            }
            _ => device_error(path, "opening it", error),
        },
    }
}

/// Why a device does not do what it is asked to.
fn device_error(path: &Path, doing: &'static str, error: io::Error) -> CameraError {
    let device = path.to_owned();
    match Errno::from_io_error(&error) {
        Some(Errno::BUSY) => CameraError::Busy {
            held_by: holders_of(path),
            device,
        },
        Some(Errno::NODEV | Errno::NXIO) => CameraError::Gone { device },
        _ => CameraError::Device {
            device,
            doing,
            error,
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn message(path: &str) -> String {
        let error = Device::open(Path::new(path), &SourceSettings::default());
        error.map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn refusals_name_the_device_and_the_remedy() {
        let missing = message("/dev/video-none");
        assert!(
            missing.starts_with("/dev/video-none: no such device; "),
            "{missing}"
        );
        let none = message("/dev/null");
        assert!(
            none.starts_with("/dev/null: does not capture video") && none.contains("camera list"),
            "{none}"
        );
    }

    #[test]
    fn a_buffer_that_is_too_short_is_damaged() {
        let mut bytes = vec![];
        let mut whole = |format, len| copy(format, (4, 4), 4, &vec![7; len], &mut bytes).is_some();
        assert!(whole(Format::Grey, 16) && !whole(Format::Grey, 15));
        assert!(whole(Format::Nv12, 24) && !whole(Format::Nv12, 23));
        assert!(whole(Format::Yu12, 24) && !whole(Format::Yu12, 23));
        assert!(!whole(Format::Rgb3, 48), "the stride is too short");
        assert!(!whole(Format::Mjpg, 100));
    }

    #[test]
    fn rates() {
        for rate in [5.0, 15.0, 29.97, 30.0, 60.0] {
            assert!((per_s(interval(rate)).unwrap() - rate).abs() < 0.01);
        }
    }
}

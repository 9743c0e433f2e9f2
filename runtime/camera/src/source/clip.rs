//! Files and pipes of video: what they hold is told from their first bytes, never from a name.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::mjpeg::{Picture, Splitter};
use super::raw::Raw;
use super::y4m::{self, Y4m};
use super::{Description, Source, SourceSettings, Step};
use crate::frame::Layout;
use crate::{CameraError, CameraFrame, Format};

/// What is read at once.
const BUFFER: usize = 256 * 1024;
const CONVERT: &str = "convert it: `ffmpeg -i … -f yuv4mpegpipe - | vitlet camera -`";

type Bytes = BufReader<Box<dyn Read + Send>>;

/// Reads frame after frame of some kind of video.
pub(super) trait FrameReader: Send {
    /// Puts the next frame into `bytes`; `None` for one that is damaged.
    ///
    /// # Errors
    /// `UnexpectedEof` at the end.
    fn read(&mut self, bytes: &mut Vec<u8>) -> io::Result<Option<Layout>>;

    /// What the video is, for messages.
    fn name(&self) -> String;

    /// Pixels in a row, and rows, if all frames are alike.
    fn size(&self) -> Option<(u32, u32)> {
        None
    }

    /// Frames per second, if the video says so.
    fn per_s(&self) -> Option<f64> {
        None
    }
}

impl<R: BufRead + Send> FrameReader for Splitter<R> {
    fn read(&mut self, bytes: &mut Vec<u8>) -> io::Result<Option<Layout>> {
        match self.next(bytes)? {
            Picture::Whole => Ok(Some(Layout::Encoded)),
            Picture::Damaged => Ok(None),
            Picture::End => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn name(&self) -> String {
        Format::Mjpg.to_string()
    }
}

/// Video from a file or a pipe.
struct Clip {
    name: String,
    reader: Box<dyn FrameReader>,
    settings: SourceSettings,
    number: u64,
    /// Frames since the last beginning.
    since_start: u64,
    /// To begin again from; a pipe has none.
    path: Option<PathBuf>,
}

/// A file of video.
pub(super) fn file(path: &Path, settings: &SourceSettings) -> Result<Box<dyn Source>, CameraError> {
    let name = path.display().to_string();
    let reader = open(path, settings)?;
    Ok(Box::new(Clip {
        name,
        reader,
        settings: *settings,
        number: 0,
        since_start: 0,
        path: Some(path.to_owned()),
    }))
}

/// Video from a pipe. It is live: a pipe's writer must not wait, or it delivers old frames.
pub(super) fn pipe(
    name: &str,
    input: Box<dyn Read + Send>,
    settings: &SourceSettings,
) -> Result<Box<dyn Source>, CameraError> {
    super::refuse(
        name,
        "cannot begin again; leave --loop out",
        settings.repeat,
    )?;
    super::refuse(
        name,
        "comes as fast as its writer makes it; leave --fps out",
        settings.per_s.is_some(),
    )?;
    Ok(Box::new(Clip {
        name: name.to_owned(),
        reader: reader(name, input, settings)?,
        settings: *settings,
        number: 0,
        since_start: 0,
        path: None,
    }))
}

fn open(path: &Path, settings: &SourceSettings) -> Result<Box<dyn FrameReader>, CameraError> {
    let name = path.display().to_string();
    match File::open(path) {
        Ok(file) => reader(&name, Box::new(file), settings),
        Err(error) => Err(CameraError::Read { name, error }),
    }
}

/// What the first bytes ask for.
fn reader(
    name: &str,
    input: Box<dyn Read + Send>,
    settings: &SourceSettings,
) -> Result<Box<dyn FrameReader>, CameraError> {
    let mut input: Bytes = BufReader::with_capacity(BUFFER, input);
    let problem = |problem: &str, remedy| CameraError::Clip {
        name: name.to_owned(),
        problem: problem.to_owned(),
        remedy,
    };
    if let Some(format) = settings.format.filter(|format| *format != Format::Mjpg) {
        let size = settings.size.ok_or_else(|| {
            problem(
                "raw video does not say how large its frames are",
                "give --width and --height",
            )
        })?;
        return Raw::new(input, format, size)
            .map(|raw| Box::new(raw) as Box<dyn FrameReader>)
            .ok_or_else(|| problem("is not raw video", CONVERT));
    }
    super::refuse(
        name,
        "--width and --height are for raw video, with --format, and for devices",
        settings.size.is_some(),
    )?;
    let start = input.fill_buf().map_err(|error| CameraError::Read {
        name: name.to_owned(),
        error,
    })?;
    match start {
        [] => Err(problem("empty", "give a .mjpeg or .y4m file")),
        [0xFF, 0xD8, ..] => Ok(Box::new(Splitter::new(input))),
        start if start.starts_with(y4m::MAGIC) => match Y4m::new(input) {
            Ok(y4m) => Ok(Box::new(y4m)),
            Err(error) => Err(problem(&error, CONVERT)),
        },
        // A camera's pipe may begin within a picture.
        _ if settings.format == Some(Format::Mjpg) => Ok(Box::new(Splitter::new(input))),
        _ => Err(problem(
            "neither MJPEG nor Y4M",
            "convert it: `ffmpeg -i … -f yuv4mpegpipe - | vitlet camera -`; for raw video give --format, --width and --height",
        )),
    }
}

impl Clip {
    /// Begins again, or not.
    fn at_end(&mut self) -> Result<Step, CameraError> {
        match &self.path {
            Some(path) if self.settings.repeat && self.since_start > 0 => {
                self.reader = open(path, &self.settings)?;
                self.since_start = 0;
                Ok(Step::Nothing)
            }
            _ => Ok(Step::End),
        }
    }
}

impl Source for Clip {
    fn description(&self) -> Description {
        let size = self.reader.size();
        Description {
            source: self.name.clone(),
            format: self.reader.name(),
            width: size.map(|(width, _)| width),
            height: size.map(|(_, height)| height),
            per_s: self.reader.per_s(),
            live: self.path.is_none(),
        }
    }

    fn next(&mut self, frame: &mut CameraFrame) -> Result<Step, CameraError> {
        let start = Instant::now();
        let layout = match self.reader.read(&mut frame.bytes) {
            Ok(layout) => layout,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return self.at_end(),
            Err(error) => {
                return Err(CameraError::Read {
                    name: self.name.clone(),
                    error,
                });
            }
        };
        frame.stamp(self.number, start);
        self.number += 1;
        let Some(layout) = layout else {
            return Ok(Step::Damaged);
        };
        self.since_start += 1;
        frame.layout = layout;
        Ok(Step::Frame)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Uri;
    use crate::preview::jpeg;

    fn message(bytes: &[u8], settings: &SourceSettings) -> String {
        let input = Box::new(io::Cursor::new(bytes.to_vec()));
        let error = reader("clip", input, settings).map(|_| ()).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with("clip: ") && !message.contains('\n'));
        message
    }

    #[test]
    fn the_first_bytes_tell() {
        let none = SourceSettings::default();
        assert!(message(b"", &none).contains("empty"));
        assert!(message(b"RIFF....AVI ", &none).contains("ffmpeg"));
        assert!(message(b"YUV4MPEG2 W0 H0\n", &none).contains("ffmpeg"));
        let raw = SourceSettings {
            format: Some(Format::Nv12),
            ..none
        };
        assert!(message(b"", &raw).contains("--width"));
        let sized = SourceSettings {
            size: Some((4, 4)),
            ..none
        };
        assert!(message(b"\xFF\xD8", &sized).contains("--width"));
    }

    #[test]
    fn a_clip_ends_or_begins_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clip");
        let picture = jpeg::encode(&[9; 16 * 16 * 3], 16, 16).unwrap();
        std::fs::write(&path, [picture.clone(), picture].concat()).unwrap();
        let uri = Uri::parse(&path.display().to_string()).unwrap();
        let mut settings = SourceSettings::default();
        let mut frame = CameraFrame::default();
        let mut clip = crate::open(&uri, &settings).unwrap();
        for number in 0..2 {
            assert!(matches!(clip.next(&mut frame).unwrap(), Step::Frame));
            assert_eq!(frame.number, number);
        }
        assert!(matches!(clip.next(&mut frame).unwrap(), Step::End));
        assert!(!clip.description().live);

        settings.repeat = true;
        let mut clip = crate::open(&uri, &settings).unwrap();
        let steps: Vec<bool> = (0..7)
            .map(|_| matches!(clip.next(&mut frame).unwrap(), Step::Frame))
            .collect();
        assert_eq!(steps, [true, true, false, true, true, false, true]);
        assert_eq!(frame.number, 4);
    }
}

//! [`CameraFrame`]: a captured frame in memory that is used again.

use std::time::{Duration, Instant};

use vitlet::{Frame, PixelFormat, PreprocessError};

/// A frame as it was captured.
#[derive(Debug)]
pub struct CameraFrame {
    /// Number of the frame since the source was opened, from 0; frames that are dropped count.
    pub number: u64,
    /// When it was there: dequeued from the driver, or read from the file.
    pub dequeued: Instant,
    /// How long reading it took: copying it out of the driver's buffer, or reading the file.
    pub capture: Duration,
    /// What the bytes are.
    pub layout: Layout,
    /// Pixels, or a JPEG.
    pub bytes: Vec<u8>,
}

/// What a frame's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Pixels of a known size.
    Pixels {
        /// How they lie.
        format: PixelFormat,
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
        /// Bytes from a row to the next.
        stride: usize,
    },
    /// A JPEG image, or a PNG of a folder of photos; its size is in it.
    Encoded,
}

impl Default for CameraFrame {
    /// A frame with nothing in it, to capture into.
    fn default() -> Self {
        Self {
            number: 0,
            dequeued: Instant::now(),
            capture: Duration::ZERO,
            layout: Layout::Encoded,
            bytes: Vec::new(),
        }
    }
}

impl CameraFrame {
    /// Was read just now; reading began at `start`.
    pub(crate) fn stamp(&mut self, number: u64, start: Instant) {
        self.number = number;
        self.dequeued = Instant::now();
        self.capture = start.elapsed();
    }

    /// The pixels, checked to be as many as the layout says; `None` for an encoded image.
    pub(crate) fn pixels(&self) -> Option<Result<Frame<'_>, PreprocessError>> {
        match self.layout {
            Layout::Encoded => None,
            Layout::Pixels {
                format,
                width,
                height,
                stride,
            } => Some(Frame::new(format, width, height, stride, &self.bytes)),
        }
    }
}

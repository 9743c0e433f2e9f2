//! What can be wrong with a preprocessing description, a frame or a buffer.

use crate::{MAX_SIDE, PixelFormat};
use core::fmt;

/// Why a [`Preprocess`](crate::Preprocess) or a [`Frame`](crate::Frame) was refused, or could not be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PreprocessError {
    /// A side of the model's input is zero or longer than [`MAX_SIDE`].
    InputSize {
        /// Width of the model's input.
        width: u32,
        /// Height of the model's input.
        height: u32,
    },
    /// The short side after resizing is smaller than the crop, or longer than [`MAX_SIDE`].
    ShortSide {
        /// The short side asked for.
        short_side: u32,
        /// Width of the crop.
        width: u32,
        /// Height of the crop.
        height: u32,
    },
    /// A side of the frame is zero or longer than [`MAX_SIDE`].
    FrameSize {
        /// Width of the frame.
        width: u32,
        /// Height of the frame.
        height: u32,
    },
    /// The stride is shorter than a row of pixels.
    Stride {
        /// Format of the frame.
        format: PixelFormat,
        /// Width of the frame.
        width: u32,
        /// Bytes from one row to the next, as given.
        stride: usize,
        /// Bytes in a row of that format and width.
        need: usize,
    },
    /// The frame's data are too short for its size and stride.
    FrameBytes {
        /// Bytes given.
        have: usize,
        /// Bytes needed; `None` if that does not fit in this machine's addresses.
        need: Option<usize>,
    },
    /// The scratch buffer is too short.
    Scratch {
        /// Bytes given.
        have: usize,
        /// Bytes needed; `None` if that does not fit in this machine's addresses.
        need: Option<usize>,
    },
    /// The rows asked for are not rows of the model's input image.
    Rows {
        /// The first row.
        start: u32,
        /// The one after the last.
        end: u32,
        /// Rows of the image.
        height: u32,
    },
    /// The output buffer has not the length of the model's input image, or of the rows of it that are asked for.
    Output {
        /// Bytes given.
        have: usize,
        /// Bytes needed; `None` if that does not fit in this machine's addresses.
        need: Option<usize>,
    },
}

impl fmt::Display for PreprocessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::InputSize { width, height } => {
                write!(
                    f,
                    "model input {width}x{height}: each side must be 1 to {MAX_SIDE} pixels"
                )
            }
            Self::ShortSide {
                short_side,
                width,
                height,
            } => write!(
                f,
                "short side {short_side} cannot give a {width}x{height} crop: it must be {} to {MAX_SIDE}",
                width.max(height)
            ),
            Self::FrameSize { width, height } => {
                write!(
                    f,
                    "frame {width}x{height}: each side must be 1 to {MAX_SIDE} pixels"
                )
            }
            Self::Stride {
                format,
                width,
                stride,
                need,
            } => {
                write!(
                    f,
                    "frame stride {stride}: a {format:?} row {width} pixels wide has {need} bytes; give at least that"
                )
            }
            Self::FrameBytes { have, need } => write_short(f, "frame data", "", have, need),
            Self::Scratch { have, need } => {
                write_short(f, "scratch", " (Preprocess::scratch_len)", have, need)
            }
            Self::Rows { start, end, height } => write!(
                f,
                "rows {start} to {end} of an image of {height}: give a start no larger than the end, and an end of at most {height}"
            ),
            Self::Output { have, need } => {
                write_short(f, "output image", " (width*height*3)", have, need)
            }
        }
    }
}

fn write_short(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    from: &str,
    have: usize,
    need: Option<usize>,
) -> fmt::Result {
    match need {
        Some(need) => write!(f, "{what} has {have} bytes, {need} are needed{from}"),
        None => write!(
            f,
            "{what}: the bytes needed{from} exceed this machine's address space; use a smaller frame"
        ),
    }
}

impl core::error::Error for PreprocessError {}

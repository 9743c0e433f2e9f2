//! Frames as cameras and decoders deliver them.

use crate::{MAX_SIDE, PreprocessError};

/// How a frame's pixels lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// Three bytes per pixel: red, green, blue.
    Rgb8,
    /// Three bytes per pixel: blue, green, red (OpenCV's order).
    Bgr8,
    /// One byte per pixel; it becomes red, green and blue.
    Grey8,
    /// Packed YUV 4:2:2, V4L2's `YUYV`: Y0 U Y1 V for two pixels. An odd last pixel still has four bytes.
    Yuyv,
    /// YUV 4:2:0, V4L2's `NV12`: a plane of Y, then a plane of U V pairs for 2×2 pixels, with the same stride.
    /// Odd sizes round the second plane up.
    Nv12,
}

impl PixelFormat {
    /// Bytes in a row `width` pixels wide, without padding; the least stride of such a frame.
    pub const fn row_len(self, width: u32) -> usize {
        let width = width as usize;
        match self {
            Self::Rgb8 | Self::Bgr8 => width.saturating_mul(3),
            Self::Grey8 => width,
            Self::Yuyv => width.div_ceil(2).saturating_mul(4),
            Self::Nv12 => width.div_ceil(2).saturating_mul(2),
        }
    }

    /// Rows of `stride` bytes in a frame `height` pixels high, all planes together.
    const fn rows(self, height: u32) -> usize {
        match self {
            Self::Nv12 => height as usize + (height as usize).div_ceil(2),
            _ => height as usize,
        }
    }
}

/// One image in the caller's memory, its size and stride checked.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    format: PixelFormat,
    width: u32,
    height: u32,
    stride: usize,
    data: &'a [u8],
}

impl<'a> Frame<'a> {
    /// A frame of `width` × `height` pixels whose rows start every `stride` bytes of `data`.
    ///
    /// The last row need not be padded to the stride.
    ///
    /// # Errors
    /// If a side is zero or above [`MAX_SIDE`], `stride` is shorter than a row, or `data` is too short.
    pub fn new(
        format: PixelFormat,
        width: u32,
        height: u32,
        stride: usize,
        data: &'a [u8],
    ) -> Result<Self, PreprocessError> {
        if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
            return Err(PreprocessError::FrameSize { width, height });
        }
        let row_len = format.row_len(width);
        if stride < row_len {
            return Err(PreprocessError::Stride {
                format,
                width,
                stride,
                need: row_len,
            });
        }
        let need = stride
            .checked_mul(format.rows(height) - 1)
            .and_then(|before_last| before_last.checked_add(row_len));
        if need.is_none_or(|need| data.len() < need) {
            return Err(PreprocessError::FrameBytes {
                have: data.len(),
                need,
            });
        }
        Ok(Self {
            format,
            width,
            height,
            stride,
            data,
        })
    }

    /// Layout of the pixels.
    pub const fn format(&self) -> PixelFormat {
        self.format
    }

    /// Pixels in a row.
    pub const fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub const fn height(&self) -> u32 {
        self.height
    }

    /// Bytes from one row to the next.
    pub const fn stride(&self) -> usize {
        self.stride
    }

    /// The pixels.
    pub const fn data(&self) -> &'a [u8] {
        self.data
    }
}

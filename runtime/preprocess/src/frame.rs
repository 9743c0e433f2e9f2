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

/// Conversion to RGB, a row at a time.
impl Frame<'_> {
    /// Writes pixels of row `y`, from the even one `x` on, as RGB and one byte without meaning, as many as `line` holds and the row has.
    #[inline(always)]
    pub(crate) fn write_row(&self, y: usize, x: usize, line: &mut [[u8; 4]]) {
        // So many bytes lie before it in every format, since an even pixel begins a pair.
        let row = &self.row(y)[self.format.row_len(x as u32)..];
        match self.format {
            PixelFormat::Rgb8 => convert(row, line, |&[r, g, b]| [r, g, b, 0]),
            PixelFormat::Bgr8 => convert(row, line, |&[b, g, r]| [r, g, b, 0]),
            PixelFormat::Grey8 => convert(row, line, |&[grey]| [grey; 4]),
            PixelFormat::Yuyv => {
                let pairs = row.as_chunks().0.iter();
                convert_yuv(pairs.map(|&[y0, u, y1, v]| ([y0, y1], [u, v])), line);
            }
            PixelFormat::Nv12 => {
                let luma = row.as_chunks().0.iter();
                let chroma = &self.row(self.height as usize + y / 2)[x..];
                let chroma = chroma.as_chunks().0.iter();
                convert_yuv(luma.zip(chroma).map(|(&y, &uv)| (y, uv)), line);
            }
        }
    }

    /// Row `y` of the frame, planes counted on, without its padding.
    #[inline(always)]
    fn row(&self, y: usize) -> &[u8] {
        &self.data[y * self.stride..][..self.format.row_len(self.width)]
    }
}

/// Converts pixels of `N` bytes.
#[inline(always)]
fn convert<const N: usize>(row: &[u8], line: &mut [[u8; 4]], pixel: impl Fn(&[u8; N]) -> [u8; 4]) {
    for (out, bytes) in line.iter_mut().zip(row.as_chunks().0) {
        *out = pixel(bytes);
    }
}

/// Converts pairs of pixels (two Y, one U V); of the last pair one pixel may lie outside the line.
#[inline(always)]
fn convert_yuv(pairs: impl Iterator<Item = ([u8; 2], [u8; 2])>, line: &mut [[u8; 4]]) {
    let (whole, odd) = line.as_chunks_mut::<2>();
    let mut pairs = pairs;
    for (out, ([y0, y1], uv)) in whole.iter_mut().zip(&mut pairs) {
        *out = [yuv_to_rgb(y0, uv), yuv_to_rgb(y1, uv)];
    }
    for (out, ([y0, _], uv)) in odd.iter_mut().zip(&mut pairs) {
        *out = yuv_to_rgb(y0, uv);
    }
}

/// ITU-R BT.601, limited range (Y 16..=235, U and V 16..=240), with 8 fractional bits: the formula of Microsoft's
/// "Recommended 8-Bit YUV Formats for Video Rendering" ("Converting 8-bit YUV to RGB888"). This is what V4L2 means by
/// the default encoding of a camera's `YUYV` and `NV12`. Chroma is repeated, not interpolated.
#[inline(always)]
fn yuv_to_rgb(y: u8, [u, v]: [u8; 2]) -> [u8; 4] {
    let (c, d, e) = (i32::from(y) - 16, i32::from(u) - 128, i32::from(v) - 128);
    let byte = |sum: i32| ((sum + 128) >> 8).clamp(0, 255) as u8;
    [
        byte(298 * c + 409 * e),
        byte(298 * c - 100 * d - 208 * e),
        byte(298 * c + 516 * d),
        0,
    ]
}

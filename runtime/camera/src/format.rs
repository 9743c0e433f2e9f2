//! Pixel formats by the four-character codes of V4L2, ffmpeg's and gst's users know them by.

use std::fmt;
use std::str::FromStr;

use vitlet::PixelFormat;

/// How the bytes of a frame lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Packed YUV 4:2:2: Y U Y V.
    Yuyv,
    /// YUV 4:2:0, a plane of Y and one of U V pairs.
    Nv12,
    /// YUV 4:2:0 in three planes (I420); turned to NV12 when it is captured.
    Yu12,
    /// Red, green, blue.
    Rgb3,
    /// Blue, green, red.
    Bgr3,
    /// One byte of grey.
    Grey,
    /// A JPEG per frame.
    Mjpg,
}

impl Format {
    /// All of them; a camera is asked in this order. What costs least to read comes first.
    pub const ALL: [Self; 7] = [
        Self::Yuyv,
        Self::Nv12,
        Self::Yu12,
        Self::Rgb3,
        Self::Bgr3,
        Self::Grey,
        Self::Mjpg,
    ];

    /// V4L2's code.
    pub const fn fourcc(self) -> [u8; 4] {
        *match self {
            Self::Yuyv => b"YUYV",
            Self::Nv12 => b"NV12",
            Self::Yu12 => b"YU12",
            Self::Rgb3 => b"RGB3",
            Self::Bgr3 => b"BGR3",
            Self::Grey => b"GREY",
            Self::Mjpg => b"MJPG",
        }
    }

    /// The format with V4L2's code, if it is one of ours. A camera's `JPEG` is `MJPG`.
    pub fn from_fourcc(fourcc: [u8; 4]) -> Option<Self> {
        if &fourcc == b"JPEG" {
            return Some(Self::Mjpg);
        }
        Self::ALL
            .into_iter()
            .find(|format| format.fourcc() == fourcc)
    }

    /// How the frame's pixels lie once it is captured; `None` for JPEGs.
    pub const fn pixels(self) -> Option<PixelFormat> {
        Some(match self {
            Self::Yuyv => PixelFormat::Yuyv,
            Self::Nv12 | Self::Yu12 => PixelFormat::Nv12,
            Self::Rgb3 => PixelFormat::Rgb8,
            Self::Bgr3 => PixelFormat::Bgr8,
            Self::Grey => PixelFormat::Grey8,
            Self::Mjpg => return None,
        })
    }

    /// `YUYV, NV12, …`, for messages.
    pub fn names() -> String {
        Self::ALL.map(|format| format.to_string()).join(", ")
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.fourcc()))
    }
}

impl FromStr for Format {
    type Err = String;

    /// Upper or lower case.
    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL
            .into_iter()
            .find(|format| format.to_string().eq_ignore_ascii_case(name));
        found.ok_or_else(|| format!("is none of {}", Self::names()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_are_one() {
        for format in Format::ALL {
            assert_eq!(Format::from_fourcc(format.fourcc()), Some(format));
            assert_eq!(format.to_string().parse::<Format>().unwrap(), format);
            let lower = format.to_string().to_lowercase();
            assert_eq!(lower.parse::<Format>().unwrap(), format);
        }
        assert_eq!(Format::from_fourcc(*b"JPEG"), Some(Format::Mjpg));
        assert_eq!(Format::from_fourcc(*b"H264"), None);
        assert!("h264".parse::<Format>().unwrap_err().contains("YUYV"));
    }
}

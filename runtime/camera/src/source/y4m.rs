//! YUV4MPEG2: uncompressed video as `ffmpeg -f yuv4mpegpipe` writes it.

use std::io::{self, BufRead, Cursor, Read};

use ::y4m::{Colorspace, Decoder, Limits};
use vitlet::PixelFormat;

use super::clip::FrameReader;
use super::planes::{Plane, to_nv12, to_yuyv};
use crate::frame::Layout;

/// The first bytes of such a stream.
pub(super) const MAGIC: &[u8] = b"YUV4MPEG2";
/// The longest header that is read.
const MAX_HEADER: u64 = 1024;
/// Longest side; the resizer's limit.
const MAX_SIDE: usize = 16384;
/// Most bytes of a frame: the largest frame of 4:2:2.
const MAX_FRAME: usize = 2 * MAX_SIDE * MAX_SIDE;

/// The bytes that were read as the header, and those after them.
type Whole<R> = io::Chain<Cursor<Vec<u8>>, R>;

/// Reads frames of a stream.
pub(super) struct Y4m<R: Read> {
    decoder: Decoder<Whole<R>>,
    chroma: Chroma,
    width: u32,
    height: u32,
}

#[derive(Clone, Copy)]
enum Chroma {
    Grey,
    Quarter,
    Half,
}

impl<R: BufRead> Y4m<R> {
    /// Reads the header.
    pub(super) fn new(mut reader: R) -> Result<Self, String> {
        let mut header = vec![];
        let read = reader
            .by_ref()
            .take(MAX_HEADER)
            .read_until(b'\n', &mut header);
        read.map_err(|error| error.to_string())?;
        // The decoder multiplies the sides without looking whether the product fits.
        let (width, height) = (side(&header, b'W')?, side(&header, b'H')?);
        let limits = Limits { bytes: MAX_FRAME };
        let decoder = Decoder::new_with_limits(Cursor::new(header).chain(reader), limits)
            .map_err(|error| error.to_string())?;
        let chroma = match decoder.get_colorspace() {
            Colorspace::Cmono => Chroma::Grey,
            Colorspace::C420
            | Colorspace::C420jpeg
            | Colorspace::C420paldv
            | Colorspace::C420mpeg2 => Chroma::Quarter,
            Colorspace::C422 => Chroma::Half,
            other => return Err(format!("its colours are {other:?}")),
        };
        Ok(Self {
            decoder,
            chroma,
            width,
            height,
        })
    }
}

impl<R: BufRead + Send> FrameReader for Y4m<R> {
    fn read(&mut self, bytes: &mut Vec<u8>) -> io::Result<Option<Layout>> {
        let frame = match self.decoder.read_frame() {
            Ok(frame) => frame,
            Err(::y4m::Error::EOF) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(::y4m::Error::IoError(error)) => return Err(error),
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        };
        let (width, height) = (self.width, self.height);
        let plane = |bytes, width: u32| Plane {
            bytes,
            stride: width as usize,
        };
        let luma = plane(frame.get_y_plane(), width);
        let chroma =
            [frame.get_u_plane(), frame.get_v_plane()].map(|bytes| plane(bytes, width.div_ceil(2)));
        let (format, stride) = match self.chroma {
            Chroma::Grey => {
                bytes.clear();
                bytes.extend_from_slice(luma.bytes);
                (PixelFormat::Grey8, luma.stride)
            }
            Chroma::Quarter => (
                PixelFormat::Nv12,
                to_nv12((width, height), luma, chroma, bytes),
            ),
            Chroma::Half => (PixelFormat::Yuyv, to_yuyv(width, luma, chroma, bytes)),
        };
        Ok(Some(Layout::Pixels {
            format,
            width,
            height,
            stride,
        }))
    }

    fn name(&self) -> String {
        "Y4M".to_owned()
    }

    fn size(&self) -> Option<(u32, u32)> {
        Some((self.width, self.height))
    }

    fn per_s(&self) -> Option<f64> {
        let rate = self.decoder.get_framerate();
        let per_s = rate.num as f64 / rate.den as f64;
        (per_s.is_finite() && per_s > 0.0).then_some(per_s)
    }
}

/// A side of the header, checked.
fn side(header: &[u8], name: u8) -> Result<u32, String> {
    let mut fields = header.split(|byte| byte.is_ascii_whitespace());
    // Of two, the decoder takes the last; here all are checked.
    let mut side = None;
    for field in fields.by_ref().filter(|field| field.first() == Some(&name)) {
        let digits = str::from_utf8(&field[1..]).ok();
        let value = digits.and_then(|digits| digits.parse::<usize>().ok());
        let value = value.filter(|value| (1..=MAX_SIDE).contains(value));
        side = Some(value.ok_or("its sides are not within 1 to 16384 pixels")? as u32);
    }
    side.ok_or_else(|| "its header gives no size".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn clip(header: &str, frame: &[u8]) -> Vec<u8> {
        let mut clip = format!("YUV4MPEG2 {header}\n").into_bytes();
        for _ in 0..2 {
            clip.extend_from_slice(b"FRAME\n");
            clip.extend_from_slice(frame);
        }
        clip
    }

    #[test]
    fn frames_of_three_kinds() {
        let frame: Vec<u8> = (0..32).collect();
        for (colours, len, format) in [
            ("C420jpeg", 24, PixelFormat::Nv12),
            ("C422", 32, PixelFormat::Yuyv),
            ("Cmono", 16, PixelFormat::Grey8),
        ] {
            let clip = clip(&format!("W4 H4 F30000:1001 {colours}"), &frame[..len]);
            let mut y4m = Y4m::new(&clip[..]).unwrap();
            assert_eq!(y4m.size(), Some((4, 4)));
            assert!((y4m.per_s().unwrap() - 29.97).abs() < 0.01);
            let mut bytes = vec![];
            for _ in 0..2 {
                let layout = y4m.read(&mut bytes).unwrap().unwrap();
                assert!(matches!(layout, Layout::Pixels { format: f, .. } if f == format));
                assert_eq!(bytes.len(), len);
            }
            let end = y4m.read(&mut bytes).unwrap_err();
            assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn headers_that_lie_are_refused() {
        for header in [
            "W0 H4",
            "W4",
            "W99999 H4",
            "W4294967296 H4294967296",
            "W4 H4 W18446744073709551615",
            "W4 H4 C444p10",
            "W4 H4 Cx",
            "W-4 H4",
        ] {
            assert!(Y4m::new(&clip(header, &[])[..]).is_err(), "{header}");
        }
        assert!(Y4m::new(&vec![b'Y'; 5000][..]).is_err());
        let mut y4m = Y4m::new(&b"YUV4MPEG2 W2 H2 F0:0\nFRAMX\n"[..]).unwrap();
        assert_eq!(y4m.per_s(), None);
        let error = y4m.read(&mut vec![]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}

//! Uncompressed frames one after the other, with nothing between them: what `gst-launch … ! fdsink` and
//! `rpicam-vid --codec yuv420 -o -` write.

use std::io::{self, Read};

use super::clip::FrameReader;
use super::planes::{Plane, to_nv12};
use crate::Format;
use crate::frame::Layout;

/// Reads frames of one size.
pub(super) struct Raw<R> {
    reader: R,
    format: Format,
    width: u32,
    height: u32,
    /// Of three planes, before they are put together.
    planes: Vec<u8>,
}

impl<R: Read> Raw<R> {
    /// For frames without padding; `None` for JPEGs, which are not of one size.
    pub(super) fn new(reader: R, format: Format, (width, height): (u32, u32)) -> Option<Self> {
        format.pixels()?;
        Some(Self {
            reader,
            format,
            width,
            height,
            planes: vec![],
        })
    }

    fn layout(&self) -> Option<(Layout, usize)> {
        let format = self.format.pixels()?;
        let stride = format.row_len(self.width);
        let layout = Layout::Pixels {
            format,
            width: self.width,
            height: self.height,
            stride,
        };
        let (rows, width) = (self.height as usize, self.width as usize);
        let len = match self.format {
            Format::Nv12 => stride * (rows + rows.div_ceil(2)),
            Format::Yu12 => width * rows + 2 * width.div_ceil(2) * rows.div_ceil(2),
            _ => stride * rows,
        };
        Some((layout, len))
    }
}

impl<R: Read + Send> FrameReader for Raw<R> {
    fn read(&mut self, bytes: &mut Vec<u8>) -> io::Result<Option<Layout>> {
        let Some((layout, len)) = self.layout() else {
            return Ok(None);
        };
        let into = match self.format {
            Format::Yu12 => &mut self.planes,
            _ => &mut *bytes,
        };
        into.resize(len, 0);
        self.reader.read_exact(into)?;
        if self.format == Format::Yu12 {
            three_planes((self.width, self.height), &self.planes, bytes);
        }
        Ok(Some(layout))
    }

    fn name(&self) -> String {
        self.format.to_string()
    }

    fn size(&self) -> Option<(u32, u32)> {
        Some((self.width, self.height))
    }
}

/// Planes that follow each other without padding.
fn three_planes((width, height): (u32, u32), planes: &[u8], out: &mut Vec<u8>) {
    let (stride, half) = (width as usize, (width as usize).div_ceil(2));
    let (luma, chroma) = planes.split_at(planes.len().min(stride * height as usize));
    let (u, v) = chroma.split_at(chroma.len() / 2);
    let plane = |bytes, stride| Plane { bytes, stride };
    to_nv12(
        (width, height),
        plane(luma, stride),
        [plane(u, half), plane(v, half)],
        out,
    );
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_length_of_their_format() {
        for (format, len) in [
            (Format::Yuyv, 5 * 12),
            (Format::Nv12, 6 * 8),
            (Format::Yu12, 25 + 2 * 9),
            (Format::Rgb3, 75),
            (Format::Grey, 25),
        ] {
            let two: Vec<u8> = (0..2 * len).map(|i| i as u8).collect();
            let mut raw = Raw::new(&two[..], format, (5, 5)).unwrap();
            let mut bytes = vec![];
            for frame in 0..2 {
                raw.read(&mut bytes).unwrap().unwrap();
                assert_eq!(bytes[0], (frame * len) as u8, "{format}");
            }
            let end = raw.read(&mut bytes).unwrap_err();
            assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
        }
        assert!(Raw::new(&[][..], Format::Mjpg, (5, 5)).is_none());
    }

    #[test]
    fn three_planes_become_two() {
        let planes: Vec<u8> = (0..6).collect();
        let mut raw = Raw::new(&planes[..], Format::Yu12, (2, 2)).unwrap();
        let mut bytes = vec![];
        raw.read(&mut bytes).unwrap().unwrap();
        assert_eq!(bytes, planes);
        let planes: Vec<u8> = (0..16 + 8).collect();
        let mut raw = Raw::new(&planes[..], Format::Yu12, (4, 4)).unwrap();
        raw.read(&mut bytes).unwrap().unwrap();
        assert_eq!(bytes[16..], [16, 20, 17, 21, 18, 22, 19, 23]);
    }
}

//! `test:`: colour bars that move, for trying out a board, a network and a page without a camera.

use std::time::Instant;

use vitlet::PixelFormat;

use super::paced::Pace;
use super::{Description, Source, SourceSettings, Step, refuse};
use crate::frame::Layout;
use crate::{CameraError, CameraFrame};

/// Size and rate when none are asked for.
const SIZE: (u32, u32) = (640, 480);
const PER_S: f64 = 30.0;
/// Pixels that the bars move from frame to frame.
const STEP: u64 = 4;
/// White, yellow, cyan, green, magenta, red, blue, black: 75 % bars (SMPTE EG 1).
const BARS: [[u8; 3]; 8] = [
    [191, 191, 191],
    [191, 191, 0],
    [0, 191, 191],
    [0, 191, 0],
    [191, 0, 191],
    [191, 0, 0],
    [0, 0, 191],
    [0, 0, 0],
];

/// The moving test picture.
pub(super) struct Pattern {
    width: u32,
    height: u32,
    per_s: f64,
    pace: Pace,
    number: u64,
    row: Vec<u8>,
}

impl Pattern {
    pub(super) fn new(settings: &SourceSettings) -> Result<Self, CameraError> {
        refuse(
            "test:",
            "is always RGB3; leave --format out",
            settings.format.is_some(),
        )?;
        let (width, height) = settings.size.unwrap_or(SIZE);
        let per_s = settings.per_s.unwrap_or(PER_S);
        Ok(Self {
            width,
            height,
            per_s,
            pace: Pace::new(per_s),
            number: 0,
            row: Vec::new(),
        })
    }

    /// A row of bars, moved by the frame's number.
    fn draw_row(&mut self) {
        let width = u64::from(self.width.max(1));
        let shift = self.number * STEP;
        self.row.clear();
        for x in 0..width {
            let bar = (x + shift) % width * BARS.len() as u64 / width;
            self.row.extend(BARS[bar as usize % BARS.len()]);
        }
    }
}

impl Source for Pattern {
    fn description(&self) -> Description {
        Description {
            source: "test:".to_owned(),
            format: "RGB3".to_owned(),
            width: Some(self.width),
            height: Some(self.height),
            per_s: Some(self.per_s),
            live: true,
        }
    }

    fn next(&mut self, frame: &mut CameraFrame) -> Result<Step, CameraError> {
        self.pace.wait();
        let start = Instant::now();
        self.draw_row();
        frame.bytes.clear();
        for _ in 0..self.height {
            frame.bytes.extend_from_slice(&self.row);
        }
        frame.layout = Layout::Pixels {
            format: PixelFormat::Rgb8,
            width: self.width,
            height: self.height,
            stride: self.row.len(),
        };
        frame.stamp(self.number, start);
        self.number += 1;
        Ok(Step::Frame)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_moves() {
        let settings = SourceSettings {
            size: Some((16, 3)),
            per_s: Some(1e5),
            ..SourceSettings::default()
        };
        let mut pattern = Pattern::new(&settings).unwrap();
        let mut frame = CameraFrame::default();
        assert!(matches!(pattern.next(&mut frame).unwrap(), Step::Frame));
        let first = frame.bytes.clone();
        assert_eq!(frame.pixels().unwrap().unwrap().width(), 16);
        assert_eq!(first[..6], [191; 6]);
        pattern.next(&mut frame).unwrap();
        assert_eq!(frame.number, 1);
        assert_eq!(first[3 * STEP as usize..48], frame.bytes[..36]);
        assert_ne!(first, frame.bytes);
    }
}

//! The simulated camera's film: frames and the moments at which the camera delivers them, in one block of memory that the host has filled.
//!
//! Little-endian words:
//!
//! | word | what |
//! |---|---|
//! | 0 | `VFRM` |
//! | 1 | number of frames |
//! | 2 | microseconds between frames: what a camera of this rate promises |
//! | 3 | bytes of the whole block |
//! | 4 – | 8 words a frame |
//!
//! | word of a frame | what |
//! |---|---|
//! | 0 | microseconds from the camera's start to its delivery |
//! | 1 | format: 0 = RGB, 1 = BGR, 2 = grey, 3 = YUYV, 4 = NV12 |
//! | 2, 3 | width, height |
//! | 4 | bytes from one row to the next |
//! | 5, 6 | its bytes: offset in the block, length |
//! | 7 | 0 |

use thiserror::Error;
use vitlet_preprocess::{Frame, PixelFormat, PreprocessError};

const MAGIC: [u8; 4] = *b"VFRM";
const HEADER_WORDS: usize = 4;
const FRAME_WORDS: usize = 8;
const FORMATS: [PixelFormat; 5] = [
    PixelFormat::Rgb8,
    PixelFormat::Bgr8,
    PixelFormat::Grey8,
    PixelFormat::Yuyv,
    PixelFormat::Nv12,
];

/// A frame as the camera delivered it: not yet looked at, so it may be of any size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Captured<'a> {
    /// Its number, from 0.
    pub index: u32,
    /// When, in microseconds from the camera's start.
    pub at_us: u64,
    format: u32,
    width: u32,
    height: u32,
    stride: u32,
    /// `None` if it would not lie in the block.
    data: Option<&'a [u8]>,
}

impl<'a> Captured<'a> {
    /// The pixels.
    ///
    /// # Errors
    /// The frame is not what it says.
    pub fn frame(&self) -> Result<Frame<'a>, FrameSetError> {
        let format = FORMATS.get(self.format as usize);
        let format = *format.ok_or(FrameSetError::Format { found: self.format })?;
        let data = self.data.ok_or(FrameSetError::Outside)?;
        Frame::new(format, self.width, self.height, self.stride as usize, data)
            .map_err(FrameSetError::Frame)
    }
}

/// The block, its header checked.
#[derive(Clone, Copy, Debug)]
pub struct FrameSet<'a> {
    bytes: &'a [u8],
    count: u32,
    interval_us: u64,
}

impl<'a> FrameSet<'a> {
    /// Reads the header of a block that starts at `bytes` and ends within them.
    ///
    /// # Errors
    /// No frames were put there, or the block does not lie in `bytes`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FrameSetError> {
        if bytes.get(..4) != Some(&MAGIC) {
            return Err(FrameSetError::None);
        }
        let header = words::<HEADER_WORDS>(bytes, 0).ok_or(FrameSetError::None)?;
        let [_, count, interval_us, len] = header;
        let table = (count as usize).checked_mul(4 * FRAME_WORDS);
        let table = table.and_then(|table| table.checked_add(4 * HEADER_WORDS));
        let (have, need) = (bytes.len(), len as usize);
        let bytes = bytes
            .get(..need)
            .filter(|_| table.is_some_and(|table| table <= need));
        Ok(Self {
            bytes: bytes.ok_or(FrameSetError::Truncated { have, need })?,
            count,
            interval_us: u64::from(interval_us),
        })
    }

    /// Number of frames.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Microseconds between frames, as promised.
    pub fn interval_us(&self) -> u64 {
        self.interval_us
    }

    /// One frame.
    pub fn get(&self, index: u32) -> Option<Captured<'a>> {
        if index >= self.count {
            return None;
        }
        let at = 4 * HEADER_WORDS + 4 * FRAME_WORDS * index as usize;
        let words = words::<FRAME_WORDS>(self.bytes, at)?;
        let [at_us, format, width, height, stride, offset, len, _] = words;
        let data = self.bytes.get(offset as usize..);
        Some(Captured {
            index,
            at_us: u64::from(at_us),
            format,
            width,
            height,
            stride,
            data: data.and_then(|data| data.get(..len as usize)),
        })
    }
}

fn words<const N: usize>(bytes: &[u8], at: usize) -> Option<[u32; N]> {
    let bytes = bytes.get(at..at.checked_add(4 * N)?)?;
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    Some(words)
}

/// What is wrong with the block, or with one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum FrameSetError {
    /// Nothing there.
    #[error(
        "no frames in the camera's memory; the host side puts them there (`cargo xtask firmware run --frames DIR`)"
    )]
    None,
    /// The block is cut off.
    #[error(
        "the camera's memory has {have} bytes, its frames need {need}; use fewer or smaller frames"
    )]
    Truncated {
        /// Bytes there are.
        have: usize,
        /// Bytes the header asks for.
        need: usize,
    },
    /// Not a format that cameras have.
    #[error("pixel format {found} is unknown")]
    Format {
        /// What the frame says.
        found: u32,
    },
    /// The pixels do not lie in the block.
    #[error("its bytes do not lie in the camera's memory")]
    Outside,
    /// The frame's size and bytes do not match.
    #[error("{0}")]
    Frame(PreprocessError),
}

/// A frame for [`write_frame_set`].
#[cfg(any(test, feature = "std"))]
#[derive(Clone, Debug)]
pub struct Shot {
    /// When the camera delivers it, in microseconds from its start.
    pub at_us: u32,
    /// How its pixels lie.
    pub format: PixelFormat,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// Its bytes, rows without gaps: as many as the size says, or not.
    pub data: std::vec::Vec<u8>,
}

/// The block for these frames.
#[cfg(any(test, feature = "std"))]
pub fn write_frame_set(interval_us: u32, shots: &[Shot]) -> std::vec::Vec<u8> {
    let mut offset = 4 * (HEADER_WORDS + FRAME_WORDS * shots.len());
    let table = offset;
    let len = table + shots.iter().map(|shot| shot.data.len()).sum::<usize>();
    let mut words = std::vec![
        u32::from_le_bytes(MAGIC),
        shots.len() as u32,
        interval_us,
        len as u32
    ];
    for shot in shots {
        let format = FORMATS.iter().position(|format| *format == shot.format);
        words.extend([
            shot.at_us,
            format.unwrap_or(FORMATS.len()) as u32,
            shot.width,
            shot.height,
            shot.format.row_len(shot.width) as u32,
            offset as u32,
            shot.data.len() as u32,
            0,
        ]);
        offset += shot.data.len();
    }
    let words = words.iter().flat_map(|word| word.to_le_bytes());
    let data = shots.iter().flat_map(|shot| shot.data.iter().copied());
    words.chain(data).collect()
}

#[cfg(test)]
mod tests {
    use std::vec;

    use proptest::prelude::*;

    use super::*;

    fn shot(at_us: u32, bytes: usize) -> Shot {
        Shot {
            at_us,
            format: PixelFormat::Yuyv,
            width: 4,
            height: 2,
            data: vec![at_us as u8; bytes],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let block = write_frame_set(33_333, &[shot(10, 16), shot(20, 15), shot(30, 16)]);
        let set = FrameSet::parse(&block).expect("a frame set");
        assert_eq!((set.count(), set.interval_us()), (3, 33_333));
        let frames = [0, 1, 2].map(|index| set.get(index).expect("a frame"));
        assert_eq!(frames.map(|frame| frame.at_us), [10, 20, 30]);
        let last = frames[2].frame().expect("whole");
        assert_eq!(
            (last.format(), last.data()),
            (PixelFormat::Yuyv, &[30; 16][..])
        );
        let short = PreprocessError::FrameBytes {
            have: 15,
            need: Some(16),
        };
        assert_eq!(frames[1].frame().err(), Some(FrameSetError::Frame(short)));
        assert_eq!(set.get(3), None);
    }

    #[test]
    fn memory_without_frames_is_no_frame_set() {
        assert_eq!(FrameSet::parse(&[0; 64]).err(), Some(FrameSetError::None));
        let block = write_frame_set(1, &[shot(10, 16)]);
        let (have, need) = (block.len() - 1, block.len());
        assert_eq!(
            FrameSet::parse(&block[..have]).err(),
            Some(FrameSetError::Truncated { have, need })
        );
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_error_or_frames(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), marked in any::<bool>()) {
            if marked && bytes.len() >= 16 {
                bytes[..4].copy_from_slice(&MAGIC);
                bytes[5..8].fill(0);
                bytes[14..16].fill(0);
            }
            if let Ok(set) = FrameSet::parse(&bytes) {
                for index in 0..set.count().min(16) {
                    let _ = set.get(index).map(|captured| captured.frame());
                }
            }
        }
    }
}

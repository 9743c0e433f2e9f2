//! JPEG after JPEG: what cameras, `rpicam-vid --codec mjpeg` and `ffmpeg -f mjpeg` write.
//!
//! The stream has no index, so the end of a picture is found by its markers (ITU-T T.81, B.1):
//!
//! ```text
//! find FF D8                                  start of image; bytes before it are skipped
//! loop
//!     FF m                                    a marker; FFs before m are filling
//!     m = D9: the picture is complete
//!     m = D8: another one starts, this one was cut off
//!     m in 01, D0..D7: nothing follows
//!     else: two bytes of length, and so many bytes (a thumbnail with its own FF D9 may be among them)
//!     m = DA: and then coded data up to FF m, m being neither 00 nor D0..D7
//! ```

use std::io::{self, BufRead};

/// The longest picture that is collected; the same that photos may have.
const MAX_LEN: usize = 64_000_000;

const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;
const DHT: u8 = 0xC4;

/// The Huffman tables of T.81, K.3, as one segment after the other. Cameras leave them out: they are the same in every picture of
/// an MJPEG stream (`V4L2_PIX_FMT_MJPEG`), but decoders of JPEG want them.
const HUFFMAN_TABLES: &[u8] = include_bytes!("huffman.dht");

/// What was found in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Picture {
    /// A JPEG from its first marker to its last.
    Whole,
    /// One that was cut off, or is none.
    Damaged,
    /// The stream has ended.
    End,
}

/// Why the bytes are no picture.
enum Cut {
    /// The stream ended, or could not be read.
    Read(io::Error),
    /// Bytes that no JPEG has.
    Malformed,
    /// Another picture starts here.
    Restarted,
}

impl From<io::Error> for Cut {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// Cuts a stream into pictures.
pub(super) struct Splitter<R> {
    reader: R,
    /// The two bytes that start a picture were read already.
    started: bool,
}

impl<R: BufRead> Splitter<R> {
    pub(super) const fn new(reader: R) -> Self {
        Self {
            reader,
            started: false,
        }
    }

    /// Puts the next picture into `out`. Huffman tables are added if it has none.
    pub(super) fn next(&mut self, out: &mut Vec<u8>) -> io::Result<Picture> {
        out.clear();
        if !self.started && !self.find_start()? {
            return Ok(Picture::End);
        }
        self.started = false;
        out.extend([0xFF, SOI]);
        match self.picture(out) {
            Ok(()) => Ok(Picture::Whole),
            Err(Cut::Restarted) => {
                self.started = true;
                Ok(Picture::Damaged)
            }
            Err(Cut::Malformed) => Ok(Picture::Damaged),
            Err(Cut::Read(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Ok(Picture::Damaged)
            }
            Err(Cut::Read(error)) => Err(error),
        }
    }

    /// Skips bytes up to a start of image; `false` if there is none.
    fn find_start(&mut self) -> io::Result<bool> {
        let mut last = 0;
        loop {
            let buffer = self.reader.fill_buf()?;
            if buffer.is_empty() {
                return Ok(false);
            }
            let mut used = 0;
            let mut found = false;
            for &byte in buffer {
                used += 1;
                found = (last, byte) == (0xFF, SOI);
                last = byte;
                if found {
                    break;
                }
            }
            self.reader.consume(used);
            if found {
                return Ok(true);
            }
        }
    }

    /// Everything after the start of image.
    fn picture(&mut self, out: &mut Vec<u8>) -> Result<(), Cut> {
        let mut tables = false;
        if self.byte()? != 0xFF {
            return Err(Cut::Malformed);
        }
        loop {
            let marker = self.marker()?;
            match marker {
                SOI => return Err(Cut::Restarted),
                EOI => {
                    out.extend([0xFF, EOI]);
                    return Ok(());
                }
                0x01 | 0xD0..=0xD7 => out.extend([0xFF, marker]),
                _ => {
                    tables |= marker == DHT;
                    if marker == SOS && !tables {
                        out.extend_from_slice(HUFFMAN_TABLES);
                        tables = true;
                    }
                    out.extend([0xFF, marker]);
                    self.segment(out)?;
                    if marker == SOS {
                        self.coded_data(out)?;
                        continue;
                    }
                }
            }
            if self.byte()? != 0xFF {
                return Err(Cut::Malformed);
            }
        }
    }

    /// What follows FF: the marker, after any number of further FFs.
    fn marker(&mut self) -> Result<u8, Cut> {
        loop {
            match self.byte()? {
                0xFF => {}
                0x00 => return Err(Cut::Malformed),
                marker => return Ok(marker),
            }
        }
    }

    /// A length, and so many bytes with its own two.
    fn segment(&mut self, out: &mut Vec<u8>) -> Result<(), Cut> {
        let length = [self.byte()?, self.byte()?];
        out.extend(length);
        let mut rest = usize::from(u16::from_be_bytes(length))
            .checked_sub(2)
            .ok_or(Cut::Malformed)?;
        while rest > 0 {
            let buffer = self.filled()?;
            let len = buffer.len().min(rest);
            out.extend_from_slice(&buffer[..len]);
            self.reader.consume(len);
            rest -= len;
        }
        check_len(out)
    }

    /// Coded data, and the FF of the marker that ends them (which is not put into `out`).
    fn coded_data(&mut self, out: &mut Vec<u8>) -> Result<(), Cut> {
        loop {
            let buffer = self.filled()?;
            let end = buffer.iter().position(|&byte| byte == 0xFF);
            let len = end.unwrap_or(buffer.len());
            out.extend_from_slice(&buffer[..len]);
            self.reader.consume(len);
            check_len(out)?;
            if end.is_none() {
                continue;
            }
            // An FF of the data is followed by 00; a restart marker belongs to them, too.
            self.reader.consume(1);
            let next = *self.filled()?.first().ok_or(Cut::Malformed)?;
            if !matches!(next, 0x00 | 0xD0..=0xD7) {
                return Ok(());
            }
            out.extend([0xFF, next]);
            self.reader.consume(1);
        }
    }

    fn byte(&mut self) -> Result<u8, Cut> {
        let byte = *self.filled()?.first().ok_or(Cut::Malformed)?;
        self.reader.consume(1);
        Ok(byte)
    }

    /// At least one byte.
    fn filled(&mut self) -> io::Result<&[u8]> {
        let buffer = self.reader.fill_buf()?;
        if buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(buffer)
    }
}

fn check_len(out: &[u8]) -> Result<(), Cut> {
    if out.len() > MAX_LEN {
        return Err(Cut::Malformed);
    }
    Ok(())
}

/// A picture of a camera with Huffman tables, if it has none. `None` if it is no JPEG.
#[cfg(target_os = "linux")]
pub(super) fn with_tables(bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let found = Splitter::new(bytes).next(out);
    matches!(found, Ok(Picture::Whole)).then_some(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::preview::jpeg;
    use vitlet::Photo;

    fn picture(grey: u8) -> Vec<u8> {
        let rgb: Vec<u8> = (0..24 * 16 * 3)
            .map(|i| grey.wrapping_add(i as u8 / 7))
            .collect();
        jpeg::encode(&rgb, 24, 16).unwrap()
    }

    fn split(stream: &[u8]) -> Vec<(Picture, Vec<u8>)> {
        let mut splitter = Splitter::new(stream);
        let mut all = vec![];
        loop {
            let mut out = vec![];
            let found = splitter.next(&mut out).unwrap();
            if found == Picture::End {
                return all;
            }
            all.push((found, out));
        }
    }

    /// The picture without its Huffman tables.
    fn without_tables(jpeg: &[u8]) -> Vec<u8> {
        let mut out = jpeg[..2].to_vec();
        let mut at = 2;
        while jpeg[at + 1] != SOS {
            let len = 2 + usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
            if jpeg[at + 1] != DHT {
                out.extend_from_slice(&jpeg[at..at + len]);
            }
            at += len;
        }
        out.extend_from_slice(&jpeg[at..]);
        out
    }

    #[test]
    fn pictures_come_out_as_they_went_in() {
        let [one, two] = [picture(10), picture(200)];
        let mut stream = b"--boundary\r\n\xFF\x00".to_vec();
        stream.extend_from_slice(&one);
        stream.extend_from_slice(b"\r\n--boundary\r\n");
        stream.extend_from_slice(&two);
        stream.extend_from_slice(&one);
        let whole = |bytes: &Vec<u8>| (Picture::Whole, bytes.clone());
        assert_eq!(split(&stream), [whole(&one), whole(&two), whole(&one)]);
    }

    #[test]
    fn a_thumbnail_does_not_end_a_picture() {
        let inner = picture(50);
        let outer = picture(99);
        let mut jpeg = outer[..2].to_vec();
        jpeg.extend([0xFF, 0xE1]);
        jpeg.extend((inner.len() as u16 + 2).to_be_bytes());
        jpeg.extend_from_slice(&inner);
        jpeg.extend_from_slice(&outer[2..]);
        assert_eq!(split(&jpeg), [(Picture::Whole, jpeg.clone())]);
    }

    #[test]
    fn a_picture_that_is_cut_off_does_not_cost_the_next() {
        let [one, two] = [picture(10), picture(200)];
        // Within the coded data. (Within a segment, the next picture's start would be taken for a part of it.)
        let mut stream = one[..one.len() - 4].to_vec();
        stream.extend_from_slice(&two);
        stream.extend_from_slice(&one[..40]);
        let kinds: Vec<Picture> = split(&stream).iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [Picture::Damaged, Picture::Whole, Picture::Damaged]);
        assert_eq!(split(&stream)[1].1, two);
    }

    #[test]
    fn pictures_without_tables_can_be_decoded() {
        let jpeg = picture(77);
        let bare = without_tables(&jpeg);
        assert!(bare.len() + 400 < jpeg.len());
        assert!(Photo::decode(&bare).is_err());
        let [(Picture::Whole, added)] = &split(&bare)[..] else {
            unreachable!("one picture")
        };
        assert_eq!(Photo::decode(added).unwrap(), Photo::decode(&jpeg).unwrap());
    }

    #[test]
    fn every_prefix_and_every_flip_ends() {
        let mut stream = picture(1);
        stream.extend_from_slice(&picture(2));
        for len in 0..stream.len() {
            split(&stream[..len]);
        }
        for at in 0..stream.len() {
            let mut flipped = stream.clone();
            flipped[at] ^= 1 << (at % 8);
            split(&flipped);
        }
    }
}

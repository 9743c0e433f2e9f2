//! Photos in files: JPEG and PNG to 8-bit RGB, turned upright.
//!
//! The kind of file is told from its first bytes, never from its name. What Pillow's `convert("RGB")` does is done here
//! where that is well defined: grey becomes three equal channels, palettes are looked up, alpha is dropped. Of 16-bit
//! PNG channels the high byte is kept. EXIF orientation is applied (a camera held upright writes a rotated picture and
//! says so there), and ignored when the EXIF block is damaged.
//!
//! Sizes are checked against the limits before any memory is taken for pixels.

use png::{ColorType, Transformations};
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use vitlet_preprocess::{Frame, PixelFormat, PreprocessError};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

/// Longest file, in bytes.
const MAX_FILE: u64 = 64_000_000;
/// Most pixels in a photo.
const MAX_PIXELS: u64 = 100_000_000;
/// Longest side of a photo, in pixels; the resizer's limit.
const MAX_SIDE: usize = vitlet_preprocess::MAX_SIDE as usize;

/// A decoded, upright photo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Photo {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Red, green, blue triples, rows from the top, without padding.
    pub rgb: Vec<u8>,
}

/// Why a file did not give a [`Photo`]. Every message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PhotoError {
    /// The file could not be opened or read.
    #[error("{}: cannot be read: {error}; give a JPEG or PNG file", path.display())]
    Read {
        /// The file asked for.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file was read, but is no acceptable photo.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with its contents.
        error: Box<PhotoError>,
    },
    /// There are no bytes at all.
    #[error("empty; give a JPEG or PNG file")]
    Empty,
    /// The file is too long.
    #[error("more than 64 MB; photos may have 64 MB, 100 megapixels and 16384 pixels a side")]
    TooLong,
    /// The first bytes are neither a JPEG's nor a PNG's.
    #[error("neither a JPEG nor a PNG image; convert it to one of these")]
    UnknownFormat,
    /// The image has too many pixels, or none.
    #[error(
        "{width}x{height} pixels; photos may have 1 to 16384 pixels a side and 100 megapixels in all"
    )]
    Size {
        /// Pixels in a row.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// The JPEG's colours are not grey, RGB or YCbCr.
    #[error("a {0} JPEG; grey and RGB (YCbCr) ones are accepted, so convert it to RGB")]
    Colours(String),
    /// The JPEG ends early.
    #[error("a truncated JPEG: its end marker is missing; copy the file again")]
    TruncatedJpeg,
    /// The JPEG cannot be decoded.
    #[error(
        "a damaged or unsupported JPEG: {0}; baseline and progressive ones with 8 bits a channel are accepted"
    )]
    Jpeg(String),
    /// The PNG cannot be decoded.
    #[error("a damaged or truncated PNG: {0}; PNGs of every colour type and depth are accepted")]
    Png(String),
}

impl Photo {
    /// Whether a file's name ends as a photo's does: `.jpg`, `.jpeg` or `.png`, in any case. Folders are searched for such; what a file
    /// is, its first bytes tell.
    pub fn has_name(path: &Path) -> bool {
        path.extension().is_some_and(|extension| {
            ["jpg", "jpeg", "png"]
                .iter()
                .any(|known| extension.eq_ignore_ascii_case(known))
        })
    }

    /// Reads and decodes a JPEG or PNG file.
    ///
    /// # Errors
    /// If the file cannot be read or [`Photo::decode`] refuses its contents; the message names the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, PhotoError> {
        let path = path.as_ref();
        let bytes = read(path).map_err(|error| PhotoError::Read {
            path: path.to_owned(),
            error,
        })?;
        Self::decode(&bytes).map_err(|error| PhotoError::File {
            path: path.to_owned(),
            error: Box::new(error),
        })
    }

    /// Decodes a JPEG or PNG image: JPEG baseline or progressive, grey or colour (CMYK is refused); PNG of every colour
    /// type and depth, interlaced or not, of an animation the default image.
    ///
    /// # Errors
    /// If the bytes are not such an image, it is damaged or truncated, or it exceeds 64 MB, 100 megapixels or
    /// 16384 pixels a side.
    pub fn decode(bytes: &[u8]) -> Result<Self, PhotoError> {
        if bytes.len() as u64 > MAX_FILE {
            return Err(PhotoError::TooLong);
        }
        let (photo, orientation) = match bytes {
            [] => return Err(PhotoError::Empty),
            [0xFF, 0xD8, 0xFF, ..] => decode_jpeg(bytes)?,
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => decode_png(bytes)?,
            _ => return Err(PhotoError::UnknownFormat),
        };
        Ok(upright(photo, orientation))
    }

    /// The pixels as a frame.
    ///
    /// # Errors
    /// If the sides are not within 1 to 16384 pixels, or there are fewer pixels than they say.
    pub fn frame(&self) -> Result<Frame<'_>, PreprocessError> {
        let stride = PixelFormat::Rgb8.row_len(self.width);
        Frame::new(
            PixelFormat::Rgb8,
            self.width,
            self.height,
            stride,
            &self.rgb,
        )
    }
}

/// The file's bytes, at most one more than allowed: [`Photo::decode`] then says so.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_FILE + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The sides as `u32`, if they are within the limits.
fn check_size(width: usize, height: usize) -> Result<(u32, u32), PhotoError> {
    let sides = 1..=MAX_SIDE;
    if !sides.contains(&width)
        || !sides.contains(&height)
        || width as u64 * height as u64 > MAX_PIXELS
    {
        return Err(PhotoError::Size { width, height });
    }
    Ok((width as u32, height as u32))
}

fn decode_jpeg(bytes: &[u8]) -> Result<(Photo, u32), PhotoError> {
    // Strict: otherwise the decoder returns grey for what is missing or damaged. Sides up to 65535 are let through for
    // `check_size` to refuse.
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let damaged = |error| PhotoError::Jpeg(one_line(&error));
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(damaged)?;
    let (width, height) = decoder.dimensions().unwrap_or((0, 0));
    let (width, height) = check_size(width, height)?;
    match decoder.input_colorspace() {
        Some(ColorSpace::Luma | ColorSpace::RGB | ColorSpace::YCbCr) => {}
        other => {
            return Err(PhotoError::Colours(
                other.map_or_else(String::new, |colours| format!("{colours:?}")),
            ));
        }
    }
    if !jpeg_has_end(bytes) {
        return Err(PhotoError::TruncatedJpeg);
    }
    let rgb = decoder.decode().map_err(damaged)?;
    let orientation = decoder.exif().map_or(1, |exif| orientation(exif.clone()));
    checked_photo(width, height, rgb)
        .map(|photo| (photo, orientation))
        .ok_or(PhotoError::TruncatedJpeg)
}

/// Whether an end marker follows the first scan. The decoder is content without one, and then cannot tell a photo that
/// lacks its last rows; an EXIF thumbnail has an end marker of its own, so the search starts at the scan.
fn jpeg_has_end(bytes: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xDA;
    const END_OF_IMAGE: [u8; 2] = [0xFF, 0xD9];
    let mut rest = bytes.get(2..).unwrap_or_default();
    while let [0xFF, marker, high, low, ..] = *rest {
        let skip = match marker {
            START_OF_SCAN => return rest.windows(2).any(|pair| pair == END_OF_IMAGE),
            // Fill byte before a marker.
            0xFF => 1,
            _ => 2 + usize::from(u16::from_be_bytes([high, low])),
        };
        rest = rest.get(skip..).unwrap_or_default();
    }
    false
}

fn decode_png(bytes: &[u8]) -> Result<(Photo, u32), PhotoError> {
    let damaged = |error| PhotoError::Png(one_line(&error));
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info().map_err(damaged)?;
    let (width, height) = check_size(header.width as usize, header.height as usize)?;
    let mut reader = decoder.read_info().map_err(damaged)?;
    let len = reader.output_buffer_size().ok_or(PhotoError::Size {
        width: width as usize,
        height: height as usize,
    })?;
    let mut pixels = vec![0; len];
    let frame = reader.next_frame(&mut pixels).map_err(damaged)?;
    // The orientation may follow the pixels.
    reader.finish().map_err(damaged)?;
    let rgb = match frame.color_type {
        ColorType::Rgb => pixels,
        ColorType::Rgba => to_rgb(&pixels, |&[r, g, b, _]| [r, g, b]),
        ColorType::Grayscale => to_rgb(&pixels, |&[grey]| [grey; 3]),
        ColorType::GrayscaleAlpha => to_rgb(&pixels, |&[grey, _]| [grey; 3]),
        // `EXPAND` looks palettes up.
        ColorType::Indexed => return Err(PhotoError::Png("palette without colours".to_owned())),
    };
    let orientation = reader
        .info()
        .exif_metadata
        .as_ref()
        .map_or(1, |exif| orientation(exif.to_vec()));
    let photo = checked_photo(width, height, rgb);
    photo
        .map(|photo| (photo, orientation))
        .ok_or_else(|| PhotoError::Png("fewer pixels than its header says".to_owned()))
}

/// Converts pixels of `N` bytes.
fn to_rgb<const N: usize>(pixels: &[u8], convert: impl Fn(&[u8; N]) -> [u8; 3]) -> Vec<u8> {
    pixels.as_chunks().0.iter().flat_map(convert).collect()
}

/// A photo, if the decoder gave as many pixels as its header promised.
fn checked_photo(width: u32, height: u32, rgb: Vec<u8>) -> Option<Photo> {
    (rgb.len() == width as usize * height as usize * 3).then_some(Photo { width, height, rgb })
}

/// A decoder's message without line breaks.
fn one_line(error: &impl ToString) -> String {
    error
        .to_string()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// The EXIF orientation, 1 (upright) where there is none or it makes no sense. Damage elsewhere in the block is overlooked.
fn orientation(exif: Vec<u8>) -> u32 {
    let mut reader = exif::Reader::new();
    let parsed = reader
        .continue_on_error(true)
        .read_raw(exif)
        .or_else(|error| error.distill_partial_result(|_| {}));
    let field = parsed.ok().and_then(|exif| {
        exif.get_field(exif::Tag::Orientation, exif::In::PRIMARY)
            .and_then(|field| field.value.get_uint(0))
    });
    field.filter(|value| (1..=8).contains(value)).unwrap_or(1)
}

/// The photo as the camera saw it, given the orientation (EXIF 2.32, tag 0x0112) in which it was stored.
fn upright(photo: Photo, orientation: u32) -> Photo {
    if orientation == 1 {
        return photo;
    }
    let transpose = orientation >= 5;
    let flip_rows = matches!(orientation, 3 | 4 | 6 | 7);
    let flip_columns = matches!(orientation, 2 | 3 | 7 | 8);
    let (stored_width, stored_height) = (photo.width as usize, photo.height as usize);
    let (width, height) = if transpose {
        (photo.height, photo.width)
    } else {
        (photo.width, photo.height)
    };

    let stored = photo.rgb.as_chunks::<3>().0;
    let mut rgb = Vec::with_capacity(photo.rgb.len());
    for y in 0..height as usize {
        for x in 0..width as usize {
            let (row, column) = if transpose { (x, y) } else { (y, x) };
            let row = if flip_rows {
                stored_height - 1 - row
            } else {
                row
            };
            let column = if flip_columns {
                stored_width - 1 - column
            } else {
                column
            };
            rgb.extend_from_slice(&stored[row * stored_width + column]);
        }
    }
    Photo { width, height, rgb }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use png::BitDepth;
    use std::borrow::Cow;

    const RED: [u8; 3] = [255, 0, 0];
    const GREEN: [u8; 3] = [0, 255, 0];
    const BLUE: [u8; 3] = [0, 0, 255];
    const WHITE: [u8; 3] = [255; 3];

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/photos")
    }

    /// A file of tests/photos (made by generate.py there).
    fn file(name: &str) -> Vec<u8> {
        std::fs::read(folder().join(name)).unwrap()
    }

    fn pixel(photo: &Photo, x: u32, y: u32) -> [u8; 3] {
        photo.rgb.as_chunks().0[(y * photo.width + x) as usize]
    }

    fn assert_close(a: [u8; 3], b: [u8; 3], what: &str) {
        assert!(
            a.iter().zip(b).all(|(a, b)| a.abs_diff(b) <= 8),
            "{what}: {a:?} is not {b:?}"
        );
    }

    /// The picture of tests/photos: four coloured quarters.
    fn assert_quarters(photo: &Photo, expected: [[u8; 3]; 4], what: &str) {
        assert_eq!((photo.width, photo.height), (24, 16), "{what}");
        for (index, colour) in (0..).zip(expected) {
            for (dx, dy) in [(0, 0), (11, 7), (5, 3)] {
                assert_close(
                    pixel(photo, index % 2 * 12 + dx, index / 2 * 8 + dy),
                    colour,
                    what,
                );
            }
        }
    }

    #[test]
    fn jpeg_orientations() {
        for orientation in 1..=8 {
            let name = format!("orientation-{orientation}.jpg");
            assert_quarters(
                &Photo::open(folder().join(&name)).unwrap(),
                [RED, GREEN, BLUE, WHITE],
                &name,
            );
        }
        let name = "damaged-exif.jpg";
        assert_quarters(
            &Photo::decode(&file(name)).unwrap(),
            [RED, GREEN, BLUE, WHITE],
            name,
        );
    }

    #[test]
    fn jpeg_kinds() {
        let progressive = Photo::decode(&file("progressive.jpg")).unwrap();
        assert_quarters(&progressive, [RED, GREEN, BLUE, WHITE], "progressive");
        let subsampled = Photo::decode(&file("subsampled.jpg")).unwrap();
        assert_close(pixel(&subsampled, 3, 3), RED, "subsampled");
        let grey = Photo::decode(&file("grey.jpg")).unwrap();
        // ITU-R 601 luma of the four colours, as Pillow's convert("L") gives it.
        assert_quarters(&grey, [[76; 3], [150; 3], [29; 3], WHITE], "grey");
        assert!(
            grey.rgb
                .as_chunks()
                .0
                .iter()
                .all(|[r, g, b]| r == g && g == b)
        );
    }

    #[test]
    fn jpeg_refusals() {
        let message = |name: &str| Photo::open(folder().join(name)).unwrap_err().to_string();
        assert!(
            message("cmyk.jpg").contains("CMYK JPEG"),
            "{}",
            message("cmyk.jpg")
        );
        for name in ["truncated-orientation-1.jpg", "truncated-progressive.jpg"] {
            assert!(
                message(name).contains("photos/truncated-")
                    && message(name).contains("end marker is missing")
            );
        }
        let whole = file("orientation-6.jpg");
        for len in 0..whole.len() {
            let error = Photo::decode(&whole[..len]).unwrap_err().to_string();
            assert!(!error.contains('\n'), "{error}");
        }
        // Lengths of a photo that lost bytes in its middle: an error or pixels, never a panic.
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            let _ = Photo::decode(&damaged);
            damaged.remove(at);
            let _ = Photo::decode(&damaged);
        }
    }

    /// A PNG of `width` × 2 pixels with these sample bytes.
    fn png(
        colour: ColorType,
        depth: BitDepth,
        width: u32,
        data: &[u8],
        edit: impl Fn(&mut png::Info<'_>),
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut info = png::Info::with_size(width, 2);
        info.color_type = colour;
        info.bit_depth = depth;
        edit(&mut info);
        let mut writer = png::Encoder::with_info(&mut bytes, info)
            .unwrap()
            .write_header()
            .unwrap();
        writer.write_image_data(data).unwrap();
        writer.finish().unwrap();
        bytes
    }

    fn rgb_of(png: &[u8]) -> Vec<u8> {
        Photo::decode(png).unwrap().rgb
    }

    #[test]
    fn png_kinds() {
        let plain = |_: &mut png::Info<'_>| {};
        let (eight, sixteen) = (BitDepth::Eight, BitDepth::Sixteen);
        assert_eq!(
            rgb_of(&png(ColorType::Rgb, eight, 1, &[1, 2, 3, 4, 5, 6], plain)),
            [1, 2, 3, 4, 5, 6]
        );
        // Alpha is dropped, not composited.
        let rgba = png(
            ColorType::Rgba,
            eight,
            1,
            &[1, 2, 3, 0, 4, 5, 6, 128],
            plain,
        );
        assert_eq!(rgb_of(&rgba), [1, 2, 3, 4, 5, 6]);
        assert_eq!(
            rgb_of(&png(ColorType::Grayscale, eight, 1, &[7, 9], plain)),
            [7, 7, 7, 9, 9, 9]
        );
        assert_eq!(
            rgb_of(&png(
                ColorType::GrayscaleAlpha,
                eight,
                1,
                &[7, 0, 9, 1],
                plain
            )),
            [7, 7, 7, 9, 9, 9]
        );
        let deep = png(
            ColorType::Rgb,
            sixteen,
            1,
            &[1, 255, 2, 255, 3, 0, 4, 0, 5, 0, 6, 128],
            plain,
        );
        assert_eq!(rgb_of(&deep), [1, 2, 3, 4, 5, 6]);
        assert_eq!(
            rgb_of(&png(
                ColorType::Grayscale,
                sixteen,
                1,
                &[7, 255, 9, 0],
                plain
            )),
            [7, 7, 7, 9, 9, 9]
        );
        // One bit a pixel: rows 1 0 and 0 1.
        let bits = png(ColorType::Grayscale, BitDepth::One, 2, &[0x80, 0x40], plain);
        assert_eq!(
            rgb_of(&bits),
            [255, 255, 255, 0, 0, 0, 0, 0, 0, 255, 255, 255]
        );
        let palette = png(ColorType::Indexed, eight, 1, &[1, 0], |info| {
            info.palette = Some(Cow::Borrowed(&[10, 11, 12, 20, 21, 22]));
            info.trns = Some(Cow::Borrowed(&[0, 128]));
        });
        assert_eq!(rgb_of(&palette), [20, 21, 22, 10, 11, 12]);
    }

    #[test]
    fn png_interlaced() {
        // Adam7 of a 2×2 grey image: passes 1 (0,0), 6 (1,0), 7 (0,1) (1,1); rows have a filter byte. The encoder writes
        // no interlaced images, so the image data are stored as they are in a deflate block.
        let mut interlaced = b"\x89PNG\r\n\x1a\n".to_vec();
        chunk(
            &mut interlaced,
            b"IHDR",
            &[0, 0, 0, 2, 0, 0, 0, 2, 8, 0, 0, 0, 1],
        );
        let rows = [0, 1, 0, 2, 0, 3, 4];
        let mut zlib = vec![
            0x78,
            0x01,
            0x01,
            rows.len() as u8,
            0,
            !(rows.len() as u8),
            0xFF,
        ];
        zlib.extend(rows);
        zlib.extend(adler32(&rows).to_be_bytes());
        chunk(&mut interlaced, b"IDAT", &zlib);
        chunk(&mut interlaced, b"IEND", &[]);
        assert_eq!(rgb_of(&interlaced), [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]);
    }

    fn chunk(png: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
        png.extend((data.len() as u32).to_be_bytes());
        let checked = [&kind[..], data].concat();
        png.extend(&checked);
        png.extend(crc32(&checked).to_be_bytes());
    }

    fn crc32(bytes: &[u8]) -> u32 {
        let step = |crc: u32| {
            if crc & 1 == 1 {
                crc >> 1 ^ 0xEDB8_8320
            } else {
                crc >> 1
            }
        };
        !bytes.iter().fold(!0, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc))
        })
    }

    fn adler32(bytes: &[u8]) -> u32 {
        let (a, b) = bytes.iter().fold((1, 0), |(a, b), byte| {
            let a = (a + u32::from(*byte)) % 65521;
            (a, (b + a) % 65521)
        });
        b << 16 | a
    }

    /// A little-endian TIFF block with the orientation alone.
    fn exif_block(orientation: u8) -> Vec<u8> {
        let mut block = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        block.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
        block
    }

    /// Every orientation of a 3×2 picture, by the definition in the EXIF standard: where row 0 and column 0 are shown.
    #[test]
    fn png_orientations() {
        let stored = [0, 1, 2, 3, 4, 5];
        let upright: [(u32, [u8; 6]); 8] = [
            (3, [0, 1, 2, 3, 4, 5]),
            (3, [2, 1, 0, 5, 4, 3]),
            (3, [5, 4, 3, 2, 1, 0]),
            (3, [3, 4, 5, 0, 1, 2]),
            (2, [0, 3, 1, 4, 2, 5]),
            (2, [3, 0, 4, 1, 5, 2]),
            (2, [5, 2, 4, 1, 3, 0]),
            (2, [2, 5, 1, 4, 0, 3]),
        ];
        for (orientation, (width, expected)) in (1..).zip(upright) {
            let block = exif_block(orientation);
            let png = png(ColorType::Grayscale, BitDepth::Eight, 3, &stored, |info| {
                info.exif_metadata = Some(Cow::Owned(block.clone()));
            });
            let photo = Photo::decode(&png).unwrap();
            assert_eq!((photo.width, photo.height), (width, 6 / width));
            let grey: Vec<u8> = photo
                .rgb
                .as_chunks::<3>()
                .0
                .iter()
                .map(|rgb| rgb[0])
                .collect();
            assert_eq!(grey, expected, "orientation {orientation}");
        }
        for nonsense in [
            &exif_block(0)[..],
            &exif_block(9),
            &exif_block(6)[..12],
            b"nonsense",
            b"",
        ] {
            assert_eq!(orientation(nonsense.to_vec()), 1);
        }
    }

    #[test]
    fn png_refusals() {
        let plain = |_: &mut png::Info<'_>| {};
        let whole = png(ColorType::Rgb, BitDepth::Eight, 3, &[9; 18], plain);
        // Without the last 12 bytes (IEND) no pixel is missing; whatever happens, it is not a panic.
        for len in 0..whole.len() - 12 {
            assert!(Photo::decode(&whole[..len]).is_err(), "{len}");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            let _ = Photo::decode(&damaged);
        }
        for (width, height) in [(16385, 1), (1, 16385), (10001, 10000), (u32::MAX, u32::MAX)] {
            let mut huge = b"\x89PNG\r\n\x1a\n".to_vec();
            let header = [
                &width.to_be_bytes()[..],
                &height.to_be_bytes(),
                &[8, 2, 0, 0, 0],
            ]
            .concat();
            chunk(&mut huge, b"IHDR", &header);
            let error = Photo::decode(&huge).unwrap_err();
            assert!(
                matches!(error, PhotoError::Size { .. } | PhotoError::Png(_)),
                "{error}"
            );
        }
    }

    #[test]
    fn other_refusals() {
        assert!(matches!(Photo::decode(&[]), Err(PhotoError::Empty)));
        assert!(matches!(
            Photo::decode(b"GIF89a"),
            Err(PhotoError::UnknownFormat)
        ));
        assert!(matches!(
            Photo::decode(&vec![0xFF; MAX_FILE as usize + 1]),
            Err(PhotoError::TooLong)
        ));
        // A JPEG whose header claims 65535×65535 pixels.
        let mut huge = file("orientation-1.jpg");
        let frame = huge
            .windows(2)
            .position(|pair| pair == [0xFF, 0xC0])
            .unwrap();
        huge[frame + 5..frame + 9].fill(0xFF);
        assert!(matches!(
            Photo::decode(&huge),
            Err(PhotoError::Size {
                width: 65535,
                height: 65535
            })
        ));

        let missing = Photo::open(folder().join("no-such.jpg"))
            .unwrap_err()
            .to_string();
        assert!(
            missing.contains("no-such.jpg: cannot be read: No such file"),
            "{missing}"
        );
        let directory = Photo::open(folder()).unwrap_err().to_string();
        assert!(
            directory.contains("photos: cannot be read: Is a directory"),
            "{directory}"
        );
        let not_a_photo = Photo::open(folder().join("generate.py"))
            .unwrap_err()
            .to_string();
        assert!(
            not_a_photo.ends_with(
                "generate.py: neither a JPEG nor a PNG image; convert it to one of these"
            )
        );
    }
}

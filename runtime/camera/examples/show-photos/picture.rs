//! A photo in the middle of a frame.

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use vitlet::Photo;

/// Beside photos that have another shape than the frame.
const GREY: [u8; 3] = [128; 3];

/// The order of a pixel's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Rgb,
    Bgr,
}

impl Order {
    /// By V4L2's four characters.
    pub(crate) fn named(format: &str) -> Result<Self, String> {
        match format {
            "RGB3" => Ok(Self::Rgb),
            "BGR3" => Ok(Self::Bgr),
            _ => Err(format!("{format}: only RGB3 and BGR3 can be shown exactly")),
        }
    }
}

/// Red, green, blue triples, as large as the output.
pub(crate) struct Picture {
    size: [usize; 2],
    rgb: Vec<u8>,
}

impl Picture {
    /// Reads a photo and scales it to fit: by repeating or leaving out pixels, which needs no library.
    pub(crate) fn of(path: &Path, size: [usize; 2]) -> Result<Self, Box<dyn Error>> {
        let photo = Photo::open(path)?;
        let [width, height] = size;
        let (photo_width, photo_height) = (photo.width as usize, photo.height as usize);
        let fits_across = photo_width * height <= photo_height * width;
        let (shown_width, shown_height) = if fits_across {
            (photo_width * height / photo_height, height)
        } else {
            (width, photo_height * width / photo_width)
        };
        let (left, top) = ((width - shown_width) / 2, (height - shown_height) / 2);
        let pixel = |x: usize, y: usize| -> Option<[u8; 3]> {
            let x = x.checked_sub(left).filter(|&x| x < shown_width)?;
            let y = y.checked_sub(top).filter(|&y| y < shown_height)?;
            let row = y * photo_height / shown_height * photo_width;
            let start = (row + x * photo_width / shown_width) * 3;
            photo.rgb.get(start..start + 3)?.try_into().ok()
        };
        let rgb = (0..height)
            .flat_map(|y| (0..width).map(move |x| (x, y)))
            .flat_map(|(x, y)| pixel(x, y).unwrap_or(GREY))
            .collect();
        Ok(Self { size, rgb })
    }

    /// Writes it into a folder under its photo's name, as a PNG.
    pub(crate) fn save(&self, folder: &Path, photo: &Path) -> Result<(), Box<dyn Error>> {
        let name = photo.file_stem().ok_or("a photo without a name")?;
        let file = File::create(folder.join(name).with_extension("png"))?;
        let [width, height] = self.size.map(u32::try_from);
        let mut png = png::Encoder::new(BufWriter::new(file), width?, height?);
        png.set_color(png::ColorType::Rgb);
        png.set_compression(png::Compression::Fastest);
        let mut png = png.write_header()?;
        png.write_image_data(&self.rgb)?;
        Ok(png.finish()?)
    }

    /// Its bytes as the output wants them.
    pub(crate) fn frame(mut self, order: Order) -> Vec<u8> {
        if order == Order::Bgr {
            for pixel in self.rgb.chunks_exact_mut(3) {
                pixel.swap(0, 2);
            }
        }
        self.rgb
    }
}

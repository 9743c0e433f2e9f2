//! A photo in the middle of a frame.

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use vitlet::Photo;

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
    /// Reads a photo and scales it to fit, by repeating or leaving out pixels: that needs no library. Its edges are repeated beside it.
    pub(crate) fn of(path: &Path, size: [usize; 2]) -> Result<Self, Box<dyn Error>> {
        let photo = Photo::open(path)?;
        let [width, height] = size;
        let photo_size = [photo.width as usize, photo.height as usize];
        let [photo_width, photo_height] = photo_size;
        let shown = if photo_width * height <= photo_height * width {
            [(photo_width * height / photo_height).max(1), height]
        } else {
            [width, (photo_height * width / photo_width).max(1)]
        };
        let source = |axis: usize, place: usize| {
            let before = (size[axis] - shown[axis]) / 2;
            let inside = place.saturating_sub(before).min(shown[axis] - 1);
            inside * photo_size[axis] / shown[axis]
        };
        let mut rgb = Vec::with_capacity(width * height * 3);
        for y in 0..height {
            let row = source(1, y) * photo_width;
            for x in 0..width {
                let start = (row + source(0, x)) * 3;
                rgb.extend_from_slice(&photo.rgb[start..start + 3]);
            }
        }
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

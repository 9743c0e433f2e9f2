//! Frames to pictures for a browser.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use jpeg_encoder::{ColorType, Encoder};
use vitlet::{Frame, Interpolation, Photo, Preprocess, Preprocessor, Resize};

use super::hub::Hub;
use crate::{CameraError, CameraFrame};

/// The longer side of a picture at most, in pixels.
const SIDE: u32 = 640;
/// A camera's own JPEG is passed on if it is not longer than this.
const PASSED_ON: usize = 512 * 1024;
/// Of 100: little is to be seen of the loss, and a picture of 640×480 has about 40 KB.
const QUALITY: u8 = 75;

/// Starts the thread that makes pictures of the frames in the hub.
pub(super) fn start(hub: &Arc<Hub>) -> Result<JoinHandle<()>, CameraError> {
    let hub = Arc::clone(hub);
    let body = move || {
        let mut scaler = Scaler::default();
        while let Some(frame) = hub.take_frame() {
            if let Some(picture) = scaler.picture(&frame) {
                hub.show(picture);
            }
            hub.recycle(frame);
        }
    };
    thread::Builder::new()
        .name("pictures".to_owned())
        .spawn(body)
        .map_err(|error| CameraError::Thread {
            purpose: "pictures",
            error,
        })
}

/// Makes pictures; keeps what the resizer works in.
#[derive(Default)]
struct Scaler {
    preprocessor: Option<Preprocessor>,
    rgb: Vec<u8>,
}

impl Scaler {
    /// A JPEG; `None` of a frame that is none.
    fn picture(&mut self, frame: &CameraFrame) -> Option<Vec<u8>> {
        match frame.pixels() {
            Some(pixels) => self.encode(&pixels.ok()?),
            None if frame.bytes.starts_with(&[0xFF, 0xD8]) && frame.bytes.len() <= PASSED_ON => {
                Some(frame.bytes.clone())
            }
            None => {
                let photo = Photo::decode(&frame.bytes).ok()?;
                self.encode(&photo.frame().ok()?)
            }
        }
    }

    fn encode(&mut self, pixels: &Frame<'_>) -> Option<Vec<u8>> {
        let (width, height) = fitted(pixels.width(), pixels.height());
        let settings =
            Preprocess::new(width, height, Resize::Squash, Interpolation::Bilinear).ok()?;
        if self.preprocessor.as_ref().map(Preprocessor::settings) != Some(&settings) {
            self.preprocessor = Some(Preprocessor::new(settings));
        }
        let preprocessor = self.preprocessor.as_mut()?;
        self.rgb.resize(preprocessor.image_len(), 0);
        preprocessor.run(pixels, &mut self.rgb).ok()?;
        encode(&self.rgb, width, height)
    }
}

/// The size within [`SIDE`], proportions kept; small frames are not enlarged.
fn fitted(width: u32, height: u32) -> (u32, u32) {
    let long = width.max(height);
    if long <= SIDE {
        return (width, height);
    }
    let scaled = |side: u32| (u64::from(side) * u64::from(SIDE) / u64::from(long)).max(1) as u32;
    (scaled(width), scaled(height))
}

/// RGB, rows from the top, as a JPEG.
pub(crate) fn encode(rgb: &[u8], width: u32, height: u32) -> Option<Vec<u8>> {
    let mut jpeg = Vec::new();
    let (width, height) = (width.try_into().ok()?, height.try_into().ok()?);
    Encoder::new(&mut jpeg, QUALITY)
        .encode(rgb, width, height, ColorType::Rgb)
        .ok()?;
    Some(jpeg)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::frame::Layout;
    use vitlet::PixelFormat;

    #[test]
    fn pictures_fit_and_keep_their_proportions() {
        assert_eq!(fitted(1280, 720), (640, 360));
        assert_eq!(fitted(480, 640), (480, 640));
        assert_eq!(fitted(16384, 1), (640, 1));
    }

    #[test]
    fn a_frame_becomes_a_jpeg_and_a_jpeg_stays_one() {
        let (width, height) = (1280, 720);
        let mut frame = CameraFrame {
            layout: Layout::Pixels {
                format: PixelFormat::Grey8,
                width,
                height,
                stride: 1280,
            },
            bytes: vec![200; 1280 * 720],
            ..CameraFrame::default()
        };
        let jpeg = Scaler::default().picture(&frame).unwrap();
        let photo = Photo::decode(&jpeg).unwrap();
        assert_eq!((photo.width, photo.height), (640, 360));
        assert!(photo.rgb.iter().all(|&value| value.abs_diff(200) <= 1));
        frame.layout = Layout::Encoded;
        frame.bytes = jpeg.clone();
        assert_eq!(Scaler::default().picture(&frame), Some(jpeg));
        frame.bytes = b"no picture".to_vec();
        assert_eq!(Scaler::default().picture(&frame), None);
    }
}

//! Any bytes: either an error, or a photo that the resizer turns into a model's input.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vitlet::Photo;
use vitlet_preprocess::{Frame, Interpolation, PixelFormat, Preprocess, Resize};

fuzz_target!(|bytes: &[u8]| {
    let Ok(photo) = Photo::decode(bytes) else {
        return;
    };
    let frame = Frame::new(
        PixelFormat::Rgb8,
        photo.width,
        photo.height,
        photo.width as usize * 3,
        &photo.rgb,
    )
    .unwrap();
    for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
        for resize in [Resize::Squash, Resize::ShortSide(73)] {
            let preprocess = Preprocess::new(64, 64, resize, interpolation).unwrap();
            let mut scratch = vec![0; preprocess.scratch_len(photo.width, photo.height).unwrap()];
            let mut out = [0; 64 * 64 * 3];
            preprocess.run(&frame, &mut scratch, &mut out).unwrap();
        }
    }
});

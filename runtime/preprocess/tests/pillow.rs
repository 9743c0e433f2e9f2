//! Against Pillow's own output (tests/golden, written by generate.py there): the same bytes.
//!
//! What is promised is less, at most one step of 255 apart on 99 % of the pixels, because another Pillow may round otherwise.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use vitlet_preprocess::{Frame, Interpolation, PixelFormat, Preprocess, Resize};

/// The rows of `CASES` in generate.py.
const CASES: [(&str, [u32; 2], [u32; 2], Resize); 9] = [
    ("down", [160, 120], [56, 56], Resize::Squash),
    ("down-odd", [203, 157], [48, 31], Resize::Squash),
    ("up", [17, 11], [40, 36], Resize::Squash),
    ("same", [32, 24], [32, 24], Resize::Squash),
    ("mixed", [24, 200], [64, 40], Resize::Squash),
    ("crop", [160, 120], [48, 48], Resize::ShortSide(56)),
    ("crop-tall", [75, 131], [40, 32], Resize::ShortSide(45)),
    ("crop-up", [20, 13], [32, 32], Resize::ShortSide(33)),
    ("line", [90, 1], [24, 8], Resize::Squash),
];

/// The rows of `PHOTOS` in generate.py; a photo's pixels lie beside what Pillow makes of them.
const PHOTOS: [(&str, [u32; 2], [u32; 2], Resize); 3] = [
    ("photo", [160, 120], [64, 64], Resize::Squash),
    ("photo-crop", [160, 120], [48, 48], Resize::ShortSide(54)),
    ("photo-up", [59, 83], [96, 100], Resize::Squash),
];

/// `frame` of generate.py.
fn frame([width, height]: [u32; 2]) -> Vec<u8> {
    let mut rgb = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let hashed = (x.wrapping_mul(73_856_093) ^ y.wrapping_mul(19_349_663))
                .wrapping_mul(2_654_435_761);
            let stripes = (x / 4 + y / 3) % 2 * 255;
            rgb.extend([(x * 3 + y * 5) as u8, stripes as u8, (hashed >> 24) as u8]);
        }
    }
    rgb
}

/// A file of tests/golden.
fn golden(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    std::fs::read(folder.join(name)).unwrap()
}

#[test]
fn equals_pillow() {
    let frames = CASES.map(|case| (case, frame(case.1)));
    let photos = PHOTOS.map(|case| (case, golden(&format!("{}-frame.rgb", case.0))));
    for ((name, [width, height], input, resize), rgb) in frames.into_iter().chain(photos) {
        for (interpolation, suffix) in [
            (Interpolation::Bilinear, "bilinear"),
            (Interpolation::Bicubic, "bicubic"),
        ] {
            let golden = golden(&format!("{name}-{suffix}.rgb"));
            let preprocess = Preprocess::new(input[0], input[1], resize, interpolation).unwrap();
            let stride = width as usize * 3;
            let frame = Frame::new(PixelFormat::Rgb8, width, height, stride, &rgb).unwrap();
            let mut scratch = vec![0xA5; preprocess.scratch_len(width, height).unwrap()];
            let mut out = vec![0; golden.len()];
            preprocess.run(&frame, &mut scratch, &mut out).unwrap();

            let pixels = out.as_chunks::<3>().0.iter().zip(golden.as_chunks::<3>().0);
            let steps = |(a, b): (&[u8; 3], &[u8; 3])| {
                let channels = a.iter().zip(b).map(|(a, b)| a.abs_diff(*b));
                channels.max().unwrap_or(0)
            };
            let apart: Vec<u8> = pixels.map(steps).filter(|steps| *steps > 0).collect();
            println!(
                "{name} {suffix}: {} of {} pixels differ",
                apart.len(),
                out.len() / 3
            );
            assert!(apart.is_empty(), "{name} {suffix}: {apart:?}");
        }
    }
}

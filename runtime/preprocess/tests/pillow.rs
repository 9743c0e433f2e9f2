//! Against Pillow's own output (tests/golden, written by generate.py there): at most one step apart on 99 % of the bytes.
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

#[test]
fn equals_pillow() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for (name, frame_size, input, resize) in CASES {
        for (interpolation, suffix) in [
            (Interpolation::Bilinear, "bilinear"),
            (Interpolation::Bicubic, "bicubic"),
        ] {
            let golden = std::fs::read(folder.join(format!("{name}-{suffix}.rgb"))).unwrap();
            let preprocess = Preprocess::new(input[0], input[1], resize, interpolation).unwrap();
            let rgb = frame(frame_size);
            let frame = Frame::new(
                PixelFormat::Rgb8,
                frame_size[0],
                frame_size[1],
                frame_size[0] as usize * 3,
                &rgb,
            )
            .unwrap();
            let mut scratch = vec![
                0xA5;
                preprocess
                    .scratch_len(frame_size[0], frame_size[1])
                    .unwrap()
            ];
            let mut out = vec![0; golden.len()];
            preprocess.run(&frame, &mut scratch, &mut out).unwrap();

            let apart = |step: u8| {
                out.iter()
                    .zip(&golden)
                    .filter(|(a, b)| a.abs_diff(**b) > step)
                    .count()
            };
            println!(
                "{name} {suffix}: {} bytes, {} differ, {} by more than 1",
                out.len(),
                apart(0),
                apart(1)
            );
            assert!(apart(1) * 100 <= out.len(), "{name} {suffix}");
        }
    }
}

//! What must hold for every frame: no panic, constants kept, agreement with another resizer, and the same bytes everywhere.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic)]

use fast_image_resize as fir;
use proptest::prelude::*;
use std::ops::Range;
use vitlet_preprocess::{
    Frame, Interpolation, MAX_SIDE, PixelFormat, Preprocess, PreprocessError, Resize,
};

const FORMATS: [PixelFormat; 5] = [
    PixelFormat::Rgb8,
    PixelFormat::Bgr8,
    PixelFormat::Grey8,
    PixelFormat::Yuyv,
    PixelFormat::Nv12,
];

/// Numerical Recipes' 32-bit linear congruential generator; its high bits.
fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn frame_len(format: PixelFormat, height: u32, stride: usize) -> usize {
    let chroma = if format == PixelFormat::Nv12 {
        height.div_ceil(2)
    } else {
        0
    };
    stride * (height + chroma) as usize
}

fn run(preprocess: &Preprocess, frame: &Frame<'_>) -> Vec<u8> {
    let mut scratch = vec![
        0xA5;
        preprocess
            .scratch_len(frame.width(), frame.height())
            .unwrap()
    ];
    let mut out = vec![0x5A; (preprocess.width() * preprocess.height() * 3) as usize];
    preprocess.run(frame, &mut scratch, &mut out).unwrap();
    out
}

fn any_preprocess() -> impl Strategy<Value = Preprocess> {
    let interpolation = prop_oneof![Just(Interpolation::Bilinear), Just(Interpolation::Bicubic)];
    (
        1..80_u32,
        1..80_u32,
        prop::option::of(0..60_u32),
        interpolation,
    )
        .prop_map(|(w, h, spare, interpolation)| {
            let resize = spare.map_or(Resize::Squash, |spare| Resize::ShortSide(w.max(h) + spare));
            Preprocess::new(w, h, resize, interpolation).unwrap()
        })
}

/// Sides that are usually small, now and then extreme.
fn side() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 1..150_u32, 1 => Just(1_u32), 1 => 1000..3000_u32]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_frame_runs_and_constants_stay(
        preprocess in any_preprocess(),
        format in prop::sample::select(&FORMATS[..]),
        width in side(),
        height in side(),
        padding in 0..9_usize,
        value in any::<u8>(),
    ) {
        let stride = format.row_len(width) + padding;
        let data = vec![value; frame_len(format, height, stride)];
        let frame = Frame::new(format, width, height, stride, &data).unwrap();
        let out = run(&preprocess, &frame);
        let pixel = &out[..3];
        prop_assert!(out.chunks_exact(3).all(|other| other == pixel));
        if !matches!(format, PixelFormat::Yuyv | PixelFormat::Nv12) {
            prop_assert_eq!(pixel, &[value; 3]);
        }
    }

    #[test]
    fn padding_is_never_read(
        preprocess in any_preprocess(),
        format in prop::sample::select(&FORMATS[..]),
        width in 1..70_u32,
        height in 1..70_u32,
        padding in 1..9_usize,
        seed in any::<u32>(),
    ) {
        let row_len = format.row_len(width);
        let tight = noise(frame_len(format, height, row_len), seed);
        let mut padded: Vec<u8> = tight.chunks(row_len).flat_map(|row| [row, &[seed as u8; 9][..padding]].concat()).collect();
        padded.truncate(padded.len() - padding);
        let a = Frame::new(format, width, height, row_len, &tight).unwrap();
        let b = Frame::new(format, width, height, row_len + padding, &padded).unwrap();
        prop_assert_eq!(run(&preprocess, &a), run(&preprocess, &b));
        padded.pop();
        let short = Frame::new(format, width, height, row_len + padding, &padded);
        prop_assert!(matches!(short, Err(PreprocessError::FrameBytes { .. })), "{:?}", short);
    }

    #[test]
    fn an_image_made_in_parts_is_the_same(
        preprocess in any_preprocess(),
        format in prop::sample::select(&FORMATS[..]),
        width in side(),
        height in side(),
        cuts in prop::array::uniform2(0..=80_u32),
        seed in any::<u32>(),
    ) {
        let stride = format.row_len(width);
        let data = noise(frame_len(format, height, stride), seed);
        let frame = Frame::new(format, width, height, stride, &data).unwrap();
        let mut cuts = cuts.map(|cut| cut.min(preprocess.height()));
        cuts.sort_unstable();
        let [first, second] = cuts;
        let mut scratch = vec![0xA5; preprocess.scratch_len(width, height).unwrap()];
        let mut out = Vec::new();
        for rows in [0..first, first..second, second..preprocess.height()] {
            let mut part = vec![0x5A; rows.len() * preprocess.width() as usize * 3];
            preprocess.run_rows(&frame, rows, &mut scratch, &mut part).unwrap();
            out.extend(part);
        }
        prop_assert_eq!(out, run(&preprocess, &frame));
    }

    /// fast_image_resize makes the vertical pass first, so rounding between the passes falls differently: one step for
    /// the triangle, two for the cubic, whose weights add up to more than one in absolute value. The contrast is halved
    /// so that the cubic's overshoot is not cut off between the passes, which would make the order matter more.
    #[test]
    fn agrees_with_fast_image_resize(
        width in 1..120_u32,
        height in 1..120_u32,
        out_width in 1..80_u32,
        out_height in 1..80_u32,
        cubic in any::<bool>(),
        seed in any::<u32>(),
    ) {
        let rgb: Vec<u8> = noise((width * height * 3) as usize, seed).iter().map(|byte| byte / 2 + 64).collect();
        let (ours, theirs, steps) = if cubic {
            (Interpolation::Bicubic, fir::FilterType::CatmullRom, 2)
        } else {
            (Interpolation::Bilinear, fir::FilterType::Bilinear, 1)
        };
        let frame = Frame::new(PixelFormat::Rgb8, width, height, width as usize * 3, &rgb).unwrap();
        let out = run(&Preprocess::new(out_width, out_height, Resize::Squash, ours).unwrap(), &frame);

        let source = fir::images::ImageRef::new(width, height, &rgb, fir::PixelType::U8x3).unwrap();
        let mut expected = fir::images::Image::new(out_width, out_height, fir::PixelType::U8x3);
        let options = fir::ResizeOptions::new().resize_alg(fir::ResizeAlg::Convolution(theirs));
        fir::Resizer::new().resize(&source, &mut expected, &options).unwrap();
        let furthest = out.iter().zip(expected.buffer()).map(|(a, b)| a.abs_diff(*b)).max();
        prop_assert!(furthest <= Some(steps), "{:?} steps apart", furthest);
    }

    #[test]
    fn hostile_sizes_are_refused_or_run(
        format in prop::sample::select(&FORMATS[..]),
        width in prop_oneof![0..20_u32, any::<u32>(), Just(MAX_SIDE), Just(MAX_SIDE + 1)],
        height in prop_oneof![0..20_u32, any::<u32>(), Just(MAX_SIDE), Just(MAX_SIDE + 1)],
        stride in prop_oneof![0..100_usize, any::<usize>(), Just(usize::MAX)],
        len in 0..4096_usize,
        preprocess in any_preprocess(),
    ) {
        let data = vec![1; len];
        prop_assert_eq!(
            preprocess.scratch_len(width, height).is_some(),
            (1..=MAX_SIDE).contains(&width) && (1..=MAX_SIDE).contains(&height)
        );
        if let Ok(frame) = Frame::new(format, width, height, stride, &data) {
            run(&preprocess, &frame);
        }
    }
}

/// The whole chain in floating point, two-dimensional chroma lookup and all.
fn reference_rgb(
    format: PixelFormat,
    stride: usize,
    height: u32,
    data: &[u8],
    x: usize,
    y: usize,
) -> [f64; 3] {
    let (luma, u, v) = match format {
        PixelFormat::Yuyv => {
            let pair = y * stride + x / 2 * 4;
            (data[pair + x % 2 * 2], data[pair + 1], data[pair + 3])
        }
        _ => {
            let chroma = (height as usize + y / 2) * stride + x / 2 * 2;
            (data[y * stride + x], data[chroma], data[chroma + 1])
        }
    };
    let (luma, u, v) = (
        (f64::from(luma) - 16.0) / 219.0,
        (f64::from(u) - 128.0) / 224.0,
        (f64::from(v) - 128.0) / 224.0,
    );
    // ITU-R BT.601: Kr = 0.299, Kb = 0.114.
    [
        luma + 1.402 * v,
        luma - (0.114 * 1.772 * u + 0.299 * 1.402 * v) / 0.587,
        luma + 1.772 * u,
    ]
    .map(|channel| (channel * 255.0).clamp(0.0, 255.0))
}

#[test]
fn yuv_is_bt601() {
    let mut furthest: f64 = 0.0;
    for format in [PixelFormat::Yuyv, PixelFormat::Nv12] {
        for (width, height) in [(64, 48), (63, 47), (1, 1), (2, 1), (1, 2)] {
            let stride = format.row_len(width) + 3;
            let data = noise(frame_len(format, height, stride), width);
            let frame = Frame::new(format, width, height, stride, &data).unwrap();
            let preprocess =
                Preprocess::new(width, height, Resize::Squash, Interpolation::Bilinear).unwrap();
            let out = run(&preprocess, &frame);
            for (index, rgb) in out.chunks_exact(3).enumerate() {
                let (x, y) = (index % width as usize, index / width as usize);
                for (a, b) in rgb
                    .iter()
                    .zip(reference_rgb(format, stride, height, &data, x, y))
                {
                    furthest = furthest.max((f64::from(*a) - b).abs());
                }
            }
        }
    }
    println!("furthest from BT.601 in real numbers: {furthest:.3} steps");
    // Half a step of rounding, and the 8-bit coefficients' error (298/256 for 255/219 and so on).
    assert!(furthest < 1.5, "{furthest}");
}

#[test]
fn channel_orders() {
    let preprocess = Preprocess::new(1, 1, Resize::Squash, Interpolation::Bicubic).unwrap();
    let pixel = |format, data| run(&preprocess, &Frame::new(format, 1, 1, 4, data).unwrap());
    assert_eq!(pixel(PixelFormat::Rgb8, &[1, 2, 3]), [1, 2, 3]);
    assert_eq!(pixel(PixelFormat::Bgr8, &[1, 2, 3]), [3, 2, 1]);
    assert_eq!(pixel(PixelFormat::Grey8, &[7]), [7, 7, 7]);
    assert_eq!(
        pixel(PixelFormat::Yuyv, &[235, 128, 99, 128]),
        [255, 255, 255]
    );
    assert_eq!(
        pixel(PixelFormat::Nv12, &[16, 0, 0, 0, 128, 128]),
        [0, 0, 0]
    );
}

#[test]
fn longest_sides_do_not_overflow() {
    for (width, height) in [(MAX_SIDE, 1), (1, MAX_SIDE), (MAX_SIDE, 3)] {
        let data = noise((width * height) as usize, 5);
        let frame = Frame::new(PixelFormat::Grey8, width, height, width as usize, &data).unwrap();
        for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
            for resize in [
                Resize::Squash,
                Resize::ShortSide(40),
                Resize::ShortSide(MAX_SIDE),
            ] {
                run(
                    &Preprocess::new(40, 7, resize, interpolation).unwrap(),
                    &frame,
                );
            }
        }
    }
    let data = vec![255; (MAX_SIDE * MAX_SIDE) as usize];
    let frame = Frame::new(
        PixelFormat::Grey8,
        MAX_SIDE,
        MAX_SIDE,
        MAX_SIDE as usize,
        &data,
    )
    .unwrap();
    let preprocess = Preprocess::new(2, 2, Resize::Squash, Interpolation::Bilinear).unwrap();
    assert_eq!(run(&preprocess, &frame), [255; 12]);
}

#[test]
fn refusals() {
    let new = |w, h, resize| Preprocess::new(w, h, resize, Interpolation::Bilinear);
    assert!(matches!(
        new(0, 4, Resize::Squash),
        Err(PreprocessError::InputSize { .. })
    ));
    assert!(matches!(
        new(4, MAX_SIDE + 1, Resize::Squash),
        Err(PreprocessError::InputSize { .. })
    ));
    let error = new(224, 200, Resize::ShortSide(223)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "short side 223 cannot give a 224x200 crop: it must be 224 to 16384"
    );
    assert!(new(4, 4, Resize::ShortSide(MAX_SIDE + 1)).is_err());

    let preprocess = new(4, 4, Resize::Squash).unwrap();
    let frame = Frame::new(PixelFormat::Grey8, 2, 2, 2, &[9; 4]).unwrap();
    let mut scratch = vec![0; preprocess.scratch_len(2, 2).unwrap()];
    assert!(matches!(
        preprocess.run(&frame, &mut scratch[1..], &mut [0; 48]),
        Err(PreprocessError::Scratch { .. })
    ));
    assert!(matches!(
        preprocess.run(&frame, &mut scratch, &mut [0; 47]),
        Err(PreprocessError::Output { .. })
    ));
    for rows in [0..5, 5..5, Range { start: 3, end: 2 }] {
        assert!(matches!(
            preprocess.run_rows(&frame, rows, &mut scratch, &mut [0; 48]),
            Err(PreprocessError::Rows { height: 4, .. })
        ));
    }
    let error = preprocess
        .run_rows(&frame, 1..3, &mut scratch, &mut [0; 25])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "output image has 25 bytes, 24 are needed (width*height*3)"
    );
    let error = Frame::new(PixelFormat::Yuyv, 5, 2, 11, &[0; 24]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "frame stride 11: a Yuyv row 5 pixels wide has 12 bytes; give at least that"
    );
}

/// The figures in the documentation of `scratch_len`.
#[test]
fn scratch_is_small() {
    let kilobytes = |resize, width, height| {
        Preprocess::new(224, 224, resize, Interpolation::Bilinear)
            .unwrap()
            .scratch_len(width, height)
            .unwrap()
            .div_ceil(1000)
    };
    for (resize, frame, photo) in [(Resize::Squash, 39, 203), (Resize::ShortSide(256), 29, 141)] {
        assert_eq!(kilobytes(resize, 640, 480), frame);
        assert_eq!(kilobytes(resize, 4000, 3000), photo);
    }
}

/// FNV-1a, 64 bits.
fn hash(state: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(state, |state, byte| {
        (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The same constant on every instruction set: run this test there.
#[test]
fn same_bytes_on_every_instruction_set() {
    let mut state = 0xcbf2_9ce4_8422_2325;
    for (seed, format) in (1..).zip(FORMATS) {
        for (width, height) in [(64, 48), (37, 81), (301, 5), (1, 9), (640, 480)] {
            let stride = format.row_len(width) + 1;
            let data = noise(frame_len(format, height, stride), seed);
            let frame = Frame::new(format, width, height, stride, &data).unwrap();
            for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
                for resize in [Resize::Squash, Resize::ShortSide(65)] {
                    state = hash(
                        state,
                        &run(
                            &Preprocess::new(56, 64, resize, interpolation).unwrap(),
                            &frame,
                        ),
                    );
                }
            }
        }
    }
    println!("hash on {}: {state:#018x}", std::env::consts::ARCH);
    assert_eq!(state, 0x8659_26fa_09e2_d230, "{state:#018x}");
}

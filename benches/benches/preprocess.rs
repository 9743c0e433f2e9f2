//! A camera's frames to a model's image of 224x224, by format, resize and interpolation; throughput is in the frame's pixels.

use anyhow::{Context as _, Result};
use criterion::{BenchmarkId, Criterion, Throughput};
use vitlet::{Frame, Interpolation, PixelFormat, Preprocess, Preprocessor, Resize};

const SIDE: u32 = 224;
const FRAME: (u32, u32) = (640, 480);

fn preprocess(criterion: &mut Criterion) -> Result<()> {
    let (width, height) = FRAME;
    for resize in [Resize::Squash, Resize::ShortSide(256)] {
        for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
            let settings = Preprocess::new(SIDE, SIDE, resize, interpolation)?;
            let mut preprocessor = Preprocessor::new(settings);
            let mut image = vec![0; preprocessor.image_len()];
            let mut group = criterion.benchmark_group(format!("{resize:?}/{interpolation:?}"));
            group.throughput(Throughput::Elements(u64::from(width * height)));
            for format in [PixelFormat::Rgb8, PixelFormat::Yuyv, PixelFormat::Nv12] {
                let stride = format.row_len(width);
                // Of every format; one plane and a half are the most there are.
                let data: Vec<u8> = (0..stride * height as usize * 3 / 2)
                    .map(|index| (index.wrapping_mul(0x9E37_79B9) >> 24) as u8)
                    .collect();
                let frame = Frame::new(format, width, height, stride, &data)?;
                preprocessor.run(&frame, &mut image).context("a frame")?;
                let id = BenchmarkId::from_parameter(format!("{format:?} {width}x{height}"));
                group.bench_function(id, |bencher| {
                    bencher.iter(|| preprocessor.run(&frame, &mut image));
                });
            }
            group.finish();
        }
    }
    Ok(())
}

fn main() -> Result<()> {
    let mut criterion = Criterion::default().configure_from_args();
    preprocess(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}

//! `vitlet run`: an array or a photo in, an array of logits out.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use npyz::{NpyFile, Order, WriterBuilder as _};
use serde::Serialize;
use vitlet::{Photo, Plan, Session};

use crate::args::{ModelArgs, SessionArgs};
use crate::failure::{self, OrInvalid as _, Outcome, invalid};
use crate::files::OutputFile;
use crate::output::{Out, Table, milliseconds};

const EXAMPLES: &str = "\
Examples:
  vitlet run -m model.vitlet --input photo.jpg --output logits.npy
  vitlet run -m model.vitlet --input x.npy --output y.npy --dequantise

An .npy input is f32 [1, 3, H, W], normalised as the ONNX model takes it, or
u8 [1, H, W, 3] or [H, W, 3], RGB pixels. The f32 values are turned back into
pixels with the plan's mean and std. The output is [1, classes]: int32 logits,
or f32 with --dequantise.

With --json: {\"input\",\"output\",\"shape\",\"dtype\",\"output_hash\",\"ms\":{\"inference\"}}";

/// The first bytes of an .npy file.
const NPY_MAGIC: &[u8] = b"\x93NUMPY";
/// Longest .npy header that is looked at; NumPy's own have 118 bytes. Its parser recurses.
const NPY_HEADER: usize = 512;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// An .npy array or a photo
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// The .npy file to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Write the logits as real numbers
    #[arg(long)]
    dequantise: bool,
    #[command(flatten)]
    session: SessionArgs,
}

#[derive(Serialize)]
struct Record {
    input: String,
    output: String,
    shape: [usize; 2],
    dtype: &'static str,
    output_hash: String,
    ms: Milliseconds,
}

#[derive(Serialize)]
struct Milliseconds {
    inference: f64,
}

pub(crate) fn verb(args: &Args, out: &mut Out) -> anyhow::Result<Outcome> {
    let model = args.model.load()?;
    let plan = model.plan().or_invalid()?;
    let mut session = args.session.session(&plan)?;
    let output = OutputFile::check(&args.output)?;
    output.differs_from(&args.input)?;
    output.differs_from(Path::new(model.name()))?;
    let image = read_image(&args.input, &mut session)?;

    let start = Instant::now();
    session.run(&image)?;
    let inference = start.elapsed();
    let dtype = if args.dequantise {
        write_npy(&output, &session.dequantised())?;
        "float32"
    } else {
        write_npy(&output, session.logits())?;
        "int32"
    };
    let record = Record {
        input: args.input.display().to_string(),
        output: args.output.display().to_string(),
        shape: [1, session.logits().len()],
        dtype,
        output_hash: session.output_hash().to_string(),
        ms: Milliseconds {
            inference: milliseconds(inference),
        },
    };
    out.record(&record)?;
    let mut table = Table::default();
    table.entry(
        "output",
        format_args!("{}: {dtype} {:?}", record.output, record.shape),
    );
    table.entry("output hash", &record.output_hash);
    table.entry("ms", format_args!("{:.3}", record.ms.inference));
    out.line(table)?;
    Ok(Outcome::Done)
}

fn write_npy<T: npyz::AutoSerialize + Copy>(
    output: &OutputFile,
    logits: &[T],
) -> anyhow::Result<()> {
    output.write(|file: &mut dyn Write| {
        let mut npy = npyz::WriteOptions::new()
            .default_dtype()
            .shape(&[1, logits.len() as u64])
            .writer(file)
            .begin_nd()?;
        npy.extend(logits.iter().copied())?;
        npy.finish()
    })
}

/// The model's image from a file of either kind, told by its first bytes.
fn read_image(path: &Path, session: &mut Session<'_>) -> anyhow::Result<Vec<u8>> {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(12).read_to_end(&mut head));
    read.with_context(|| {
        format!(
            "{}: cannot be read; give an .npy file or a photo",
            path.display()
        )
    })
    .or_invalid()?;
    if !head.starts_with(NPY_MAGIC) {
        let photo = Photo::open(path).or_invalid()?;
        return session.preprocess(&photo).or_invalid();
    }
    check_header_len(&head)
        .and_then(|()| read_npy(path, session.plan()))
        .map_err(|error| {
            invalid(format_args!(
                "{}: {}",
                path.display(),
                failure::one_line(&error)
            ))
        })
}

fn check_header_len(head: &[u8]) -> anyhow::Result<()> {
    let len = match *head {
        [_, _, _, _, _, _, 1, _, low, high, ..] => usize::from(u16::from_le_bytes([low, high])),
        [_, _, _, _, _, _, 2 | 3, _, a, b, c, d] => u32::from_le_bytes([a, b, c, d]) as usize,
        _ => anyhow::bail!(
            "a damaged .npy header, or of an unknown version; save it with numpy.save"
        ),
    };
    anyhow::ensure!(
        len <= NPY_HEADER,
        "an .npy header of {len} bytes; save a plain f32 or u8 array with numpy.save"
    );
    Ok(())
}

fn read_npy(path: &Path, plan: &Plan<'_>) -> anyhow::Result<Vec<u8>> {
    let npy = NpyFile::new(BufReader::new(File::open(path)?)).context("a damaged .npy header")?;
    let (height, width) = plan.input();
    let (h, w) = (u64::from(height), u64::from(width));
    let expected = || {
        format!(
            "this model takes f32 [1, 3, {h}, {w}] or u8 [1, {h}, {w}, 3], in C order; save such an array"
        )
    };
    let dtype = npy.dtype().descr();
    let shape = npy.shape().to_vec();
    anyhow::ensure!(
        npy.order() == Order::C,
        "an array in Fortran order; {}",
        expected()
    );
    let truncated = "the .npy file is truncated; save it again";
    match (&*shape, &*dtype) {
        ([1, 3, rows, columns], "'<f4'" | "'>f4'") if (*rows, *columns) == (h, w) => {
            let values: Vec<f32> = npy.into_vec().context(truncated)?;
            denormalised(&values, plan, path)
        }
        ([1, rows, columns, 3] | [rows, columns, 3], "'|u1'") if (*rows, *columns) == (h, w) => {
            npy.into_vec().context(truncated)
        }
        _ => anyhow::bail!("an array of {dtype} {shape:?}; {}", expected()),
    }
}

/// NCHW values as the float model takes them, back to NHWC pixels: the exact inverse of (pixel / 255 − mean) / std, rounded.
fn denormalised(values: &[f32], plan: &Plan<'_>, path: &Path) -> anyhow::Result<Vec<u8>> {
    let (mean, std) = (plan.mean(), plan.std());
    let plane = values.len() / 3;
    let mut pixels = Vec::with_capacity(values.len());
    let mut clamped = 0_usize;
    for at in 0..plane {
        for channel in 0..3 {
            let value = values[channel * plane + at];
            anyhow::ensure!(
                value.is_finite(),
                "element {} is {value}",
                channel * plane + at
            );
            let real = f64::from(value) * f64::from(std[channel]) + f64::from(mean[channel]);
            let pixel = (real * 255.0).round();
            clamped += usize::from(!(0.0..=255.0).contains(&pixel));
            pixels.push(pixel.clamp(0.0, 255.0) as u8);
        }
    }
    if clamped > 0 {
        failure::warn(format_args!(
            "{}: {clamped} of {} values are outside what a pixel can be with mean {mean:?} and std {std:?}; they were clamped",
            path.display(),
            values.len()
        ));
    }
    Ok(pixels)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use vitlet_plan::testing::tiny_plan;

    #[test]
    fn every_pixel_value_comes_back() {
        let bytes = tiny_plan(1);
        let plan = Plan::parse(&bytes).unwrap();
        let pixels: Vec<u8> = (0..=255).flat_map(|v| [v, 255 - v, v / 2]).collect();
        let (mean, std) = (plan.mean(), plan.std());
        let mut values = vec![0.0; pixels.len()];
        for (at, rgb) in pixels.as_chunks::<3>().0.iter().enumerate() {
            for channel in 0..3 {
                let real = f32::from(rgb[channel]) / 255.0;
                values[channel * 256 + at] = (real - mean[channel]) / std[channel];
            }
        }
        assert_eq!(
            denormalised(&values, &plan, Path::new("x")).unwrap(),
            pixels
        );
        values[5] = f32::NAN;
        assert!(denormalised(&values, &plan, Path::new("x")).is_err());
    }

    #[test]
    fn long_headers_are_refused() {
        let head = |version: u8, len: [u8; 4]| [NPY_MAGIC, &[version, 0], &len].concat();
        check_header_len(&head(1, [118, 0, b'{', b'\''])).unwrap();
        check_header_len(&head(2, [118, 0, 0, 0])).unwrap();
        check_header_len(&head(1, [0, 255, 0, 0])).unwrap_err();
        check_header_len(&head(3, [0, 0, 1, 0])).unwrap_err();
        check_header_len(&head(9, [0; 4])).unwrap_err();
        check_header_len(&head(1, [1, 0, 0, 0])[..9]).unwrap_err();
    }
}

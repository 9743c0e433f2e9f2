//! Makes the engines' common input of photos: `NAME.rgb`, the pixels that a plan's preprocessing gives, and `NAME.f32`, the same
//! pixels as the planes of normalised numbers that the ONNX file takes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Parser;
use vitlet::{Model, Photo, Preprocessor};

/// Of R, G, B in ImageNet, which `vitlet compile` takes unless told otherwise.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Turn photos into the input of the other programs.
#[derive(Debug, Parser)]
struct Cli {
    /// The plan whose preprocessing is done.
    plan: PathBuf,
    /// JPEG or PNG files.
    #[arg(required = true)]
    photos: Vec<PathBuf>,
    /// Where `NAME.rgb` and `NAME.f32` are written.
    #[arg(short, long)]
    out: PathBuf,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let model = Model::open(&cli.plan)?;
    let mut preprocessor = Preprocessor::new(model.plan()?.preprocess());
    for photo in &cli.photos {
        write(&mut preprocessor, photo, &cli.out).with_context(|| photo.display().to_string())?;
    }
    Ok(())
}

fn write(preprocessor: &mut Preprocessor, path: &Path, out: &Path) -> Result<()> {
    let pixels = preprocessor.photo(&Photo::open(path)?)?;
    let name = path.file_stem().context("it has no name")?;
    let planes: Vec<u8> = (0..3)
        .flat_map(|channel| {
            pixels
                .iter()
                .skip(channel)
                .step_by(3)
                .map(move |&pixel| (channel, pixel))
        })
        .map(|(channel, pixel)| (f32::from(pixel) / 255.0 - MEAN[channel]) / STD[channel])
        .flat_map(f32::to_le_bytes)
        .collect();
    fs::write(out.join(name).with_extension("f32"), planes)?;
    Ok(fs::write(out.join(name).with_extension("rgb"), pixels)?)
}

//! Photos as the frames of a camera.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use vitlet::Photo;
use vitlet_firmware::{Shot, write_frame_set};
use vitlet_preprocess::{Frame, Interpolation, PixelFormat, Preprocess, Resize};

/// What the simulated camera delivers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mode {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) format: PixelFormat,
}

/// The modes that tests go through.
pub(crate) const MODES: [Mode; 4] = [
    Mode {
        width: 320,
        height: 240,
        format: PixelFormat::Yuyv,
    },
    Mode {
        width: 640,
        height: 480,
        format: PixelFormat::Rgb8,
    },
    Mode {
        width: 640,
        height: 480,
        format: PixelFormat::Yuyv,
    },
    Mode {
        width: 320,
        height: 240,
        format: PixelFormat::Rgb8,
    },
];

/// A frame of a photo, to be delivered at a time.
pub(crate) fn shot(photo: &Photo, mode: Mode, at_us: u32) -> Result<Shot> {
    let Mode {
        width,
        height,
        format,
    } = mode;
    let fit = Preprocess::new(width, height, Resize::Squash, Interpolation::Bilinear)?;
    let [photo_width, photo_height] = [photo.width, photo.height];
    let stride = photo_width as usize * 3;
    let pixels = Frame::new(
        PixelFormat::Rgb8,
        photo_width,
        photo_height,
        stride,
        &photo.rgb,
    )?;
    let scratch = fit.scratch_len(photo_width, photo_height);
    let mut scratch = vec![0; scratch.context("the photo is too large")?];
    let mut rgb = vec![0; (width * height * 3) as usize];
    fit.run(&pixels, &mut scratch, &mut rgb)?;
    let data = match format {
        PixelFormat::Yuyv => yuyv(&rgb),
        _ => rgb,
    };
    Ok(Shot {
        at_us,
        format,
        width,
        height,
        data,
    })
}

/// BT.601, as webcams deliver it: an even number of pixels to Y0 U Y1 V.
fn yuyv(rgb: &[u8]) -> Vec<u8> {
    let (pairs, _) = rgb.as_chunks::<6>();
    pairs
        .iter()
        .flat_map(|pair| {
            let [r0, g0, b0, r1, g1, b1] = pair.map(i32::from);
            let luma = |r: i32, g: i32, b: i32| ((66 * r + 129 * g + 25 * b + 128) >> 8) + 16;
            let [r, g, b] = [r0 + r1, g0 + g1, b0 + b1];
            let u = ((-38 * r - 74 * g + 112 * b + 256) >> 9) + 128;
            let v = ((112 * r - 94 * g - 18 * b + 256) >> 9) + 128;
            [luma(r0, g0, b0), u, luma(r1, g1, b1), v].map(|byte| byte.clamp(0, 255) as u8)
        })
        .collect()
}

/// The photos of a folder, by name, at most `count`.
pub(crate) fn photos(folder: &Path, count: usize) -> Result<Vec<(PathBuf, Photo)>> {
    let is_photo = |path: &PathBuf| {
        let ext = path.extension().unwrap_or_default().to_ascii_lowercase();
        ["jpg", "jpeg", "png"].iter().any(|known| ext == *known)
    };
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    paths.retain(is_photo);
    paths.sort();
    // Evenly over the folder, so that several classes are among them.
    let step = (paths.len() / count.max(1)).max(1);
    let chosen = paths.into_iter().step_by(step).take(count);
    let photos = chosen
        .map(|path| Photo::open(&path).map(|photo| (path, photo)))
        .collect::<Result<Vec<_>, _>>()?;
    ensure!(
        !photos.is_empty(),
        "{}: no .jpg or .png there",
        folder.display()
    );
    Ok(photos)
}

/// Writes a frame set to a file.
pub(crate) fn write(path: &Path, interval_us: u32, shots: &[Shot]) -> Result<()> {
    fs::write(path, write_frame_set(interval_us, shots))?;
    Ok(())
}

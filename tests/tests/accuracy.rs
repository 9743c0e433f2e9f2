//! What int8 costs: the same ONNX file in f32 by tract and in int8 by vitlet, on the same images.
#![allow(clippy::print_stdout)] // a test

use anyhow::{Context as _, Result, ensure};
use rayon::prelude::*;
use vitlet_compiler::{Model, Normalisation};
use vitlet_engine::Engine;
use vitlet_kernels::Kernel;
use vitlet_plan::{AlignedBytes, Plan};
use vitlet_tests::{calibrate, compile, data, full, image, photos, spread};

/// Top-1 of int8 may be at most this many points below f32's.
const POINTS_LOST: f64 = 0.5;
/// In percent.
const AGREEMENT: f64 = 97.0;
const ARENA: usize = 2_000_000;
const PLAN: usize = 4_200_000;

fn top(logits: impl Iterator<Item = f64>) -> usize {
    logits
        .enumerate()
        .fold((0, f64::NEG_INFINITY), |best, (i, x)| {
            if x > best.1 { (i, x) } else { best }
        })
        .0
}

/// All 3,925 photos with `cargo xtask test --full`; every eighth otherwise.
#[test]
fn imagenette() -> Result<()> {
    let (Some(model), Some(train), Some(val)) = (
        data("models/pvt_v2_b0_imagenette.onnx", 3925)?,
        data("data/imagenette224/train", 3925)?,
        data("data/imagenette224/val", 3925)?,
    ) else {
        return Ok(());
    };
    let model = Model::open(&model)?;
    let size = model.image_size();
    let calibration: Vec<Vec<u8>> = spread(&photos(&train)?, 64)
        .iter()
        .map(|(_, p)| image(p, size))
        .collect::<Result<_>>()?;
    let bytes = compile(&model, &calibrate(&model, &calibration)?)?;
    let plan = Plan::parse(&bytes)?;
    println!(
        "plan {} bytes, arena {} bytes, float ops {}",
        bytes.len(),
        plan.arena_len(1),
        plan.float_ops()
    );
    ensure!(
        bytes.len() <= PLAN && plan.arena_len(1) <= ARENA,
        "plan or arena grew past its budget"
    );
    ensure!(
        plan.float_ops() == 0 && plan.copies() == 0,
        "the data path is not integers, in place"
    );

    let all = photos(&val)?;
    ensure!(
        all.len() == 3925,
        "Imagenette's validation set has 3,925 photos, found {}",
        all.len()
    );
    let chosen = if full() { all } else { spread(&all, 491) };
    let half = chosen.len().div_ceil(2);
    let rows: Vec<(usize, usize, usize)> = chosen
        .par_chunks(half)
        .map(|photos| -> Result<Vec<_>> {
            let float = model.classifier(&Normalisation::IMAGENET)?;
            let mut engine = Engine::new(&plan, Kernel::detect());
            let mut arena = AlignedBytes::zeroed(engine.arena_len());
            let mut rows = vec![];
            for (class, photo) in photos {
                let image = image(photo, size).with_context(|| photo.display().to_string())?;
                let reference = top(float.logits(&image)?.into_iter().map(f64::from));
                let int8 = top(engine
                    .run(&mut arena, &image)?
                    .iter()
                    .map(|x| f64::from(*x)));
                rows.push((*class, reference, int8));
            }
            Ok(rows)
        })
        .collect::<Result<Vec<_>>>()?
        .concat();
    let percent = |hits: usize| 100.0 * hits as f64 / rows.len() as f64;
    let float = percent(rows.iter().filter(|r| r.1 == r.0).count());
    let int8 = percent(rows.iter().filter(|r| r.2 == r.0).count());
    let agreement = percent(rows.iter().filter(|r| r.1 == r.2).count());
    println!(
        "Imagenette val, {} photos, kernel {}: f32 {float:.2} %, int8 {int8:.2} %, agreement {agreement:.2} %",
        rows.len(),
        Kernel::detect().name()
    );
    ensure!(
        rows.len() == chosen.len() && rows.len() >= 491,
        "every chosen photo is counted"
    );
    // Half a point of 491 photos is 2.5 photos: the sample is judged by the same bound.
    ensure!(
        float - int8 <= POINTS_LOST,
        "int8 loses {:.2} points",
        float - int8
    );
    ensure!(agreement >= AGREEMENT, "agreement {agreement:.2} %");
    Ok(())
}

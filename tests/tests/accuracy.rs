//! What int8 costs: ONNX files in f32 by tract and their plans by vitlet, on the same photos, within the bounds of `vitlet_tests::zoo`.
#![allow(clippy::print_stdout)] // a test

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use vitlet_compiler::Model;
use vitlet_kernels::Kernel;
use vitlet_plan::{AlignedBytes, Plan};
use vitlet_tests::accuracy::measure;
use vitlet_tests::zoo::{Subject, ZooModel};
use vitlet_tests::{calibrate, compile, data, full, image, photos, spread};

/// Photos of the short run; a smaller data set is looked at whole. f32 takes 60 ms a photo.
const SAMPLE: usize = 250;
const TRASHNET: usize = 503;
const ARENA: usize = 2_000_000;
const PLAN: usize = 4_200_000;

/// All photos of a model's data set with `cargo xtask test --full`, else some of Imagenette's.
fn chosen(subject: &Subject) -> Result<Option<Vec<(usize, PathBuf)>>> {
    let all = subject.photos()?;
    let whole = full() || subject.set.photos <= TRASHNET;
    Ok(all.map(|all| if whole { all } else { spread(&all, SAMPLE) }))
}

/// Measures a plan and holds it to its model's bounds.
fn judge(subject: &Subject, model: &Model, plan: &Plan<'_>) -> Result<()> {
    let Some(photos) = chosen(subject)? else {
        return Ok(());
    };
    let figures = measure(model, &[*plan], &photos, &|_| ())?;
    let figures = *figures.first().context("one plan, one row")?;
    ensure!(figures.photos == photos.len(), "every photo is counted");
    println!(
        "{}, {} of {} photos, kernel {}: f32 {:.2} %, int8 {:.2} %, {} photos lost, agreement {:.2} %, SQNR {:.2} dB",
        subject.name,
        figures.photos,
        subject.set.photos,
        Kernel::detect().name(),
        figures.top1_f32(),
        figures.top1(),
        figures.photos_lost(),
        figures.agreement(),
        figures.sqnr_db.unwrap_or(f64::INFINITY)
    );
    subject.bounds.check(&figures, subject.set.photos)
}

/// The plans that are checked in.
#[test]
fn zoo() -> Result<()> {
    let mut failed = vec![];
    for zoo in ZooModel::all()? {
        let model = Model::open(&zoo.onnx())?;
        let bytes = AlignedBytes::copy_of(&std::fs::read(zoo.plan())?);
        let judged = judge(&zoo.subject, &model, &Plan::parse(&bytes)?);
        if let Err(error) = judged {
            println!("{}: FAILED: {error:#}", zoo.subject.name);
            failed.push(zoo.subject.name);
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// A model that is not part of the repository, from its ONNX file on, with photos that this machine's tract calibrates on.
#[test]
fn calibrated_anew() -> Result<()> {
    let subject = Subject::named("pvt_v2_b0_imagenette")?;
    let (Some(onnx), Some(train)) = (
        data("models/pvt_v2_b0_imagenette.onnx", subject.set.photos)?,
        subject.training_photos()?,
    ) else {
        return Ok(());
    };
    let model = Model::open(&onnx)?;
    let calibration: Vec<Vec<u8>> = spread(&photos(&train)?, 64)
        .iter()
        .map(|(_, p)| image(p, model.image_size()))
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
    judge(&subject, &model, &plan)
}

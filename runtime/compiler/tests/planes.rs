//! Tensors of 16 bits in a whole network: more exact, the same bytes on every kernel, and chosen within a budget.
#![allow(clippy::expect_used, clippy::panic)]

use std::path::Path;

use vitlet_compiler::{
    Calibration, Calibrator, CompileError, Deviation, Keep, LayerReport, Method, Mixed, Model,
    Normalisation, Options, Ranges,
};
use vitlet_engine::Engine;
use vitlet_kernels::Kernel;
use vitlet_plan::{AlignedBytes, DType, Plan};
use vitlet_preprocess::{Interpolation, Preprocess, Resize};

const SIDE: u32 = 32;

fn model() -> Model {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny/tiny_pvt.onnx");
    Model::open(&file).expect("a model of the repository")
}

/// Noise, other for each seed.
fn image(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..SIDE * SIDE * 3).map(|_| next()).collect()
}

fn preprocess() -> Preprocess {
    Preprocess::new(SIDE, SIDE, Resize::Squash, Interpolation::Bilinear).expect("sizes in bounds")
}

fn calibrator(model: &Model, photos: u64) -> Calibrator<'_> {
    let mut calibrator = model
        .calibrator(&Calibration {
            normalisation: Normalisation::IMAGENET,
            preprocess: preprocess(),
            method: Method::Mse,
            correct_bias: true,
            fold_norms: true,
        })
        .expect("a probe");
    for seed in 0..photos {
        calibrator
            .add(&image(seed))
            .expect("an image of the model's size");
    }
    calibrator
}

/// Ranges with the tensors in 16 bits that fit any of the patterns.
fn ranges(model: &Model, patterns: &[&str]) -> Ranges {
    let keep = |pattern: &&str| {
        let keep = model.keep_16(pattern);
        keep.expect("a tensor that can have 16 bits")
    };
    let keep: Vec<_> = patterns.iter().map(keep).collect();
    let calibrator = calibrator(model, 16);
    calibrator.finish_keeping(&keep).expect("photos were added")
}

fn compiled(model: &Model, ranges: &Ranges) -> AlignedBytes {
    let options = Options {
        normalisation: Normalisation::IMAGENET,
        preprocess: preprocess(),
        labels: &[],
        model_name: "tiny",
    };
    model.compile(ranges, &options).expect("it compiles")
}

/// The bytes out of every op on a photo.
fn traced(plan: &Plan<'_>, kernel: Kernel, seed: u64) -> Vec<Vec<u8>> {
    let mut bytes = vec![vec![]; plan.ops().len()];
    let mut engine = Engine::new(plan, kernel);
    let mut arena = AlignedBytes::zeroed(engine.arena_len());
    engine
        .run_traced(&mut arena, &image(seed), &mut |op, _, rows| {
            bytes[op].extend_from_slice(rows);
        })
        .expect("the image fits");
    bytes
}

/// An op's result in real numbers.
fn numbers(plan: &Plan<'_>, op: usize, bytes: &[u8]) -> Option<Vec<f32>> {
    let tensor = plan.tensor(plan.ops().nth(op)?.output)?;
    let channels = tensor.shape[3] as usize;
    let cells = bytes.chunks_exact(tensor.dtype.size()).enumerate();
    cells
        .map(|(index, cell)| {
            let q = match (tensor.dtype, cell) {
                (DType::S8, [a]) => i32::from(*a as i8),
                (DType::S16, [a, b]) => i16::from_ne_bytes([*a, *b]).into(),
                (DType::S32, [a, b, c, d]) => i32::from_ne_bytes([*a, *b, *c, *d]),
                _ => return None,
            };
            Some((q - tensor.zero_point) as f32 * tensor.scale_of(index % channels)?)
        })
        .collect()
}

/// Every layer of a plan beside f32, by name, and the logits.
fn layers(model: &Model, bytes: &[u8]) -> (Vec<(String, LayerReport)>, Deviation) {
    let plan = Plan::parse(bytes).expect("just written");
    let mut diagnosis = model.diagnosis(&plan).expect("its own plan");
    let mut logits = Deviation::default();
    for seed in 100..108 {
        let ops = traced(&plan, Kernel::detect(), seed);
        let number = |op: usize| numbers(&plan, op, ops.get(op)?);
        let wanted = diagnosis.add(&image(seed), &number).expect("it runs");
        let found = number(ops.len() - 1).expect("the logits");
        logits.add(&found, &wanted);
    }
    let name = |report: &LayerReport| plan.ops().nth(report.op).map(|op| op.name.to_owned());
    let layers = diagnosis.layers().into_iter();
    let layers = layers.filter_map(|report| Some((name(&report)?, report)));
    (layers.collect(), logits)
}

#[test]
fn a_raised_layer_norm_is_more_exact() {
    let model = model();
    let ranges8 = ranges(&model, &[]);
    let own = |layers: &[(String, LayerReport)], name: &str| {
        let found = layers.iter().find(|(n, _)| n == name);
        found
            .and_then(|(_, report)| report.own.sqnr_db())
            .expect(name)
    };
    let (narrow, _) = layers(&model, &compiled(&model, &ranges8));
    let mut raised = 0;
    for layer in model.layers().iter().filter(|l| l.kind == "layernorm") {
        if model.keep_16(&layer.name).is_err() {
            continue;
        }
        let wide = ranges(&model, &[&layer.name]);
        let (wide, _) = layers(&model, &compiled(&model, &wide));
        let (before, after) = (own(&narrow, &layer.name), own(&wide, &layer.name));
        assert!(
            after > before + 20.0,
            "{}: {before} dB, then {after} dB",
            layer.name
        );
        raised += 1;
    }
    assert!(raised >= 4, "{raised} layer norms can have 16 bits");
}

#[test]
fn all_that_can_be_raised_makes_the_logits_better_and_every_kernel_agrees() {
    let model = model();
    let (ranges8, wide) = (ranges(&model, &[]), ranges(&model, &["*"]));
    assert!(wide.kept_16().count() > 10);
    let [narrow, raised] = [&ranges8, &wide].map(|ranges| {
        let (_, logits) = layers(&model, &compiled(&model, ranges));
        logits.sqnr_db().expect("integers are not exact")
    });
    assert!(raised > narrow + 1.0, "{narrow} dB, then {raised} dB");

    let bytes = compiled(&model, &wide);
    let plan = Plan::parse(&bytes).expect("just written");
    assert_eq!(plan.macs(), model.macs() + model.extra_macs(&wide));
    let fast = Kernel::detect();
    assert_ne!(
        fast.name(),
        Kernel::SCALAR.name(),
        "nothing would be compared"
    );
    for seed in 0..2 {
        let [reference, found] = [Kernel::SCALAR, fast].map(|kernel| traced(&plan, kernel, seed));
        let differs = (0..reference.len()).find(|op| reference[*op] != found[*op]);
        let name = differs.and_then(|op| plan.ops().nth(op)).map(|op| op.name);
        assert_eq!(name, None, "{} differs", fast.name());
    }
    // The ranges file says what has 16 bits.
    let read = Ranges::from_json(&wide.to_json()).expect("just written");
    assert_eq!(*compiled(&model, &read), *bytes);
    assert_ne!(*compiled(&model, &ranges8), *bytes);
}

fn chosen(model: &Model, percent: f64) -> (Ranges, Mixed) {
    let mut steps = vec![];
    let (ranges, mixed) = calibrator(model, 32)
        .finish_mixed(&[], percent, &mut |done, of| steps.push((done, of)))
        .expect("plans are made");
    let all = mixed.candidates;
    assert_eq!((steps.len(), steps.last()), (all, Some(&(all, all))));
    assert_eq!(mixed.photos, 32);
    (ranges, mixed)
}

#[test]
fn a_choice_keeps_to_its_budget_and_helps() {
    let model = model();
    let (none, mixed) = chosen(&model, 0.0);
    assert_eq!((none.kept_16().count(), mixed.chosen.len()), (0, 0));
    assert_eq!(mixed.before_db, mixed.after_db);
    let (wide, mixed) = chosen(&model, 15.0);
    assert!(!mixed.chosen.is_empty());
    assert!(mixed.chosen.iter().all(|chosen| chosen.gain_db > 0.0));
    let names: Vec<&str> = mixed.chosen.iter().map(|chosen| &*chosen.name).collect();
    assert!(wide.kept_16().all(|name| names.contains(&name)));
    let macs: u64 = mixed.chosen.iter().map(|chosen| chosen.macs).sum();
    assert_eq!(macs, model.extra_macs(&wide));
    assert!(macs as f64 <= 0.15 * model.macs() as f64, "{macs} MACs");
    assert!(mixed.after_db > mixed.before_db, "{mixed:?}");
    // Biases are corrected for these bits: as if the names had been given.
    let keep: Vec<Keep> = wide
        .kept_16()
        .map(|name| model.keep_16(name).expect("it was raised"))
        .collect();
    let named = calibrator(&model, 32)
        .finish_keeping(&keep)
        .expect("plans are made");
    assert_eq!(named, wide);
}

#[test]
fn what_is_kept_counts_in_the_budget() {
    let model = model();
    let keep = [model.keep_16("*").expect("some can")];
    let (ranges, mixed) = calibrator(&model, 16)
        .finish_mixed(&keep, 15.0, &mut |_, _| ())
        .expect("plans are made");
    assert_eq!((mixed.candidates, mixed.chosen.len()), (0, 0));
    assert!(ranges.kept_16().count() > 10);
}

#[test]
fn a_few_photos_choose_nothing() {
    let model = model();
    let error = calibrator(&model, 15).finish_mixed(&[], 10.0, &mut |_, _| ());
    assert!(matches!(
        error,
        Err(CompileError::FewPhotos {
            found: 15,
            wanted: 16
        })
    ));
}

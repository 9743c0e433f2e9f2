//! Tensors of 16 bits in a whole network: more exact, the same bytes on every kernel, and chosen within a budget.
#![allow(clippy::expect_used, clippy::panic)]

use std::path::Path;

use vitlet_compiler::{
    Calibration, CompileError, Deviation, LayerReport, Method, Mixer, Model, Normalisation,
    Options, Ranges,
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

fn calibrated(model: &Model, photos: u64) -> (Ranges, Mixer<'_>) {
    let mut calibrator = model
        .calibrator(&Calibration {
            normalisation: Normalisation::IMAGENET,
            preprocess: preprocess(),
            method: Method::Mse,
            correct_bias: true,
        })
        .expect("a probe");
    for seed in 0..photos {
        calibrator
            .add(&image(seed))
            .expect("an image of the model's size");
    }
    calibrator.finish_with_mixer().expect("photos were added")
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

fn kept(model: &Model, ranges: &Ranges, pattern: &str) -> Ranges {
    let mut ranges = ranges.clone();
    let keep = model
        .keep_16(pattern)
        .expect("a tensor that can have 16 bits");
    ranges.keep_16(model, &keep);
    ranges
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
    let (ranges, _) = calibrated(&model, 16);
    let own = |layers: &[(String, LayerReport)], name: &str| {
        let found = layers.iter().find(|(n, _)| n == name);
        found
            .and_then(|(_, report)| report.own.sqnr_db())
            .expect(name)
    };
    let (narrow, _) = layers(&model, &compiled(&model, &ranges));
    let mut raised = 0;
    for layer in model.layers().iter().filter(|l| l.kind == "layernorm") {
        if model.keep_16(&layer.name).is_err() {
            continue;
        }
        let (wide, _) = layers(
            &model,
            &compiled(&model, &kept(&model, &ranges, &layer.name)),
        );
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
    let (ranges, _) = calibrated(&model, 16);
    let wide = kept(&model, &ranges, "*");
    assert!(wide.kept_16().count() > 10);
    let [narrow, raised] = [&ranges, &wide].map(|ranges| {
        let (_, logits) = layers(&model, &compiled(&model, ranges));
        logits.sqnr_db().expect("integers are not exact")
    });
    println!("{narrow} dB in 8 bits, {raised} dB in 16");
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
    assert_ne!(*compiled(&model, &ranges), *bytes);
}

#[test]
fn a_choice_keeps_to_its_budget_and_helps() {
    let model = model();
    let (ranges, mixer) = calibrated(&model, 32);
    let chosen = |percent: f64| {
        let (mut ranges, mut steps) = (ranges.clone(), vec![]);
        let mixed = mixer
            .choose(&mut ranges, percent, &mut |done, of| steps.push((done, of)))
            .expect("plans are made");
        assert_eq!(steps.len(), mixed.candidates);
        assert_eq!(steps.last(), Some(&(mixed.candidates, mixed.candidates)));
        (ranges, mixed)
    };
    let (none, mixed) = chosen(0.0);
    assert_eq!((none, mixed.chosen.len()), (ranges.clone(), 0));
    assert_eq!((mixed.before_db, mixed.photos), (mixed.after_db, 8));
    let (wide, mixed) = chosen(15.0);
    assert!(!mixed.chosen.is_empty());
    let macs: u64 = mixed.chosen.iter().map(|chosen| chosen.macs).sum();
    assert_eq!(macs, model.extra_macs(&wide));
    assert!(macs as f64 <= 0.15 * model.macs() as f64, "{macs} MACs");
    let gains: f64 = mixed.chosen.iter().map(|chosen| chosen.gain_db).sum();
    let (before, after) = (
        mixed.before_db.expect("noise"),
        mixed.after_db.expect("noise"),
    );
    assert!(
        (after - before - gains).abs() < 1e-6 && gains > 0.0,
        "{mixed:?}"
    );
    // What is kept already counts, too.
    let mut more = kept(&model, &ranges, "*");
    let mixed = mixer
        .choose(&mut more, 15.0, &mut |_, _| ())
        .expect("plans are made");
    assert_eq!((mixed.candidates, mixed.chosen.len()), (0, 0));
}

#[test]
fn a_few_photos_choose_nothing() {
    let model = model();
    let (mut ranges, mixer) = calibrated(&model, 15);
    let error = mixer.choose(&mut ranges, 10.0, &mut |_, _| ());
    assert!(matches!(
        error,
        Err(CompileError::FewPhotos {
            found: 15,
            wanted: 16
        })
    ));
}

//! Faults planted in a small plan, one per cause: the diagnosis names each at its layer.

use std::sync::Arc;

use vitlet_engine::Engine;
use vitlet_kernels::Kernel;
use vitlet_plan::{AlignedBytes, DType, Plan};
use vitlet_preprocess::{Interpolation, Preprocess, Resize};

use super::*;
use crate::calibrate::used_values;
use crate::frontend::Unary;
use crate::ir::{Activation, AttentionShape, Bias, Epilogue, Geometry, Kind, Operand, Value};
use crate::lower::expr::Expr;
use crate::memory::tests::Random;
use crate::model::Options;
use crate::quantise;
use crate::ranges::{Header, Ranges, ValueRange};

const SIDE: usize = 8;
const PIXELS: usize = SIDE * SIDE;
const CHANNELS: usize = 16;
const HEADS: usize = 2;
const CLASSES: usize = 4;

// Ops of the network, and the values they make, image and sums apart.
const CONV: usize = 0;
const QKV: usize = 2;
const ATTENTION: usize = 3;
const NORM: usize = 5;
const FFN: usize = 6;
const HEAD: usize = 7;

fn weights(random: &mut Random, len: usize, top: f32) -> Vec<f32> {
    let number = |_| (random.below(2001) as f32 / 1000.0 - 1.0) * top;
    (0..len).map(number).collect()
}

/// A pointwise convolution of the image.
fn conv(r: &mut Random) -> Kind {
    Kind::Conv {
        geometry: Geometry {
            input: [SIDE; 2],
            output: [SIDE; 2],
            ..Geometry::per_row(1)
        },
        weights: weights(r, CHANNELS * 3, 1.0),
        bias: weights(r, CHANNELS, 0.2),
        epilogue: Epilogue::default(),
    }
}

fn linear(r: &mut Random, outputs: usize, epilogue: Epilogue) -> Kind {
    Kind::Linear {
        weights: weights(r, outputs * CHANNELS, 0.4),
        bias: weights(r, outputs, 0.2),
        epilogue,
    }
}

fn norm(r: &mut Random) -> Kind {
    Kind::LayerNorm {
        eps: 1e-6,
        gamma: weights(r, CHANNELS, 0.2).iter().map(|g| g + 1.0).collect(),
        beta: weights(r, CHANNELS, 0.2),
        gather: None,
    }
}

/// A pointwise convolution; a block of attention with its residual; a norm, an FFN with a GELU, a pooled head. Each op's result is the
/// value after the one before's; value 0 is the image, the last value what the GELU is applied to.
pub(crate) fn network() -> Graph {
    let mut r = Random(7);
    let mut values = vec![value("image", PIXELS, 3)];
    let mut ops = vec![];
    let mut push = |name: &str, kind: Kind, inputs: &[ValueId], rows: usize, channels: usize| {
        values.push(value(name, rows, channels));
        ops.push(Op {
            kind,
            inputs: inputs.to_vec(),
            output: values.len() - 1,
        });
    };
    let residual = Epilogue {
        activation: None,
        residual: Some(1),
    };
    let gelu = Epilogue {
        activation: Some(Activation {
            function: Expr::X.unary(Unary::Gelu),
            before: 9,
        }),
        residual: None,
    };
    let head = Kind::PoolLinear {
        weights: weights(&mut r, CLASSES * CHANNELS, 0.4),
        bias: weights(&mut r, CLASSES, 0.2),
    };
    push("conv", conv(&mut r), &[0], PIXELS, CHANNELS);
    push("norm1", norm(&mut r), &[1], PIXELS, CHANNELS);
    let qkv = linear(&mut r, 3 * CHANNELS, Epilogue::default());
    push("qkv", qkv, &[2], PIXELS, 3 * CHANNELS);
    push("attention", attention(), &[3], PIXELS, CHANNELS);
    push(
        "proj",
        linear(&mut r, CHANNELS, residual),
        &[4],
        PIXELS,
        CHANNELS,
    );
    push("norm2", norm(&mut r), &[5], PIXELS, CHANNELS);
    push(
        "ffn",
        linear(&mut r, CHANNELS, gelu),
        &[6],
        PIXELS,
        CHANNELS,
    );
    push("head", head, &[7], 1, CLASSES);
    values.push(value("sums", PIXELS, CHANNELS));
    Graph {
        values,
        ops,
        input: 0,
        image: [SIDE; 2],
        output: 8,
    }
}

fn value(name: &str, rows: usize, channels: usize) -> Value {
    Value {
        name: name.into(),
        rows,
        channels,
        source: None,
    }
}

/// All pixels look at all pixels.
fn attention() -> Kind {
    let rows: Arc<[u32]> = (0..PIXELS as u32).collect();
    let operand = |which: usize| Operand {
        value: Some(3),
        channels: 3 * CHANNELS,
        constants: [].into(),
        column: which * CHANNELS,
        head_stride: CHANNELS / HEADS,
        rows: Arc::clone(&rows),
    };
    Kind::Attention {
        shape: AttentionShape {
            heads: HEADS,
            head_dim: CHANNELS / HEADS,
            groups: 1,
            slots: 1,
            queries: PIXELS,
            keys: PIXELS,
        },
        q: operand(0),
        k: operand(1),
        v: operand(2),
        out: Arc::clone(&rows),
        scale: 0.3,
        bias: None,
        mask: None,
    }
}

pub(crate) fn image(seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    (0..PIXELS * 3).map(|_| random.below(256) as u8).collect()
}

/// Every value of the network in f32, the sums of the GELU included.
fn values_of(graph: &Graph, image: &[u8]) -> Vec<Vec<f32>> {
    let mut values = vec![vec![]; graph.values.len()];
    values[0] = Normalisation::IMAGENET.rows(image);
    for op in &graph.ops {
        if let Some(before) = crate::eval::before(op) {
            let mut plain = op.clone();
            *plain.epilogue_mut().expect("it has an activation") = Epilogue::default();
            values[before] = run_op(graph, &plain, &|v| values[v].clone());
        }
        values[op.output] = run_op(graph, op, &|v| values[v].clone());
    }
    values
}

pub(crate) const PHOTOS: [u64; 3] = [11, 12, 13];

/// The ranges that the photos fill.
pub(crate) fn ranges(graph: &Graph) -> Ranges {
    let seen: Vec<Vec<Vec<f32>>> = PHOTOS
        .iter()
        .map(|seed| values_of(graph, &image(*seed)))
        .collect();
    let range = |v: ValueId| {
        let numbers = || seen.iter().flat_map(move |values| &values[v]);
        let clip = [
            numbers().fold(0f32, |m, x| m.min(*x)),
            numbers().fold(0f32, |m, x| m.max(*x)),
        ];
        let channels = graph.values[v].channels;
        let attention = |op: &Op| matches!(op.kind, Kind::Attention { .. });
        let mut ops = graph.ops.iter();
        let operand = ops.any(|op| attention(op) && op.inputs.contains(&v));
        let top = |c: usize| {
            let numbers = seen.iter().flat_map(|values| &values[v]);
            let channel = numbers.skip(c).step_by(channels);
            channel.fold(0f32, |m, x| m.max(x.abs()))
        };
        ValueRange {
            name: graph.values[v].name.clone(),
            seen: clip,
            clip,
            channels: (0..channels).filter(|_| operand).map(top).collect(),
            ..ValueRange::default()
        }
    };
    let values = used_values(graph).into_iter().map(range).collect();
    Ranges::new(Header::of(Normalisation::IMAGENET), values)
}

pub(crate) fn compiled(graph: &Graph, ranges: &Ranges) -> AlignedBytes {
    let side = SIDE as u32;
    let preprocess = Preprocess::new(side, side, Resize::Squash, Interpolation::Bilinear);
    let options = Options {
        normalisation: Normalisation::IMAGENET,
        preprocess: preprocess.expect("a small image"),
        labels: &[],
        model_name: "planted",
    };
    quantise::compile(graph, [0; 32], ranges, &options).expect("the plan can be made")
}

/// The result of every op of the plan in real numbers.
pub(crate) fn numbers_of(plan: &Plan<'_>, image: &[u8]) -> Vec<Vec<f32>> {
    let mut bytes = vec![vec![]; plan.ops().len()];
    let mut engine = Engine::new(plan, Kernel::SCALAR);
    let mut arena = AlignedBytes::zeroed(engine.arena_len());
    engine
        .run_traced(&mut arena, image, &mut |op, _, rows| {
            bytes[op].extend_from_slice(rows);
        })
        .expect("the image fits");
    let numbers = |(op, bytes): (vitlet_plan::Op<'_>, &Vec<u8>)| {
        let tensor = plan.tensor(op.output).expect("verified");
        let integers: Vec<i32> = match tensor.dtype {
            DType::S8 => bytes.iter().map(|b| i32::from(*b as i8)).collect(),
            DType::S16 => {
                let words = bytes.as_chunks().0.iter();
                words.map(|w| i16::from_ne_bytes(*w).into()).collect()
            }
            DType::S32 => {
                let words = bytes.as_chunks().0.iter();
                words.map(|w| i32::from_ne_bytes(*w)).collect()
            }
        };
        let channels = tensor.shape[3] as usize;
        let scale = |index: usize| tensor.scale_of(index % channels).expect("it has one");
        let real = |(index, q): (usize, i32)| (q - tensor.zero_point) as f32 * scale(index);
        integers.into_iter().enumerate().map(real).collect()
    };
    plan.ops().zip(&bytes).map(numbers).collect()
}

/// The diagnosis of a plan on the photos, one report per op.
fn reports(graph: &Graph, ranges: &Ranges) -> Vec<LayerReport> {
    let bytes = compiled(graph, ranges);
    let reports = study(graph, &Plan::parse(&bytes).expect("just written"));
    assert_eq!(reports.len(), graph.ops.len());
    reports
}

/// The diagnosis of a plan on the photos.
pub(crate) fn study(graph: &Graph, plan: &Plan<'_>) -> Vec<LayerReport> {
    let mut study = Study::new(graph, plan, &Normalisation::IMAGENET);
    for seed in PHOTOS {
        let image = image(seed);
        let (values, numbers) = (values_of(graph, &image), numbers_of(plan, &image));
        study.add(&Photo {
            image: &values[0],
            numbers: &|op| numbers.get(op).cloned(),
            reference: &|value| values.get(value).cloned(),
        });
    }
    study.reports()
}

fn names(reports: &[LayerReport]) -> Vec<&'static str> {
    reports.iter().map(|report| report.cause.name()).collect()
}

fn clip_of<'r>(graph: &Graph, ranges: &'r mut Ranges, op: usize) -> &'r mut [f32; 2] {
    let name = &graph.values[graph.ops[op].output].name;
    let value = ranges.values.iter_mut().find(|v| v.name == *name);
    &mut value.expect("every result has a range").clip
}

#[test]
fn a_sound_plan_loses_to_rounding_and_weights_only() {
    let graph = network();
    let reports = reports(&graph, &ranges(&graph));
    for report in &reports {
        let own = report.own.sqnr_db().expect("integers are not exact");
        assert!(own > 30.0, "{report:?}");
        let known = ["rounding", "weights", "inherited"];
        assert!(known.contains(&report.cause.name()), "{report:?}");
        assert!(report.saturated < 0.005, "{report:?}");
        // The error is the sum of its parts; parts that have nothing to do with each other add up in squares.
        let [total, inherited] = [&report.total, &report.inherited].map(|d| d.expect("compared"));
        let parts = report.own.noise() + inherited.noise();
        let ratio = total.noise() / parts;
        assert!((0.5..2.0).contains(&ratio), "{ratio}: {report:?}");
    }
    // Nothing precedes the first layer but the image, which is exact.
    let first = reports[CONV].inherited.expect("compared");
    assert!(first.sqnr_db().is_none_or(|db| db > 100.0), "{first:?}");
    assert_eq!(reports[CONV].cause, Cause::Weights);
}

#[test]
fn a_clipped_range() {
    let graph = network();
    let mut ranges = ranges(&graph);
    clip_of(&graph, &mut ranges, NORM)
        .iter_mut()
        .for_each(|end| *end /= 3.0);
    let reports = reports(&graph, &ranges);
    assert_eq!(
        reports[NORM].cause,
        Cause::ClippedRange,
        "{:?}",
        names(&reports)
    );
    assert!(reports[NORM].saturated > 0.1);
    // What follows is wrong because of it.
    assert_eq!(reports[FFN].cause, Cause::Inherited { from: Some(NORM) });
    assert!(!names(&reports[..NORM]).contains(&"clipped range"));
}

#[test]
fn a_range_of_sums_that_an_activation_function_hides() {
    let graph = network();
    let mut ranges = ranges(&graph);
    let sums = ranges.values.iter_mut().find(|v| v.name == "sums");
    sums.expect("the GELU's").clip = [-0.5, 0.3];
    let reports = reports(&graph, &ranges);
    assert_eq!(
        reports[FFN].cause,
        Cause::ClippedRange,
        "{:?}",
        names(&reports)
    );
}

#[test]
fn a_scale_that_is_too_coarse() {
    let graph = network();
    let mut ranges = ranges(&graph);
    clip_of(&graph, &mut ranges, NORM)
        .iter_mut()
        .for_each(|end| *end *= 20.0);
    let reports = reports(&graph, &ranges);
    let Cause::CoarseScale { rms, peak } = reports[NORM].cause else {
        panic!("{:?}", names(&reports));
    };
    assert!(rms < 9.0 && peak < 20.0, "{rms} {peak}");
}

#[test]
fn an_outlier_channel() {
    let mut graph = network();
    let Kind::LayerNorm { gamma, .. } = &mut graph.ops[NORM].kind else {
        panic!("not a norm");
    };
    gamma[5] = 80.0;
    let reports = reports(&graph, &ranges(&graph));
    let Cause::OutlierChannel { channel, factor } = reports[NORM].cause else {
        panic!("{:?}", names(&reports));
    };
    assert_eq!(channel, 5);
    assert!((10.0..200.0).contains(&factor), "{factor}");
}

#[test]
fn weights_that_8_bits_do_not_hold() {
    // A weight that makes its row's step coarse, while its input is always 0.
    for (op, before) in [(QKV, 1), (FFN, NORM)] {
        let mut graph = network();
        let Kind::LayerNorm { gamma, beta, .. } = &mut graph.ops[before].kind else {
            panic!("not a norm");
        };
        (gamma[0], beta[0]) = (0.0, 0.0);
        let Kind::Linear { weights, .. } = &mut graph.ops[op].kind else {
            panic!("not linear");
        };
        weights.iter_mut().step_by(CHANNELS).for_each(|w| *w = 20.0);
        let reports = reports(&graph, &ranges(&graph));
        assert_eq!(reports[op].cause, Cause::Weights, "{:?}", names(&reports));
        assert!(reports[op].own.sqnr_db().is_some_and(|db| db < 25.0));
    }
}

#[test]
fn softmax_weights_that_14_bits_do_not_hold() {
    let mut graph = network();
    let Kind::Attention { v, bias, scale, .. } = &mut graph.ops[ATTENTION].kind else {
        panic!("not attention");
    };
    // Every pixel looks at the first key, whose value is 0, and very little at the others.
    *scale = 1e-3;
    let least = -15.6 * std::f32::consts::LN_2;
    let pairs = (0..HEADS * PIXELS * PIXELS).map(|i| if i % PIXELS == 0 { 0.0 } else { least });
    *bias = Some(Arc::new(Bias {
        table: pairs.collect(),
        window: None,
    }));
    let constants = (0..PIXELS * CHANNELS).map(|i| if i < CHANNELS { 0.0 } else { 1.0 });
    *v = Operand {
        value: None,
        channels: CHANNELS,
        constants: constants.collect(),
        column: 0,
        head_stride: CHANNELS / HEADS,
        rows: (0..PIXELS as u32).collect(),
    };
    let reports = reports(&graph, &ranges(&graph));
    assert_eq!(
        reports[ATTENTION].cause,
        Cause::SoftmaxUnderflow,
        "{:?}",
        names(&reports)
    );
}

#[test]
fn ops_without_a_layer_or_without_numbers_are_left_out() {
    let graph = network();
    let bytes = compiled(&graph, &ranges(&graph));
    let plan = Plan::parse(&bytes).expect("just written");
    let mut other = graph.clone();
    other.values[graph.ops[HEAD].output].name = "renamed".into();
    let mut study = Study::new(&other, &plan, &Normalisation::IMAGENET);
    let image = image(PHOTOS[0]);
    let (values, numbers) = (values_of(&graph, &image), numbers_of(&plan, &image));
    // Numbers that do not fit the layer are no numbers of it, and neither are those that depend on them.
    let short = |op: usize| match op {
        NORM => Some(vec![0.0; 3]),
        op => numbers.get(op).cloned(),
    };
    study.add(&Photo {
        image: &values[0],
        numbers: &short,
        reference: &|value| values.get(value).cloned(),
    });
    let found: Vec<usize> = study.reports().iter().map(|report| report.op).collect();
    assert_eq!(found, [0, 1, 2, 3, 4]);
}

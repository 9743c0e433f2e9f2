use vitlet_plan::Plan;

use super::*;
use crate::diagnose::tests::{PHOTOS, compiled, image, network, numbers_of, ranges, study};
use crate::frontend::{Binary, Unary};
use crate::lower::expr::Expr;
use crate::memory::tests::Builder;
use crate::quantise::prepare;

/// Values of the network of the diagnosis' tests.
const NORMS: [ValueId; 2] = [2, 6];
const QKV: ValueId = 3;
const ATTENTION: ValueId = 4;
const GELU: ValueId = 7;
/// Its head, an op.
const HEAD: usize = 7;

fn gelu() -> Kind {
    Kind::Activate(Expr::X.unary(Unary::Gelu))
}

fn kinds(graph: &Graph) -> Vec<&'static str> {
    graph.ops.iter().map(Op::kind_name).collect()
}

/// The graph, prepared for the plan and with a value raised.
fn raised(graph: &mut Graph, value: ValueId) -> (Graph, Pair) {
    prepare(graph).expect("there is a type for each value");
    let mut planes = Planes::of(graph);
    planes
        .raise(value, &BTreeMap::new())
        .expect("it can have 16 bits");
    let pair = planes.pairs[0];
    (planes.graph.into_owned(), pair)
}

/// A stream x, its norm n, the sum y of x and a product of n, and the logits.
fn stream() -> (Graph, [ValueId; 4]) {
    let mut b = Builder::new(8);
    let x = b.linear(0, None);
    let n = b.norm(x);
    let y = b.linear(n, Some(x));
    let end = b.linear(y, None);
    (b.finish(end), [x, n, y, end])
}

#[test]
fn the_sum_with_a_stream_takes_the_low_plane_first() {
    let (mut graph, [x, n, y, _]) = stream();
    if let Some(bias) = bias_mut(&mut graph.ops[2].kind) {
        bias.fill(3.0);
    }
    let (graph, pair) = raised(&mut graph, n);
    assert_eq!(
        kinds(&graph)[..6],
        ["linear", "layernorm", "convert", "add", "linear", "linear"]
    );
    let (low, high) = (&graph.ops[4], &graph.ops[5]);
    assert_eq!(
        (&low.inputs[..], &high.inputs[..]),
        (&[pair.low][..], &[pair.high][..])
    );
    let residuals = [low, high].map(|op| op.epilogue().and_then(|e| e.residual));
    assert_eq!(residuals, [Some(x), Some(low.output)]);
    assert_eq!(high.output, y);
    // The bias counts once.
    let bias = |op: &Op| bias_mut(&mut op.kind.clone()).map(|bias| bias[0]);
    assert_eq!([bias(low), bias(high)], [Some(0.0), Some(3.0)]);
    let types = check_types(&graph).expect("one type for each value");
    let types = [n, pair.high, pair.low, low.output, y].map(|v| types[&v]);
    assert_eq!(
        types,
        [DType::S16, DType::S8, DType::S8, DType::S16, DType::S16]
    );
}

#[test]
fn the_narrow_form_of_a_stream_is_gone() {
    let (mut graph, [_, _, y, end]) = stream();
    prepare(&mut graph).expect("there is a type for each value");
    let twin = graph.ops[3].output;
    assert_eq!(graph.ops[3].kind, Kind::Convert);
    let (graph, pair) = raised(&mut graph, twin);
    let all = [
        "linear",
        "layernorm",
        "linear",
        "convert",
        "add",
        "linear",
        "linear",
        "add",
    ];
    assert_eq!(kinds(&graph), all);
    assert_eq!(
        (&graph.ops[3].inputs[..], graph.ops[3].output),
        (&[y][..], pair.high)
    );
    assert_eq!(graph.ops[4].inputs, [y, pair.high]);
    assert!(
        !graph
            .ops
            .iter()
            .any(|op| op.output == twin || op.reads().any(|v| v == twin))
    );
    assert_eq!(graph.ops[7].output, end);
}

#[test]
fn results_of_functions_and_means_of_planes() {
    let mut b = Builder::new(8);
    let x = b.linear(0, None);
    let g = b.op(gelu(), &[x], 8);
    let mean = b.op(Kind::MeanPool, &[g], 1);
    let end = b.linear(mean, None);
    let (graph, pair) = raised(&mut b.finish(end), g);
    let all = [
        "linear",
        "activation",
        "activation",
        "depthwise",
        "depthwise",
        "add",
        "linear",
    ];
    assert_eq!(kinds(&graph), all);
    assert_eq!([1, 2].map(|op| graph.ops[op].output), [pair.high, pair.low]);
    assert_eq!([1, 2].map(|op| graph.ops[op].inputs[0]), [x, x]);
    assert_eq!(graph.ops[5].output, mean);

    // A sum reads the function's result, too: it stays.
    let mut b = Builder::new(8);
    let x = b.linear(0, None);
    let g = b.op(gelu(), &[x], 8);
    let sum = b.add(x, g);
    let end = b.linear(g, Some(sum));
    let (graph, _) = raised(&mut b.finish(end), g);
    assert_eq!(
        kinds(&graph)[..5],
        ["linear", "activation", "activation", "activation", "add"]
    );
    assert_eq!(
        (graph.ops[3].output, &graph.ops[4].inputs[..]),
        (g, &[x, g][..])
    );
}

#[test]
fn what_cannot_have_16_bits_is_refused_with_its_reason() {
    let network = network();
    assert_eq!(refusal(&network, QKV), Some(Refusal::OfAttention));
    assert_eq!(refusal(&network, ATTENTION), Some(Refusal::FromAttention));
    // The stream, and the logits.
    assert_eq!(refusal(&network, 5), Some(Refusal::Wide));
    assert_eq!(refusal(&network, network.output), Some(Refusal::Wide));
    for value in [NORMS[0], NORMS[1], GELU] {
        assert_eq!(refusal(&network, value), None);
    }

    let mut b = Builder::new(8);
    let x = b.linear(0, None);
    let relu = Kind::Activate(Expr::X.binary(Binary::Max, Expr::Const(0.0)));
    let relu = b.op(relu, &[x], 8);
    let g = b.op(gelu(), &[x], 8);
    let sum = b.add(x, g);
    let (part, other) = (b.norm(sum), b.norm(sum));
    let whole = b.concat(&[part, other]);
    let (a, c) = (b.linear(relu, None), b.linear(whole, None));
    let c = b.slice(c, 0, 8);
    let end = b.add(a, c);
    let mut graph = b.finish(end);
    prepare(&mut graph).expect("there is a type for each value");
    let found = [relu, g, part, whole].map(|value| refusal(&graph, value));
    let wanted = [
        Refusal::Clipped,
        Refusal::NoProduct,
        Refusal::Shared,
        Refusal::Shared,
    ];
    assert_eq!(found, wanted.map(Some));
}

/// The network's ranges with values raised.
fn wide(graph: &Graph, values: &[ValueId]) -> crate::ranges::Ranges {
    let mut ranges = ranges(graph);
    values
        .iter()
        .for_each(|v| ranges.set_16_bit(graph, *v, true));
    ranges
}

/// The integers of the op of a plan that makes a tensor, on a photo.
fn integers(plan: &Plan<'_>, name: &str, seed: u64) -> Vec<i64> {
    let op = plan.ops().position(|op| op.name == name).expect(name);
    let tensor = plan.ops().nth(op).and_then(|op| plan.tensor(op.output));
    let tensor = tensor.expect("verified");
    let step = f64::from(tensor.scale_of(0).expect("one scale"));
    let numbers = &numbers_of(plan, &image(seed))[op];
    let integer = |x: &f32| (f64::from(*x) / step).round() as i64 + i64::from(tensor.zero_point);
    numbers.iter().map(integer).collect()
}

#[test]
fn both_planes_together_are_the_value() {
    let graph = network();
    let bytes = compiled(&graph, &wide(&graph, &NORMS));
    let plan = Plan::parse(&bytes).expect("just written");
    for value in NORMS {
        let name = &graph.values[value].name;
        let [high, low] = names(name).map(|name| integers(&plan, &name, PHOTOS[1]));
        let value = integers(&plan, name, PHOTOS[1]);
        let sums = high.iter().zip(&low).map(|(high, low)| 128 * high + low);
        assert!(sums.eq(value.iter().copied()), "{name}");
        // It is more than eight bits, and uses what there is.
        assert!(low.iter().any(|q| *q != 0) && low.iter().all(|q| q.abs() <= 127));
        assert!(value.iter().any(|q| q.abs() > 8192), "{name}");
    }
}

#[test]
fn tables_of_both_planes_are_the_function_to_15_bits() {
    let graph = network();
    let bytes = compiled(&graph, &wide(&graph, &[GELU]));
    let plan = Plan::parse(&bytes).expect("just written");
    let numbers = numbers_of(&plan, &image(PHOTOS[0]));
    let of = |name: &str| {
        let op = plan.ops().position(|op| op.name == name).expect(name);
        &numbers[op]
    };
    let [high, low] = names(&graph.values[GELU].name);
    let Some(Activation { function, before }) = graph.ops[GELU - 1]
        .epilogue()
        .and_then(|e| e.activation.clone())
    else {
        panic!("the network has a GELU");
    };
    let before = of(&graph.values[before].name);
    let top = before.iter().fold(0f64, |m, x| m.max(f64::from(x.abs())));
    for ((before, high), low) in before.iter().zip(of(&high)).zip(of(&low)) {
        let wanted = function.eval(f64::from(*before));
        let error = (f64::from(high + low) - wanted).abs();
        assert!(error <= top / 16384.0, "{high} and {low} for {wanted}");
    }
}

/// Own SQNR of an op of the plan that makes a value, and the noise of the logits.
fn accuracy(graph: &Graph, values: &[ValueId], of: usize) -> [f64; 2] {
    let bytes = compiled(graph, &wide(graph, values));
    let plan = Plan::parse(&bytes).expect("just written");
    let reports = study(graph, &plan);
    let own = |op: usize| {
        let name = &*graph.values[graph.ops[op].output].name;
        let index = plan.ops().position(|op| op.name == name);
        let report = reports.iter().find(|report| Some(report.op) == index);
        report.expect("every layer that has an op is compared")
    };
    let logits = own(HEAD).total.expect("logits are compared");
    [
        own(of).own.sqnr_db().expect("integers are not exact"),
        logits.sqnr_db().expect("integers are not exact"),
    ]
}

#[test]
fn raised_layers_and_the_logits_are_nearer_to_f32() {
    let graph = network();
    for value in NORMS {
        let narrow = accuracy(&graph, &[], value - 1);
        let raised = accuracy(&graph, &[value], value - 1);
        assert!(
            narrow[0] < 50.0 && raised[0] > 70.0,
            "{narrow:?} {raised:?}"
        );
    }
    // The head reads planes that exist as such only.
    let [own, logits] = accuracy(&graph, &[NORMS[0], NORMS[1], GELU], HEAD);
    let [narrow_own, narrow_logits] = accuracy(&graph, &[], HEAD);
    assert!((own - narrow_own).abs() < 3.0, "{own} {narrow_own}");
    assert!(logits > narrow_logits, "{logits} {narrow_logits}");
}

//! The layers in f32, written for clearness: the oracle that the lowering is checked with.
//!
//! [`check_lowering`] feeds every layer the values tract computed for its inputs and compares its result with tract's, before
//! any quantisation; then it runs all layers in cascade.

use std::collections::BTreeMap;

use crate::error::CompileError;
use crate::frontend::{NodeId, Reference, Tensor};
use crate::ir::{
    AttentionShape, Bias, Epilogue, Gather, Geometry, Graph, Kind, Op, Operand, ValueId,
};

/// How far one layer is from tract, in f32.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerCheck {
    /// The layer's result, by the name of its source node.
    pub name: String,
    /// The layer's kind.
    pub kind: &'static str,
    /// max |layer − tract| ÷ max |tract|, the layer fed with tract's inputs.
    pub error: f64,
}

/// The result of [`check_lowering`].
#[derive(Debug, Clone, PartialEq)]
pub struct LoweringCheck {
    /// One entry per layer, in execution order.
    pub layers: Vec<LayerCheck>,
    /// max |a − b| ÷ max |b| of the logits when each layer feeds the next.
    pub cascade: f64,
}

impl LoweringCheck {
    /// The layer furthest from tract.
    pub fn worst(&self) -> Option<&LayerCheck> {
        self.layers
            .iter()
            .max_by(|a, b| a.error.total_cmp(&b.error))
    }
}

/// Compares every layer with tract on one normalised image (in the model's own layout).
///
/// A layer reads what tract computed for its operands, and what the definition says for operands that no source node holds;
/// results that no source node holds are checked where they are read.
///
/// # Errors
/// [`CompileError::Reference`] when tract cannot run the model.
pub fn check_lowering(
    graph: &Graph,
    reference: &Reference,
    image: &[f32],
) -> Result<LoweringCheck, CompileError> {
    let nodes = source_nodes(graph, graph.ops.iter().flat_map(values_of).collect());
    let outputs = reference.probe(&nodes)?.run(image)?;
    let known = Expected::new(graph, &nodes, &outputs);
    let mut layers = vec![];
    let mut cascade = Live::new(graph);
    cascade.insert(graph.input, known.read(graph.input));
    for op in &graph.ops {
        if let Some(wanted) = known.of_source(op.output)
            && !matches!(op.kind, Kind::Slice { .. } | Kind::Concat)
        {
            let alone = run_op(graph, op, &|v| known.read(v));
            layers.push(LayerCheck {
                name: graph.values[op.output].name.clone(),
                kind: op.kind_name(),
                error: relative_error(&alone, &wanted),
            });
        }
        let chained = run_op(graph, op, &|v| cascade.read(v));
        cascade.finish(op, chained);
    }
    Ok(LoweringCheck {
        layers,
        cascade: relative_error(&cascade.read(graph.output), &known.read(graph.output)),
    })
}

/// The values an op reads and writes.
fn values_of(op: &Op) -> impl Iterator<Item = ValueId> + '_ {
    op.reads().chain([op.output])
}

/// The source nodes of some values and of the image, without repeats.
pub(crate) fn source_nodes(graph: &Graph, values: Vec<ValueId>) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> = values
        .into_iter()
        .chain([graph.input])
        .filter_map(|v| graph.values[v].source.as_ref())
        .map(|source| source.node)
        .collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// What every value should be: tract's numbers, or where no source node has them, the layer's definition on tract's numbers.
pub(crate) struct Expected<'a> {
    graph: &'a Graph,
    nodes: &'a [NodeId],
    outputs: &'a [Tensor],
    /// Values without a source.
    computed: BTreeMap<ValueId, Vec<f32>>,
}

impl<'a> Expected<'a> {
    /// `outputs` are the tensors of `nodes` (by [`source_nodes`], of all values that will be read or that those depend on).
    pub(crate) fn new(graph: &'a Graph, nodes: &'a [NodeId], outputs: &'a [Tensor]) -> Self {
        let mut expected = Expected {
            graph,
            nodes,
            outputs,
            computed: BTreeMap::new(),
        };
        for op in &graph.ops {
            expected.compute(op);
        }
        expected
    }

    /// Runs the op if its result, or the result before its activation function, has no source.
    fn compute(&mut self, op: &Op) {
        let sourced = |v: ValueId| self.graph.values[v].source.is_some();
        if !sourced(op.output) {
            let result = run_op(self.graph, op, &|v| self.read(v));
            self.computed.insert(op.output, result);
        }
        if let Some(before) = before(op).filter(|v| !sourced(*v)) {
            let mut plain = op.clone();
            if let Some(epilogue) = plain.epilogue_mut() {
                *epilogue = Epilogue::default();
            }
            let result = run_op(self.graph, &plain, &|v| self.read(v));
            self.computed.insert(before, result);
        }
    }

    /// The value by tract, if a source node holds it.
    fn of_source(&self, value: ValueId) -> Option<Vec<f32>> {
        let v = &self.graph.values[value];
        let source = v.source.as_ref()?;
        let index = self.nodes.binary_search(&source.node).ok()?;
        Some(source.gather(&self.outputs[index].data, v.rows, v.channels))
    }

    /// The value, `[rows][channels]`.
    pub(crate) fn read(&self, value: ValueId) -> Vec<f32> {
        self.of_source(value)
            .or_else(|| self.computed.get(&value).cloned())
            .unwrap_or_default()
    }
}

/// The value an op's activation function is applied to.
pub(crate) fn before(op: &Op) -> Option<ValueId> {
    let activation = op.epilogue()?.activation.as_ref()?;
    Some(activation.before)
}

/// Values in cascade, each only as long as something will read it.
struct Live {
    data: BTreeMap<ValueId, Vec<f32>>,
    /// Reads to come.
    reads: BTreeMap<ValueId, usize>,
}

impl Live {
    fn new(graph: &Graph) -> Self {
        let mut reads = BTreeMap::from([(graph.output, 1)]);
        for value in graph.ops.iter().flat_map(Op::reads) {
            *reads.entry(value).or_default() += 1;
        }
        Live {
            data: BTreeMap::new(),
            reads,
        }
    }

    fn insert(&mut self, value: ValueId, data: Vec<f32>) {
        self.data.insert(value, data);
    }

    fn read(&self, value: ValueId) -> Vec<f32> {
        self.data.get(&value).cloned().unwrap_or_default()
    }

    /// Keeps the op's result and drops operands that nobody reads any more.
    fn finish(&mut self, op: &Op, result: Vec<f32>) {
        self.insert(op.output, result);
        for value in op.reads() {
            let left = self.reads.entry(value).or_default();
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.data.remove(&value);
            }
        }
    }
}

fn relative_error(got: &[f32], wanted: &[f32]) -> f64 {
    if got.len() != wanted.len() {
        return f64::INFINITY;
    }
    let largest = wanted.iter().fold(0f64, |m, x| m.max(f64::from(x.abs())));
    // `max` would ignore a NaN: count it as infinitely wrong.
    let difference = got
        .iter()
        .zip(wanted)
        .map(|(a, b)| f64::from((a - b).abs()))
        .fold(
            0f64,
            |m, d| {
                if d.is_nan() { f64::INFINITY } else { m.max(d) }
            },
        );
    difference / largest.max(f64::MIN_POSITIVE)
}

/// One layer in f32; `read` gives the values of its operands in canonical layout.
pub fn run_op(graph: &Graph, op: &Op, read: &dyn Fn(ValueId) -> Vec<f32>) -> Vec<f32> {
    let input = |index: usize| op.inputs.get(index).map(|v| read(*v)).unwrap_or_default();
    let channels = op.inputs.first().map_or(1, |v| graph.values[*v].channels);
    let out = &graph.values[op.output];
    let sums = match &op.kind {
        Kind::Conv {
            geometry,
            weights,
            bias,
            ..
        } => conv(geometry, channels, &input(0), weights, bias),
        Kind::Linear { weights, bias, .. } => linear(&input(0), channels, weights, bias),
        Kind::Depthwise {
            geometry,
            weights,
            bias,
            ..
        } => depthwise(geometry, channels, &input(0), weights, bias),
        Kind::LayerNorm {
            eps,
            gamma,
            beta,
            gather,
        } => match gather {
            Some(gather) => layer_norm(&gathered(&input(0), channels, gather), *eps, gamma, beta),
            None => layer_norm(&input(0), *eps, gamma, beta),
        },
        Kind::GroupNorm { eps, gamma, beta } => group_norm(&input(0), *eps, gamma, beta),
        Kind::Attention { .. } => attention(&op.kind, out.rows, read),
        Kind::Activate(f) => input(0)
            .iter()
            .map(|x| f.eval(f64::from(*x)) as f32)
            .collect(),
        Kind::Add { factors, .. } => add(*factors, &input(0), &input(1)),
        Kind::AddConstant(constant) => add([1.0, 1.0], &input(0), constant),
        Kind::Mul { column, rows, .. } => {
            let b_channels = op.inputs.get(1).map_or(1, |v| graph.values[*v].channels);
            mul(
                (&input(0), channels),
                (&input(1), b_channels, *column),
                rows,
            )
        }
        Kind::Convert => input(0),
        Kind::MaxPool(geometry) => max_pool(geometry, channels, &input(0)),
        Kind::Slice { start } => {
            let first = start * channels;
            let end = first + out.rows * channels;
            input(0).get(first..end).unwrap_or_default().to_vec()
        }
        Kind::Concat => op.inputs.iter().flat_map(|v| read(*v)).collect(),
        Kind::MeanPool => mean_pool(&input(0), channels),
        Kind::PoolLinear { weights, bias } => {
            linear(&mean_pool(&input(0), channels), channels, weights, bias)
        }
    };
    debug_assert_eq!(sums.len(), out.rows * out.channels, "{}", out.name);
    match op.epilogue() {
        Some(e) => epilogue(e, sums, read),
        None => sums,
    }
}

fn epilogue(e: &Epilogue, mut y: Vec<f32>, read: &dyn Fn(ValueId) -> Vec<f32>) -> Vec<f32> {
    if let Some(a) = &e.activation {
        y.iter_mut()
            .for_each(|y| *y = a.function.eval(f64::from(*y)) as f32);
    }
    if let Some(residual) = e.residual {
        y.iter_mut().zip(read(residual)).for_each(|(y, r)| *y += r);
    }
    y
}

/// Calls `visit(output row, tap, input row)` for every tap that falls inside the image.
fn taps(g: &Geometry, mut visit: impl FnMut(usize, usize, usize)) {
    for oy in 0..g.output[0] {
        for ox in 0..g.output[1] {
            for ky in 0..g.kernel[0] {
                for kx in 0..g.kernel[1] {
                    let y = (oy * g.stride[0] + ky)
                        .checked_sub(g.pad[0])
                        .filter(|y| *y < g.input[0]);
                    let x = (ox * g.stride[1] + kx)
                        .checked_sub(g.pad[1])
                        .filter(|x| *x < g.input[1]);
                    if let (Some(y), Some(x)) = (y, x) {
                        visit(
                            oy * g.output[1] + ox,
                            ky * g.kernel[1] + kx,
                            y * g.input[1] + x,
                        );
                    }
                }
            }
        }
    }
}

fn conv(g: &Geometry, channels: usize, x: &[f32], weights: &[f32], bias: &[f32]) -> Vec<f32> {
    let outputs = bias.len();
    let depth = g.kernel[0] * g.kernel[1] * channels;
    let mut y = vec![0.0; g.output[0] * g.output[1] * outputs];
    y.chunks_mut(outputs.max(1))
        .for_each(|row| row.copy_from_slice(bias));
    taps(g, |out, tap, row| {
        let pixel = &x[row * channels..][..channels];
        for (o, y) in y[out * outputs..][..outputs].iter_mut().enumerate() {
            *y += dot(pixel, &weights[o * depth + tap * channels..][..channels]);
        }
    });
    y
}

fn depthwise(g: &Geometry, channels: usize, x: &[f32], weights: &[f32], bias: &[f32]) -> Vec<f32> {
    let mut y = vec![0.0; g.output[0] * g.output[1] * channels];
    y.chunks_mut(channels.max(1))
        .for_each(|row| row.copy_from_slice(bias));
    taps(g, |out, tap, row| {
        let (pixel, w) = (
            &x[row * channels..][..channels],
            &weights[tap * channels..][..channels],
        );
        for ((y, x), w) in y[out * channels..][..channels].iter_mut().zip(pixel).zip(w) {
            *y += x * w;
        }
    });
    y
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Eight partial sums: fast, and closer to the true sum than one.
    let mut partial = [0f32; 8];
    for (a, b) in a.chunks(8).zip(b.chunks(8)) {
        for ((p, a), b) in partial.iter_mut().zip(a).zip(b) {
            *p += a * b;
        }
    }
    partial.iter().sum()
}

pub(crate) fn linear(x: &[f32], channels: usize, weights: &[f32], bias: &[f32]) -> Vec<f32> {
    x.chunks(channels)
        .flat_map(|row| {
            weights
                .chunks(channels)
                .zip(bias)
                .map(move |(w, b)| dot(row, w) + b)
        })
        .collect()
}

/// Input rows put together to the rows that are normalised.
fn gathered(x: &[f32], channels: usize, gather: &Gather) -> Vec<f32> {
    let row = |r: &u32| &x[*r as usize * channels..][..channels];
    gather.rows.iter().flat_map(row).copied().collect()
}

fn layer_norm(x: &[f32], eps: f64, gamma: &[f32], beta: &[f32]) -> Vec<f32> {
    x.chunks(gamma.len().max(1))
        .flat_map(|row| group_norm(row, eps, gamma, beta))
        .collect()
}

/// One mean and variance for all of `x`; gamma and beta repeat every `gamma.len()` elements.
fn group_norm(x: &[f32], eps: f64, gamma: &[f32], beta: &[f32]) -> Vec<f32> {
    let n = x.len() as f64;
    let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    let squares = x.iter().map(|x| (f64::from(*x) - mean).powi(2));
    let inverse = 1.0 / (squares.sum::<f64>() / n + eps).sqrt();
    x.iter()
        .zip(gamma.iter().zip(beta).cycle())
        .map(|(x, (g, b))| {
            ((f64::from(*x) - mean) * inverse * f64::from(*g) + f64::from(*b)) as f32
        })
        .collect()
}

/// An operand of an attention with its data.
struct Rows<'a> {
    operand: &'a Operand,
    data: Vec<f32>,
}

impl<'a> Rows<'a> {
    fn new(operand: &'a Operand, read: &dyn Fn(ValueId) -> Vec<f32>) -> Self {
        let data = operand.value.map(read).unwrap_or_default();
        Rows { operand, data }
    }

    /// The `dim` elements of a head in the row that the operand's table names at `index`.
    fn head(&self, index: usize, head: usize, dim: usize) -> &[f32] {
        let o = self.operand;
        let row = o.rows[index] as usize;
        let column = o.column + head * o.head_stride;
        let start = row * o.channels + column;
        match start.checked_sub(self.data.len()) {
            None => &self.data[start..][..dim],
            Some(start) => &o.constants[start..][..dim],
        }
    }
}

fn attention(kind: &Kind, out_rows: usize, read: &dyn Fn(ValueId) -> Vec<f32>) -> Vec<f32> {
    let Kind::Attention {
        shape: s,
        q,
        k,
        v,
        out,
        scale,
        bias,
        mask,
    } = kind
    else {
        return vec![];
    };
    let (q, k, v) = (Rows::new(q, read), Rows::new(k, read), Rows::new(v, read));
    let mut y = vec![0.0; out_rows * s.heads * s.head_dim];
    for head in 0..s.heads {
        for (group, query) in (0..s.groups).flat_map(|g| (0..s.queries).map(move |i| (g, i))) {
            let row = group * s.queries + query;
            let q_row = q.head(row, head, s.head_dim);
            let logit = |j: usize| -> f64 {
                let key = group * s.keys + j;
                let masked = mask.as_ref().is_some_and(|m| m[row] != m[key]);
                let dot = f64::from(dot(q_row, k.head(key, head, s.head_dim)));
                let bias = bias
                    .as_ref()
                    .map_or(0.0, |b| bias_at(b, s, [head, query, j]));
                if masked {
                    f64::NEG_INFINITY
                } else {
                    scale * dot + bias
                }
            };
            let weights = softmax((0..s.keys).map(logit).collect());
            for slot in 0..s.slots {
                let first = group * s.slots + slot;
                let to = out[first * s.queries + query] as usize * s.heads + head;
                let y = &mut y[to * s.head_dim..][..s.head_dim];
                for (j, w) in weights.iter().enumerate() {
                    let v_row = v.head(first * s.keys + j, head, s.head_dim);
                    y.iter_mut()
                        .zip(v_row)
                        .for_each(|(y, v)| *y += *w as f32 * v);
                }
            }
        }
    }
    y
}

/// What is added to the logit of (head, query, key).
pub(crate) fn bias_at(bias: &Bias, s: &AttentionShape, [head, query, key]: [usize; 3]) -> f64 {
    let index = match bias.window {
        None => (head * s.queries + query) * s.keys + key,
        Some([h, w]) => {
            let (height, width) = (2 * h - 1, 2 * w - 1);
            let dy = query / w + h - 1 - key / w;
            let dx = query % w + w - 1 - key % w;
            (head * height + dy) * width + dx
        }
    };
    f64::from(bias.table[index])
}

fn softmax(logits: Vec<f64>) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let e: Vec<f64> = logits.iter().map(|l| (l - largest).exp()).collect();
    let total: f64 = e.iter().sum();
    e.iter().map(|e| e / total).collect()
}

fn add([fa, fb]: [f64; 2], a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter()
        .zip(b)
        .map(|(a, b)| (fa * f64::from(*a) + fb * f64::from(*b)) as f32)
        .collect()
}

fn mul(
    (a, channels): (&[f32], usize),
    (b, b_channels, column): (&[f32], usize, usize),
    rows: &[u32],
) -> Vec<f32> {
    let products = a.chunks(channels.max(1)).zip(rows).flat_map(|(a, row)| {
        let b = &b[*row as usize * b_channels + column..][..channels];
        a.iter().zip(b).map(|(a, b)| a * b)
    });
    products.collect()
}

fn max_pool(g: &Geometry, channels: usize, x: &[f32]) -> Vec<f32> {
    let mut y = vec![f32::NEG_INFINITY; g.output[0] * g.output[1] * channels];
    taps(g, |out, _, row| {
        let pixel = &x[row * channels..][..channels];
        for (y, x) in y[out * channels..][..channels].iter_mut().zip(pixel) {
            *y = y.max(*x);
        }
    });
    y
}

fn mean_pool(x: &[f32], channels: usize) -> Vec<f32> {
    let rows = x.len() / channels.max(1);
    let mut mean = vec![0f64; channels];
    for row in x.chunks(channels) {
        mean.iter_mut()
            .zip(row)
            .for_each(|(m, x)| *m += f64::from(*x) / rows as f64);
    }
    mean.into_iter().map(|m| m as f32).collect()
}

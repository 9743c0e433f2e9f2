//! The layers in f32, written for clearness: the oracle that the lowering is checked with.
//!
//! [`check_lowering`] feeds every layer the values tract computed for its inputs and compares its result with tract's, before
//! any quantisation; then it runs all layers in cascade.

use std::collections::BTreeMap;

use crate::error::CompileError;
use crate::frontend::{NodeId, Reference};
use crate::ir::{Epilogue, Geometry, Graph, Kind, Op, Operand, ValueId};

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
/// # Errors
/// [`CompileError::Reference`] when tract cannot run the model.
pub fn check_lowering(
    graph: &Graph,
    reference: &Reference,
    image: &[f32],
) -> Result<LoweringCheck, CompileError> {
    let nodes = source_nodes(
        graph,
        graph
            .ops
            .iter()
            .flat_map(|op| op.reads().chain([op.output]))
            .collect(),
    );
    let index: BTreeMap<NodeId, usize> = nodes.iter().enumerate().map(|(i, n)| (*n, i)).collect();
    let outputs = reference.probe(&nodes)?.run(image)?;
    let expected = |value: ValueId| -> Vec<f32> {
        let (node, view) = &graph.values[value].source;
        view.gather(&outputs[index[node]].data)
    };
    let mut cascade: BTreeMap<ValueId, Vec<f32>> = BTreeMap::new();
    cascade.insert(graph.input, expected(graph.input));
    let mut layers = vec![];
    for op in &graph.ops {
        let wanted = expected(op.output);
        let alone = run_op(graph, op, &|v| expected(v));
        layers.push(LayerCheck {
            name: graph.values[op.output].name.clone(),
            kind: op.kind_name(),
            error: relative_error(&alone, &wanted),
        });
        let chained = run_op(graph, op, &|v| cascade.get(&v).cloned().unwrap_or_default());
        cascade.insert(op.output, chained);
    }
    let logits = cascade.get(&graph.output).cloned().unwrap_or_default();
    Ok(LoweringCheck {
        layers,
        cascade: relative_error(&logits, &expected(graph.output)),
    })
}

/// The source nodes of some values, without repeats.
pub(crate) fn source_nodes(graph: &Graph, values: Vec<ValueId>) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> = values
        .into_iter()
        .chain([graph.input])
        .map(|v| graph.values[v].source.0)
        .collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
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
    let x = read(op.inputs[0]);
    let channels = graph.values[op.inputs[0]].channels;
    let out_channels = graph.values[op.output].channels;
    let sums = match &op.kind {
        Kind::Conv {
            geometry,
            weights,
            bias,
            ..
        } => conv(geometry, channels, &x, weights, bias),
        Kind::Linear { weights, bias, .. } => linear(&x, channels, weights, bias),
        Kind::Depthwise {
            geometry,
            weights,
            bias,
            ..
        } => depthwise(geometry, channels, &x, weights, bias),
        Kind::LayerNorm { eps, gamma, beta } => layer_norm(&x, *eps, gamma, beta),
        Kind::Attention {
            heads,
            head_dim,
            q,
            k,
            v,
            scale,
        } => {
            let (k_data, v_data) = (read(k.value), read(v.value));
            attention(
                (*heads, *head_dim, *scale),
                (q, &x),
                (k, &k_data),
                (v, &v_data),
            )
        }
        Kind::Activate(f) => x.iter().map(|x| f.eval(f64::from(*x)) as f32).collect(),
        Kind::Add => x
            .iter()
            .zip(read(op.inputs[1]))
            .map(|(a, b)| a + b)
            .collect(),
        Kind::MeanPool => mean_pool(&x, channels),
        Kind::PoolLinear { weights, bias } => {
            linear(&mean_pool(&x, channels), channels, weights, bias)
        }
    };
    debug_assert_eq!(sums.len() % out_channels.max(1), 0);
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

fn linear(x: &[f32], channels: usize, weights: &[f32], bias: &[f32]) -> Vec<f32> {
    x.chunks(channels)
        .flat_map(|row| {
            weights
                .chunks(channels)
                .zip(bias)
                .map(move |(w, b)| dot(row, w) + b)
        })
        .collect()
}

fn layer_norm(x: &[f32], eps: f64, gamma: &[f32], beta: &[f32]) -> Vec<f32> {
    let n = gamma.len();
    x.chunks(n)
        .flat_map(|row| {
            let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / n as f64;
            let variance = row
                .iter()
                .map(|x| (f64::from(*x) - mean).powi(2))
                .sum::<f64>()
                / n as f64;
            let inverse = 1.0 / (variance + eps).sqrt();
            row.iter()
                .zip(gamma.iter().zip(beta))
                .map(move |(x, (g, b))| {
                    ((f64::from(*x) - mean) * inverse * f64::from(*g) + f64::from(*b)) as f32
                })
        })
        .collect()
}

fn attention(
    (heads, dim, scale): (usize, usize, f64),
    (q, q_data): (&Operand, &[f32]),
    (k, k_data): (&Operand, &[f32]),
    (v, v_data): (&Operand, &[f32]),
) -> Vec<f32> {
    let row =
        |o: &Operand, head: usize, row: usize| o.offset + head * o.head_stride + row * o.row_stride;
    let mut out = vec![0.0; q.rows * heads * dim];
    for head in 0..heads {
        for query in 0..q.rows {
            let q_row = &q_data[row(q, head, query)..][..dim];
            let logits = (0..k.rows)
                .map(|j| scale * f64::from(dot(q_row, &k_data[row(k, head, j)..][..dim])));
            let logits: Vec<f64> = logits.collect();
            let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let e: Vec<f64> = logits.iter().map(|l| (l - largest).exp()).collect();
            let total: f64 = e.iter().sum();
            let y = &mut out[(query * heads + head) * dim..][..dim];
            for (j, e) in e.iter().enumerate() {
                let v_row = &v_data[row(v, head, j)..][..dim];
                y.iter_mut()
                    .zip(v_row)
                    .for_each(|(y, v)| *y += (e / total) as f32 * v);
            }
        }
    }
    out
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

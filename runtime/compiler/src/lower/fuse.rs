//! Moves activations, residual adds, factors and the pooled head into the ops before them, and drops what nothing reads.

use crate::ir::{Activation, Epilogue, Graph, Kind, Op, ValueId};

/// Fuses until nothing changes. Every fusion is exact in real arithmetic.
pub(super) fn fuse(graph: &mut Graph) {
    unused(graph);
    while activation(graph)
        || sliced_linear(graph)
        || scaled_attention(graph)
        || residual(graph)
        || pooled_head(graph)
    {}
}

/// Drops ops whose result nothing reads.
fn unused(graph: &mut Graph) {
    loop {
        let before = graph.ops.len();
        let read: std::collections::BTreeSet<ValueId> =
            graph.ops.iter().flat_map(Op::reads).collect();
        let output = graph.output;
        graph
            .ops
            .retain(|op| op.output == output || read.contains(&op.output));
        if graph.ops.len() == before {
            return;
        }
    }
}

fn readers(graph: &Graph, value: ValueId) -> usize {
    graph
        .ops
        .iter()
        .flat_map(Op::reads)
        .filter(|v| *v == value)
        .count()
        + usize::from(graph.output == value)
}

fn producer(graph: &Graph, value: ValueId) -> Option<usize> {
    graph.ops.iter().position(|op| op.output == value)
}

/// Conv, Linear or Depthwise whose result only feeds `Activate`.
fn activation(graph: &mut Graph) -> bool {
    for index in 0..graph.ops.len() {
        let Kind::Activate(function) = graph.ops[index].kind.clone() else {
            continue;
        };
        let before = graph.ops[index].inputs[0];
        let Some(producer) = producer(graph, before).filter(|_| readers(graph, before) == 1) else {
            continue;
        };
        let output = graph.ops[index].output;
        let op = &mut graph.ops[producer];
        let Some(epilogue) = op.epilogue_mut().filter(|e| **e == Epilogue::default()) else {
            continue;
        };
        epilogue.activation = Some(Activation { function, before });
        op.output = output;
        graph.ops.remove(index);
        return true;
    }
    false
}

/// Conv, Linear or Depthwise whose result only feeds an `Add`; it moves to the place of the `Add`, where both operands exist.
fn residual(graph: &mut Graph) -> bool {
    for index in 0..graph.ops.len() {
        let plain = Kind::Add {
            factors: [1.0; 2],
            epilogue: Epilogue::default(),
        };
        if graph.ops[index].kind != plain {
            continue;
        }
        let (a, b) = (graph.ops[index].inputs[0], graph.ops[index].inputs[1]);
        // The later of the two producers is the branch, the earlier one the stream it is added to.
        let mut choices = [(producer(graph, a), a, b), (producer(graph, b), b, a)];
        choices.sort_by_key(|c| std::cmp::Reverse(c.0));
        for (producer, branch, stream) in choices {
            let Some(producer) = producer.filter(|_| readers(graph, branch) == 1) else {
                continue;
            };
            let output = graph.ops[index].output;
            let op = &mut graph.ops[producer];
            let able = matches!(
                op.kind,
                Kind::Conv { .. } | Kind::Linear { .. } | Kind::Depthwise { .. }
            );
            if !able {
                continue;
            }
            let Some(epilogue) = op.epilogue_mut().filter(|e| **e == Epilogue::default()) else {
                continue;
            };
            epilogue.residual = Some(stream);
            op.output = output;
            let op = graph.ops.remove(producer);
            graph.ops[index - 1] = op;
            return true;
        }
    }
    false
}

/// `MeanPool` whose result only feeds a `Linear`.
fn pooled_head(graph: &mut Graph) -> bool {
    for index in 0..graph.ops.len() {
        if graph.ops[index].kind != Kind::MeanPool {
            continue;
        }
        let pooled = graph.ops[index].output;
        let Some(reader) = graph
            .ops
            .iter()
            .position(|op| op.reads().any(|v| v == pooled))
        else {
            continue;
        };
        let Kind::Linear {
            weights,
            bias,
            epilogue,
        } = &graph.ops[reader].kind
        else {
            continue;
        };
        if *epilogue != Epilogue::default() || readers(graph, pooled) != 1 {
            continue;
        }
        let kind = Kind::PoolLinear {
            weights: weights.clone(),
            bias: bias.clone(),
        };
        graph.ops[reader] = Op {
            kind,
            inputs: graph.ops[index].inputs.clone(),
            output: graph.ops[reader].output,
        };
        graph.ops.remove(index);
        return true;
    }
    false
}

/// A Linear of which only slices are read becomes a Linear on each slice of its input.
fn sliced_linear(graph: &mut Graph) -> bool {
    for index in 0..graph.ops.len() {
        let Kind::Linear { epilogue, .. } = &graph.ops[index].kind else {
            continue;
        };
        let whole = graph.ops[index].output;
        let slices: Vec<usize> = (0..graph.ops.len())
            .filter(|i| graph.ops[*i].inputs.contains(&whole))
            .collect();
        let only_slices = slices
            .iter()
            .all(|i| matches!(graph.ops[*i].kind, Kind::Slice { .. }));
        if *epilogue != Epilogue::default()
            || slices.is_empty()
            || !only_slices
            || readers(graph, whole) != slices.len()
        {
            continue;
        }
        let (kind, input) = (graph.ops[index].kind.clone(), graph.ops[index].inputs[0]);
        for slice in slices.into_iter().rev() {
            let (cut, output) = (graph.ops[slice].kind.clone(), graph.ops[slice].output);
            let mut part = graph.values[input].clone();
            part.rows = graph.values[output].rows;
            part.source = None;
            graph.values.push(part);
            let part = graph.values.len() - 1;
            let linear = Op {
                kind: kind.clone(),
                inputs: vec![part],
                output,
            };
            let cut = Op {
                kind: cut,
                inputs: vec![input],
                output: part,
            };
            graph.ops.splice(slice..=slice, [cut, linear]);
        }
        graph.ops.remove(index);
        return true;
    }
    false
}

/// A factor per channel after an attention (LayerScale) becomes a factor of the layer that makes its values: attention is linear in them.
fn scaled_attention(graph: &mut Graph) -> bool {
    for index in 0..graph.ops.len() {
        let Some((scale, attention)) = attention_before_scale(graph, index) else {
            continue;
        };
        let Kind::Attention { shape, v, k, q, .. } = &graph.ops[attention].kind else {
            continue;
        };
        let Some(value) = v.value.filter(|_| v.constants.is_empty()) else {
            continue;
        };
        let columns = |o: &crate::ir::Operand| -> Vec<usize> {
            let head = |h: usize| o.column + h * o.head_stride;
            (0..shape.heads)
                .flat_map(|h| head(h)..head(h) + shape.head_dim)
                .collect()
        };
        let mine = columns(v);
        let others = [q, k].into_iter().filter(|o| o.value == Some(value));
        if others.flat_map(columns).any(|c| mine.contains(&c)) {
            continue;
        }
        let reads = graph.ops[attention].inputs.iter().filter(|i| **i == value);
        if readers(graph, value) != reads.count() {
            continue;
        }
        let Some(layer) = producer(graph, value) else {
            continue;
        };
        let Kind::Linear {
            weights,
            bias,
            epilogue,
        } = &mut graph.ops[layer].kind
        else {
            continue;
        };
        if *epilogue != Epilogue::default() {
            continue;
        }
        let depth = weights.len() / bias.len();
        for (column, factor) in mine.iter().zip(&scale) {
            bias[*column] *= factor;
            weights[column * depth..][..depth]
                .iter_mut()
                .for_each(|w| *w *= factor);
        }
        graph.values[value].source = None;
        graph.ops[attention].output = graph.ops[index].output;
        graph.ops.remove(index);
        return true;
    }
    false
}

/// The factors of op `index` and the attention it follows, if that is what it is.
fn attention_before_scale(graph: &Graph, index: usize) -> Option<(Vec<f32>, usize)> {
    let Kind::Depthwise {
        geometry,
        weights,
        bias,
        epilogue,
    } = &graph.ops[index].kind
    else {
        return None;
    };
    let before = graph.ops[index].inputs[0];
    let attention = producer(graph, before)?;
    let plain =
        geometry.is_per_row() && bias.iter().all(|b| *b == 0.0) && *epilogue == Epilogue::default();
    let follows =
        matches!(graph.ops[attention].kind, Kind::Attention { .. }) && readers(graph, before) == 1;
    (plain && follows).then(|| (weights.clone(), attention))
}

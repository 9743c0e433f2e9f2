//! Moves activations, residual adds and the pooled head into the ops before them.

use crate::ir::{Activation, Epilogue, Graph, Kind, Op, ValueId};

/// Fuses until nothing changes. Every fusion is exact in real arithmetic.
pub(super) fn fuse(graph: &mut Graph) {
    while activation(graph) || residual(graph) || pooled_head(graph) {}
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

/// Conv or Linear whose result only feeds an `Add`; it moves to the place of the `Add`, where both operands exist.
fn residual(graph: &mut Graph) -> bool {
    for index in 0..graph.ops.len() {
        if !matches!(graph.ops[index].kind, Kind::Add { .. }) {
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
            if !matches!(op.kind, Kind::Conv { .. } | Kind::Linear { .. }) {
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

//! Layers that are too large for one operation of the plan.

use crate::ir::{Epilogue, Graph, Kind, Op, Value};

/// Products of s8 with the sum of all rows that a pooled linear layer may reach: 32 bits, less what the bias takes.
const POOLED_REACH: u64 = 1_500_000_000;

/// Splits pooled linear layers whose sums may not fit 32 bits into a mean, which is rounded to s8, and a linear layer.
pub(super) fn wide_pools(graph: &mut Graph) {
    let mut index = 0;
    while index < graph.ops.len() {
        if let Some((pool, linear)) = split_pool(graph, index) {
            graph.ops.splice(index..=index, [pool, linear]);
        }
        index += 1;
    }
}

fn split_pool(graph: &mut Graph, index: usize) -> Option<(Op, Op)> {
    let op = graph.ops.get(index)?;
    let Kind::PoolLinear { weights, bias } = &op.kind else {
        return None;
    };
    let input = graph.values.get(*op.inputs.first()?)?;
    if (input.rows * input.channels) as u64 * 127 * 128 <= POOLED_REACH {
        return None;
    }
    let mean = Value {
        name: format!("{} (mean)", input.name),
        rows: 1,
        channels: input.channels,
        source: None,
    };
    let kind = Kind::Linear {
        weights: weights.clone(),
        bias: bias.clone(),
        epilogue: Epilogue::default(),
    };
    let value = graph.values.len();
    let pool = Op {
        kind: Kind::MeanPool,
        inputs: op.inputs.clone(),
        output: value,
    };
    let linear = Op {
        kind,
        inputs: vec![value],
        output: op.output,
    };
    graph.values.push(mean);
    Some((pool, linear))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tests::Builder;

    #[test]
    fn only_pools_that_are_too_large_are_split() {
        for (rows, kinds) in [
            (100, &["pool_linear"][..]),
            (10_000, &["mean_pool", "linear"]),
        ] {
            let mut b = Builder::new(rows);
            let kind = Kind::PoolLinear {
                weights: vec![0.0; 24],
                bias: vec![0.0; 2],
            };
            let end = b.op(kind, &[0], 1);
            let mut graph = b.finish(end);
            wide_pools(&mut graph);
            let found: Vec<_> = graph.ops.iter().map(Op::kind_name).collect();
            assert_eq!(found, kinds, "{rows} rows");
            assert_eq!(graph.ops.last().map(|op| op.output), Some(graph.output));
        }
    }
}

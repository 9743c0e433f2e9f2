use std::collections::BTreeMap;
use std::ops::Range;

use super::parts::{Parts, is_structural, touched};
use super::plan;
use crate::ir::{Epilogue, Graph, Kind, Op, Value, ValueId};

/// Channels of every value of [`Builder`].
const CHANNELS: usize = 12;
/// Bytes of a row: s16.
const ROW: usize = 2 * CHANNELS;

/// Makes graphs whose numbers do not matter.
pub(crate) struct Builder {
    graph: Graph,
}

impl Builder {
    /// Value 0 is an image of `rows` pixels.
    pub(crate) fn new(rows: usize) -> Self {
        let mut graph = Graph {
            values: vec![],
            ops: vec![],
            input: 0,
            image: [rows, 1],
            output: 0,
        };
        graph.values.push(value("image".into(), rows));
        Builder { graph }
    }

    pub(crate) fn op(&mut self, kind: Kind, inputs: &[ValueId], rows: usize) -> ValueId {
        let output = self.graph.values.len();
        self.graph.values.push(value(format!("v{output}"), rows));
        let inputs = inputs.to_vec();
        self.graph.ops.push(Op {
            kind,
            inputs,
            output,
        });
        output
    }

    pub(crate) fn rows(&self, value: ValueId) -> usize {
        self.graph.values[value].rows
    }

    pub(crate) fn norm(&mut self, x: ValueId) -> ValueId {
        let kind = Kind::LayerNorm {
            eps: 1e-5,
            gamma: vec![1.0; CHANNELS],
            beta: vec![0.0; CHANNELS],
            gather: None,
        };
        self.op(kind, &[x], self.rows(x))
    }

    pub(crate) fn linear(&mut self, x: ValueId, residual: Option<ValueId>) -> ValueId {
        let epilogue = Epilogue {
            activation: None,
            residual,
        };
        let kind = Kind::Linear {
            weights: vec![0.0; CHANNELS * CHANNELS],
            bias: vec![0.0; CHANNELS],
            epilogue,
        };
        self.op(kind, &[x], self.rows(x))
    }

    pub(crate) fn add(&mut self, a: ValueId, b: ValueId) -> ValueId {
        let kind = Kind::Add {
            factors: [1.0; 2],
            epilogue: Epilogue::default(),
        };
        self.op(kind, &[a, b], self.rows(a))
    }

    pub(crate) fn slice(&mut self, x: ValueId, start: usize, rows: usize) -> ValueId {
        self.op(Kind::Slice { start }, &[x], rows)
    }

    pub(crate) fn concat(&mut self, parts: &[ValueId]) -> ValueId {
        let rows = parts.iter().map(|v| self.rows(*v)).sum();
        self.op(Kind::Concat, parts, rows)
    }

    pub(crate) fn finish(mut self, output: ValueId) -> Graph {
        self.graph.output = output;
        self.graph
    }
}

fn value(name: String, rows: usize) -> Value {
    Value {
        name,
        rows,
        channels: CHANNELS,
        source: None,
    }
}

pub(crate) fn rows_of(parts: &Parts, value: ValueId) -> Option<Range<usize>> {
    parts.find(value).map(|(_, rows)| rows)
}

/// A number generator for tests (xorshift).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// The value and row that an operation wrote for a row of a value.
fn origin(graph: &Graph, value: ValueId, row: usize) -> (ValueId, usize) {
    let Some(op) = graph.ops.iter().find(|op| op.output == value) else {
        return (value, row);
    };
    match op.kind {
        Kind::Slice { start } => origin(graph, op.inputs[0], start + row),
        Kind::Concat => {
            let mut row = row;
            for input in &op.inputs {
                let rows = graph.values[*input].rows;
                if row < rows {
                    return origin(graph, *input, row);
                }
                row -= rows;
            }
            unreachable!("the parts have all rows")
        }
        _ => (value, row),
    }
}

/// Runs a graph on an arena of labels; returns how many residuals were in place.
fn run(graph: &Graph, offsets: &BTreeMap<ValueId, usize>) -> Result<usize, String> {
    let bytes = |v: ValueId| offsets[&v]..offsets[&v] + graph.values[v].rows * ROW;
    let end = touched(graph).iter().map(|v| bytes(*v).end).max();
    let mut arena = vec![(usize::MAX, 0, 0); end.unwrap_or(0)];
    let label = |v: ValueId, byte: usize| {
        let (value, row) = origin(graph, v, byte / ROW);
        (value, row, byte % ROW)
    };
    let mut in_place = 0;
    for (byte, slot) in arena[bytes(graph.input)].iter_mut().enumerate() {
        *slot = label(graph.input, byte);
    }
    let check = |arena: &[(usize, usize, usize)], v: ValueId| {
        let held = arena[bytes(v)].iter().enumerate();
        let wrong = held
            .filter(|(byte, held)| **held != label(v, *byte))
            .count();
        if wrong == 0 {
            return Ok(());
        }
        Err(format!("value {v} has {wrong} bytes of something else"))
    };
    for op in graph.ops.iter().filter(|op| !is_structural(op)) {
        let to = bytes(op.output);
        op.reads().try_for_each(|v| check(&arena, v))?;
        let residual = op.epilogue().and_then(|e| e.residual);
        let same = residual.is_some_and(|r| bytes(r) == to);
        in_place += usize::from(same);
        for v in op.inputs.iter().copied().chain(residual.filter(|_| !same)) {
            let from = bytes(v);
            if from.start < to.end && to.start < from.end {
                return Err(format!("{} is written over its operand {v}", op.output));
            }
        }
        for (byte, slot) in arena[to].iter_mut().enumerate() {
            *slot = label(op.output, byte);
        }
    }
    check(&arena, graph.output)?;
    Ok(in_place)
}

fn random_graph(random: &mut Random) -> Graph {
    let mut b = Builder::new(8 * (1 + random.below(4)));
    let mut values = vec![0];
    for _ in 0..4 + random.below(24) {
        let x = values[values.len() - 1 - random.below(values.len().min(4))];
        let rows = b.rows(x);
        match random.below(8) {
            0 => values.push(b.norm(x)),
            1 if rows > 1 => {
                let first = 1 + random.below(rows - 1);
                values.push(b.slice(x, 0, first));
                values.push(b.slice(x, first, rows - first));
            }
            2 | 3 => {
                let y = values[values.len() - 1 - random.below(values.len().min(4))];
                if x != y {
                    values.push(b.concat(&[x, y]));
                }
            }
            _ => {
                let mut same = values.iter().copied().filter(|v| b.rows(*v) == rows);
                let residual = same.next_back().filter(|_| random.below(4) > 0);
                values.push(b.linear(x, residual));
            }
        }
    }
    let last = values[values.len() - 1];
    let end = b.linear(last, None);
    b.finish(end)
}

#[test]
fn no_value_is_overwritten_while_it_is_needed() {
    let (mut planned, mut in_place) = (0, 0);
    for seed in 1..4000 {
        let graph = random_graph(&mut Random(seed * 0x9E37_79B9));
        let Ok(parts) = Parts::new(&graph) else {
            continue;
        };
        let Ok(offsets) = plan(&graph, &parts, &|_| ROW) else {
            continue;
        };
        for block in &parts.blocks {
            let whole = block
                .members
                .iter()
                .find(|(_, rows)| rows.len() == block.rows);
            let whole = whole.map(|(v, _)| offsets[v]);
            assert!(whole.is_some_and(|at| at.is_multiple_of(super::ALIGN)));
        }
        match run(&graph, &offsets) {
            Ok(n) => in_place += n,
            Err(e) => panic!("seed {seed}: {e}\n{graph:#?}\n{offsets:?}"),
        }
        planned += 1;
    }
    assert!(planned > 1000, "{planned} graphs");
    assert!(in_place > 1000, "{in_place} sums in place");
}

#[test]
fn residuals_in_the_parts_of_a_whole_are_in_place() {
    let mut b = Builder::new(64);
    let x = b.linear(0, None);
    let s = b.norm(x);
    let s = b.slice(s, 0, 32);
    let s = b.linear(s, None);
    // x and s become the parts of a concatenation, which is split and put together again, layer after layer.
    let (x, s) = (b.linear(x, Some(x)), b.linear(s, Some(s)));
    let x0 = b.norm(x);
    let mut z = b.concat(&[x, s]);
    let x1 = b.linear(x0, None);
    for _ in 0..3 {
        let y = b.norm(z);
        z = b.linear(y, Some(z));
        let t = b.norm(z);
        let (x, s) = (b.slice(z, 0, 64), b.slice(z, 64, 32));
        let (tx, ts) = (b.slice(t, 0, 64), b.slice(t, 64, 32));
        let (x, s) = (b.linear(tx, Some(x)), b.linear(ts, Some(s)));
        z = b.concat(&[x, s]);
    }
    let x = b.slice(z, 0, 64);
    let end = b.linear(x1, Some(x));
    let graph = b.finish(end);
    let parts = Parts::new(&graph).expect("each value has one place");
    let offsets = plan(&graph, &parts, &|_| ROW).expect("each row has one writer");
    let residuals = graph.ops.iter().filter_map(|op| op.epilogue()?.residual);
    // All but the first: x is also that op's operand.
    assert_eq!(run(&graph, &offsets), Ok(residuals.count() - 2));
}

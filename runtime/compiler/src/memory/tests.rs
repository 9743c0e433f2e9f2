use std::collections::BTreeMap;
use std::ops::Range;

use vitlet_plan::Strips;

use super::parts::{Parts, is_structural, touched};
use super::plan;
use super::strips::Schedule;
use crate::ir::{Epilogue, Geometry, Graph, Kind, Op, Value, ValueId};

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

    /// A window over three rows.
    pub(crate) fn window(&mut self, x: ValueId) -> ValueId {
        let size = [self.rows(x), 1];
        let kind = Kind::Depthwise {
            geometry: Geometry {
                input: size,
                output: size,
                kernel: [3, 1],
                stride: [1, 1],
                pad: [1, 0, 1, 0],
            },
            weights: vec![0.0; 3 * CHANNELS],
            bias: vec![0.0; CHANNELS],
            epilogue: Epilogue::default(),
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

/// Rows of an operation that are computed at once.
struct Step {
    op: usize,
    rows: Range<usize>,
    /// The first row in memory of values of which not all are, before and after.
    bases: BTreeMap<ValueId, [usize; 2]>,
}

/// The steps of a graph, in order.
fn steps(graph: &Graph, schedule: &Schedule) -> Vec<Step> {
    let whole = |op: usize| Step {
        op,
        rows: 0..graph.values[graph.ops[op].output].rows,
        bases: BTreeMap::new(),
    };
    let mut steps = vec![];
    for op in (0..graph.ops.len()).filter(|op| !is_structural(&graph.ops[*op])) {
        let Some(group) = schedule.groups.iter().find(|g| g.ops.contains(&op)) else {
            steps.push(whole(op));
            continue;
        };
        if op != group.ops[0] {
            continue;
        }
        let strips = Strips::new(0, &group.members, &group.ends).expect("few ops");
        for strip in 0..strips.count() {
            let base = |place: usize, strip: usize| strips.base(place, strip);
            for (place, op) in group.ops.iter().enumerate() {
                let moved = |(before, value): (usize, &usize)| {
                    // Those before this op in the group have been moved in this strip.
                    let now = if before <= place {
                        strip
                    } else {
                        strip.max(1) - 1
                    };
                    let last = if before == place {
                        strip.max(1) - 1
                    } else {
                        now
                    };
                    let held = schedule.held.contains_key(value);
                    held.then(|| (*value, [base(before, last), base(before, now)]))
                };
                let values: Vec<_> = group.ops.iter().map(|op| graph.ops[*op].output).collect();
                steps.push(Step {
                    op: *op,
                    rows: strips.rows(place, strip),
                    bases: values.iter().enumerate().filter_map(moved).collect(),
                });
            }
        }
    }
    steps
}

/// Runs a graph on an arena of labels; returns how many residuals were in place.
fn run(
    graph: &Graph,
    schedule: &Schedule,
    offsets: &BTreeMap<ValueId, usize>,
) -> Result<usize, String> {
    let rows = |v: ValueId| graph.values[v].rows;
    let held = |v: ValueId| schedule.held.get(&v).copied().unwrap_or(rows(v));
    let all = |v: ValueId| offsets[&v]..offsets[&v] + held(v) * ROW;
    let end = touched(graph).iter().map(|v| all(*v).end).max();
    let mut arena = vec![(usize::MAX, 0, 0); end.unwrap_or(0)];
    let label = |v: ValueId, row: usize, byte: usize| {
        let (value, row) = origin(graph, v, row);
        (value, row, byte)
    };
    let mut in_place = 0;
    for (byte, slot) in arena[all(graph.input)].iter_mut().enumerate() {
        *slot = label(graph.input, byte / ROW, byte % ROW);
    }
    let at = |v: ValueId, base: usize, row: usize| offsets[&v] + (row - base) * ROW;
    let check = |arena: &[(usize, usize, usize)], v: ValueId, base: usize, rows: Range<usize>| {
        if rows.start < base || rows.end - base > held(v) {
            return Err(format!("rows {rows:?} of value {v} are not in memory"));
        }
        let wrong = rows.filter(|row| {
            let place = &arena[at(v, base, *row)..][..ROW];
            (0..ROW).any(|byte| place[byte] != label(v, *row, byte))
        });
        match wrong.count() {
            0 => Ok(()),
            wrong => Err(format!("value {v} has {wrong} rows of something else")),
        }
    };
    for step in steps(graph, schedule) {
        let op = &graph.ops[step.op];
        let base = |v: ValueId| step.bases.get(&v).copied().unwrap_or_default();
        let [before, now] = base(op.output);
        if now < step.rows.start {
            let kept = at(op.output, before, now)..at(op.output, before, step.rows.start);
            arena.copy_within(kept, offsets[&op.output]);
        }
        let above = usize::from(matches!(op.kind, Kind::Depthwise { .. }));
        let residual = op.epilogue().and_then(|e| e.residual);
        for v in op.reads() {
            let around = if residual == Some(v) { 0 } else { above };
            let alone = schedule.span(step.op) == [step.op; 2];
            let needed = match alone {
                true => 0..rows(v),
                false => {
                    step.rows.start.saturating_sub(around)..(step.rows.end + around).min(rows(v))
                }
            };
            if !needed.is_empty() {
                check(&arena, v, base(v)[1], needed)?;
            }
        }
        let to = at(op.output, now, step.rows.start)..at(op.output, now, step.rows.end);
        let same = residual.is_some_and(|r| all(r) == all(op.output));
        in_place += usize::from(same && step.rows.end == rows(op.output) && !step.rows.is_empty());
        for v in op.inputs.iter().copied().chain(residual.filter(|_| !same)) {
            let from = all(v);
            if from.start < to.end && to.start < from.end {
                return Err(format!("{} is written over its operand {v}", op.output));
            }
        }
        for (index, slot) in arena[to].iter_mut().enumerate() {
            *slot = label(op.output, step.rows.start + index / ROW, index % ROW);
        }
    }
    check(&arena, graph.output, 0, 0..rows(graph.output))?;
    Ok(in_place)
}

fn random_graph(random: &mut Random) -> Graph {
    let mut b = Builder::new(8 * (1 + random.below(8)));
    let mut values = vec![0];
    for _ in 0..4 + random.below(24) {
        let x = values[values.len() - 1 - random.below(values.len().min(4))];
        let rows = b.rows(x);
        match random.below(9) {
            0 => values.push(b.norm(x)),
            8 => values.push(b.window(x)),
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
    let (mut planned, mut in_place, mut groups) = (0, 0, 0);
    for seed in 1..4000 {
        let mut random = Random(seed * 0x9E37_79B9);
        let graph = random_graph(&mut random);
        let Ok(parts) = Parts::new(&graph) else {
            continue;
        };
        // Most often some groups run in strips.
        let budget = ROW * (1 + random.below(80));
        let schedule = Schedule::within(budget, &graph, &parts, &|_| ROW);
        let Ok(offsets) = plan(&graph, &parts, &schedule, &|_| ROW) else {
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
        match run(&graph, &schedule, &offsets) {
            Ok(n) => in_place += n,
            Err(e) => panic!("seed {seed}: {e}\n{graph:#?}\n{schedule:?}\n{offsets:?}"),
        }
        planned += 1;
        groups += schedule.groups.len();
    }
    assert!(planned > 1000, "{planned} graphs");
    assert!(in_place > 1000, "{in_place} sums in place");
    assert!(groups > 500, "{groups} groups of strips");
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
    let whole = Schedule::default();
    let offsets = plan(&graph, &parts, &whole, &|_| ROW).expect("each row has one writer");
    let residuals = graph.ops.iter().filter_map(|op| op.epilogue()?.residual);
    // All but the first: x is also that op's operand.
    assert_eq!(run(&graph, &whole, &offsets), Ok(residuals.count() - 2));
}

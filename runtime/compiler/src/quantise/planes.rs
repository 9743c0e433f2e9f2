//! Activations of 15 bits as two 8-bit planes, which the int8 kernels multiply one after the other.
//!
//! ```text
//! v, 16 bits    high = round(v ÷ 128)    low = v − 128·high          both s8 with zero point 0, and nothing is lost
//! W·v + b       W·low (+ residual), 16 bits, is the residual of W·high + b
//! ```
//!
//! It is a rewriting of the graph: every op of it exists without planes, too. Ranges are those of the graph before it; the values that
//! it adds have theirs from the values they are parts of. A value is raised where its range says so (`bits`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use vitlet_plan::DType;

use super::grid::{Grid, clip_bounds};
use super::types::{Types, check_types, writes_16_bits};
use crate::error::CompileError;
use crate::ir::{Activation, Epilogue, Geometry, Graph, Kind, Op, Value, ValueId};
use crate::memory::parts::{Parts, is_structural};
use crate::ranges::ValueRange;

/// A step of the high plane is so many of the low one.
const BASE: f64 = 128.0;
/// The largest number that both planes hold: 127·128 + 127.
const TOP: f64 = 16383.0;

/// Why a tensor cannot have more than 8 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It has 16 bits, or 32.
    Wide,
    /// It is a query, key or value of attention.
    OfAttention,
    /// It is a result of attention.
    FromAttention,
    /// It is the result of a function that only clips.
    Clipped,
    /// No layer with weights reads it.
    NoProduct,
    /// It shares its memory, and so its type, with other tensors.
    Shared,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Wide => "it has 16 bits or more anyway; leave it out",
            Refusal::OfAttention => {
                "attention reads its queries, keys and values in 8 bits; keep what the layer before reads in 16 bits instead"
            }
            Refusal::FromAttention => {
                "attention writes 8 bits; keep what the layers before it read, or what the layer after it writes, in 16 bits instead"
            }
            Refusal::Clipped => {
                "it is the result of a function that clips, and all that its 8 bits do not hold is clipped; keep what its layer reads in 16 bits instead"
            }
            Refusal::NoProduct => {
                "no layer with weights reads it in 8 bits, so that more would change nothing; keep what such a layer reads in 16 bits instead"
            }
            Refusal::Shared => {
                "it is a part of a concatenation, a slice or a maximum, and the other parts have 8 bits; keep what is made of it in 16 bits instead"
            }
        })
    }
}

/// The names of the high and the low plane of a tensor.
pub(crate) fn names(tensor: &str) -> [String; 2] {
    [format!("{tensor} (high)"), format!("{tensor} (low)")]
}

/// Why a value of a graph cannot be raised, if it cannot.
pub(crate) fn refusal(graph: &Graph, value: ValueId) -> Option<Refusal> {
    Planes::of(graph).raise(value, &BTreeMap::new()).err()
}

/// Multiply-accumulates that raising a value adds: those of all layers with weights that read it.
pub(crate) fn extra_macs(graph: &Graph, value: ValueId) -> u64 {
    let readers = graph.ops.iter().filter(|op| is_product(op, value));
    readers.map(|op| graph.macs(op)).sum()
}

/// A graph in which some values are two planes.
pub(super) struct Planes<'g> {
    pub(super) graph: Cow<'g, Graph>,
    /// Of the values that the graph before did not have.
    ranges: BTreeMap<ValueId, ValueRange>,
    pairs: Vec<Pair>,
}

/// The planes of a value.
#[derive(Debug, Clone, Copy)]
struct Pair {
    origin: Origin,
    high: ValueId,
    low: ValueId,
}

/// What planes are made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// A value of 16 bits.
    Wide(ValueId),
    /// The sums before a function, whose result this value is: each plane has a table.
    Function(ValueId),
}

impl<'g> Planes<'g> {
    fn of(graph: &'g Graph) -> Self {
        Planes {
            graph: Cow::Borrowed(graph),
            ranges: BTreeMap::new(),
            pairs: vec![],
        }
    }

    /// Raises every value whose range asks for it.
    ///
    /// # Errors
    /// [`CompileError::Keep16`] when that cannot be done.
    pub(super) fn new(
        graph: &'g Graph,
        seen: &BTreeMap<ValueId, &ValueRange>,
    ) -> Result<Self, CompileError> {
        let mut planes = Planes::of(graph);
        // From the last layer to the first: what a layer writes is settled when it is split.
        for op in graph.ops.iter().rev() {
            let value = op.output;
            if seen.get(&value).is_some_and(|range| range.is_16_bit()) {
                let name = || graph.values[value].name.clone();
                planes
                    .raise(value, seen)
                    .map_err(|reason| CompileError::Keep16 {
                        name: name(),
                        reason,
                    })?;
            }
        }
        Ok(planes)
    }

    /// The ranges of the new values.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (ValueId, &ValueRange)> {
        self.ranges.iter().map(|(value, range)| (*value, range))
    }

    /// Adds the grids of the planes to those of the other values.
    pub(super) fn add_grids(
        &self,
        seen: &BTreeMap<ValueId, &ValueRange>,
        grids: &mut BTreeMap<ValueId, Grid>,
    ) {
        for pair in &self.pairs {
            let step = match pair.origin {
                Origin::Wide(value) => grids.get(&value).map(|grid| grid.scale(0)),
                Origin::Function(value) => seen.get(&value).map(|range| {
                    let [low, high] = range.seen.map(|end| f64::from(end.abs()));
                    low.max(high).max(1e-9) / TOP
                }),
            };
            let step = step.unwrap_or(1.0);
            grids.insert(pair.low, Grid::symmetric(step));
            grids.insert(pair.high, Grid::symmetric(BASE * step));
        }
    }

    /// The high plane of a low plane that a table makes.
    pub(super) fn high_of(&self, low: ValueId) -> Option<ValueId> {
        let table = |pair: &&Pair| matches!(pair.origin, Origin::Function(_)) && pair.low == low;
        self.pairs.iter().find(table).map(|pair| pair.high)
    }

    /// Makes two planes of a value; the parts of its readers' sums take their ranges from `seen`.
    fn raise(
        &mut self,
        value: ValueId,
        seen: &BTreeMap<ValueId, &ValueRange>,
    ) -> Result<(), Refusal> {
        let types = check_types(&self.graph).map_err(|_| Refusal::Shared)?;
        let origin = origin(&self.graph, value, &types)?;
        let names = names(&self.graph.values[value].name);
        let [high, low] = names.map(|name| self.add_value(name, value));
        let pair = Pair { origin, high, low };
        for op in std::mem::take(&mut self.graph.to_mut().ops) {
            let ops = if op.output == value {
                produce(op, pair)
            } else if is_product(&op, value) {
                self.split(&op, pair, &types, seen)
            } else {
                vec![renamed(op, value, pair)]
            };
            self.graph.to_mut().ops.extend(ops);
        }
        self.drop_unread(value);
        self.pairs.push(pair);
        let types = check_types(&self.graph).map_err(|_| Refusal::Shared)?;
        match origin {
            Origin::Wide(wide) if types.get(&wide) != Some(&DType::S16) => Err(Refusal::Shared),
            _ => Ok(()),
        }
    }

    fn add_value(&mut self, name: String, like: ValueId) -> ValueId {
        let Value { rows, channels, .. } = self.graph.values[like];
        let values = &mut self.graph.to_mut().values;
        values.push(Value {
            name,
            rows,
            channels,
            source: None,
        });
        values.len() - 1
    }

    /// A value for a part of an op's sums, with the range of all of them.
    fn add_part(&mut self, what: &str, of: ValueId, range: ValueRange) -> ValueId {
        let name = format!("{} ({what} part)", self.graph.values[of].name);
        let part = self.add_value(name.clone(), of);
        self.ranges.insert(part, ValueRange { name, ..range });
        part
    }

    /// A layer with weights that reads a raised value, as one layer for each plane.
    fn split(
        &mut self,
        op: &Op,
        pair: Pair,
        types: &Types,
        seen: &BTreeMap<ValueId, &ValueRange>,
    ) -> Vec<Op> {
        let (result, epilogue) = (op.output, op.epilogue().cloned().unwrap_or_default());
        let [mut high, mut low] = [pair.high, pair.low].map(|plane| Op {
            kind: layer(&self.graph, op),
            inputs: vec![plane],
            output: result,
        });
        if let Some(bias) = bias_mut(&mut low.kind) {
            bias.fill(0.0);
        }
        if types.get(&result) == Some(&DType::S16) {
            // The small part first: it cannot leave the stream's range, and the sum of both stays in the residual's place.
            low.output = self.add_part("low", result, ValueRange::default());
            if let Some(epilogue) = high.epilogue_mut() {
                epilogue.residual = Some(low.output);
            }
            return vec![low, high];
        }
        for part in [&mut high, &mut low] {
            if let Some(epilogue) = part.epilogue_mut() {
                *epilogue = Epilogue::default();
            }
        }
        let sums = epilogue.activation.as_ref().map_or(result, |a| a.before);
        let range = |of: ValueId| seen.get(&of).copied().cloned().unwrap_or_default();
        let part = |correction: Vec<f32>| ValueRange {
            seen: range(sums).seen,
            correction,
            ..ValueRange::default()
        };
        high.output = self.add_part("high", result, part(range(result).correction));
        low.output = self.add_part("low", result, part(vec![]));
        let sum = Op {
            inputs: vec![high.output, low.output],
            kind: Kind::Add {
                factors: [1.0; 2],
                epilogue,
            },
            output: result,
        };
        vec![high, low, sum]
    }

    /// Takes away the 8-bit form of a value that only layers with weights read: they read its planes now.
    fn drop_unread(&mut self, value: ValueId) {
        let read = self
            .graph
            .ops
            .iter()
            .any(|op| op.reads().any(|v| v == value));
        if !read {
            let ops = &mut self.graph.to_mut().ops;
            ops.retain(|op| op.output != value);
        }
    }
}

/// What the planes of a value can be made from.
fn origin(graph: &Graph, value: ValueId, types: &Types) -> Result<Origin, Refusal> {
    if types.get(&value) != Some(&DType::S8) {
        return Err(Refusal::Wide);
    }
    let parts = Parts::new(graph).map_err(|_| Refusal::Shared)?;
    let mut producer = graph.ops.iter().filter(|op| op.output == value);
    let producer = producer.next().ok_or(Refusal::Shared)?;
    let readers = || graph.ops.iter().filter(|op| op.reads().any(|v| v == value));
    let maximum = |op: &Op| matches!(op.kind, Kind::MaxPool(_));
    if readers().any(|op| matches!(op.kind, Kind::Attention { .. })) {
        return Err(Refusal::OfAttention);
    }
    if matches!(producer.kind, Kind::Attention { .. }) {
        return Err(Refusal::FromAttention);
    }
    if parts.related(value).count() > 1
        || maximum(producer)
        || readers().any(|op| maximum(op) || is_structural(op))
    {
        return Err(Refusal::Shared);
    }
    if !readers().any(|op| is_product(op, value)) {
        return Err(Refusal::NoProduct);
    }
    let wide = |v: &ValueId| types.get(v) == Some(&DType::S16);
    match (&producer.kind, producer.epilogue()) {
        (Kind::Activate(function), _) => of_function(function, value),
        (
            _,
            Some(Epilogue {
                activation: Some(a),
                ..
            }),
        ) => of_function(&a.function, value),
        // A narrow form of a stream has 16 bits already.
        (Kind::Convert, _) => Ok(Origin::Wide(
            producer
                .inputs
                .first()
                .copied()
                .filter(wide)
                .unwrap_or(value),
        )),
        _ if writes_16_bits(producer) => Ok(Origin::Wide(value)),
        _ => Err(Refusal::Shared),
    }
}

fn of_function(function: &crate::lower::expr::Expr, value: ValueId) -> Result<Origin, Refusal> {
    match clip_bounds(function) {
        Some(_) => Err(Refusal::Clipped),
        None => Ok(Origin::Function(value)),
    }
}

/// Whether an op multiplies a value by weights.
fn is_product(op: &Op, value: ValueId) -> bool {
    let weights = matches!(
        op.kind,
        Kind::Conv { .. }
            | Kind::Linear { .. }
            | Kind::Depthwise { .. }
            | Kind::MeanPool
            | Kind::PoolLinear { .. }
    );
    weights && op.inputs.contains(&value)
}

/// The op that makes a value, followed by those that make its planes.
fn produce(mut op: Op, Pair { origin, high, low }: Pair) -> Vec<Op> {
    let made = |kind: Kind, inputs: &[ValueId], output: ValueId| Op {
        kind,
        inputs: inputs.to_vec(),
        output,
    };
    let rest = Kind::Add {
        factors: [1.0, -1.0],
        epilogue: Epilogue::default(),
    };
    let planes = |wide: ValueId| {
        [
            made(Kind::Convert, &[wide], high),
            made(rest, &[wide, high], low),
        ]
    };
    match origin {
        Origin::Wide(wide) if wide != op.output => planes(wide).into(),
        Origin::Wide(wide) => [op].into_iter().chain(planes(wide)).collect(),
        Origin::Function(value) => {
            let activation = op.epilogue_mut().and_then(|e| e.activation.take());
            let (function, before) = match (activation, &op.kind) {
                (Some(Activation { function, before }), _) => (function, before),
                (None, Kind::Activate(function)) => (function.clone(), op.inputs[0]),
                (None, _) => return vec![op],
            };
            let tables =
                [high, low, value].map(|v| made(Kind::Activate(function.clone()), &[before], v));
            let sums = (!matches!(op.kind, Kind::Activate(_))).then_some(Op {
                output: before,
                ..op
            });
            sums.into_iter().chain(tables).collect()
        }
    }
}

/// An op that reads the value otherwise: a narrow form of a stream is gone, the stream is not.
fn renamed(mut op: Op, value: ValueId, pair: Pair) -> Op {
    if let Origin::Wide(wide) = pair.origin {
        let inputs = op.inputs.iter_mut().filter(|v| **v == value);
        inputs.for_each(|v| *v = wide);
    }
    op
}

/// The layer of a plane. The mean over all rows becomes the convolution that it is in the plan, which can have a residual.
fn layer(graph: &Graph, op: &Op) -> Kind {
    let (Kind::MeanPool, Some(input)) = (&op.kind, op.inputs.first()) else {
        return op.kind.clone();
    };
    let Value { rows, channels, .. } = graph.values[*input];
    Kind::Depthwise {
        geometry: Geometry::all_rows(rows),
        weights: vec![1.0 / rows.max(1) as f32; rows * channels],
        bias: vec![0.0; channels],
        epilogue: Epilogue::default(),
    }
}

fn bias_mut(kind: &mut Kind) -> Option<&mut Vec<f32>> {
    match kind {
        Kind::Conv { bias, .. }
        | Kind::Linear { bias, .. }
        | Kind::Depthwise { bias, .. }
        | Kind::PoolLinear { bias, .. } => Some(bias),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests;

//! The layers in f32, written for clearness: the oracle that the lowering is checked with.
//!
//! [`check_lowering`] feeds every layer the values tract computed for its inputs and compares its result with tract's, before
//! any quantisation; then it runs all layers in cascade.

mod attention;
mod layers;

use std::collections::BTreeMap;

pub(crate) use attention::attention;
pub(crate) use layers::linear;
pub use layers::run_op;

use crate::error::CompileError;
use crate::frontend::{NodeId, Reference, Tensor};
use crate::ir::{Epilogue, Graph, Kind, Op, ValueId};

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

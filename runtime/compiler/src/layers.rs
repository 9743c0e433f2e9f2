//! What every layer computes in f32, by tract: the values that a plan's tensors are compared with. And which op of a plan a layer is.

use std::collections::{BTreeMap, VecDeque};

use vitlet_plan::{Op as PlanOp, Plan};

use crate::error::CompileError;
use crate::eval::source_nodes;
use crate::frontend::{NodeId, Probe, Tensor};
use crate::ir::{Graph, Op, ValueId};
use crate::memory::parts::is_structural;
use crate::model::Model;
use crate::quantise::planes;

/// The layers of a model in f32.
#[derive(Debug)]
pub(crate) struct LayerProbe<'m> {
    graph: &'m Graph,
    probe: Probe,
    /// Which of the probe's outputs a node's tensor is.
    places: BTreeMap<NodeId, usize>,
}

impl<'m> LayerProbe<'m> {
    /// Prepares to compute what every layer should compute.
    ///
    /// # Errors
    /// [`CompileError::Reference`] when tract cannot optimise the model.
    pub(crate) fn new(model: &'m Model) -> Result<Self, CompileError> {
        let graph = model.graph();
        let computed = graph.ops.iter().filter(|op| !is_structural(op));
        let wanted = computed.map(|op| op.output).chain([graph.output]);
        let nodes = source_nodes(graph, wanted.collect());
        Ok(Self {
            graph,
            probe: model.reference().probe(&nodes)?,
            places: nodes.into_iter().enumerate().map(|(i, n)| (n, i)).collect(),
        })
    }

    /// Runs the model on a normalised image in the model's own layout.
    ///
    /// # Errors
    /// [`CompileError::Reference`] when the size is wrong or tract fails.
    pub(crate) fn run(&self, image: &[f32]) -> Result<LayerValues<'_>, CompileError> {
        Ok(LayerValues {
            layers: self,
            tensors: self.probe.run(image)?,
        })
    }
}

/// What every layer computes from one image.
#[derive(Debug)]
pub(crate) struct LayerValues<'p> {
    layers: &'p LayerProbe<'p>,
    tensors: Vec<Tensor>,
}

impl LayerValues<'_> {
    /// A layer's result, `[rows][channels]`; `None` when no node of the ONNX file computes it.
    pub(crate) fn get(&self, value: ValueId) -> Option<Vec<f32>> {
        let value = self.layers.graph.values.get(value)?;
        let source = value.source.as_ref()?;
        let tensor = self.tensors.get(*self.layers.places.get(&source.node)?)?;
        Some(source.gather(&tensor.data, value.rows, value.channels))
    }
}

/// The graph's op for each op of the plan: that of the same name; of several, in order.
pub(crate) fn matched<'m>(graph: &'m Graph, plan: &Plan<'_>) -> Vec<Option<&'m Op>> {
    let mut named: BTreeMap<&str, VecDeque<&Op>> = BTreeMap::new();
    for op in graph.ops.iter().filter(|op| !is_structural(op)) {
        let name = &*graph.values[op.output].name;
        named.entry(name).or_default().push_back(op);
    }
    let first = |op: PlanOp<'_>| named.get_mut(op.name).and_then(VecDeque::pop_front);
    plan.ops().map(first).collect()
}

/// The ops of the plan that make the planes of values.
pub(crate) fn plane_makers(graph: &Graph, plan: &Plan<'_>) -> BTreeMap<ValueId, [usize; 2]> {
    let ops = plan.ops().enumerate();
    let named: BTreeMap<&str, usize> = ops.map(|(index, op)| (op.name, index)).collect();
    let pair = |op: &Op| {
        let [high, low] = planes::names(&graph.values[op.output].name);
        let op_of = |name: &str| named.get(name).copied();
        Some((op.output, [op_of(&high)?, op_of(&low)?]))
    };
    graph.ops.iter().filter_map(pair).collect()
}

//! What every layer computes in f32: the values that a plan's tensors are compared with.

use std::collections::BTreeMap;

use crate::error::CompileError;
use crate::eval::source_nodes;
use crate::frontend::{NodeId, Probe, Tensor};
use crate::ir::ValueId;
use crate::memory::parts::is_structural;
use crate::model::{Model, Normalisation};

/// The layers of a model in f32, by tract.
#[derive(Debug)]
pub struct LayerProbe<'m> {
    model: &'m Model,
    normalisation: Normalisation,
    /// The result of every layer that computes something, in execution order.
    results: Vec<ValueId>,
    probe: Probe,
    /// Which of the probe's outputs a node's tensor is.
    places: BTreeMap<NodeId, usize>,
}

impl Model {
    /// Prepares to compute what every layer should compute, in f32.
    ///
    /// # Errors
    /// [`CompileError::Reference`] when tract cannot optimise the model.
    pub fn layer_probe(
        &self,
        normalisation: &Normalisation,
    ) -> Result<LayerProbe<'_>, CompileError> {
        let graph = self.graph();
        let results: Vec<ValueId> = graph
            .ops
            .iter()
            .filter(|op| !is_structural(op))
            .map(|op| op.output)
            .collect();
        let wanted = results.iter().copied().chain([graph.output]);
        let nodes = source_nodes(graph, wanted.collect());
        Ok(LayerProbe {
            model: self,
            normalisation: *normalisation,
            results,
            probe: self.reference().probe(&nodes)?,
            places: nodes.into_iter().enumerate().map(|(i, n)| (n, i)).collect(),
        })
    }
}

impl LayerProbe<'_> {
    /// The name of every layer that is an operation of the plan, in execution order: those of the plan's ops.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        let values = &self.model.graph().values;
        self.results.iter().map(|value| &*values[*value].name)
    }

    /// Runs the model on one image (H×W×3 RGB bytes of the model's size).
    ///
    /// # Errors
    /// [`CompileError::Reference`] when the size is wrong or tract fails.
    pub fn run(&self, image: &[u8]) -> Result<LayerValues<'_>, CompileError> {
        let image = self.model.normalised(&self.normalisation, image)?;
        Ok(LayerValues {
            layers: self,
            tensors: self.probe.run(&image)?,
        })
    }
}

/// What every layer computes from one image.
#[derive(Debug)]
pub struct LayerValues<'p> {
    layers: &'p LayerProbe<'p>,
    tensors: Vec<Tensor>,
}

impl LayerValues<'_> {
    /// The result `[rows][channels]` of a layer, by its place among [`LayerProbe::names`]; `None` when no node of the ONNX file
    /// computes it.
    #[must_use]
    pub fn get(&self, layer: usize) -> Option<Vec<f32>> {
        self.value(*self.layers.results.get(layer)?)
    }

    /// The logits.
    #[must_use]
    pub fn logits(&self) -> Option<Vec<f32>> {
        self.value(self.layers.model.graph().output)
    }

    fn value(&self, value: ValueId) -> Option<Vec<f32>> {
        let value = &self.layers.model.graph().values[value];
        let source = value.source.as_ref()?;
        let tensor = self.tensors.get(*self.layers.places.get(&source.node)?)?;
        Some(source.gather(&tensor.data, value.rows, value.channels))
    }
}

//! Where a plan loses accuracy: of every layer, what it adds to the error and what it inherits, and why.
//!
//! | module | job |
//! |---|---|
//! | here | photos through the f32 model, layer by layer beside the plan's results |
//! | [`layer`] | what is summed up about one layer |
//! | [`cause`] | what its error is put down to, and by which rule |
//! | [`stored`] | the plan's weights in real numbers |
//! | [`written`] | the ends of a result's integers |
//!
//! Sums are all that is kept, so memory does not grow with the number of photos.

mod cause;
mod layer;
mod stored;
#[cfg(test)]
pub(crate) mod tests;
mod written;

use std::collections::BTreeMap;

use vitlet_plan::{Op as PlanOp, Plan};

pub use cause::Cause;
use layer::{Layer, Numbers};

use crate::deviation::Deviation;
use crate::error::CompileError;
use crate::eval::run_op;
use crate::ir::{Graph, Op, ValueId};
use crate::layers::{LayerProbe, matched, plane_makers};
use crate::memory::parts::is_structural;
use crate::model::{Model, Normalisation};

/// How far one op of a plan is off, over all photos.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerReport {
    /// The op's index in the plan.
    pub op: usize,
    /// Its int8 result from the f32 model's; `None` when no node of the ONNX file computes it.
    pub total: Option<Deviation>,
    /// Its int8 result from what the f32 layer makes of the same int8 inputs: what the layer itself adds.
    pub own: Deviation,
    /// The rest of `total`: what the f32 layer makes of the int8 inputs, from what it makes of the f32 model's inputs.
    pub inherited: Option<Deviation>,
    /// Share of its results that lie at an end of their integers (before the activation function, if there is one) and are at least a
    /// step off: what [`Cause::ClippedRange`] is about.
    pub saturated: f64,
    /// What most of the error comes from.
    pub cause: Cause,
}

/// Compares a plan's layers with those of the model it was made from.
pub struct Diagnosis<'m> {
    model: &'m Model,
    normalisation: Normalisation,
    probe: LayerProbe<'m>,
    study: Study<'m>,
}

impl Model {
    /// Prepares to compare the layers of `plan`, which was made from this model.
    ///
    /// # Errors
    /// [`CompileError::Reference`] when tract cannot optimise the model, [`CompileError::Quantise`] when the plan's mean or deviation
    /// is unusable.
    pub fn diagnosis<'m>(&'m self, plan: &Plan<'m>) -> Result<Diagnosis<'m>, CompileError> {
        let normalisation = Normalisation::new(plan.mean(), plan.std())?;
        Ok(Diagnosis {
            model: self,
            normalisation,
            probe: LayerProbe::new(self)?,
            study: Study::new(self.graph(), plan, &normalisation),
        })
    }
}

impl Diagnosis<'_> {
    /// Takes in one photo (H×W×3 RGB bytes of the model's size); `numbers` gives the result of an op of the plan on it, by the op's
    /// index, in real numbers. Returns the f32 model's logits.
    ///
    /// # Errors
    /// [`CompileError::Reference`] when the image's size is wrong or tract fails.
    pub fn add(
        &mut self,
        image: &[u8],
        numbers: &dyn Fn(usize) -> Option<Vec<f32>>,
    ) -> Result<Vec<f32>, CompileError> {
        let input = self.model.normalised(&self.normalisation, image)?;
        let values = self.probe.run(&input)?;
        let photo = Photo {
            image: &self.normalisation.rows(image),
            numbers,
            reference: &|value| values.get(value),
        };
        self.study.add(&photo);
        let output = self.model.graph().output;
        values
            .get(output)
            .ok_or_else(|| CompileError::Reference("no node of the model holds the logits".into()))
    }

    /// The ops that could be compared, in the plan's order. An op is left out when the model has no layer of its name, or the plan does
    /// not say the scale of something it reads or writes.
    #[must_use]
    pub fn layers(&self) -> Vec<LayerReport> {
        self.study.reports()
    }
}

/// One photo's numbers.
struct Photo<'a> {
    /// `[H·W][3]`, normalised.
    image: &'a [f32],
    /// The result of an op of the plan, by its index.
    numbers: &'a dyn Fn(usize) -> Option<Vec<f32>>,
    /// What a value should be.
    reference: &'a dyn Fn(ValueId) -> Option<Vec<f32>>,
}

/// The layers of a plan beside those of the graph it was made from.
struct Study<'m> {
    graph: &'m Graph,
    /// For each op of the plan.
    layers: Vec<Option<Layer<'m>>>,
    /// The op of the plan that makes a value.
    makers: BTreeMap<ValueId, usize>,
    /// The ops that make the planes of a value which exists as such only.
    planes: BTreeMap<ValueId, [usize; 2]>,
}

impl<'m> Study<'m> {
    fn new(graph: &'m Graph, plan: &Plan<'_>, image: &Normalisation) -> Self {
        let pairs = matched(graph, plan);
        let outputs = pairs.iter().enumerate();
        let makers = outputs.filter_map(|(index, op)| Some(((*op)?.output, index)));
        let makers: BTreeMap<ValueId, usize> = makers.collect();
        let layers = plan.ops().zip(&pairs);
        let layers = layers.map(|(stored, op)| {
            let op = (*op)?;
            let input = input_grid(graph, plan, op, &stored, image);
            Layer::new(op, &stored, input.as_deref(), &plan.tensor(stored.output)?)
        });
        Self {
            graph,
            layers: layers.collect(),
            planes: plane_makers(graph, plan),
            makers,
        }
    }

    fn add(&mut self, photo: &Photo<'_>) {
        let mut layers = std::mem::take(&mut self.layers);
        for layer in layers.iter_mut().flatten() {
            self.add_layer(layer, photo);
        }
        self.layers = layers;
    }

    fn add_layer(&self, layer: &mut Layer<'m>, photo: &Photo<'_>) {
        let operands = layer.op.reads().map(|v| Some((v, self.read(v, photo)?)));
        let operands: Option<BTreeMap<ValueId, Vec<f32>>> = operands.collect();
        let (Some(operands), Some(result)) = (operands, self.read(layer.op.output, photo)) else {
            return;
        };
        let reference = (photo.reference)(layer.op.output);
        let numbers = Numbers {
            read: &|value| operands.get(&value).cloned().unwrap_or_default(),
            result: &result,
            reference: reference.as_deref(),
        };
        layer.add(self.graph, &numbers);
    }

    /// A value as the plan's integers have it.
    fn read(&self, value: ValueId, photo: &Photo<'_>) -> Option<Vec<f32>> {
        let v = self.graph.values.get(value)?;
        let numbers = if value == self.graph.input {
            Some(photo.image.to_vec())
        } else if let Some(op) = self.makers.get(&value) {
            (photo.numbers)(*op)
        } else if let Some([high, low]) = self.planes.get(&value) {
            let (mut sum, low) = ((photo.numbers)(*high)?, (photo.numbers)(*low)?);
            sum.iter_mut().zip(low).for_each(|(sum, low)| *sum += low);
            Some(sum)
        } else {
            let place = |op: &&Op| op.output == value && is_structural(op);
            let op = self.graph.ops.iter().find(place)?;
            let operands = op.inputs.iter().map(|v| Some((*v, self.read(*v, photo)?)));
            let operands: BTreeMap<ValueId, Vec<f32>> = operands.collect::<Option<_>>()?;
            let read = |value| operands.get(&value).cloned().unwrap_or_default();
            Some(run_op(self.graph, op, &read))
        };
        numbers.filter(|numbers| numbers.len() == v.rows * v.channels)
    }

    fn reports(&self) -> Vec<LayerReport> {
        let layers = self.layers.iter().enumerate();
        let layers = layers.filter_map(|(index, layer)| Some((index, layer.as_ref()?)));
        let layers = layers.filter(|(_, layer)| !layer.is_empty());
        layers
            .map(|(op, layer)| LayerReport {
                op,
                total: layer.total,
                own: layer.own,
                inherited: layer.inherited,
                saturated: layer.saturated(),
                cause: layer.facts(self.worst_input(layer.op)).cause(),
            })
            .collect()
    }

    /// The op with the lowest SQNR among those that make an op's inputs.
    fn worst_input(&self, op: &Op) -> Option<usize> {
        let mut makers = vec![];
        let mut values: Vec<ValueId> = op.reads().collect();
        while let Some(value) = values.pop() {
            if let Some(maker) = self.makers.get(&value) {
                makers.push(*maker);
            } else if let Some(op) = self.graph.ops.iter().find(|op| op.output == value) {
                values.extend(op.reads());
            }
        }
        let ratio = |op: usize| self.layers.get(op)?.as_ref()?.total?.sqnr_db();
        let makers = makers.into_iter().filter_map(|op| Some((op, ratio(op)?)));
        let worst = makers.min_by(|a, b| a.1.total_cmp(&b.1));
        worst.map(|(op, _)| op)
    }
}

/// Scale and zero point of each channel of an op's first operand; `None` if the plan does not say.
fn input_grid(
    graph: &Graph,
    plan: &Plan<'_>,
    op: &Op,
    stored: &PlanOp<'_>,
    image: &Normalisation,
) -> Option<Vec<[f64; 2]>> {
    let input = *op.inputs.first()?;
    if input == graph.input {
        return Some(image.integers().to_vec());
    }
    let tensor = plan.tensor(stored.inputs[0]?)?;
    let grid = |c: usize| Some([tensor.scale_of(c)?.into(), tensor.zero_point.into()]);
    (0..graph.values.get(input)?.channels).map(grid).collect()
}

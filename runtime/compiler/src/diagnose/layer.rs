//! What is summed up about one layer, over any number of photos.

use vitlet_plan::{Op as PlanOp, Tensor};

use super::cause::{ChannelSums, Facts, Shares};
use super::stored::{Grids, as_stored};
use super::written::{Channel, channels};
use crate::deviation::Deviation;
use crate::eval::{attention, run_op};
use crate::ir::{Graph, Kind, Op, ValueId};

/// Softmax weights below this part of the largest in their row are 0 in the kernels: E is 0 from 15 octaves on.
const SOFTMAX_LEAST: f64 = 1.0 / 32768.0;

/// One layer: how it is computed, and how far its int8 results are off.
pub(super) struct Layer<'m> {
    pub(super) op: &'m Op,
    /// The layer with the plan's weights.
    stored: Option<Op>,
    channels: Vec<Channel>,
    /// As in [`LayerReport`](super::LayerReport).
    pub(super) total: Option<Deviation>,
    pub(super) own: Deviation,
    pub(super) inherited: Option<Deviation>,
    shares: Shares,
    values: u64,
    /// As in [`LayerReport`](super::LayerReport).
    saturated: u64,
    sums: Vec<ChannelSums>,
}

/// One photo's numbers of a layer, `[rows][channels]`.
pub(super) struct Numbers<'a> {
    /// The operands, dequantised.
    pub(super) read: &'a dyn Fn(ValueId) -> Vec<f32>,
    /// The result, dequantised.
    pub(super) result: &'a [f32],
    /// What the result should be, if the f32 model has it.
    pub(super) reference: Option<&'a [f32]>,
}

impl<'m> Layer<'m> {
    /// `None` if the plan does not say the scales of the layer's result.
    pub(super) fn new(
        op: &'m Op,
        stored: &PlanOp<'_>,
        input: Option<&[[f64; 2]]>,
        output: &Tensor<'_>,
    ) -> Option<Self> {
        let channels = channels(&stored.kind, output)?;
        Some(Layer {
            op,
            stored: input.and_then(|input| as_stored(op, &stored.kind, &Grids { input, output })),
            total: None,
            own: Deviation::default(),
            inherited: None,
            shares: Shares::default(),
            values: 0,
            saturated: 0,
            sums: vec![ChannelSums::default(); channels.len()],
            channels,
        })
    }

    pub(super) fn add(&mut self, graph: &Graph, numbers: &Numbers<'_>) {
        let Numbers {
            read,
            result,
            reference,
        } = *numbers;
        let exact = run_op(graph, self.op, read);
        self.own.add(result, &exact);
        if let Some(reference) = reference {
            self.total.get_or_insert_default().add(result, reference);
            let inherited = self.inherited.get_or_insert_default();
            inherited.add(&exact, reference);
        }
        let mut nearest = exact.clone();
        if let Some(stored) = &self.stored {
            nearest = run_op(graph, stored, read);
            self.shares.weights += squares(&nearest, &exact);
        } else if let Kind::Attention { .. } = self.op.kind {
            let rows = graph.values[self.op.output].rows;
            nearest = attention(&self.op.kind, rows, SOFTMAX_LEAST, read);
            self.shares.underflow += squares(&nearest, &exact);
        }
        self.add_grid(result, &nearest);
        self.add_magnitudes(&exact);
    }

    /// What lies between the integers and the numbers they were rounded from: clipping where a result lies at an end and is at least a
    /// step off, else rounding.
    fn add_grid(&mut self, result: &[f32], nearest: &[f32]) {
        let channels = self.channels.len().max(1);
        for (index, (y, x)) in result.iter().zip(nearest).enumerate() {
            let (channel, sums) = (
                &self.channels[index % channels],
                &mut self.sums[index % channels],
            );
            let error = f64::from(y - x);
            if channel.ends.contains(y) && error.abs() >= f64::from(channel.step) {
                self.saturated += 1;
                self.shares.clipped += error.powi(2);
            } else {
                self.shares.rounding += error.powi(2);
                sums.rounding += (error / f64::from(channel.step)).powi(2);
            }
        }
        self.values += result.len() as u64;
    }

    fn add_magnitudes(&mut self, exact: &[f32]) {
        for row in exact.chunks(self.channels.len().max(1)) {
            for ((x, channel), sums) in row.iter().zip(&self.channels).zip(&mut self.sums) {
                let steps = f64::from(x.abs() / channel.step);
                sums.peak = sums.peak.max(steps);
                sums.power += steps.powi(2);
            }
        }
    }

    /// Whether any photo was added.
    pub(super) fn is_empty(&self) -> bool {
        self.values == 0
    }

    pub(super) fn saturated(&self) -> f64 {
        self.saturated as f64 / self.values as f64
    }

    pub(super) fn facts(&self, worst_input: Option<usize>) -> Facts<'_> {
        Facts {
            inherited: self.inherited.map_or(0.0, |inherited| inherited.noise()),
            own: self.own.noise(),
            shares: self.shares,
            worst_input,
            channels: &self.sums,
            rows: self.values / self.sums.len().max(1) as u64,
        }
    }
}

/// Sum of the squared differences.
fn squares(a: &[f32], b: &[f32]) -> f64 {
    let pairs = a.iter().zip(b);
    pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

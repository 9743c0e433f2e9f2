//! Streaming statistics of every activation: memory does not grow with the number of photos.
//!
//! Each photo runs once through tract in f32. Per activation, a histogram with logarithmic bins (the sign, exponent and top
//! six mantissa bits of the f32, so about 1 % wide) counts what was seen; from it comes the clipping range that minimises
//! the mean squared error of an 8-bit grid, rounding and clipping together (the OMSE rule of the literature, see
//! specs of FQ-ViT; one pass, no second run over the photos).

use crate::error::CompileError;
use crate::eval::{Expected, before, source_nodes};
use crate::frontend::{NodeId, Probe};
use crate::ir::{Graph, Kind, Op, ValueId};
use crate::model::{Model, Normalisation};
use crate::ranges::{Ranges, ValueRange};

/// Bits of an f32 that do not take part in the bin number.
const BIN_SHIFT: u32 = 17;

/// Collects statistics photo by photo.
#[derive(Debug)]
pub struct Calibrator<'m> {
    model: &'m Model,
    normalisation: Normalisation,
    /// Source nodes that the probe hands out.
    nodes: Vec<NodeId>,
    probe: Probe,
    watched: Vec<Watched>,
    images: u32,
}

/// One activation under observation.
#[derive(Debug)]
struct Watched {
    value: ValueId,
    per_channel: bool,
    statistics: Statistics,
}

#[derive(Debug)]
struct Statistics {
    seen: [f32; 2],
    bins: Vec<u32>,
    /// Largest magnitude per channel; empty unless asked for.
    channels: Vec<f32>,
}

impl<'m> Calibrator<'m> {
    pub(crate) fn new(
        model: &'m Model,
        normalisation: &Normalisation,
    ) -> Result<Self, CompileError> {
        let graph = model.graph();
        let values = used_values(graph);
        let nodes = source_nodes(graph, values.clone());
        let per_channel = attention_operands(graph);
        let watched = values.into_iter().map(|value| Watched {
            value,
            per_channel: per_channel[value],
            statistics: Statistics::new(),
        });
        let watched = watched.collect();
        let probe = model.reference().probe(&nodes)?;
        Ok(Calibrator {
            model,
            normalisation: *normalisation,
            nodes,
            probe,
            watched,
            images: 0,
        })
    }

    /// Runs one photo: H×W×3 RGB bytes of the model's size.
    ///
    /// # Errors
    /// [`CompileError::Reference`] when the size is wrong or tract fails, [`CompileError::Quantise`] when an activation is
    /// not finite.
    pub fn add(&mut self, image: &[u8]) -> Result<(), CompileError> {
        let graph = self.model.graph();
        let input = self.model.normalised(&self.normalisation, image)?;
        let outputs = self.probe.run(&input)?;
        let expected = Expected::new(graph, &self.nodes, &outputs);
        for w in &mut self.watched {
            let value = &graph.values[w.value];
            let data = expected.read(w.value);
            if !w.statistics.add(&data) {
                let reason = "it is infinite or not a number on a calibration photo".to_string();
                return Err(CompileError::Quantise {
                    what: value.name.clone(),
                    reason,
                });
            }
            if w.per_channel {
                w.statistics.add_channels(&data, value.channels);
            }
        }
        self.images += 1;
        Ok(())
    }

    /// Photos seen so far.
    #[must_use]
    pub fn images(&self) -> u32 {
        self.images
    }

    /// The ranges.
    ///
    /// # Errors
    /// [`CompileError::NoCalibration`] when no photo was added.
    pub fn finish(self) -> Result<Ranges, CompileError> {
        if self.images == 0 {
            return Err(CompileError::NoCalibration);
        }
        let values = self.watched.into_iter().map(|w| ValueRange {
            name: self.model.graph().values[w.value].name.clone(),
            seen: w.statistics.seen,
            clip: w.statistics.least_error_range(),
            channels: w.statistics.channels,
        });
        let Normalisation { mean, std } = self.normalisation;
        Ok(Ranges::new(
            self.model.sha256_hex(),
            self.images,
            mean,
            std,
            values.collect(),
        ))
    }
}

/// The values that exist in the plan: the image apart, every result and every result before an activation function.
pub(crate) fn used_values(graph: &Graph) -> Vec<ValueId> {
    let mut values = vec![];
    for op in &graph.ops {
        values.extend(before(op));
        values.push(op.output);
    }
    values
}

/// Values that attention reads, and those that share their scales because one lies inside the other or is its maximum.
fn attention_operands(graph: &Graph) -> Vec<bool> {
    let mut wanted = vec![false; graph.values.len()];
    let attention = |op: &&Op| matches!(op.kind, Kind::Attention { .. });
    for op in graph.ops.iter().filter(attention) {
        op.inputs.iter().for_each(|v| wanted[*v] = true);
    }
    let shares = |op: &&Op| {
        matches!(
            op.kind,
            Kind::Slice { .. } | Kind::Concat | Kind::MaxPool(_)
        )
    };
    let mut changed = true;
    while changed {
        changed = false;
        for op in graph.ops.iter().filter(shares) {
            let values = || op.inputs.iter().copied().chain([op.output]);
            if values().any(|v| wanted[v]) {
                changed |= values().any(|v| !std::mem::replace(&mut wanted[v], true));
            }
        }
    }
    wanted
}

impl Statistics {
    fn new() -> Self {
        Statistics {
            seen: [f32::INFINITY, f32::NEG_INFINITY],
            bins: vec![0; 1 << (32 - BIN_SHIFT)],
            channels: vec![],
        }
    }

    /// Counts values; false when one is not finite.
    fn add(&mut self, data: &[f32]) -> bool {
        for x in data {
            self.bins[(x.to_bits() >> BIN_SHIFT) as usize] += 1;
            self.seen = [self.seen[0].min(*x), self.seen[1].max(*x)];
        }
        // min and max skip NaN, but NaN and infinity have bins of their own: exponent all ones.
        let exponent_ones = |sign: usize| sign << 14 | 0xff << 6;
        let odd = |sign: usize| {
            self.bins[exponent_ones(sign)..exponent_ones(sign) + 64]
                .iter()
                .any(|n| *n > 0)
        };
        !odd(0) && !odd(1)
    }

    fn add_channels(&mut self, canonical: &[f32], channels: usize) {
        self.channels.resize(channels, 0.0);
        for row in canonical.chunks(channels.max(1)) {
            self.channels
                .iter_mut()
                .zip(row)
                .for_each(|(m, x)| *m = m.max(x.abs()));
        }
    }

    /// The bins that hold something, as (value at the middle of the bin, count).
    fn filled(&self) -> Vec<(f64, f64)> {
        let middle = |bin: usize| {
            f64::from(f32::from_bits(
                (bin as u32) << BIN_SHIFT | 1 << (BIN_SHIFT - 1),
            ))
        };
        self.bins
            .iter()
            .enumerate()
            .filter(|(_, n)| **n > 0)
            .map(|(bin, n)| (middle(bin), f64::from(*n)))
            .collect()
    }

    /// Shrinks both ends of the seen range independently, in steps of 2 % down to 30 %, to the least mean squared error of
    /// 255 steps. Zero always stays inside.
    fn least_error_range(&self) -> [f32; 2] {
        let filled = self.filled();
        let [low, high] = [self.seen[0].min(0.0), self.seen[1].max(0.0)];
        let shrinks = || (0..=35).map(|i| 1.0 - 0.02 * f64::from(i));
        // Clipping errors of the two ends do not depend on each other, so each is computed once per candidate.
        let clipped = |end: f64| -> f64 {
            let beyond = |x: f64| {
                if end < 0.0 {
                    (end - x).max(0.0)
                } else {
                    (x - end).max(0.0)
                }
            };
            filled
                .iter()
                .filter(|(x, _)| x * end > 0.0)
                .map(|(x, n)| n * beyond(*x).powi(2))
                .sum()
        };
        let candidates = |end: f32| -> Vec<(f64, f64)> {
            shrinks()
                .map(|s| s * f64::from(end))
                .map(|end| (end, clipped(end)))
                .collect()
        };
        let total: f64 = filled.iter().map(|(_, n)| n).sum();
        let (lows, highs) = (candidates(low), candidates(high));
        let mut best = (f64::INFINITY, [low, high]);
        for (l, l_error) in &lows {
            for (h, h_error) in &highs {
                let step = (h - l) / 255.0;
                let error = l_error + h_error + total * step * step / 12.0;
                if error < best.0 {
                    best = (error, [*l as f32, *h as f32]);
                }
            }
        }
        best.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_outlier_is_clipped_and_a_uniform_range_is_not() {
        let uniform: Vec<f32> = (0..10_000u16).map(|i| f32::from(i) / 10_000.0).collect();
        let mut s = Statistics::new();
        assert!(s.add(&uniform));
        let [low, high] = s.least_error_range();
        assert_eq!(low.to_bits(), 0f32.to_bits());
        assert!(high > 0.97, "{high}");
        let mut bell: Vec<f32> = (0..100_000u32)
            .map(|i| ((i % 1000) as f32 / 1000.0 - 0.5) * 2.0)
            .collect();
        bell.push(3.0);
        let mut s = Statistics::new();
        assert!(s.add(&bell));
        assert!(s.least_error_range()[1] < 2.9);
        assert_eq!(s.seen[1].to_bits(), 3f32.to_bits());
    }

    #[test]
    fn nan_and_infinity_are_noticed() {
        assert!(!Statistics::new().add(&[0.0, f32::NAN]));
        assert!(!Statistics::new().add(&[0.0, f32::NEG_INFINITY]));
    }
}

//! Scales and zero points of every value.

use std::collections::BTreeMap;

use vitlet_plan::DType;

use super::Types;
use crate::error::CompileError;
use crate::ir::{Graph, Kind, Operand, ValueId};
use crate::model::Normalisation;
use crate::ranges::{Ranges, ValueRange};

/// Head room of the s16 residual stream over what calibration saw: it costs one of 16 bits and keeps unseen photos from clipping.
const STREAM_HEADROOM: f64 = 2.0;
/// The largest logit seen in calibration lies here; the type holds four times more.
const LOGIT_TOP: f64 = (1u32 << 20) as f64;

/// The integers of one value: real = scale·(q − zero), one scale for all channels or one each.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Grid {
    pub(super) dtype: DType,
    /// The smallest s8 value in use: −127 for operands of attention.
    pub(super) min: i8,
    scales: Vec<f64>,
    /// Not necessarily whole for the image, whose zero is the mean colour.
    zeros: Vec<f64>,
}

impl Grid {
    fn uniform(dtype: DType, scale: f64, zero: f64) -> Grid {
        Grid {
            dtype,
            min: -128,
            scales: vec![scale],
            zeros: vec![zero],
        }
    }

    /// Scale of a channel.
    pub(super) fn scale(&self, channel: usize) -> f64 {
        self.scales
            .get(channel)
            .or(self.scales.first())
            .copied()
            .unwrap_or(1.0)
    }

    /// The number that stands for 0 in a channel.
    pub(super) fn zero(&self, channel: usize) -> f64 {
        self.zeros
            .get(channel)
            .or(self.zeros.first())
            .copied()
            .unwrap_or(0.0)
    }

    /// Whether all channels have the same scale and zero point, as the result of a table must.
    pub(super) fn is_uniform(&self) -> bool {
        self.scales.len() == 1 && self.zeros.len() == 1
    }

    /// The one scale of all channels, 0 when there are several: what a tensor record says.
    pub(super) fn record_scale(&self) -> f32 {
        if self.scales.len() == 1 {
            self.scales[0] as f32
        } else {
            0.0
        }
    }

    /// The one zero point of all channels.
    pub(super) fn zero_point(&self) -> i8 {
        if self.zeros.len() == 1 {
            to_i8(self.zeros[0])
        } else {
            0
        }
    }

    /// The bytes that stand for 0, one per channel.
    pub(super) fn pad(&self, channels: usize) -> Vec<i8> {
        (0..channels).map(|c| to_i8(self.zero(c))).collect()
    }

    /// The s8 that stands for a real number.
    pub(super) fn quantise(&self, real: f64) -> i8 {
        to_i8(real / self.scale(0) + self.zero(0)).max(self.min)
    }
}

fn to_i8(x: f64) -> i8 {
    x.round_ties_even().clamp(-128.0, 127.0) as i8
}

/// Grids of all values of a plan.
pub(super) fn grids(
    graph: &Graph,
    types: &Types,
    ranges: &Ranges,
    normalisation: &Normalisation,
) -> Result<BTreeMap<ValueId, Grid>, CompileError> {
    let seen = matched(graph, ranges)?;
    let mut grids = BTreeMap::from([(graph.input, image(normalisation))]);
    let streams = streams(graph, types, &seen);
    for (&value, &dtype) in types {
        let Some(range) = seen.get(&value) else {
            continue;
        };
        let grid = match dtype {
            DType::S8 => match attention_scales(graph, value, range) {
                Some(scales) => Grid {
                    dtype,
                    min: -127,
                    scales,
                    zeros: vec![0.0],
                },
                None => asymmetric(range.clip),
            },
            DType::S16 => Grid::uniform(dtype, streams[&value], 0.0),
            DType::S32 => Grid::uniform(
                dtype,
                largest(range).max(f64::MIN_POSITIVE) / LOGIT_TOP,
                0.0,
            ),
        };
        grids.insert(value, grid);
    }
    Ok(grids)
}

/// Ranges by value, after checking that they are ranges of this model.
fn matched<'r>(
    graph: &Graph,
    ranges: &'r Ranges,
) -> Result<BTreeMap<ValueId, &'r ValueRange>, CompileError> {
    let values = crate::calibrate::used_values(graph);
    let wrong = |found: String| CompileError::Ranges(found);
    if values.len() != ranges.values.len() {
        return Err(wrong(format!(
            "{} activations, but the model has {}",
            ranges.values.len(),
            values.len()
        )));
    }
    let mut by_value = BTreeMap::new();
    for (value, range) in values.into_iter().zip(&ranges.values) {
        let v = &graph.values[value];
        let channels_fit = range.channels.is_empty() || range.channels.len() == v.channels;
        if v.name != range.name || !channels_fit {
            return Err(wrong(format!(
                "`{}` stands where the model has `{}`",
                range.name, v.name
            )));
        }
        by_value.insert(value, range);
    }
    Ok(by_value)
}

/// The image: u8 − 128, so real = (u8/255 − mean)/std is (q − (255·mean − 128)) / (255·std).
fn image(n: &Normalisation) -> Grid {
    let scales = n
        .std
        .iter()
        .map(|s| 1.0 / (255.0 * f64::from(*s)))
        .collect();
    let zeros = n
        .mean
        .iter()
        .map(|m| 255.0 * f64::from(*m) - 128.0)
        .collect();
    Grid {
        dtype: DType::S8,
        min: -128,
        scales,
        zeros,
    }
}

fn largest(range: &ValueRange) -> f64 {
    f64::from(range.seen[0].abs().max(range.seen[1].abs()))
}

/// 8 bits over a range that contains 0, which falls on a whole number.
fn asymmetric([low, high]: [f32; 2]) -> Grid {
    let (low, high) = (f64::from(low.min(0.0)), f64::from(high.max(0.0)));
    let scale = ((high - low) / 255.0).max(1e-12);
    Grid::uniform(
        DType::S8,
        scale,
        (-128.0 - low / scale)
            .round_ties_even()
            .clamp(-128.0, 127.0),
    )
}

/// Symmetric scales per head for a value that attention reads, repeated over the head's channels.
fn attention_scales(graph: &Graph, value: ValueId, range: &ValueRange) -> Option<Vec<f64>> {
    let channels = graph.values[value].channels;
    let mut scales: Option<Vec<f64>> = None;
    for op in &graph.ops {
        let Kind::Attention { shape, q, k, v, .. } = &op.kind else {
            continue;
        };
        for operand in [q, k, v].into_iter().filter(|o| o.value == Some(value)) {
            let scales = scales.get_or_insert_with(|| vec![1.0; channels]);
            for head in 0..shape.heads {
                let start = head_start(operand, head, channels);
                let head = range.channels.get(start..start + shape.head_dim)?;
                let top = head.iter().fold(0f32, |m, x| m.max(*x));
                scales[start..start + shape.head_dim].fill(f64::from(top).max(1e-9) / 127.0);
            }
        }
    }
    scales
}

/// The first channel of a head.
pub(super) fn head_start(operand: &Operand, head: usize, channels: usize) -> usize {
    (operand.column + head * operand.head_stride) % channels.max(1)
}

/// One scale per residual stream: values that are added to each other share it.
fn streams(
    graph: &Graph,
    types: &Types,
    seen: &BTreeMap<ValueId, &ValueRange>,
) -> BTreeMap<ValueId, f64> {
    let mut stream: BTreeMap<ValueId, ValueId> = types
        .iter()
        .filter(|(_, t)| **t == DType::S16)
        .map(|(v, _)| (*v, *v))
        .collect();
    for op in &graph.ops {
        let Some(residual) = op.epilogue().and_then(|e| e.residual) else {
            continue;
        };
        let (from, to) = (stream[&op.output], stream[&residual]);
        stream
            .values_mut()
            .filter(|s| **s == from)
            .for_each(|s| *s = to);
    }
    let mut scale: BTreeMap<ValueId, f64> = BTreeMap::new();
    for (value, stream) in &stream {
        let wanted = seen
            .get(value)
            .map_or(0.0, |r| largest(r) * STREAM_HEADROOM / 32767.0);
        let floor = norm_floor(graph, *value);
        let entry = scale.entry(*stream).or_insert(f64::from(f32::MIN_POSITIVE));
        *entry = entry.max(wanted).max(floor);
    }
    stream
        .iter()
        .map(|(value, stream)| (*value, scale[stream]))
        .collect()
}

/// The contract bounds gamma ÷ scale by 2¹⁴ for a layer norm that writes the stream.
fn norm_floor(graph: &Graph, value: ValueId) -> f64 {
    let gamma = graph
        .ops
        .iter()
        .filter(|op| op.output == value)
        .filter_map(|op| match &op.kind {
            Kind::LayerNorm { gamma, .. } => Some(gamma.iter().fold(0f32, |m, g| m.max(g.abs()))),
            _ => None,
        });
    gamma.fold(0.0, |floor, g| {
        f64::max(floor, f64::from(g) / 16384.0 * 1.0001)
    })
}

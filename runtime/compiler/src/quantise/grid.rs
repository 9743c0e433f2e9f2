//! Scales and zero points of every value.

use std::collections::BTreeMap;
use std::ops::Range;

use vitlet_plan::DType;

use super::types::Types;
use crate::calibrate::can_fold;
use crate::error::CompileError;
use crate::frontend::Binary;
use crate::ir::{Graph, Kind, Op, Operand, ValueId};
use crate::lower::expr::Expr;
use crate::memory::parts::Parts;
use crate::model::Normalisation;
use crate::ranges::{Ranges, ValueRange};

/// Head room of the s16 residual stream over what calibration saw: it costs one of 16 bits and keeps unseen photos from clipping.
const STREAM_HEADROOM: f64 = 2.0;
/// The largest logit seen in calibration lies here; the type holds four times more.
const LOGIT_TOP: f64 = (1u32 << 20) as f64;

/// The integers of one value: real = scale·(q − zero), one scale for all channels or one each.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Grid {
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

    /// 8 bits over a range that contains 0, which falls on a whole number.
    pub(crate) fn of_range(range: [f32; 2]) -> Grid {
        let (scale, zero) = asymmetric_steps(range);
        Grid::uniform(DType::S8, scale, zero)
    }

    /// 8 bits over a symmetric range for each channel.
    pub(crate) fn of_channels(tops: &[f32]) -> Grid {
        Grid {
            dtype: DType::S8,
            min: -128,
            scales: tops.iter().map(|top| symmetric_scale(*top)).collect(),
            zeros: vec![0.0],
        }
    }

    /// Integers that stand for themselves.
    pub(super) fn plain() -> Grid {
        Grid::uniform(DType::S8, 1.0, 0.0)
    }

    /// 8 bits with zero point 0.
    pub(super) fn symmetric(scale: f64) -> Grid {
        Grid::uniform(DType::S8, scale, 0.0)
    }

    /// 8 bits over all that this grid can hold, for values that are only known on it.
    pub(super) fn narrow(&self) -> Grid {
        let reach = match self.dtype {
            DType::S8 => 128.0,
            DType::S16 => 32768.0 / STREAM_HEADROOM,
            DType::S32 => LOGIT_TOP,
        };
        let scale = self.scales.iter().copied().fold(0.0, f64::max);
        Grid::uniform(DType::S8, scale * reach / 127.0, 0.0)
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

    /// The scales of the tensor record: none if there is one scale for all channels or if channels have zero points of their own
    /// (the image), otherwise one for each of as few equal runs of channels as there are.
    pub(super) fn record_scales(&self) -> Vec<f32> {
        let n = self.scales.len();
        if n == 1 || self.zeros.len() > 1 {
            return vec![];
        }
        let uniform = |run: usize| {
            let runs = self.scales.chunks(run);
            runs.into_iter()
                .all(|r| r.iter().all(|s| s.to_bits() == r[0].to_bits()))
        };
        let run = (1..=n)
            .rev()
            .find(|run| n.is_multiple_of(*run) && uniform(*run));
        let heads = self.scales.iter().step_by(run.unwrap_or(1));
        heads.map(|s| *s as f32).collect()
    }

    /// Whether all channels have the same scale and zero point, as the result of a table must.
    pub(super) fn is_uniform(&self) -> bool {
        self.scales.len() == 1 && self.zeros.len() == 1
    }

    /// Whether all channels have the same zero point.
    pub(super) fn has_one_zero(&self) -> bool {
        self.zeros.len() == 1
    }

    /// The one scale of all channels, 0 when there are several: what a tensor record says.
    pub(super) fn record_scale(&self) -> f32 {
        if self.is_uniform() {
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

    /// The real number that an integer stands for.
    pub(super) fn real(&self, q: f64, channel: usize) -> f64 {
        (q - self.zero(channel)) * self.scale(channel)
    }

    /// Whether numbers that saturate on this grid are clipped exactly as by `bounds`: then a clipping activation function
    /// (ReLU, ReLU6) needs nothing but the grid.
    pub(super) fn clips(&self, [low, high]: [f64; 2]) -> bool {
        let (lowest, highest) = (f64::from(self.min), 127.0);
        let q = |real: f64| real / self.scale(0) + self.zero(0);
        self.dtype == DType::S8
            && self.is_uniform()
            && q(low) <= lowest + 0.5
            && q(high) >= highest - 0.5
    }

    /// The s8 that stands for a real number, where all channels have one scale.
    pub(super) fn quantise(&self, real: f64) -> i8 {
        self.quantise_channel(real, 0)
    }

    /// The s8 that stands for a real number of a channel.
    pub(super) fn quantise_channel(&self, real: f64, channel: usize) -> i8 {
        to_i8(real / self.scale(channel) + self.zero(channel)).max(self.min)
    }
}

fn to_i8(x: f64) -> i8 {
    x.round_ties_even().clamp(-128.0, 127.0) as i8
}

/// Grids of all values of a plan, and of the results before an activation function that is a table.
pub(super) fn grids(
    graph: &Graph,
    types: &Types,
    parts: &Parts,
    seen: &BTreeMap<ValueId, &ValueRange>,
    normalisation: &Normalisation,
) -> BTreeMap<ValueId, Grid> {
    let mut sets: BTreeMap<usize, Vec<(ValueId, &ValueRange)>> = BTreeMap::new();
    let shared = shared(graph, types, parts);
    for value in types.keys() {
        if let Some(range) = seen.get(value) {
            sets.entry(shared[*value])
                .or_default()
                .push((*value, *range));
        }
    }
    let mut grids = BTreeMap::from([(graph.input, image(normalisation))]);
    for (set, members) in &sets {
        if *set == shared[graph.input] {
            // Rows of the image, or its maxima.
            grids.extend(members.iter().map(|(v, _)| (*v, image(normalisation))));
            continue;
        }
        let dtype = members.first().map_or(DType::S8, |(v, _)| types[v]);
        let grid = match dtype {
            DType::S8 => match attention_scales(graph, members) {
                Some(scales) => Grid {
                    dtype,
                    min: -127,
                    scales,
                    zeros: vec![0.0],
                },
                None => match members.as_slice() {
                    [(v, norm)] if !norm.channels.is_empty() && can_fold(graph, *v) => {
                        Grid::of_channels(&norm.channels)
                    }
                    _ => Grid::of_range(clip(members)),
                },
            },
            DType::S16 => Grid::uniform(dtype, stream_scale(graph, members), 0.0),
            DType::S32 => Grid::uniform(dtype, logit_scale(members), 0.0),
        };
        grids.extend(members.iter().map(|(v, _)| (*v, grid.clone())));
    }
    for before in graph.ops.iter().filter_map(crate::eval::before) {
        if let Some(range) = seen.get(&before) {
            grids.insert(before, Grid::of_range(range.clip));
        }
    }
    grids
}

/// Numbers the sets of values that have one grid: a stream (values that are added to each other by residuals), a whole and its
/// parts, the operand and the result of a maximum.
fn shared(graph: &Graph, types: &Types, parts: &Parts) -> Vec<usize> {
    let mut set: Vec<usize> = (0..graph.values.len()).collect();
    let mut join = |a: ValueId, b: ValueId| {
        let (from, to) = (set[a], set[b]);
        set.iter_mut().filter(|s| **s == from).for_each(|s| *s = to);
    };
    for value in types.keys() {
        parts
            .related(*value)
            .for_each(|related| join(related, *value));
    }
    for op in &graph.ops {
        let residual = op.epilogue().and_then(|e| e.residual);
        let pooled = matches!(op.kind, Kind::MaxPool(_));
        let pooled = op.inputs.first().copied().filter(|_| pooled);
        for value in residual.into_iter().chain(pooled) {
            join(op.output, value);
        }
    }
    set
}

/// The bounds of a function that clips and does nothing else; the interval they leave contains 0.
pub(super) fn clip_bounds(function: &Expr) -> Option<[f64; 2]> {
    let bounds = |f: &Expr| -> Option<[f64; 2]> {
        let Expr::Binary(op, a, b) = f else {
            return None;
        };
        let (inner, c) = match (&**a, &**b) {
            (Expr::Const(c), inner) | (inner, Expr::Const(c)) => (inner, *c),
            _ => return None,
        };
        let [low, high] = match inner {
            Expr::X => [f64::NEG_INFINITY, f64::INFINITY],
            inner => clip_bounds(inner)?,
        };
        match op {
            Binary::Max => Some([low.max(c), high.max(c)]),
            Binary::Min => Some([low.min(c), high.min(c)]),
            _ => None,
        }
    };
    bounds(function).filter(|[low, high]| *low <= 0.0 && 0.0 <= *high)
}

/// Ranges by value, after checking that they are ranges of this model.
pub(super) fn matched<'r>(
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
        let fits = |list: &[f32]| list.is_empty() || list.len() == v.channels;
        if v.name != range.name || !fits(&range.channels) || !fits(&range.correction) {
            return Err(wrong(format!(
                "`{}` stands where the model has `{}`",
                range.name, v.name
            )));
        }
        by_value.insert(value, range);
    }
    Ok(by_value)
}

/// The image, whose zero points are not whole.
fn image(n: &Normalisation) -> Grid {
    let [scales, zeros] = [0, 1].map(|which| n.integers().map(|colour| colour[which]).to_vec());
    Grid {
        dtype: DType::S8,
        min: -128,
        scales,
        zeros,
    }
}

type Members<'r> = [(ValueId, &'r ValueRange)];

/// The largest magnitude seen.
fn largest(members: &Members<'_>) -> f64 {
    let magnitude = |r: &ValueRange| f64::from(r.seen[0].abs().max(r.seen[1].abs()));
    members
        .iter()
        .map(|(_, r)| magnitude(r))
        .fold(0.0, f64::max)
}

/// The range that contains the best range of each.
fn clip(members: &Members<'_>) -> [f32; 2] {
    let ends = members.iter().map(|(_, r)| r.clip);
    ends.fold([0.0, 0.0], |[low, high], [l, h]| [low.min(l), high.max(h)])
}

/// Scale and zero point of 8 bits over a range that contains 0, or is extended to it.
pub(crate) fn asymmetric_steps([low, high]: [f32; 2]) -> (f64, f64) {
    let (low, high) = (f64::from(low.min(0.0)), f64::from(high.max(0.0)));
    let scale = ((high - low) / 255.0).max(1e-12);
    let zero = (-128.0 - low / scale).round_ties_even();
    (scale, zero.clamp(-128.0, 127.0))
}

/// Symmetric scales per head for values that attention reads, repeated over the head's channels.
fn attention_scales(graph: &Graph, members: &Members<'_>) -> Option<Vec<f64>> {
    let channels = graph.values[members.first()?.0].channels;
    let mut top: Vec<f32> = (0..channels)
        .map(|c| {
            let of_channel = members.iter().filter_map(|(_, r)| r.channels.get(c));
            of_channel.fold(0f32, |m, x| m.max(*x))
        })
        .collect();
    let mut runs: Vec<Range<usize>> = vec![];
    for op in &graph.ops {
        let Kind::Attention { shape, q, k, v, .. } = &op.kind else {
            continue;
        };
        let of_set = |o: &&Operand| members.iter().any(|(v, _)| o.value == Some(*v));
        for operand in [q, k, v].into_iter().filter(of_set) {
            for head in 0..shape.heads {
                let start = operand.column + head * operand.head_stride;
                let run = start..start + shape.head_dim;
                let constant = constant_top(operand, run.clone());
                top.get_mut(run.clone())?
                    .iter_mut()
                    .for_each(|t| *t = t.max(constant));
                runs.push(run);
            }
        }
    }
    if runs.is_empty() {
        return None;
    }
    level(&mut top, &runs);
    Some(top.iter().map(|t| symmetric_scale(*t)).collect())
}

/// Raises every channel to the largest of each run that it is in, until each run is level.
fn level(top: &mut [f32], runs: &[Range<usize>]) {
    let mut changed = true;
    while changed {
        changed = false;
        for run in runs {
            let Some(run) = top.get_mut(run.clone()) else {
                continue;
            };
            let largest = run.iter().fold(0f32, |m, x| m.max(*x));
            for t in run.iter_mut().filter(|t| **t < largest) {
                *t = largest;
                changed = true;
            }
        }
    }
}

fn symmetric_scale(top: f32) -> f64 {
    f64::from(top).max(1e-9) / 127.0
}

/// The largest magnitude of an operand's constants in some columns.
fn constant_top(operand: &Operand, columns: Range<usize>) -> f32 {
    let rows = operand.constants.chunks(operand.channels.max(1));
    let cells = rows.filter_map(|row| row.get(columns.clone())).flatten();
    cells.fold(0f32, |m, x| m.max(x.abs()))
}

/// The grid of an operand of attention: its value's, or that of its constants if there is nothing else.
pub(super) fn operand_grid(
    grids: &BTreeMap<ValueId, Grid>,
    op: &Op,
    operand: &Operand,
) -> Option<Grid> {
    if let Some(value) = operand.value {
        return grids.get(&value).cloned();
    }
    let Kind::Attention { shape, .. } = &op.kind else {
        return None;
    };
    let mut scales = vec![1.0; operand.channels];
    for head in 0..shape.heads {
        let start = operand.column + head * operand.head_stride;
        let run = start..start + shape.head_dim;
        let scale = symmetric_scale(constant_top(operand, run.clone()));
        scales.get_mut(run)?.fill(scale);
    }
    Some(Grid {
        dtype: DType::S8,
        min: -127,
        scales,
        zeros: vec![0.0],
    })
}

/// One scale per stream.
fn stream_scale(graph: &Graph, members: &Members<'_>) -> f64 {
    let floor = members.iter().map(|(v, _)| norm_floor(graph, *v));
    let wanted = largest(members) * STREAM_HEADROOM / 32767.0;
    floor
        .fold(wanted, f64::max)
        .max(f64::from(f32::MIN_POSITIVE))
}

fn logit_scale(members: &Members<'_>) -> f64 {
    largest(members).max(f64::MIN_POSITIVE) / LOGIT_TOP
}

/// The contract bounds gamma ÷ scale by 2¹⁴ for a layer norm that writes the stream.
fn norm_floor(graph: &Graph, value: ValueId) -> f64 {
    let gamma = graph
        .ops
        .iter()
        .filter(|op| op.output == value)
        .filter_map(|op| match &op.kind {
            Kind::LayerNorm { gamma, .. } | Kind::GroupNorm { gamma, .. } => {
                Some(gamma.iter().fold(0f32, |m, g| m.max(g.abs())))
            }
            _ => None,
        });
    gamma.fold(0.0, |floor, g| {
        f64::max(floor, f64::from(g) / 16384.0 * 1.0001)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::Geometry;
    use crate::memory::tests::Builder;
    use crate::quantise::types::check_types;
    use crate::ranges::Header;

    fn clipped(function: Expr, op: Binary, c: f64) -> Expr {
        function.binary(op, Expr::Const(c))
    }

    #[test]
    fn clipping_functions_are_known_and_others_are_not() {
        let relu = clipped(Expr::X, Binary::Max, 0.0);
        assert_eq!(clip_bounds(&relu), Some([0.0, f64::INFINITY]));
        let relu6 = clipped(relu.clone(), Binary::Min, 6.0);
        assert_eq!(clip_bounds(&relu6), Some([0.0, 6.0]));
        assert_eq!(clip_bounds(&clipped(relu6, Binary::Max, 1.0)), None);
        assert_eq!(clip_bounds(&Expr::X), None);
        assert_eq!(clip_bounds(&clipped(relu, Binary::Mul, 2.0)), None);
    }

    #[test]
    fn saturation_clips_only_where_the_grid_ends() {
        let relu = [0.0, f64::INFINITY];
        assert!(Grid::of_range([0.0, 3.0]).clips(relu));
        assert!(!Grid::of_range([-1.0, 3.0]).clips(relu));
        assert!(Grid::of_range([0.0, 6.0]).clips([0.0, 6.0]));
        assert!(!Grid::of_range([0.0, 8.0]).clips([0.0, 6.0]));
    }

    #[test]
    fn maxima_of_the_image_lie_on_the_image_s_grid() {
        let mut b = Builder::new(4);
        let geometry = Geometry {
            input: [4, 1],
            output: [1, 1],
            kernel: [4, 1],
            stride: [1, 1],
            pad: [0; 4],
        };
        let pooled = b.op(Kind::MaxPool(geometry), &[0], 1);
        let end = b.linear(pooled, None);
        let graph = b.finish(end);
        let types = check_types(&graph).expect("s8 for the product");
        let parts = Parts::new(&graph).expect("no parts");
        let range = |v: ValueId| ValueRange {
            name: graph.values[v].name.clone(),
            seen: [-1.0, 1.0],
            clip: [-1.0, 1.0],
            ..ValueRange::default()
        };
        let values = crate::calibrate::used_values(&graph).into_iter().map(range);
        let n = Normalisation::IMAGENET;
        let header = Header::of(n);
        let ranges = Ranges::new(header, values.collect());
        let seen = matched(&graph, &ranges).expect("ranges of this graph");
        let grids = grids(&graph, &types, &parts, &seen, &n);
        assert_eq!(grids[&pooled], grids[&0]);
        assert_eq!(grids[&pooled].scales.len(), 3);
    }

    #[test]
    fn runs_that_overlap_are_levelled_together() {
        let mut top = [1.0, 2.0, 3.0, 4.0, 5.0, 9.0];
        level(&mut top, &[0..2, 2..4, 1..3]);
        assert_eq!(top, [4.0, 4.0, 4.0, 4.0, 5.0, 9.0]);
    }

    #[test]
    fn scales_are_recorded_once_per_head() {
        let grid = |scales: &[f64]| Grid {
            dtype: DType::S8,
            min: -127,
            scales: scales.to_vec(),
            zeros: vec![0.0],
        };
        assert_eq!(grid(&[1.0, 1.0, 2.0, 2.0]).record_scales(), [1.0, 2.0]);
        assert_eq!(grid(&[1.0, 1.0]).record_scales(), [1.0]);
        assert_eq!(grid(&[1.0, 2.0, 2.0]).record_scales(), [1.0, 2.0, 2.0]);
        assert_eq!(grid(&[1.0]).record_scales(), [0f32; 0]);
    }
}

//! A scale for each channel of what a layer norm hands to matrix products, where that helps (RepQ-ViT, Li et al. 2023,
//! section 3.2: scales per channel are folded into the norm's affine factors and the next layer's weights).
//!
//! It costs nothing at run time: the norm's gamma and beta are divided by the scales anyway, and the weights that meet a channel
//! take its scale. Channels of small range then have all 8 bits. But the weights become less even, and rounding them costs more; so both
//! grids are tried on rows of the photos held out, by the error of the sums of the layers that read them. A channel's range is symmetric,
//! because a tensor of the plan has one zero point.

use super::PARTS;
use crate::ir::{Graph, Kind, Op, ValueId};
use crate::quantise::{Grid, error_of_sums};

/// The part of the photos that is held out.
const HELD_OUT: usize = PARTS - 1;
/// Rows of each photo that are kept.
const ROWS: usize = 4;
/// At most so many photos' rows are kept.
const PHOTOS: usize = 16;
/// Parts of the largest magnitude seen that a channel's scale may cover.
const REACHES: [f32; 5] = [1.0, 0.9, 0.8, 0.7, 0.6];
/// No channel's range is smaller than this part of the largest one's: a channel that hardly moves needs no steps of its own.
const FLOOR: f32 = 1.0 / 256.0;

/// What is known of a layer norm's result.
#[derive(Debug, Default)]
pub(super) struct Norm {
    /// Largest magnitude per channel, on each part of the photos.
    tops: [Vec<f32>; PARTS],
    /// Rows of the photos held out.
    rows: Vec<Vec<f32>>,
    photos: usize,
}

impl Norm {
    /// Counts a photo's rows.
    pub(super) fn add(&mut self, part: usize, data: &[f32], channels: usize) {
        let rows = || data.chunks_exact(channels.max(1));
        let tops = &mut self.tops[part];
        tops.resize(channels, 0.0);
        for row in rows() {
            let pairs = tops.iter_mut().zip(row);
            pairs.for_each(|(top, x)| *top = top.max(x.abs()));
        }
        if part == HELD_OUT && self.photos < PHOTOS {
            // Other places in each photo.
            let step = (rows().len() / ROWS).max(1);
            let chosen = rows().skip(self.photos % step).step_by(step).take(ROWS);
            self.rows.extend(chosen.map(<[f32]>::to_vec));
            self.photos += 1;
        }
    }

    /// The range of each channel, if the sums of `readers` err less with them than with `clip` for all of them, which is the range by the
    /// photos that are not held out.
    pub(super) fn choose(&self, readers: &[&Op], clip: [f32; 2]) -> Option<Vec<f32>> {
        let error = |grid: &Grid| -> f64 {
            let errors = readers.iter().map(|op| error_of_sums(op, grid, &self.rows));
            errors.sum()
        };
        let fit = tops(&self.tops[..HELD_OUT]);
        let mut best = (error(&Grid::of_range(clip)), None);
        for reach in REACHES {
            let found = error(&Grid::of_channels(&scaled(&fit, reach)));
            if found < best.0 {
                best = (found, Some(reach));
            }
        }
        best.1.map(|reach| scaled(&tops(&self.tops), reach))
    }
}

fn tops(parts: &[Vec<f32>]) -> Vec<f32> {
    let mut all = vec![0f32; parts.iter().map(Vec::len).max().unwrap_or(0)];
    for part in parts {
        let pairs = all.iter_mut().zip(part);
        pairs.for_each(|(top, x)| *top = top.max(*x));
    }
    all
}

fn scaled(tops: &[f32], reach: f32) -> Vec<f32> {
    let floor = FLOOR * tops.iter().copied().fold(0.0, f32::max);
    tops.iter().map(|top| reach * top.max(floor)).collect()
}

/// The layers whose weights can take the scales of a value's channels; `None` if the value is no layer norm's result, or something reads
/// it that needs one scale.
pub(super) fn readers(graph: &Graph, value: ValueId) -> Option<Vec<&Op>> {
    let norm = |op: &Op| matches!(op.kind, Kind::LayerNorm { .. } | Kind::GroupNorm { .. });
    let mut ops = graph.ops.iter();
    ops.find(|op| op.output == value && norm(op))?;
    let readers = graph.ops.iter().filter(|op| op.reads().any(|v| v == value));
    let readers: Vec<&Op> = readers.collect();
    let takes = |op: &&Op| has_weights(op) || matches!(op.kind, Kind::Add { .. });
    let residual = |op: &&Op| op.epilogue().and_then(|e| e.residual) == Some(value);
    let folds = readers.iter().any(|op| has_weights(op))
        && readers.iter().all(takes)
        && !readers.iter().any(residual)
        && graph.output != value;
    folds.then_some(readers)
}

/// Layers with weights for each channel of what they read.
fn has_weights(op: &Op) -> bool {
    matches!(
        op.kind,
        Kind::Conv { .. } | Kind::Linear { .. } | Kind::Depthwise { .. } | Kind::PoolLinear { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tests::{Builder, Random};

    const CHANNELS: usize = 8;

    /// A norm of as many channels and the product that reads it.
    fn product(weights: Vec<f32>) -> Op {
        let mut b = Builder::new(CHANNELS);
        let end = b.linear(0, None);
        let mut op = b.finish(end).ops.remove(0);
        op.kind = Kind::Linear {
            bias: vec![0.0; weights.len() / CHANNELS],
            weights,
            epilogue: crate::ir::Epilogue::default(),
        };
        op
    }

    /// Rows whose channels reach as far as `reach` says, on all parts of the photos.
    fn seen(reach: &[f32; CHANNELS]) -> Norm {
        let mut random = Random(7);
        let mut norm = Norm::default();
        for photo in 0..16 {
            let mut cell =
                |index: usize| (random.below(2001) as f32 / 1000.0 - 1.0) * reach[index % CHANNELS];
            let data: Vec<f32> = (0..64 * CHANNELS).map(&mut cell).collect();
            norm.add(photo % PARTS, &data, CHANNELS);
        }
        norm
    }

    #[test]
    fn channels_of_small_range_get_scales_of_their_own() {
        let reach = [8.0, 0.1, 0.1, 0.2, 0.1, 0.1, 0.2, 0.1];
        // The small channels count as much as the large one.
        let weights = (0..4 * CHANNELS).map(|i| {
            let sign = if i % 3 == 0 { -1.0 } else { 1.0 };
            sign / reach[i % CHANNELS]
        });
        let op = product(weights.collect());
        let channels = seen(&reach).choose(&[&op], [-8.0, 8.0]).expect("helps");
        assert_eq!(channels.len(), CHANNELS);
        assert!(channels[0] > 4.0 && channels[1] < 0.11, "{channels:?}");
    }

    #[test]
    fn equal_channels_keep_one_scale() {
        // All numbers are positive: one asymmetric range has twice the steps.
        let op = product(vec![1.0; 2 * CHANNELS]);
        let mut norm = Norm::default();
        for photo in 0..16u32 {
            let data: Vec<f32> = (0..64 * CHANNELS as u32)
                .map(|i| ((i * 37 + photo * 11) % 1000) as f32 / 1000.0)
                .collect();
            norm.add(photo as usize % PARTS, &data, CHANNELS);
        }
        assert_eq!(norm.choose(&[&op], [0.0, 1.0]), None);
    }

    #[test]
    fn only_what_products_read_is_folded() {
        let mut b = Builder::new(CHANNELS);
        let x = b.linear(0, None);
        let y = b.linear(x, Some(x));
        let n = b.norm(y);
        let m = b.norm(y);
        let z = b.linear(n, None);
        let s = b.add(m, z);
        let last = b.norm(s);
        let end = b.linear(last, None);
        let graph = b.finish(end);
        let kinds = |v| readers(&graph, v).map(|ops| ops.len());
        assert_eq!(kinds(n), Some(1));
        // Only a sum reads it: nothing takes the scales.
        assert_eq!(kinds(m), None);
        assert_eq!((kinds(y), kinds(last)), (None, Some(1)));
    }
}

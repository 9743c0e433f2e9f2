//! The reference: one output row at a time.

use core::ops::Range;

use super::exp2::{T_MAX, exp2_neg};
use super::{Attention, AttentionShape};
use crate::isa::Reference;
use crate::requantise::scalar::{round, s8};
use crate::scratch::carve;
use crate::{Out, SizeError};

/// A query row: of which head and group, and its index in the group.
#[derive(Clone, Copy)]
struct Query {
    head: usize,
    group: usize,
    index: usize,
}

impl Reference for Attention<'_> {
    type Input<'r> = [&'r [i8]; 3];

    fn run_scalar(
        &self,
        rows: Range<usize>,
        [q, k, v]: [&[i8]; 3],
        out: &mut Out<'_>,
        scratch: &mut [i8],
    ) -> Result<(), SizeError> {
        let Out::S8(out) = out else {
            return Err(SizeError::OutType);
        };
        let AttentionShape {
            heads,
            head_dim,
            groups,
            slots,
            queries,
            keys,
        } = self.shape;
        let (weights, _) = carve::<i32>(scratch, keys)?;
        for head in 0..heads {
            for (group, slot) in (0..groups).flat_map(|g| (0..slots).map(move |s| (g, s))) {
                let slot = group * slots + slot;
                for index in 0..queries {
                    let row = self.out.row(slot * queries + index);
                    if !rows.contains(&row) {
                        continue;
                    }
                    let query = Query { head, group, index };
                    let sum = self.softmax(query, q, k, weights);
                    let first = self.out.view.at(head, row - rows.start);
                    self.mix_scalar(head, slot, weights, sum, v, &mut out[first..][..head_dim]);
                }
            }
        }
        Ok(())
    }
}

impl Attention<'_> {
    /// Fills `weights` with the 14-bit exponentials of a query row; returns their sum.
    fn softmax(&self, query: Query, q: &[i8], k: &[i8], weights: &mut [i32]) -> i32 {
        let Query { head, group, index } = query;
        let AttentionShape {
            head_dim,
            queries,
            keys,
            ..
        } = self.shape;
        let row = self.q.head(q, head, group * queries + index, head_dim);
        for (j, logit) in weights.iter_mut().enumerate() {
            let key = self.k.head(k, head, group * keys + j, head_dim);
            *logit = row
                .iter()
                .zip(key)
                .map(|(&q, &k)| i32::from(q) * i32::from(k))
                .sum();
        }
        let scale = self.quantisation.logit_scale[head];
        if self.is_biased() {
            self.exponentials_biased(query, scale, weights);
        } else {
            let max = weights.iter().copied().fold(i32::MIN, i32::max);
            for weight in weights.iter_mut() {
                *weight = exp2_neg(round(((max - *weight) as f32 * scale).min(T_MAX)));
            }
        }
        weights.iter().sum()
    }

    /// Logits to exponentials, with bias and mask. (Nothing verified overflows or lies outside 0..=T_MAX; what was not must not panic.)
    fn exponentials_biased(&self, query: Query, scale: f32, weights: &mut [i32]) {
        let shape = &self.shape;
        let bias = self.bias.map(|bias| (bias, bias.head(shape, query.head)));
        for (j, logit) in weights.iter_mut().enumerate() {
            let bias = bias.map_or(0, |(bias, table)| table[bias.index(shape, query.index, j)]);
            *logit = round(*logit as f32 * scale).wrapping_add(bias);
        }
        let labels = self
            .mask
            .map(|mask| &mask[query.group * shape.queries..][..shape.queries]);
        let visible = |j: usize| labels.is_none_or(|labels| labels[j] == labels[query.index]);
        let max = (0..weights.len())
            .filter(|&j| visible(j))
            .map(|j| weights[j])
            .fold(i32::MIN, i32::max);
        for (j, weight) in weights.iter_mut().enumerate() {
            let t = max.wrapping_sub(*weight).clamp(0, T_MAX as i32);
            *weight = if visible(j) { exp2_neg(t) } else { 0 };
        }
    }

    /// The weighted mean of the values, in two planes of 7 bits.
    fn mix_scalar(
        &self,
        head: usize,
        slot: usize,
        weights: &[i32],
        sum: i32,
        v: &[i8],
        out: &mut [i8],
    ) {
        let AttentionShape { head_dim, keys, .. } = self.shape;
        let factor = self.quantisation.out_scale[head] / sum as f32;
        for (d, y) in out.iter_mut().enumerate() {
            let (mut hi, mut lo) = (0, 0);
            for (j, &weight) in weights.iter().enumerate() {
                let value = i32::from(self.v.head(v, head, slot * keys + j, head_dim)[d]);
                hi += (weight >> 7) * value;
                lo += (weight & 127) * value;
            }
            let r = round((hi as f32 * 128.0 + lo as f32) * factor);
            *y = s8(r, self.quantisation.zero_point, self.quantisation.min);
        }
    }
}

//! The reference: one query row at a time.

use core::ops::Range;

use super::Attention;
use super::exp2::{T_MAX, exp2_neg};
use crate::isa::Reference;
use crate::requantise::scalar::{round, s8};
use crate::scratch::carve;
use crate::{Out, SizeError};

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
        let (weights, _) = carve::<i32>(scratch, self.keys)?;
        for head in 0..self.heads {
            for (index, row) in rows.clone().enumerate() {
                let query = &q[self.q.at(head, row)..][..self.head_dim];
                let sum = self.softmax(head, query, k, weights);
                let first = self.out.at(head, index);
                self.mix_scalar(head, weights, sum, v, &mut out[first..][..self.head_dim]);
            }
        }
        Ok(())
    }
}

impl Attention<'_> {
    /// Fills `weights` with the 14-bit exponentials of a query row; returns their sum.
    fn softmax(&self, head: usize, query: &[i8], k: &[i8], weights: &mut [i32]) -> i32 {
        let mut max = i32::MIN;
        for (j, logit) in weights.iter_mut().enumerate() {
            let key = &k[self.k.at(head, j)..][..self.head_dim];
            *logit = query
                .iter()
                .zip(key)
                .map(|(&q, &k)| i32::from(q) * i32::from(k))
                .sum();
            max = max.max(*logit);
        }
        let scale = self.quantisation.logit_scale[head];
        for weight in weights.iter_mut() {
            *weight = exp2_neg(round(((max - *weight) as f32 * scale).min(T_MAX)));
        }
        weights.iter().sum()
    }

    /// The weighted mean of the values, in two planes of 7 bits.
    fn mix_scalar(&self, head: usize, weights: &[i32], sum: i32, v: &[i8], out: &mut [i8]) {
        let factor = self.quantisation.out_scale[head] / sum as f32;
        for (d, y) in out.iter_mut().enumerate() {
            let (mut hi, mut lo) = (0, 0);
            for (j, &weight) in weights.iter().enumerate() {
                let value = i32::from(v[self.v.at(head, j) + d]);
                hi += (weight >> 7) * value;
                lo += (weight & 127) * value;
            }
            let r = round((hi as f32 * 128.0 + lo as f32) * factor);
            *y = s8(r, self.quantisation.zero_point, self.quantisation.min);
        }
    }
}

//! The reference.

use core::ops::Range;

use super::{LayerNorm, rstd};
use crate::isa::Reference;
use crate::requantise::scalar::{round, sat8, sat16};
use crate::scratch::carve;
use crate::{Out, SizeError};

impl Reference for LayerNorm<'_> {
    type Input<'r> = &'r [i16];

    fn run_scalar(
        &self,
        rows: Range<usize>,
        x: &[i16],
        out: &mut Out<'_>,
        scratch: &mut [i8],
    ) -> Result<(), SizeError> {
        if let Some(gather) = self.gather {
            let (joined, _) = carve(scratch, self.channels)?;
            for (index, row) in rows.enumerate() {
                self.gather_row(gather, x, row, joined);
                self.row_scalar(joined, out, index * self.channels);
            }
            return Ok(());
        }
        for (index, row) in rows.enumerate() {
            self.row_scalar(
                &x[row * self.channels..][..self.channels],
                out,
                index * self.channels,
            );
        }
        Ok(())
    }
}

impl LayerNorm<'_> {
    fn row_scalar(&self, x: &[i16], out: &mut Out<'_>, first: usize) {
        let sum: i32 = x.iter().map(|&v| i32::from(v)).sum();
        let squares: u64 = x
            .iter()
            .map(|&v| u64::from(v.unsigned_abs()) * u64::from(v.unsigned_abs()))
            .sum();
        let (variance, shift) = self.variance(sum, squares);
        let rstd = rstd(variance.isqrt() as u32, shift);
        for (c, &x) in x.iter().enumerate() {
            let q = self.normalised(x, c, sum, rstd);
            match out {
                Out::S8(y) => y[first + c] = sat8(q),
                Out::S16(y) => y[first + c] = sat16(q),
                Out::S16Add(_) | Out::S32(_) => {}
            }
        }
    }

    /// Channel `c` of a row with that sum and reciprocal deviation, rounded.
    pub(super) fn normalised(&self, x: i16, c: usize, sum: i32, rstd: f32) -> i32 {
        let centred = (self.channels as i32 * i32::from(x) - sum) as f32;
        round(centred * rstd * self.gamma[c] + self.beta[c])
    }
}

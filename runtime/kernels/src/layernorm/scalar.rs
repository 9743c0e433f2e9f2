//! The reference.

use core::ops::Range;

use super::{LayerNorm, rstd};
use crate::isa::Reference;
use crate::requantise::scalar::{round, sat8, sat16};
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
        let joined = self.joined(scratch)?;
        for (index, row) in rows.enumerate() {
            let x = self.row(x, row, joined);
            self.row_scalar(x, out, index * self.channels);
        }
        Ok(())
    }
}

impl LayerNorm<'_> {
    /// Row `row`: of `x`, or put together in `joined`.
    fn row<'r>(&self, x: &'r [i16], row: usize, joined: &'r mut [i16]) -> &'r [i16] {
        match self.gather {
            None => &x[row * self.channels..][..self.channels],
            Some(gather) => {
                gather.join(x, row, joined);
                joined
            }
        }
    }

    fn row_scalar(&self, x: &[i16], out: &mut Out<'_>, first: usize) {
        let sum: i32 = x.iter().map(|&v| i32::from(v)).sum();
        let squares: u64 = x
            .iter()
            .map(|&v| u64::from(v.unsigned_abs()) * u64::from(v.unsigned_abs()))
            .sum();
        let (variance, shift) = self.variance(sum, squares);
        let rstd = rstd(variance.isqrt() as u32, shift);
        self.affine().row(x, sum, rstd, out, first);
    }
}

/// What follows the statistics, which is the same for layer and group norms.
#[derive(Clone, Copy)]
pub(crate) struct Affine<'a> {
    /// Units that the mean has in one of x.
    pub(crate) factor: i32,
    pub(crate) gamma: &'a [f32],
    pub(crate) beta: &'a [f32],
}

impl Affine<'_> {
    /// Channel `c`: `(factor·x − mean)·rstd·gamma + beta`, rounded.
    #[inline(always)]
    pub(crate) fn normalised(self, x: i16, c: usize, mean: i32, rstd: f32) -> i32 {
        let centred = (self.factor * i32::from(x) - mean) as f32;
        round(centred * rstd * self.gamma[c] + self.beta[c])
    }

    /// A row, to `out` from element `first` on.
    pub(crate) fn row(self, x: &[i16], mean: i32, rstd: f32, out: &mut Out<'_>, first: usize) {
        for (c, &x) in x.iter().enumerate() {
            let q = self.normalised(x, c, mean, rstd);
            match out {
                Out::S8(y) => y[first + c] = sat8(q),
                Out::S16(y) => y[first + c] = sat16(q),
                Out::S16Add(_) | Out::S32(_) => {}
            }
        }
    }
}

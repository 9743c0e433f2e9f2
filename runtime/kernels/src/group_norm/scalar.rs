//! The reference.

use core::ops::Range;

use super::{FACTOR, GroupNorm, Sums};
use crate::isa::Reference;
use crate::layernorm::scalar::Affine;
use crate::{Out, SizeError};

impl Reference for GroupNorm<'_> {
    type Input<'r> = &'r [i16];

    fn run_scalar(
        &self,
        rows: Range<usize>,
        x: &[i16],
        out: &mut Out<'_>,
        _: &mut [i8],
    ) -> Result<(), SizeError> {
        let mut sums = Sums::default();
        sums.add(x);
        let (variance, shift) = self.variance(sums);
        let (mean, rstd) = (self.mean(sums), self.rstd(variance.isqrt() as u32, shift));
        for (index, row) in rows.enumerate() {
            let x = &x[row * self.channels..][..self.channels];
            let first = index * self.channels;
            self.affine().row(x, mean, rstd, out, first);
        }
        Ok(())
    }
}

impl GroupNorm<'_> {
    /// What follows the statistics.
    pub(super) fn affine(&self) -> Affine<'_> {
        Affine {
            factor: FACTOR,
            gamma: self.gamma,
            beta: self.beta,
        }
    }
}

impl Sums {
    pub(super) fn add(&mut self, x: &[i16]) {
        for &v in x {
            self.sum += i64::from(v);
            self.squares += u64::from(v.unsigned_abs()) * u64::from(v.unsigned_abs());
        }
    }
}

//! Sums of the whole map in pieces, then rows as layer norm has them.

use core::ops::Range;

use super::{GroupNorm, Sums};
use crate::isa::{Gains, Isa, Vectorised};
use crate::layernorm::simd::Element;
use crate::{Out, SizeError};

/// Elements that [`Isa::sum_and_squares`] adds up at a time.
const PIECE: usize = 16384;
/// It takes multiples of this.
const LANES: usize = 8;

impl Vectorised for GroupNorm<'_> {
    const GAINS: Gains = Gains::LANES;

    #[inline(always)]
    fn run_simd<I: Isa>(
        &self,
        isa: I,
        rows: Range<usize>,
        x: &[i16],
        out: &mut Out<'_>,
        _: &mut [i8],
    ) -> Result<(), SizeError> {
        let mut sums = Sums::default();
        for piece in x.chunks(PIECE) {
            let (whole, rest) = piece.split_at(piece.len() - piece.len() % LANES);
            // SAFETY: a multiple of 8 elements, and no more than 16384.
            let (sum, squares) = unsafe { isa.sum_and_squares(whole.as_ptr(), whole.len()) };
            sums.sum += i64::from(sum);
            sums.squares += squares;
            sums.add(rest);
        }
        let (variance, shift) = self.variance(sums);
        let (mean, rstd) = (self.mean(sums), self.rstd(isa.root(variance), shift));
        let x = &x[rows.start * self.channels..rows.end * self.channels];
        match out {
            Out::S8(y) => self.rows_simd(isa, x, y, mean, rstd),
            Out::S16(y) => self.rows_simd(isa, x, y, mean, rstd),
            Out::S16Add(_) | Out::S32(_) => return Err(SizeError::OutType),
        }
        Ok(())
    }
}

impl GroupNorm<'_> {
    /// The rows `x`, to `y`.
    #[inline(always)]
    fn rows_simd<I: Isa, E: Element>(&self, isa: I, x: &[i16], y: &mut [E], mean: i32, rstd: f32) {
        let rows = x.chunks_exact(self.channels);
        for (x, y) in rows.zip(y.chunks_exact_mut(self.channels)) {
            // SAFETY: rows of as many elements as gamma and beta have (`new`); 256 fits an i16.
            unsafe {
                self.affine()
                    .row_simd(isa, x.as_ptr(), y.as_mut_ptr(), mean, rstd);
            }
        }
    }
}

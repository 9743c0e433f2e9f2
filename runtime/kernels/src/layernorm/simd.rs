//! Two passes over a row: sums, then 8 channels at a time; the last channels, fewer than 8, as the reference does them.

use core::ops::Range;

use super::{LayerNorm, rstd};
use crate::isa::{Isa, Vectorised};
use crate::{Out, SizeError};

impl Vectorised for LayerNorm<'_> {
    #[inline(always)]
    fn run_simd<I: Isa>(
        &self,
        isa: I,
        rows: Range<usize>,
        x: &[i16],
        out: &mut Out<'_>,
        _: &mut [i8],
    ) -> Result<(), SizeError> {
        for (index, row) in rows.enumerate() {
            let x = &x[row * self.channels..][..self.channels];
            self.row_simd(isa, x, out, index * self.channels);
        }
        Ok(())
    }
}

impl LayerNorm<'_> {
    #[inline(always)]
    fn row_simd<I: Isa>(&self, isa: I, x: &[i16], out: &mut Out<'_>, first: usize) {
        let whole = x.len() & !7;
        // SAFETY: `whole` is a multiple of 8 within x.
        let (mut sum, mut squares) = unsafe { isa.sum_and_squares(x.as_ptr(), whole) };
        for &v in &x[whole..] {
            sum += i32::from(v);
            squares += u64::from(v.unsigned_abs()) * u64::from(v.unsigned_abs());
        }
        let (variance, shift) = self.variance(sum, squares);
        let rstd = rstd(isa.root(variance), shift);
        // One loop for each output type: the choice is not made again for every vector.
        match out {
            Out::S8(y) => {
                let y = &mut y[first..][..whole];
                for (y, c) in y.chunks_exact_mut(8).zip((0..).step_by(8)) {
                    // SAFETY: c + 8 ≤ `whole` ≤ channels; y has 8 elements.
                    unsafe { isa.store_sat8(y.as_mut_ptr(), self.normalise(isa, x, c, sum, rstd)) };
                }
            }
            Out::S16(y) => {
                let y = &mut y[first..][..whole];
                for (y, c) in y.chunks_exact_mut(8).zip((0..).step_by(8)) {
                    // SAFETY: c + 8 ≤ `whole` ≤ channels; y has 8 elements.
                    unsafe { isa.store_i16(y.as_mut_ptr(), self.normalise(isa, x, c, sum, rstd)) };
                }
            }
            Out::S16Add(_) | Out::S32(_) => {}
        }
        for (c, &v) in x.iter().enumerate().skip(whole) {
            self.store(v, c, sum, rstd, out, first + c);
        }
    }

    /// 8 channels from `c` on of a row with that sum and reciprocal deviation, `sat16`.
    ///
    /// # Safety
    /// `c + 8` lies within the channels, which are the length of `x`.
    #[inline(always)]
    unsafe fn normalise<I: Isa>(&self, isa: I, x: &[i16], c: usize, sum: i32, rstd: f32) -> I::I16 {
        // SAFETY: the caller's promise; gamma and beta are as long as x (`new`).
        unsafe {
            let (x, gamma) = (
                isa.load_i16(x.as_ptr().add(c)),
                isa.load_f32(self.gamma.as_ptr().add(c)),
            );
            let centred = isa.to_f32(isa.mul_add_i16(isa.splat_i32(-sum), x, self.channels as i16));
            let scaled = isa.mul_f32(isa.mul_f32(centred, isa.splat_f32(rstd)), gamma);
            isa.round_sat16(isa.add_f32(scaled, isa.load_f32(self.beta.as_ptr().add(c))))
        }
    }
}

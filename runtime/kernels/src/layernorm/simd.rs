//! Two passes over a row: sums, then 8 channels at a time; the last channels, fewer than 8, as the reference does them.

use core::ops::Range;

use super::{LayerNorm, NormOutput};
use crate::isa::Isa;
use crate::{Out, SizeError};

impl LayerNorm<'_> {
    #[inline(always)]
    pub(super) fn run_simd<I: Isa>(
        &self,
        isa: I,
        rows: Range<usize>,
        x: &[i16],
        out: &mut Out<'_>,
    ) -> Result<(), SizeError> {
        for (index, row) in rows.enumerate() {
            self.row_simd(
                isa,
                &x[row * self.channels..][..self.channels],
                out,
                index * self.channels,
            );
        }
        Ok(())
    }

    #[inline(always)]
    fn row_simd<I: Isa>(&self, isa: I, x: &[i16], out: &mut Out<'_>, first: usize) {
        let whole = x.len() & !7;
        // SAFETY: `whole` is a multiple of 8 within x.
        let (mut sum, mut squares) = unsafe { isa.sum_and_squares(x.as_ptr(), whole) };
        for &v in &x[whole..] {
            sum += i32::from(v);
            squares += u64::from(v.unsigned_abs()) * u64::from(v.unsigned_abs());
        }
        let rstd = self.rstd(sum, squares);
        let (minus_sum, factor, count) = (
            isa.splat_i32(-sum),
            isa.splat_f32(rstd),
            self.channels as i16,
        );
        let mut c = 0;
        while c < whole {
            // SAFETY: c + 8 ≤ channels, the length of x, gamma and beta; `run` checked that `out` holds whole rows.
            unsafe {
                let centred =
                    isa.to_f32(isa.mul_add_i16(minus_sum, isa.load_i16(x.as_ptr().add(c)), count));
                let scaled = isa.mul_f32(
                    isa.mul_f32(centred, factor),
                    isa.load_f32(self.gamma.as_ptr().add(c)),
                );
                let q =
                    isa.round_sat16(isa.add_f32(scaled, isa.load_f32(self.beta.as_ptr().add(c))));
                match out {
                    Out::S8(y) => isa.store_sat8(y.as_mut_ptr().add(first + c), q),
                    Out::S16(y) => isa.store_i16(y.as_mut_ptr().add(first + c), q),
                    Out::S16Add(_) | Out::S32(_) => debug_assert!(self.output == NormOutput::S8),
                }
            }
            c += 8;
        }
        for (c, &v) in x.iter().enumerate().skip(whole) {
            self.store(v, c, sum, rstd, out, first + c);
        }
    }
}

//! Patches of some output pixels are gathered into scratch and multiplied as rows; past K they have anything, for weights are 0 there. A 1×1
//! convolution needs no gathering.

use core::ops::Range;

use super::Conv;
use crate::gemm::padded_k;
use crate::gemm::simd::{Packing, Rows};
use crate::isa::{Isa, Vectorised};
use crate::requantise::simd::Target;
use crate::scratch::carve;
use crate::{Out, SizeError};

impl Vectorised for Conv<'_> {
    #[inline(always)]
    fn run_simd<I: Isa>(
        &self,
        isa: I,
        rows: Range<usize>,
        x: &[i8],
        out: &mut Out<'_>,
        scratch: &mut [i8],
    ) -> Result<(), SizeError> {
        let (k, stride) = (self.gemm.k, padded_k(self.gemm.k));
        let width = self.shape.out_w as usize;
        let (patches, rest) = carve::<i8>(scratch, I::GROUP * stride)?;
        let packing = Packing::new::<I>(k, rest)?;
        patches.fill(0);
        let target = Target::new(
            isa,
            &self.gemm.requantise.output,
            || self.gemm.fits_i16(isa),
            out,
        )
        .adding(out);
        let in_place = self.shape.is_pointwise() && k == stride;
        let (mut pixel, end) = (rows.start * width, rows.end * width);
        while pixel < end {
            let count = (end - pixel).min(I::GROUP);
            let mut input = Rows {
                first: patches.as_ptr(),
                stride,
            };
            if in_place {
                input.first = x[pixel * k..(pixel + count) * k].as_ptr();
            } else {
                let (mut oy, mut ox) = (pixel / width, pixel % width);
                for patch in patches.chunks_exact_mut(stride).take(count) {
                    self.shape.gather(x, self.pad, oy, ox, patch);
                    ox += 1;
                    if ox == width {
                        (oy, ox) = (oy + 1, 0);
                    }
                }
            }
            // SAFETY: `count` rows of `stride` elements lie in `x` (k = stride) or in `patches`; `run` checked that `out` holds `rows`.
            unsafe {
                self.gemm.rows_simd(
                    isa,
                    input,
                    count,
                    target,
                    (pixel - rows.start * width) * self.gemm.n,
                    packing,
                );
            }
            pixel += count;
        }
        Ok(())
    }
}

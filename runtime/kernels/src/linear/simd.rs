//! Rows are read in place if K needs no padding, else copied to scratch.

use core::ops::Range;

use super::Linear;
use crate::gemm::padded_k;
use crate::gemm::simd::{Packing, Rows};
use crate::isa::{Isa, Vectorised};
use crate::requantise::simd::Target;
use crate::scratch::carve;
use crate::{Out, SizeError};

/// Rows at once if they are read in place and not packed: enough to forget the cost of a call, few enough that a table finds the outputs in L1.
const IN_PLACE: usize = 64;

impl Vectorised for Linear<'_> {
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
        let copies = if self.is_read_in_place() {
            0
        } else {
            I::GROUP * stride
        };
        let (padded, rest) = carve::<i8>(scratch, copies)?;
        let packing = Packing::joining(isa, &self.gemm, rows.len(), rest)?;
        padded.fill(0);
        let target = Target::new(
            isa,
            &self.gemm.requantise.output,
            || self.gemm.fits_i16(isa),
            out,
        )
        .adding(out);
        let at_once = match (self.is_read_in_place(), I::PACKED) {
            (true, true) => packing.rows(),
            (true, false) => IN_PLACE / I::GROUP * I::GROUP,
            (false, _) => I::GROUP,
        };
        let mut row = rows.start;
        while row < rows.end {
            let count = (rows.end - row).min(at_once);
            let group = &x[row * k..(row + count) * k];
            let mut input = Rows {
                first: group.as_ptr(),
                stride,
            };
            if k != stride {
                for (source, copy) in group.chunks_exact(k).zip(padded.chunks_exact_mut(stride)) {
                    copy[..k].copy_from_slice(source);
                }
                input.first = padded.as_ptr();
            }
            // SAFETY: `count` rows of `stride` elements lie in `group` (k = stride) or in `padded`; `run` checked that `out` holds `rows`.
            unsafe {
                self.gemm.rows_simd(
                    isa,
                    input,
                    count,
                    target,
                    (row - rows.start) * self.gemm.n,
                    packing,
                );
            }
            row += count;
        }
        Ok(())
    }
}

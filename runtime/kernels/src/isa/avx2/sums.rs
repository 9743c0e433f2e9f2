//! The sums of a row that LayerNorm needs.

use core::arch::x86_64::*;

use crate::isa::Isa;

/// See [`Isa::sum_and_squares`].
#[inline(always)]
pub(super) unsafe fn sum_and_squares<I: Isa<I16 = __m128i, I32 = __m256i>>(
    isa: I,
    p: *const i16,
    n: usize,
) -> (i32, u64) {
    // SAFETY: i stays below n, and the caller promises n elements.
    unsafe {
        let (mut sum, mut squares) = (_mm256_setzero_si256(), _mm256_setzero_si256());
        let mut i = 0;
        while i < n {
            let x = _mm_loadu_si128(p.add(i).cast());
            sum = isa.accumulate(sum, x);
            // A sum of two squares is at most 2³¹: it fits 32 bits without a sign.
            squares = _mm256_add_epi64(squares, _mm256_cvtepu32_epi64(_mm_madd_epi16(x, x)));
            i += 8;
        }
        let mut lanes = [0_u64; 4];
        _mm256_storeu_si256(lanes.as_mut_ptr().cast(), squares);
        (
            isa.reduce_add(sum),
            lanes[0] + lanes[1] + lanes[2] + lanes[3],
        )
    }
}

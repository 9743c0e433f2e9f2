//! What a LayerNorm row needs: the sum and the sum of squares of 16-bit values.

use core::arch::aarch64::*;

/// See [`Isa::sum_and_squares`]. Two squares, of at most 2³⁰ each, are added in 32 bits before they are widened.
#[inline(always)]
pub(super) unsafe fn sum_and_squares(mut p: *const i16, n: usize) -> (i32, u64) {
    // SAFETY: n / 16 times 16 values and then 8 are no more than n, a multiple of 8; the caller promises n elements.
    unsafe {
        let (mut sum, mut squares) = (vdupq_n_s32(0), [vdupq_n_u64(0); 2]);
        for _ in 0..n / 16 {
            let x = [vld1q_s16(p), vld1q_s16(p.add(8))];
            sum = vpadalq_s16(vpadalq_s16(sum, x[0]), x[1]);
            squares = [
                vpadalq_u32(squares[0], square_pairs(x[0])),
                vpadalq_u32(squares[1], square_pairs(x[1])),
            ];
            p = p.add(16);
        }
        if !n.is_multiple_of(16) {
            let x = vld1q_s16(p);
            sum = vpadalq_s16(sum, x);
            squares[0] = vpadalq_u32(squares[0], square_pairs(x));
        }
        (
            vaddvq_s32(sum),
            vaddvq_u64(vaddq_u64(squares[0], squares[1])),
        )
    }
}

/// `x[j]² + x[j + 4]²`.
#[inline(always)]
fn square_pairs(x: int16x8_t) -> uint32x4_t {
    // SAFETY: register operations of the baseline instruction set.
    unsafe {
        let low = vget_low_s16(x);
        vreinterpretq_u32_s32(vmlal_high_s16(vmull_s16(low, low), x, x))
    }
}

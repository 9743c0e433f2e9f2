//! What a LayerNorm row needs: the sum and the sum of squares of 16-bit values.

use core::arch::aarch64::*;

/// See [`Isa::sum_and_squares`].
#[inline(always)]
pub(super) unsafe fn sum_and_squares(p: *const i16, n: usize) -> (i32, u64) {
    // SAFETY: i + 16 or i + 8 stay within n, a multiple of 8, and the caller promises n elements.
    unsafe {
        let (mut sum, mut squares) = (vdupq_n_s32(0), [vdupq_n_u64(0); 2]);
        let mut i = 0;
        while i + 16 <= n {
            let x = [vld1q_s16(p.add(i)), vld1q_s16(p.add(i + 8))];
            for x in x {
                (sum, squares) = add_squares(sum, squares, x);
            }
            i += 16;
        }
        if i < n {
            (sum, squares) = add_squares(sum, squares, vld1q_s16(p.add(i)));
        }
        (
            vaddvq_s32(sum),
            vaddvq_u64(vaddq_u64(squares[0], squares[1])),
        )
    }
}

/// One step of `sum_and_squares`.
#[inline(always)]
fn add_squares(
    sum: int32x4_t,
    squares: [uint64x2_t; 2],
    x: int16x8_t,
) -> (int32x4_t, [uint64x2_t; 2]) {
    // SAFETY: register operations of the baseline instruction set.
    unsafe {
        let low = vreinterpretq_u32_s32(vmull_s16(vget_low_s16(x), vget_low_s16(x)));
        let high = vreinterpretq_u32_s32(vmull_high_s16(x, x));
        (
            vpadalq_s16(sum, x),
            [vpadalq_u32(squares[0], low), vpadalq_u32(squares[1], high)],
        )
    }
}

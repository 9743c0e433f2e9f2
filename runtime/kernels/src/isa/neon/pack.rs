//! Attention's keys and values to the GEMM's blocked layout.

use core::arch::aarch64::*;

/// See [`Isa::pack_keys`]: a transposition of 4 × 4 words.
#[inline(always)]
pub(super) unsafe fn pack_keys(rows: [*const i8; 4], to: *mut i8) {
    // SAFETY: the caller's promise.
    unsafe {
        let word = |row: *const i8| vreinterpretq_s32_s8(vld1q_s8(row));
        let rows = [word(rows[0]), word(rows[1]), word(rows[2]), word(rows[3])];
        let pairs = [
            vzip1q_s32(rows[0], rows[1]),
            vzip2q_s32(rows[0], rows[1]),
            vzip1q_s32(rows[2], rows[3]),
            vzip2q_s32(rows[2], rows[3]),
        ];
        let low =
            |upper, lower| vzip1q_s64(vreinterpretq_s64_s32(upper), vreinterpretq_s64_s32(lower));
        let high =
            |upper, lower| vzip2q_s64(vreinterpretq_s64_s32(upper), vreinterpretq_s64_s32(lower));
        vst1q_s8(to, vreinterpretq_s8_s64(low(pairs[0], pairs[2])));
        vst1q_s8(to.add(32), vreinterpretq_s8_s64(high(pairs[0], pairs[2])));
        vst1q_s8(to.add(64), vreinterpretq_s8_s64(low(pairs[1], pairs[3])));
        vst1q_s8(to.add(96), vreinterpretq_s8_s64(high(pairs[1], pairs[3])));
    }
}

/// See [`Isa::pack_values`].
#[inline(always)]
pub(super) unsafe fn pack_values(rows: [*const i8; 4], to: [*mut i8; 2]) {
    // SAFETY: the caller's promise.
    unsafe {
        let [r0, r1, r2, r3] = [
            vld1q_s8(rows[0]),
            vld1q_s8(rows[1]),
            vld1q_s8(rows[2]),
            vld1q_s8(rows[3]),
        ];
        let columns = interleave(r0, r1, r2, r3);
        vst1q_s8(to[0], columns[0]);
        vst1q_s8(to[0].add(16), columns[1]);
        vst1q_s8(to[1], columns[2]);
        vst1q_s8(to[1].add(16), columns[3]);
    }
}

/// The bytes of four rows, side by side for each of 16 columns.
#[inline(always)]
pub(in crate::isa) fn interleave(
    r0: int8x16_t,
    r1: int8x16_t,
    r2: int8x16_t,
    r3: int8x16_t,
) -> [int8x16_t; 4] {
    // SAFETY: register operations of the baseline instruction set.
    unsafe {
        let pairs = |a, b| {
            [
                vreinterpretq_s16_s8(vzip1q_s8(a, b)),
                vreinterpretq_s16_s8(vzip2q_s8(a, b)),
            ]
        };
        let (upper, lower) = (pairs(r0, r1), pairs(r2, r3));
        [
            vreinterpretq_s8_s16(vzip1q_s16(upper[0], lower[0])),
            vreinterpretq_s8_s16(vzip2q_s16(upper[0], lower[0])),
            vreinterpretq_s8_s16(vzip1q_s16(upper[1], lower[1])),
            vreinterpretq_s8_s16(vzip2q_s16(upper[1], lower[1])),
        ]
    }
}

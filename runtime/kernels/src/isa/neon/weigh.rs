//! Attention's values, weighed by 16-bit exponentials.

use core::arch::aarch64::*;

use super::super::unroll;
use super::Pair;
use crate::SMALL;

/// See [`Isa::weigh`](super::Isa::weigh).
///
/// ```text
/// for each 8 keys:
///     factors = 8 of each row
///     for each key: widen its 8 channels; for each row: multiply by the key's factor, add
/// the same with 2, 4, 6 or 8 of the keys that are left: factors past the last key are 0
/// ```
/// 1. SMLAL by element repeats the factor by itself: no instruction but the two that multiply.
/// 2. The channels of two keys are one load.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn weigh<const R: usize>(
    e: *const i16,
    pitch: usize,
    keys: usize,
    v: *const i8,
) -> [Pair<int32x4_t>; R] {
    // SAFETY: the caller promises `keys` rounded up to 8 of every row and of the values; j + 8 stays within that.
    unsafe {
        let mut acc = [Pair(vdupq_n_s32(0), vdupq_n_s32(0)); R];
        let mut j = 0;
        while j + 8 <= keys {
            acc = weigh_keys::<R, 8>(acc, e.add(j), pitch, v.add(8 * j));
            j += 8;
        }
        let (e, v) = (e.add(j), v.add(8 * j));
        match keys - j {
            0 => acc,
            _ if SMALL => weigh_keys::<R, 8>(acc, e, pitch, v),
            1..=2 => weigh_keys::<R, 2>(acc, e, pitch, v),
            3..=4 => weigh_keys::<R, 4>(acc, e, pitch, v),
            5..=6 => weigh_keys::<R, 6>(acc, e, pitch, v),
            _ => weigh_keys::<R, 8>(acc, e, pitch, v),
        }
    }
}

/// N keys of 8, N even.
///
/// # Safety
/// 8 elements of every row and N of the values can be read.
#[inline(always)]
unsafe fn weigh_keys<const R: usize, const N: usize>(
    mut acc: [Pair<int32x4_t>; R],
    e: *const i16,
    pitch: usize,
    v: *const i8,
) -> [Pair<int32x4_t>; R] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut factors = [vdupq_n_s16(0); R];
        unroll!(R, r, {
            factors[r] = vld1q_s16(e.add(r * pitch));
        });
        acc = weigh_two::<R, 0, 1>(acc, &factors, v);
        if N > 2 {
            acc = weigh_two::<R, 2, 3>(acc, &factors, v.add(16));
        }
        if N > 4 {
            acc = weigh_two::<R, 4, 5>(acc, &factors, v.add(32));
        }
        if N > 6 {
            acc = weigh_two::<R, 6, 7>(acc, &factors, v.add(48));
        }
        acc
    }
}

/// The keys J and K.
///
/// # Safety
/// 16 elements of the values can be read.
#[inline(always)]
unsafe fn weigh_two<const R: usize, const J: i32, const K: i32>(
    mut acc: [Pair<int32x4_t>; R],
    factors: &[int16x8_t; R],
    v: *const i8,
) -> [Pair<int32x4_t>; R] {
    // SAFETY: the caller's promise.
    unsafe {
        let v = vld1q_s8(v);
        let (j, k) = (vmovl_s8(vget_low_s8(v)), vmovl_high_s8(v));
        unroll!(R, r, {
            acc[r] = Pair(
                vmlal_laneq_s16::<J>(acc[r].0, vget_low_s16(j), factors[r]),
                vmlal_high_laneq_s16::<J>(acc[r].1, j, factors[r]),
            );
        });
        unroll!(R, r, {
            acc[r] = Pair(
                vmlal_laneq_s16::<K>(acc[r].0, vget_low_s16(k), factors[r]),
                vmlal_high_laneq_s16::<K>(acc[r].1, k, factors[r]),
            );
        });
        acc
    }
}

//! The tile with SDOT (ARMv8.2): `sdot acc.4s, w.16b, x.4b[i]` adds 4 steps of K for 4 columns of one row. Registers for 8 rows:
//!
//! | 16 | 8 | 2 |
//! |---|---|---|
//! | accumulators: 8 rows × 8 columns | rows: 16 steps of K each | weights: 4 steps × 8 columns |
//!
//! Per 16 steps of K: 8 loads of rows, 8 of weights, 64 SDOT.

use core::arch::aarch64::*;
use core::arch::asm;

use super::neon::Pair;
use crate::NeonDotprod;

/// See [`super::Isa::tile`].
#[inline(always)]
pub(super) unsafe fn tile<const R: usize>(
    _token: NeonDotprod,
    init: Pair<int32x4_t>,
    a: *const i8,
    stride: usize,
    k: usize,
    b: *const i8,
) -> [Pair<int32x4_t>; R] {
    // SAFETY: i stays below k; the caller promises k elements of every row and 8·k weights.
    unsafe {
        let mut acc = [init; R];
        let mut i = 0;
        while i < k {
            let mut rows = [vdupq_n_s8(0); R];
            for r in 0..R {
                rows[r] = vld1q_s8(a.add(r * stride + i));
            }
            let w = b.add(i * 8);
            acc = step::<R, 0>(acc, rows, w);
            acc = step::<R, 1>(acc, rows, w.add(32));
            acc = step::<R, 2>(acc, rows, w.add(64));
            acc = step::<R, 3>(acc, rows, w.add(96));
            i += 16;
        }
        acc
    }
}

/// 4 steps of K for all rows: bytes 4·LANE.. of `rows`.
///
/// # Safety
/// `w` is valid for reading 32 elements.
#[inline(always)]
unsafe fn step<const R: usize, const LANE: usize>(
    mut acc: [Pair<int32x4_t>; R],
    rows: [int8x16_t; R],
    w: *const i8,
) -> [Pair<int32x4_t>; R] {
    // SAFETY: the caller promises 32 weights; the caller's token proves SDOT.
    unsafe {
        let (w0, w1) = (vld1q_s8(w), vld1q_s8(w.add(16)));
        for r in 0..R {
            acc[r] = Pair(
                sdot::<LANE>(acc[r].0, w0, rows[r]),
                sdot::<LANE>(acc[r].1, w1, rows[r]),
            );
        }
        acc
    }
}

/// `acc[j] += Σ_i w[4j + i] · x[4·LANE + i]`. (The intrinsic, `vdotq_laneq_s32`, is not stable yet.)
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot<const LANE: usize>(mut acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: one register operation; the feature is enabled on this function.
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {w:v}.16b, {x:v}.4b[{lane}]",
            acc = inout(vreg) acc, w = in(vreg) w, x = in(vreg) x, lane = const LANE,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

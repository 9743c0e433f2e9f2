//! Depthwise: 16 channels at a time, products of two taps added in 16 bits before they are widened.

use core::arch::aarch64::*;
use core::arch::asm;

use super::Pair;

/// Three rows of 16 channels.
pub(super) type Column = [int8x16_t; 3];
/// Nine taps of 16 channels.
pub(super) type Window = [int8x16_t; 9];

/// See [`Isa::load_column`].
#[inline(always)]
pub(super) unsafe fn load_column(rows: [*const i8; 3]) -> Column {
    // SAFETY: the caller's promise.
    unsafe { [vld1q_s8(rows[0]), vld1q_s8(rows[1]), vld1q_s8(rows[2])] }
}

/// See [`Isa::load_window`].
#[inline(always)]
pub(super) unsafe fn load_window(w: *const i8, channels: usize) -> Window {
    // SAFETY: the caller's promise.
    unsafe {
        let mut window = [vdupq_n_s8(0); 9];
        for tap in 0..9 {
            window[tap] = vld1q_s8(w.add(tap * channels));
        }
        window
    }
}

/// See [`Isa::window`].
#[inline(always)]
pub(super) fn window(
    mut acc: [Pair<int32x4_t>; 2],
    [x0, x1, x2]: [Column; 3],
    w: &Window,
) -> [Pair<int32x4_t>; 2] {
    acc = tap_pair(acc, [x0[0], x1[0]], [w[0], w[1]]);
    acc = tap_pair(acc, [x2[0], x0[1]], [w[2], w[3]]);
    acc = tap_pair(acc, [x1[1], x2[1]], [w[4], w[5]]);
    acc = tap_pair(acc, [x0[2], x1[2]], [w[6], w[7]]);
    tap(acc, x2[2], w[8])
}

/// See [`Isa::tap`]. Assembly, here and below, because the compiler splits the weights into halves, which take twice the registers.
#[inline(always)]
pub(super) fn tap(acc: [Pair<int32x4_t>; 2], x: int8x16_t, w: int8x16_t) -> [Pair<int32x4_t>; 2] {
    let [Pair(mut a0, mut a1), Pair(mut a2, mut a3)] = acc;
    // SAFETY: register operations of the baseline instruction set.
    unsafe {
        asm!(
            "smull {p0:v}.8h, {x:v}.8b, {w:v}.8b",
            "smull2 {p1:v}.8h, {x:v}.16b, {w:v}.16b",
            "saddw {a0:v}.4s, {a0:v}.4s, {p0:v}.4h",
            "saddw2 {a1:v}.4s, {a1:v}.4s, {p0:v}.8h",
            "saddw {a2:v}.4s, {a2:v}.4s, {p1:v}.4h",
            "saddw2 {a3:v}.4s, {a3:v}.4s, {p1:v}.8h",
            a0 = inout(vreg) a0, a1 = inout(vreg) a1, a2 = inout(vreg) a2, a3 = inout(vreg) a3,
            x = in(vreg) x, w = in(vreg) w, p0 = out(vreg) _, p1 = out(vreg) _,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    [Pair(a0, a1), Pair(a2, a3)]
}

/// See [`Isa::tap_pair`].
#[inline(always)]
pub(super) fn tap_pair(
    acc: [Pair<int32x4_t>; 2],
    x: [int8x16_t; 2],
    w: [int8x16_t; 2],
) -> [Pair<int32x4_t>; 2] {
    let [Pair(mut a0, mut a1), Pair(mut a2, mut a3)] = acc;
    // SAFETY: register operations of the baseline instruction set.
    unsafe {
        asm!(
            "smull {p0:v}.8h, {x0:v}.8b, {w0:v}.8b",
            "smull2 {p1:v}.8h, {x0:v}.16b, {w0:v}.16b",
            "smlal {p0:v}.8h, {x1:v}.8b, {w1:v}.8b",
            "smlal2 {p1:v}.8h, {x1:v}.16b, {w1:v}.16b",
            "saddw {a0:v}.4s, {a0:v}.4s, {p0:v}.4h",
            "saddw2 {a1:v}.4s, {a1:v}.4s, {p0:v}.8h",
            "saddw {a2:v}.4s, {a2:v}.4s, {p1:v}.4h",
            "saddw2 {a3:v}.4s, {a3:v}.4s, {p1:v}.8h",
            a0 = inout(vreg) a0, a1 = inout(vreg) a1, a2 = inout(vreg) a2, a3 = inout(vreg) a3,
            x0 = in(vreg) x[0], x1 = in(vreg) x[1], w0 = in(vreg) w[0], w1 = in(vreg) w[1],
            p0 = out(vreg) _, p1 = out(vreg) _,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    [Pair(a0, a1), Pair(a2, a3)]
}

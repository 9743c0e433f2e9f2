//! Depthwise: 16 channels at a time. Products of two taps are added in 16 bits (2·127·128 fits) before they are widened.

use core::arch::aarch64::*;
use core::arch::asm;

use super::Pair;

/// Output rows that share columns.
pub(super) const LINES: usize = 1;
/// Three rows of 16 channels: the first two side by side for channels 0–7, for channels 8–15, and the third.
pub(super) type Column = [int8x16_t; 3];
/// Nine taps of 16 channels: a pair of vectors for the upper two rows of each column, one for the third row of the first two columns side by side, and
/// the last tap.
pub(super) type Window = [int8x16_t; 9];

/// Two rows side by side.
#[inline(always)]
fn side_by_side(a: int8x16_t, b: int8x16_t) -> [int8x16_t; 2] {
    // SAFETY: register operations of the baseline instruction set.
    unsafe { [vzip1q_s8(a, b), vzip2q_s8(a, b)] }
}

/// See [`Isa::load_column`](super::Isa::load_column).
#[inline(always)]
pub(super) unsafe fn load_column(rows: [*const i8; 4]) -> Column {
    // SAFETY: the caller's promise.
    unsafe {
        let [low, high] = side_by_side(vld1q_s8(rows[0]), vld1q_s8(rows[1]));
        [low, high, vld1q_s8(rows[2])]
    }
}

/// See [`Isa::load_window`](super::Isa::load_window).
#[inline(always)]
pub(super) unsafe fn load_window(w: *const i8, channels: usize) -> Window {
    // SAFETY: the caller's promise; tap 3·ky + kx of 9.
    unsafe {
        let tap = |ky: usize, kx: usize| vld1q_s8(w.add((3 * ky + kx) * channels));
        let [a0, a1] = side_by_side(tap(0, 0), tap(1, 0));
        let [b0, b1] = side_by_side(tap(0, 1), tap(1, 1));
        let [c0, c1] = side_by_side(tap(0, 2), tap(1, 2));
        let [d0, d1] = side_by_side(tap(2, 0), tap(2, 1));
        [a0, a1, b0, b1, c0, c1, d0, d1, tap(2, 2)]
    }
}

/// See [`Isa::window`](super::Isa::window).
///
/// ```text
/// products of a, the first column's upper two rows; + those of b, the second column's; neighbours to the accumulators
/// products of c, the third column's upper two rows; + those of d, the third row of the first two columns; neighbours to the accumulators
/// products of the last tap, widened, to the accumulators
/// ```
/// 1. Two taps of a channel are neighbours, so SADALP accumulates four products of each of 4 channels at once: 12 of them and SADDW, where taps in vectors
///    of their own take 20 SADDW.
/// 2. Whatever depends on another instruction comes three or more behind it, for cores that work in order.
#[inline(always)]
pub(super) fn window(
    acc: [Pair<int32x4_t>; 2],
    [[a0, a1, a2], [b0, b1, b2], [c0, c1, c2]]: [Column; 3],
    w: &Window,
) -> [Pair<int32x4_t>; 2] {
    let [Pair(mut s0, mut s1), Pair(mut s2, mut s3)] = acc;
    // SAFETY: register operations of the baseline instruction set.
    unsafe {
        asm!(
            "zip1 {d0:v}.16b, {a2:v}.16b, {b2:v}.16b",
            "zip2 {d1:v}.16b, {a2:v}.16b, {b2:v}.16b",
            "smull {p0:v}.8h, {a0:v}.8b, {wa0:v}.8b",
            "smull2 {p1:v}.8h, {a0:v}.16b, {wa0:v}.16b",
            "smull {p2:v}.8h, {a1:v}.8b, {wa1:v}.8b",
            "smull2 {p3:v}.8h, {a1:v}.16b, {wa1:v}.16b",
            "smull {p4:v}.8h, {c0:v}.8b, {wc0:v}.8b",
            "smull2 {p5:v}.8h, {c0:v}.16b, {wc0:v}.16b",
            "smlal {p0:v}.8h, {b0:v}.8b, {wb0:v}.8b",
            "smlal2 {p1:v}.8h, {b0:v}.16b, {wb0:v}.16b",
            "smlal {p2:v}.8h, {b1:v}.8b, {wb1:v}.8b",
            "smlal2 {p3:v}.8h, {b1:v}.16b, {wb1:v}.16b",
            "smlal {p4:v}.8h, {d0:v}.8b, {wd0:v}.8b",
            "smlal2 {p5:v}.8h, {d0:v}.16b, {wd0:v}.16b",
            "sadalp {s0:v}.4s, {p0:v}.8h",
            "sadalp {s1:v}.4s, {p1:v}.8h",
            "sadalp {s2:v}.4s, {p2:v}.8h",
            "sadalp {s3:v}.4s, {p3:v}.8h",
            "smull {p0:v}.8h, {c1:v}.8b, {wc1:v}.8b",
            "smull2 {p1:v}.8h, {c1:v}.16b, {wc1:v}.16b",
            "smull {p2:v}.8h, {c2:v}.8b, {last:v}.8b",
            "smull2 {p3:v}.8h, {c2:v}.16b, {last:v}.16b",
            "smlal {p0:v}.8h, {d1:v}.8b, {wd1:v}.8b",
            "smlal2 {p1:v}.8h, {d1:v}.16b, {wd1:v}.16b",
            "sadalp {s0:v}.4s, {p4:v}.8h",
            "sadalp {s1:v}.4s, {p5:v}.8h",
            "sadalp {s2:v}.4s, {p0:v}.8h",
            "sadalp {s3:v}.4s, {p1:v}.8h",
            "saddw {s0:v}.4s, {s0:v}.4s, {p2:v}.4h",
            "saddw2 {s1:v}.4s, {s1:v}.4s, {p2:v}.8h",
            "saddw {s2:v}.4s, {s2:v}.4s, {p3:v}.4h",
            "saddw2 {s3:v}.4s, {s3:v}.4s, {p3:v}.8h",
            s0 = inout(vreg) s0, s1 = inout(vreg) s1, s2 = inout(vreg) s2, s3 = inout(vreg) s3,
            a0 = in(vreg) a0, a1 = in(vreg) a1, a2 = in(vreg) a2,
            b0 = in(vreg) b0, b1 = in(vreg) b1, b2 = in(vreg) b2,
            c0 = in(vreg) c0, c1 = in(vreg) c1, c2 = in(vreg) c2,
            wa0 = in(vreg) w[0], wa1 = in(vreg) w[1], wb0 = in(vreg) w[2], wb1 = in(vreg) w[3], wc0 = in(vreg) w[4],
            wc1 = in(vreg) w[5], wd0 = in(vreg) w[6], wd1 = in(vreg) w[7], last = in(vreg) w[8],
            p0 = out(vreg) _, p1 = out(vreg) _, p2 = out(vreg) _, p3 = out(vreg) _, p4 = out(vreg) _, p5 = out(vreg) _,
            d0 = out(vreg) _, d1 = out(vreg) _,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    [Pair(s0, s1), Pair(s2, s3)]
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

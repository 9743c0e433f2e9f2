//! The tile with SDOT (ARMv8.2): `sdot acc.4s, w.16b, x.4b[i]` adds 4 steps of K for 4 columns of one row. Per 16 steps of K and 8 rows:
//! 8 loads of rows, 4 of weights, 64 SDOT, and 2 instructions of loop.
//!
//! A 3×3 depthwise window is three SDOT for 4 channels: the bytes of a column lie side by side. Four of them serve two output rows, each of which
//! has a weight of 0 for the row that is not its own.

use core::arch::aarch64::*;
use core::arch::asm;

use super::neon::Pair;
use super::{Isa, tile_and_steps};
use crate::NeonDotprod;

/// See [`Isa::tile`]. 8 rows in assembly, fewer in intrinsics.
#[inline(always)]
pub(super) unsafe fn tile<const R: usize>(
    token: NeonDotprod,
    init: *const i32,
    a: *const i8,
    stride: usize,
    k: usize,
    b: *const i8,
) -> [Pair<int32x4_t>; R] {
    // SAFETY: i stays below k; the caller promises k elements of every row, 8·k weights and 8 initial values.
    unsafe {
        if R == 8 {
            let eight = tile_8(init, a, stride, k, b);
            return core::array::from_fn(|r| eight[r % 8]);
        }
        let mut acc = [token.load_i32(init); R];
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

/// 4 steps of K for 8 rows × 8 columns: weights `$w0` (columns 0–3) and `$w1` (4–7) times bytes 4·lane.. of v0–v7.
macro_rules! sdots {
    ($w0:literal, $w1:literal, $lane:literal) => {
        concat!(
            sdots!(@ "v16", "v17", "v0", $w0, $w1, $lane),
            sdots!(@ "v18", "v19", "v1", $w0, $w1, $lane),
            sdots!(@ "v20", "v21", "v2", $w0, $w1, $lane),
            sdots!(@ "v22", "v23", "v3", $w0, $w1, $lane),
            sdots!(@ "v24", "v25", "v4", $w0, $w1, $lane),
            sdots!(@ "v26", "v27", "v5", $w0, $w1, $lane),
            sdots!(@ "v28", "v29", "v6", $w0, $w1, $lane),
            sdots!(@ "v30", "v31", "v7", $w0, $w1, $lane),
        )
    };
    (@ $a0:literal, $a1:literal, $x:literal, $w0:literal, $w1:literal, $lane:literal) => {
        concat!(
            "sdot ", $a0, ".4s, ", $w0, ".16b, ", $x, ".4b[", $lane, "]\n",
            "sdot ", $a1, ".4s, ", $w1, ".16b, ", $x, ".4b[", $lane, "]\n",
        )
    };
}

/// 8 rows × 8 columns.
///
/// ```text
/// accumulators of each row = initial values
/// for i in -k..0, in steps of 16:                        the row pointers stand at the rows' ends
///     rows = 16 bytes of each row
///     for each 4 of the 16 steps: weights = 4 steps of 8 columns; SDOT for every row and half of the columns
/// ragged: for each 4 steps that are left: the same with 4 bytes of each row
/// ```
/// 1. The index of K counts up to 0: one addition and one branch per turn, and the row pointers serve every panel.
/// 2. Weights are read by pairs of registers that move their pointer along, 16 SDOT before their use.
///
/// | v0–v7 | v8–v11 | v16–v31 |
/// |---|---|---|
/// | rows | weights: 4 steps of 8 columns, then the next 4 | accumulators, 2 for each row |
macro_rules! tile_8 {
    ($init:ident, $end:ident, $stride:ident, $k:expr, $b:ident, $skip:expr, $rest:expr, $($operand:tt)*) => {{
        let (s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15);
        asm!(
            "ldp q16, q17, [{init}]",
            "ldp q18, q19, [{init}]",
            "ldp q20, q21, [{init}]",
            "ldp q22, q23, [{init}]",
            "ldp q24, q25, [{init}]",
            "ldp q26, q27, [{init}]",
            "ldp q28, q29, [{init}]",
            "ldp q30, q31, [{init}]",
            $skip,
            "2:",
            "ldp q8, q9, [{w}], #32",
            "ldr q0, [{x0}, {i}]",
            "ldr q1, [{x1}, {i}]",
            "ldr q2, [{x2}, {i}]",
            "ldr q3, [{x3}, {i}]",
            "ldr q4, [{x4}, {i}]",
            "ldr q5, [{x5}, {i}]",
            "ldr q6, [{x6}, {i}]",
            "ldr q7, [{x7}, {i}]",
            "ldp q10, q11, [{w}], #32",
            sdots!("v8", "v9", "0"),
            "ldp q8, q9, [{w}], #32",
            sdots!("v10", "v11", "1"),
            "ldp q10, q11, [{w}], #32",
            sdots!("v8", "v9", "2"),
            "adds {i}, {i}, #16",
            sdots!("v10", "v11", "3"),
            "b.ne 2b",
            $rest,
            x0 = in(reg) $end,
            x1 = in(reg) $end.add($stride),
            x2 = in(reg) $end.add(2 * $stride),
            x3 = in(reg) $end.add(3 * $stride),
            x4 = in(reg) $end.add(4 * $stride),
            x5 = in(reg) $end.add(5 * $stride),
            x6 = in(reg) $end.add(6 * $stride),
            x7 = in(reg) $end.add(7 * $stride),
            w = inout(reg) $b => _,
            i = inout(reg) 0_usize.wrapping_sub($k) => _,
            init = in(reg) $init,
            $($operand)*
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _, out("v8") _, out("v9") _, out("v10") _, out("v11") _,
            out("v16") s0, out("v17") s1, out("v18") s2, out("v19") s3, out("v20") s4, out("v21") s5, out("v22") s6, out("v23") s7, out("v24") s8, out("v25") s9, out("v26") s10, out("v27") s11, out("v28") s12, out("v29") s13, out("v30") s14, out("v31") s15,
            options(pure, readonly, nostack),
        );
        [
            Pair(s0, s1),
            Pair(s2, s3),
            Pair(s4, s5),
            Pair(s6, s7),
            Pair(s8, s9),
            Pair(s10, s11),
            Pair(s12, s13),
            Pair(s14, s15),
        ]
    }};
}

/// # Safety
/// As [`Isa::tile`].
#[inline(always)]
unsafe fn tile_8(
    init: *const i32,
    a: *const i8,
    stride: usize,
    k: usize,
    b: *const i8,
) -> [Pair<int32x4_t>; 8] {
    // SAFETY: k is a positive multiple of 16; k bytes of each row, 8·k weights and 8 initial values are read, as promised. The caller's token proves
    // SDOT.
    unsafe {
        let end = a.add(k);
        tile_8!(init, end, stride, k, b, "", "",)
    }
}

/// # Safety
/// As [`Isa::tile_ragged`].
#[inline(always)]
unsafe fn tile_8_ragged(
    init: *const i32,
    a: *const i8,
    stride: usize,
    k: usize,
    b: *const i8,
) -> [Pair<int32x4_t>; 8] {
    // SAFETY: k is a multiple of 4, its whole multiple of 16 may be 0; what is read is as promised. The caller's token proves SDOT.
    unsafe {
        let end = a.add(k & !15);
        tile_8!(
            init, end, stride, k & !15, b,
            "cbz {i}, 3f",
            concat!(
                "3:\n",
                "cbz {rest}, 5f\n",
                "4:\n",
                "ldp q8, q9, [{w}], #32\n",
                "ldr s0, [{x0}, {i}]\n",
                "ldr s1, [{x1}, {i}]\n",
                "ldr s2, [{x2}, {i}]\n",
                "ldr s3, [{x3}, {i}]\n",
                "ldr s4, [{x4}, {i}]\n",
                "ldr s5, [{x5}, {i}]\n",
                "ldr s6, [{x6}, {i}]\n",
                "ldr s7, [{x7}, {i}]\n",
                "add {i}, {i}, #4\n",
                sdots!("v8", "v9", "0"),
                "cmp {i}, {rest}\n",
                "b.ne 4b\n",
                "5:",
            ),
            rest = in(reg) k & 15,
        )
    }
}

/// See [`Isa::tile_ragged`]. 8 rows in assembly, fewer as a tile and steps.
#[inline(always)]
pub(super) unsafe fn tile_ragged<const R: usize>(
    token: NeonDotprod,
    init: *const i32,
    a: *const i8,
    stride: usize,
    k: usize,
    b: *const i8,
) -> [Pair<int32x4_t>; R] {
    // SAFETY: the caller's promise.
    unsafe {
        if R == 8 {
            let eight = tile_8_ragged(init, a, stride, k, b);
            return core::array::from_fn(|r| eight[r % 8]);
        }
        tile_and_steps(token, init, a, stride, k, b)
    }
}

/// See [`Isa::tile_steps`].
#[inline(always)]
pub(super) unsafe fn tile_steps<const R: usize>(
    mut acc: [Pair<int32x4_t>; R],
    a: *const i8,
    stride: usize,
    steps: usize,
    b: *const i8,
) -> [Pair<int32x4_t>; R] {
    // SAFETY: the caller promises 4 elements of every row and 32 weights for each step.
    unsafe {
        for i in 0..steps {
            let mut rows = [vdupq_n_s8(0); R];
            for r in 0..R {
                let bytes = a.add(r * stride + 4 * i).cast::<i32>().read_unaligned();
                rows[r] = vreinterpretq_s8_s32(vsetq_lane_s32::<0>(bytes, vdupq_n_s32(0)));
            }
            acc = step::<R, 0>(acc, rows, b.add(32 * i));
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

/// 8 steps of K for 4 rows × 8 columns: weights `$w0`–`$w3` (4 steps of columns 0–3 and 4–7, then the next 4) times bytes 4·lane.. of the rows.
macro_rules! panel_sdots {
    ($a:tt, $x:tt, [$w0:literal, $w1:literal, $w2:literal, $w3:literal], $lane:literal, $next:literal) => {
        concat!(
            panel_sdots!(@ $a, $x, $w0, $w1, $lane),
            panel_sdots!(@ $a, $x, $w2, $w3, $next),
        )
    };
    (@ [$a0:literal, $a1:literal, $a2:literal, $a3:literal, $a4:literal, $a5:literal, $a6:literal, $a7:literal],
     [$x0:literal, $x1:literal, $x2:literal, $x3:literal], $w0:literal, $w1:literal, $lane:literal) => {
        concat!(
            sdots!(@ $a0, $a1, $x0, $w0, $w1, $lane),
            sdots!(@ $a2, $a3, $x1, $w0, $w1, $lane),
            sdots!(@ $a4, $a5, $x2, $w0, $w1, $lane),
            sdots!(@ $a6, $a7, $x3, $w0, $w1, $lane),
        )
    };
}

/// [`panel_sdots`] of the first panel of [`tile_wide`].
macro_rules! left_sdots {
    ($x:tt, $lane:literal, $next:literal) => {
        panel_sdots!(
            ["v16", "v17", "v20", "v21", "v24", "v25", "v28", "v29"],
            $x,
            ["v8", "v9", "v10", "v11"],
            $lane,
            $next
        )
    };
}

/// [`panel_sdots`] of the second panel of [`tile_wide`].
macro_rules! right_sdots {
    ($x:tt, $lane:literal, $next:literal) => {
        panel_sdots!(
            ["v18", "v19", "v22", "v23", "v26", "v27", "v30", "v31"],
            $x,
            ["v12", "v13", "v14", "v15"],
            $lane,
            $next
        )
    };
}

/// 4 rows × 16 columns: see [`Isa::tile_wide`] and [`Isa::tile_wide_ragged`].
///
/// ```text
/// accumulators of each row = initial values
/// while 32 steps of K are left: rows = 32 bytes of each row; for each 8 of them: weights of the left panel, SDOT; of the right panel, SDOT
/// if 16 steps are left: the same with 16 bytes
/// ragged: for each 4 steps that are left: the same with 4 bytes
/// ```
/// 1. Rows are read by pairs of registers, weights by fours (LD1): 12 loads for 128 SDOT, where 8 × 8 takes 24. LD1 of four registers keeps the load
///    pipes as busy as two LDP, and the decoder half as busy (Cortex-A76 Software Optimization Guide, "ASIMD load instructions").
/// 2. Weights are read 16 SDOT before their use: those of one panel while the other's are multiplied.
/// 3. One pointer serves both panels, since LD1 can move it by a register: to the other panel and back.
///
/// | v0–v7 | v8–v11 | v12–v15 | v16–v31 |
/// |---|---|---|---|
/// | rows, 32 steps each | weights of the left panel: 8 steps of 8 columns | of the right one | accumulators, 4 for each row |
macro_rules! tile_wide {
    ($init:ident, $a:ident, $stride:ident, $k:expr, $b:ident, $panel:ident, $rest:expr, $($operand:tt)*) => {{
        let (s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15);
        asm!(
            "ld1 {{v16.4s-v19.4s}}, [{init}]",
            "ld1 {{v20.4s-v23.4s}}, [{init}]",
            "ld1 {{v24.4s-v27.4s}}, [{init}]",
            "ld1 {{v28.4s-v31.4s}}, [{init}]",
            "subs {k}, {k}, #32",
            "b.lo 3f",
            "2:",
            "ld1 {{v8.16b-v11.16b}}, [{w}], {right}",
            "ldp q0, q1, [{x0}], #32",
            "ldp q2, q3, [{x1}], #32",
            "ldp q4, q5, [{x2}], #32",
            "ldp q6, q7, [{x3}], #32",
            "ld1 {{v12.16b-v15.16b}}, [{w}], {left}",
            left_sdots!(["v0", "v2", "v4", "v6"], "0", "1"),
            "ld1 {{v8.16b-v11.16b}}, [{w}], {right}",
            right_sdots!(["v0", "v2", "v4", "v6"], "0", "1"),
            "ld1 {{v12.16b-v15.16b}}, [{w}], {left}",
            left_sdots!(["v0", "v2", "v4", "v6"], "2", "3"),
            "ld1 {{v8.16b-v11.16b}}, [{w}], {right}",
            right_sdots!(["v0", "v2", "v4", "v6"], "2", "3"),
            "ld1 {{v12.16b-v15.16b}}, [{w}], {left}",
            left_sdots!(["v1", "v3", "v5", "v7"], "0", "1"),
            "ld1 {{v8.16b-v11.16b}}, [{w}], {right}",
            right_sdots!(["v1", "v3", "v5", "v7"], "0", "1"),
            "ld1 {{v12.16b-v15.16b}}, [{w}], {left}",
            left_sdots!(["v1", "v3", "v5", "v7"], "2", "3"),
            "subs {k}, {k}, #32",
            right_sdots!(["v1", "v3", "v5", "v7"], "2", "3"),
            "b.hs 2b",
            "3:",
            "tbz {k}, #4, 4f",
            "ld1 {{v8.16b-v11.16b}}, [{w}], {right}",
            "ldr q0, [{x0}], #16",
            "ldr q2, [{x1}], #16",
            "ldr q4, [{x2}], #16",
            "ldr q6, [{x3}], #16",
            "ld1 {{v12.16b-v15.16b}}, [{w}], {left}",
            left_sdots!(["v0", "v2", "v4", "v6"], "0", "1"),
            "ld1 {{v8.16b-v11.16b}}, [{w}], {right}",
            right_sdots!(["v0", "v2", "v4", "v6"], "0", "1"),
            "ld1 {{v12.16b-v15.16b}}, [{w}], {left}",
            left_sdots!(["v0", "v2", "v4", "v6"], "2", "3"),
            right_sdots!(["v0", "v2", "v4", "v6"], "2", "3"),
            "4:",
            $rest,
            x0 = inout(reg) $a => _,
            x1 = inout(reg) $a.add($stride) => _,
            x2 = inout(reg) $a.add(2 * $stride) => _,
            x3 = inout(reg) $a.add(3 * $stride) => _,
            w = inout(reg) $b => _,
            right = in(reg) $panel,
            left = in(reg) 64_usize.wrapping_sub($panel),
            k = inout(reg) $k => _,
            init = in(reg) $init,
            $($operand)*
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _, out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _, out("v15") _,
            out("v16") s0, out("v17") s1, out("v18") s2, out("v19") s3, out("v20") s4, out("v21") s5, out("v22") s6, out("v23") s7, out("v24") s8, out("v25") s9, out("v26") s10, out("v27") s11, out("v28") s12, out("v29") s13, out("v30") s14, out("v31") s15,
            options(pure, readonly, nostack),
        );
        [
            [Pair(s0, s1), Pair(s4, s5), Pair(s8, s9), Pair(s12, s13)],
            [Pair(s2, s3), Pair(s6, s7), Pair(s10, s11), Pair(s14, s15)],
        ]
    }};
}

/// See [`Isa::tile_wide`].
#[inline(always)]
pub(super) unsafe fn tile_wide(
    init: *const i32,
    a: *const i8,
    stride: usize,
    k: usize,
    b: *const i8,
    panel: usize,
) -> [[Pair<int32x4_t>; 4]; 2] {
    // SAFETY: k is a positive multiple of 16; k bytes of each row, 8·k weights of each panel and 16 initial values are read, as promised. The caller's
    // token proves SDOT.
    unsafe { tile_wide!(init, a, stride, k, b, panel, "",) }
}

/// See [`Isa::tile_wide_ragged`].
#[inline(always)]
pub(super) unsafe fn tile_wide_ragged(
    init: *const i32,
    a: *const i8,
    stride: usize,
    k: usize,
    b: *const i8,
    panel: usize,
) -> [[Pair<int32x4_t>; 4]; 2] {
    // SAFETY: k is a multiple of 4, its whole multiple of 16 may be 0; what is read is as promised. The caller's token proves SDOT.
    unsafe {
        tile_wide!(
            init, a, stride, k & !15, b, panel,
            concat!(
                "cbz {rest}, 6f\n",
                "5:\n",
                "ld1 {{v8.16b, v9.16b}}, [{w}], {right}\n",
                "ldr s0, [{x0}], #4\n",
                "ldr s2, [{x1}], #4\n",
                "ldr s4, [{x2}], #4\n",
                "ldr s6, [{x3}], #4\n",
                "ld1 {{v12.16b, v13.16b}}, [{w}], {left}\n",
                "sub {w}, {w}, #32\n",
                panel_sdots!(@ ["v16", "v17", "v20", "v21", "v24", "v25", "v28", "v29"], ["v0", "v2", "v4", "v6"], "v8", "v9", "0"),
                panel_sdots!(@ ["v18", "v19", "v22", "v23", "v26", "v27", "v30", "v31"], ["v0", "v2", "v4", "v6"], "v12", "v13", "0"),
                "subs {rest}, {rest}, #4\n",
                "b.ne 5b\n",
                "6:",
            ),
            rest = inout(reg) k & 15 => _,
        )
    }
}

/// Output rows that share columns: the four bytes of a channel are three rows for the first and three for the second.
pub(super) const LINES: usize = 2;
/// Four rows of 8 channels, the rows of a channel side by side: `[2 vectors][4 channels][4 rows]`.
pub(super) type Column = [int8x16_t; 2];
/// Three columns of weights alike, for the first output row with 0 for the last row, and for the second with 0 for the first.
pub(super) type Window = [[Column; 2]; 3];

/// See [`Isa::load_column`].
#[inline(always)]
pub(super) unsafe fn load_column(rows: [*const i8; 4]) -> Column {
    // SAFETY: the caller's promise.
    unsafe { column(rows.map(|row| vld1_s8(row))) }
}

/// See [`Isa::load_window`].
#[inline(always)]
pub(super) unsafe fn load_window(w: *const i8, channels: usize) -> Window {
    // SAFETY: the caller's promise; tap 3·ky + kx of 9.
    unsafe {
        let zero = vdup_n_s8(0);
        let mut window = [[[vdupq_n_s8(0); 2]; 2]; 3];
        for kx in 0..3 {
            let row = |ky: usize| vld1_s8(w.add((3 * ky + kx) * channels));
            let rows = [row(0), row(1), row(2)];
            window[kx] = [
                column([rows[0], rows[1], rows[2], zero]),
                column([zero, rows[0], rows[1], rows[2]]),
            ];
        }
        window
    }
}

/// Four rows, side by side for each channel.
#[inline(always)]
fn column([r0, r1, r2, r3]: [int8x8_t; 4]) -> Column {
    let (upper, lower) = (pairs(r0, r1), pairs(r2, r3));
    // SAFETY: register operations of the baseline instruction set.
    unsafe {
        [
            vreinterpretq_s8_s16(vzip1q_s16(upper, lower)),
            vreinterpretq_s8_s16(vzip2q_s16(upper, lower)),
        ]
    }
}

/// The bytes of two rows side by side. (No intrinsic takes two halves and gives a whole register.)
#[inline(always)]
fn pairs(a: int8x8_t, b: int8x8_t) -> int16x8_t {
    let pairs;
    // SAFETY: one register operation of the baseline instruction set.
    unsafe {
        asm!(
            "zip1 {pairs:v}.16b, {a:v}.16b, {b:v}.16b",
            pairs = out(vreg) pairs, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    pairs
}

/// See [`Isa::window`]: one SDOT for 4 channels of a column and an output row.
#[inline(always)]
pub(super) fn window(
    mut acc: [Pair<int32x4_t>; 2],
    columns: [Column; 3],
    window: &Window,
) -> [Pair<int32x4_t>; 2] {
    for kx in 0..3 {
        let x = columns[kx];
        for line in 0..2 {
            let w = window[kx][line];
            // SAFETY: the caller's token proves SDOT.
            unsafe {
                acc[line] = Pair(
                    sdot_all(acc[line].0, w[0], x[0]),
                    sdot_all(acc[line].1, w[1], x[1]),
                );
            }
        }
    }
    acc
}

/// `acc[j] += Σ_i w[4j + i] · x[4j + i]`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot_all(mut acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: one register operation; the feature is enabled on this function.
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {w:v}.16b, {x:v}.16b",
            acc = inout(vreg) acc, w = in(vreg) w, x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
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

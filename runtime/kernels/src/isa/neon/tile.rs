//! The GEMM tile without SDOT.
//!
//! For 4 columns × 4 steps of K, a row's 4 bytes are repeated for every column (LD1R); SMULL multiplies, SMLAL adds the
//! products of the next 4 steps (two products of at most 127·128 fit an i16), SADALP adds neighbours to 32 bits. Registers for 4 rows:
//!
//! | 16 | 4 | 4 | 8 |
//! |---|---|---|---|
//! | accumulators: two partial sums for each of 4 rows × 8 columns | weights: 8 columns × 8 steps | repeated bytes of two rows | products |

use core::arch::aarch64::*;
use core::arch::asm;

use super::super::{Isa, tile_and_steps, unroll};
use super::Pair;
use crate::Neon;

/// See [`Isa::tile`]. 4 rows in assembly, fewer in intrinsics.
#[inline(always)]
pub(super) unsafe fn tile<const R: usize>(
    token: Neon,
    init: *const i32,
    a: *const i8,
    stride: usize,
    k: usize,
    b: *const i8,
) -> [Pair<int32x4_t>; R] {
    // SAFETY: the caller's promise.
    unsafe {
        if R == 4 {
            let four = tile_4(init, a, stride, k, b);
            return core::array::from_fn(|r| four[r % 4]);
        }
        let init = token.load_i32(init);
        let few = tile_few::<R>(a, stride, k, b);
        let mut sums = [init; R];
        unroll!(R, r, {
            let [p0, p1, p2, p3] = few[r];
            sums[r] = Pair(
                vaddq_s32(init.0, vpaddq_s32(p0, p1)),
                vaddq_s32(init.1, vpaddq_s32(p2, p3)),
            );
        });
        sums
    }
}

/// The next 4 + 4 bytes of the row at `$x`, each repeated for 4 columns, to `$d0` and `$d1`.
macro_rules! repeat {
    ($d0:literal, $d1:literal, $x:literal) => {
        concat!(
            "ld1r {{",
            $d0,
            ".4s}}, [{",
            $x,
            "}], #4\n",
            "ld1r {{",
            $d1,
            ".4s}}, [{",
            $x,
            "}], #4\n",
        )
    };
}

/// One row times 8 steps of K × 8 columns: the repeated bytes `$d0` and `$d1`, to the four accumulators.
macro_rules! row_steps {
    ($d0:literal, $d1:literal, $a0:literal, $a1:literal, $a2:literal, $a3:literal) => {
        concat!(
            "smull v10.8h, ",
            $d0,
            ".8b, v4.8b\n",
            "smull2 v11.8h, ",
            $d0,
            ".16b, v4.16b\n",
            "smull v12.8h, ",
            $d0,
            ".8b, v5.8b\n",
            "smull2 v13.8h, ",
            $d0,
            ".16b, v5.16b\n",
            "smlal v10.8h, ",
            $d1,
            ".8b, v6.8b\n",
            "smlal2 v11.8h, ",
            $d1,
            ".16b, v6.16b\n",
            "smlal v12.8h, ",
            $d1,
            ".8b, v7.8b\n",
            "smlal2 v13.8h, ",
            $d1,
            ".16b, v7.16b\n",
            "sadalp ",
            $a0,
            ".4s, v10.8h\n",
            "sadalp ",
            $a1,
            ".4s, v11.8h\n",
            "sadalp ",
            $a2,
            ".4s, v12.8h\n",
            "sadalp ",
            $a3,
            ".4s, v13.8h\n",
        )
    };
}

/// 4 rows × 8 columns. (Left to itself the compiler hoists products of several rows and runs out of registers: a third more instructions.)
///
/// ```text
/// accumulators of each row = initial values, in the first of the two partial sums of a column
/// for each 16 steps of K:
///     for each half of them:
///         weights = 8 steps of 8 columns
///         for each row: repeat 4 + 4 bytes, multiply, multiply and add, accumulate neighbours
/// ragged: for each 4 steps that are left: weights = 4 steps of 8 columns; for each row: repeat 4 bytes, multiply, accumulate neighbours
/// add neighbours
/// ```
/// 1. Bytes are repeated as they are loaded (LD1R), for the next row before this one is multiplied.
/// 2. Weights are read by pairs of registers that move their pointer along.
///
/// | v0–v3 | v4–v7 | v10–v13 | v16–v31 |
/// |---|---|---|---|
/// | repeated bytes: of a row, and of the next | weights: 4 steps of 8 columns, then the next 4 | products | accumulators, 4 for each row |
macro_rules! tile_4 {
    ($init:ident, $a:ident, $stride:ident, $k:expr, $b:ident, $skip:expr, $rest:expr, $($operand:tt)*) => {{
        let (s0, s1, s2, s3, s4, s5, s6, s7);
        asm!(
            "ldp q0, q1, [{init}]",
            "movi v2.4s, #0",
            "zip1 v16.4s, v0.4s, v2.4s", "zip2 v17.4s, v0.4s, v2.4s",
            "zip1 v18.4s, v1.4s, v2.4s", "zip2 v19.4s, v1.4s, v2.4s",
            "mov v20.16b, v16.16b", "mov v21.16b, v17.16b", "mov v22.16b, v18.16b", "mov v23.16b, v19.16b",
            "mov v24.16b, v16.16b", "mov v25.16b, v17.16b", "mov v26.16b, v18.16b", "mov v27.16b, v19.16b",
            "mov v28.16b, v16.16b", "mov v29.16b, v17.16b", "mov v30.16b, v18.16b", "mov v31.16b, v19.16b",
            $skip,
            "2:",
            repeat!("v0", "v1", "x0"),
            "ldp q4, q5, [{w}], #32",
            "ldp q6, q7, [{w}], #32",
            repeat!("v2", "v3", "x1"),
            row_steps!("v0", "v1", "v16", "v17", "v18", "v19"),
            repeat!("v0", "v1", "x2"),
            row_steps!("v2", "v3", "v20", "v21", "v22", "v23"),
            repeat!("v2", "v3", "x3"),
            row_steps!("v0", "v1", "v24", "v25", "v26", "v27"),
            repeat!("v0", "v1", "x0"),
            row_steps!("v2", "v3", "v28", "v29", "v30", "v31"),
            "ldp q4, q5, [{w}], #32",
            "ldp q6, q7, [{w}], #32",
            repeat!("v2", "v3", "x1"),
            row_steps!("v0", "v1", "v16", "v17", "v18", "v19"),
            repeat!("v0", "v1", "x2"),
            row_steps!("v2", "v3", "v20", "v21", "v22", "v23"),
            repeat!("v2", "v3", "x3"),
            row_steps!("v0", "v1", "v24", "v25", "v26", "v27"),
            row_steps!("v2", "v3", "v28", "v29", "v30", "v31"),
            "subs {k}, {k}, #16",
            "b.ne 2b",
            $rest,
            "addp v16.4s, v16.4s, v17.4s",
            "addp v18.4s, v18.4s, v19.4s",
            "addp v20.4s, v20.4s, v21.4s",
            "addp v22.4s, v22.4s, v23.4s",
            "addp v24.4s, v24.4s, v25.4s",
            "addp v26.4s, v26.4s, v27.4s",
            "addp v28.4s, v28.4s, v29.4s",
            "addp v30.4s, v30.4s, v31.4s",
            x0 = inout(reg) $a => _,
            x1 = inout(reg) $a.add($stride) => _,
            x2 = inout(reg) $a.add(2 * $stride) => _,
            x3 = inout(reg) $a.add(3 * $stride) => _,
            w = inout(reg) $b => _,
            k = inout(reg) $k => _,
            init = in(reg) $init,
            $($operand)*
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v10") _, out("v11") _, out("v12") _, out("v13") _,
            out("v16") s0, out("v17") _, out("v18") s1, out("v19") _, out("v20") s2, out("v21") _, out("v22") s3,
            out("v23") _, out("v24") s4, out("v25") _, out("v26") s5, out("v27") _, out("v28") s6, out("v29") _,
            out("v30") s7, out("v31") _,
            options(pure, readonly, nostack),
        );
        [Pair(s0, s1), Pair(s2, s3), Pair(s4, s5), Pair(s6, s7)]
    }};
}

/// One row times 4 steps of K × 8 columns.
macro_rules! row_step {
    ($x:literal, $a0:literal, $a1:literal, $a2:literal, $a3:literal) => {
        concat!(
            "ld1r {{v0.4s}}, [{",
            $x,
            "}], #4\n",
            "smull v10.8h, v0.8b, v4.8b\n",
            "smull2 v11.8h, v0.16b, v4.16b\n",
            "smull v12.8h, v0.8b, v5.8b\n",
            "smull2 v13.8h, v0.16b, v5.16b\n",
            "sadalp ",
            $a0,
            ".4s, v10.8h\n",
            "sadalp ",
            $a1,
            ".4s, v11.8h\n",
            "sadalp ",
            $a2,
            ".4s, v12.8h\n",
            "sadalp ",
            $a3,
            ".4s, v13.8h\n",
        )
    };
}

/// # Safety
/// As [`Isa::tile`].
#[inline(always)]
unsafe fn tile_4(
    init: *const i32,
    a: *const i8,
    stride: usize,
    k: usize,
    b: *const i8,
) -> [Pair<int32x4_t>; 4] {
    // SAFETY: k is a positive multiple of 16; k bytes of each row, 8·k weights and 8 initial values are read, as promised.
    unsafe { tile_4!(init, a, stride, k, b, "", "",) }
}

/// # Safety
/// As [`Isa::tile_ragged`].
#[inline(always)]
unsafe fn tile_4_ragged(
    init: *const i32,
    a: *const i8,
    stride: usize,
    k: usize,
    b: *const i8,
) -> [Pair<int32x4_t>; 4] {
    // SAFETY: k is a multiple of 4, its whole multiple of 16 may be 0; what is read is as promised.
    unsafe {
        tile_4!(
            init, a, stride, k & !15, b,
            "cbz {k}, 3f",
            concat!(
                "3:\n",
                "cbz {rest}, 5f\n",
                "4:\n",
                "ldp q4, q5, [{w}], #32\n",
                row_step!("x0", "v16", "v17", "v18", "v19"),
                row_step!("x1", "v20", "v21", "v22", "v23"),
                row_step!("x2", "v24", "v25", "v26", "v27"),
                row_step!("x3", "v28", "v29", "v30", "v31"),
                "subs {rest}, {rest}, #4\n",
                "b.ne 4b\n",
                "5:",
            ),
            rest = inout(reg) k & 15 => _,
        )
    }
}

/// See [`Isa::tile_ragged`]. 4 rows in assembly, fewer as a tile and steps.
#[inline(always)]
pub(super) unsafe fn tile_ragged<const R: usize>(
    token: Neon,
    init: *const i32,
    a: *const i8,
    stride: usize,
    k: usize,
    b: *const i8,
) -> [Pair<int32x4_t>; R] {
    // SAFETY: the caller's promise.
    unsafe {
        if R == 4 {
            let four = tile_4_ragged(init, a, stride, k, b);
            return core::array::from_fn(|r| four[r % 4]);
        }
        tile_and_steps(token, init, a, stride, k, b)
    }
}

/// Fewer than 4 rows: the four accumulators of each.
///
/// # Safety
/// As [`Isa::tile`].
#[inline(always)]
unsafe fn tile_few<const R: usize>(
    a: *const i8,
    stride: usize,
    k: usize,
    b: *const i8,
) -> [[int32x4_t; 4]; R] {
    // SAFETY: i stays below k; the caller promises k elements of every row and 8·k weights.
    unsafe {
        let mut acc = [[vdupq_n_s32(0); 4]; R];
        let mut i = 0;
        while i < k {
            let w = b.add(i * 8);
            let first = [
                vld1q_s8(w),
                vld1q_s8(w.add(16)),
                vld1q_s8(w.add(32)),
                vld1q_s8(w.add(48)),
            ];
            let w = w.add(64);
            let second = [
                vld1q_s8(w),
                vld1q_s8(w.add(16)),
                vld1q_s8(w.add(32)),
                vld1q_s8(w.add(48)),
            ];
            unroll!(R, r, {
                let x = vreinterpretq_s32_s8(vld1q_s8(a.add(r * stride + i)));
                acc[r] = steps(
                    acc[r],
                    vdupq_laneq_s32::<0>(x),
                    vdupq_laneq_s32::<1>(x),
                    first,
                );
                acc[r] = steps(
                    acc[r],
                    vdupq_laneq_s32::<2>(x),
                    vdupq_laneq_s32::<3>(x),
                    second,
                );
            });
            i += 16;
        }
        acc
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
            let (w0, w1) = (vld1q_s8(b.add(32 * i)), vld1q_s8(b.add(32 * i + 16)));
            unroll!(R, r, {
                let bytes = a.add(r * stride + 4 * i).cast::<i32>().read_unaligned();
                let x = vreinterpretq_s8_s32(vdupq_n_s32(bytes));
                let low = vget_low_s8(x);
                let p0 = vpaddlq_s16(vmull_s8(vget_low_s8(w0), low));
                let p1 = vpaddlq_s16(vmull_high_s8(w0, x));
                let p2 = vpaddlq_s16(vmull_s8(vget_low_s8(w1), low));
                let p3 = vpaddlq_s16(vmull_high_s8(w1, x));
                acc[r] = Pair(
                    vaddq_s32(acc[r].0, vpaddq_s32(p0, p1)),
                    vaddq_s32(acc[r].1, vpaddq_s32(p2, p3)),
                );
            });
        }
        acc
    }
}

/// 8 steps of K of one row: `x0` and `x1` repeat 4 of its bytes each, `w` holds 8 columns for `x0`, then for `x1`.
#[inline(always)]
fn steps(acc: [int32x4_t; 4], x0: int32x4_t, x1: int32x4_t, w: [int8x16_t; 4]) -> [int32x4_t; 4] {
    // SAFETY: register operations of the baseline instruction set.
    unsafe {
        let (x0, x1) = (vreinterpretq_s8_s32(x0), vreinterpretq_s8_s32(x1));
        let (l0, l1) = (vget_low_s8(x0), vget_low_s8(x1));
        let s0 = vmlal_s8(vmull_s8(vget_low_s8(w[0]), l0), vget_low_s8(w[2]), l1);
        let s1 = vmlal_high_s8(vmull_high_s8(w[0], x0), w[2], x1);
        let s2 = vmlal_s8(vmull_s8(vget_low_s8(w[1]), l0), vget_low_s8(w[3]), l1);
        let s3 = vmlal_high_s8(vmull_high_s8(w[1], x0), w[3], x1);
        [
            vpadalq_s16(acc[0], s0),
            vpadalq_s16(acc[1], s1),
            vpadalq_s16(acc[2], s2),
            vpadalq_s16(acc[3], s3),
        ]
    }
}

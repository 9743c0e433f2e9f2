//! The GEMM tile without SDOT.
//!
//! For 4 columns × 4 steps of K, a row's 4 bytes are repeated for every column; SMULL multiplies, SMLAL adds the products of the next 4 steps (two
//! products of at most 127·128 fit an i16), SADALP adds neighbours to 32 bits: three instructions for 16 products, which is the least without SDOT.
//! For 4 rows × 8 columns × 16 steps these are 96; loads add 6 and the loop 2.

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

/// Products of a row with two vectors of weights: `$op` is `smull` or `smlal`.
macro_rules! products {
    ($op:literal, $x:literal, $w0:literal, $w1:literal) => {
        concat!(
            $op,
            " v12.8h, ",
            $x,
            ".8b, ",
            $w0,
            ".8b\n",
            $op,
            "2 v13.8h, ",
            $x,
            ".16b, ",
            $w0,
            ".16b\n",
            $op,
            " v14.8h, ",
            $x,
            ".8b, ",
            $w1,
            ".8b\n",
            $op,
            "2 v15.8h, ",
            $x,
            ".16b, ",
            $w1,
            ".16b\n",
        )
    };
}

/// Sums of neighbouring products: `$op` is `saddlp`, which begins an accumulator, or `sadalp`.
macro_rules! sums {
    ($op:literal, [$a0:literal, $a1:literal, $a2:literal, $a3:literal]) => {
        concat!(
            $op,
            " ",
            $a0,
            ".4s, v12.8h\n",
            $op,
            " ",
            $a1,
            ".4s, v13.8h\n",
            $op,
            " ",
            $a2,
            ".4s, v14.8h\n",
            $op,
            " ",
            $a3,
            ".4s, v15.8h\n",
        )
    };
}

/// One row times 16 steps of K × 8 columns, without the last sums.
macro_rules! row {
    ($op:literal, $acc:tt) => {
        concat!(
            products!("smull", "v0", "v4", "v5"),
            products!("smlal", "v1", "v6", "v7"),
            sums!($op, $acc),
            products!("smull", "v2", "v8", "v9"),
            products!("smlal", "v3", "v10", "v11"),
        )
    };
}

/// The next 16 bytes of a row, each 4 of them repeated in a register.
macro_rules! repeat {
    ($x:literal) => {
        concat!("ld4r {{v0.4s, v1.4s, v2.4s, v3.4s}}, [{", $x, "}], #16\n")
    };
}

/// 16 steps of K: weights and the first row.
macro_rules! loads {
    () => {
        concat!(
            "ld1 {{v4.16b, v5.16b, v6.16b, v7.16b}}, [{w}], #64\n",
            "ld1 {{v8.16b, v9.16b, v10.16b, v11.16b}}, [{w}], #64\n",
            repeat!("x0"),
        )
    };
}

/// All rows times 16 steps of K, without the last row's last sums.
macro_rules! rows {
    ($op:literal) => {
        concat!(
            row!($op, ["v16", "v17", "v18", "v19"]),
            repeat!("x1"),
            sums!("sadalp", ["v16", "v17", "v18", "v19"]),
            row!($op, ["v20", "v21", "v22", "v23"]),
            repeat!("x2"),
            sums!("sadalp", ["v20", "v21", "v22", "v23"]),
            row!($op, ["v24", "v25", "v26", "v27"]),
            repeat!("x3"),
            sums!("sadalp", ["v24", "v25", "v26", "v27"]),
            row!($op, ["v28", "v29", "v30", "v31"]),
        )
    };
}

/// 4 rows × 8 columns. (Left to itself the compiler hoists products of several rows and runs out of registers: a third more instructions.)
///
/// ```text
/// for each 16 steps of K:
///     weights = 16 steps of 8 columns
///     for each row:
///         repeat each 4 of 16 bytes
///         for each 8 of the steps: multiply, multiply and add, add neighbours to the accumulators
/// add neighbours, add initial values
/// ```
/// 1. LD4R loads 16 bytes and repeats them, 4 in each of 4 registers: one instruction where LD1R takes four (XNNPACK's ld4r kernels). It is issued
///    before the sums of the row before, which cover its latency on a core that works in order; so do four products between any two that depend on
///    each other.
/// 2. The last sums of the last row are taken behind the loads of the next turn, for the same reason. Nothing is read ahead of the data.
/// 3. The first turn is a copy of its own with SADDLP, which makes the accumulators: none has to be cleared.
///
/// | v0–v3 | v4–v11 | v12–v15 | v16–v31 |
/// |---|---|---|---|
/// | a row's bytes: 4 times 4 steps | weights: 16 steps of 8 columns | products | accumulators, 4 for each row |
///
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
    let (s0, s1, s2, s3, s4, s5, s6, s7);
    // SAFETY: k is a positive multiple of 16; k bytes of each row, 8·k weights and 8 initial values are read, as promised.
    unsafe {
        asm!(
            loads!(),
            rows!("saddlp"),
            "subs {k}, {k}, #16",
            "b.eq 3f",
            "2:",
            loads!(),
            sums!("sadalp", ["v28", "v29", "v30", "v31"]),
            "subs {k}, {k}, #16",
            rows!("sadalp"),
            "b.ne 2b",
            "3:",
            "ldp q0, q1, [{init}]",
            sums!("sadalp", ["v28", "v29", "v30", "v31"]),
            "addp v16.4s, v16.4s, v17.4s",
            "addp v18.4s, v18.4s, v19.4s",
            "addp v20.4s, v20.4s, v21.4s",
            "addp v22.4s, v22.4s, v23.4s",
            "addp v24.4s, v24.4s, v25.4s",
            "addp v26.4s, v26.4s, v27.4s",
            "addp v28.4s, v28.4s, v29.4s",
            "addp v30.4s, v30.4s, v31.4s",
            "add v16.4s, v16.4s, v0.4s",
            "add v18.4s, v18.4s, v1.4s",
            "add v20.4s, v20.4s, v0.4s",
            "add v22.4s, v22.4s, v1.4s",
            "add v24.4s, v24.4s, v0.4s",
            "add v26.4s, v26.4s, v1.4s",
            "add v28.4s, v28.4s, v0.4s",
            "add v30.4s, v30.4s, v1.4s",
            x0 = inout(reg) a => _,
            x1 = inout(reg) a.add(stride) => _,
            x2 = inout(reg) a.add(2 * stride) => _,
            x3 = inout(reg) a.add(3 * stride) => _,
            w = inout(reg) b => _,
            k = inout(reg) k => _,
            init = in(reg) init,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _, out("v15") _,
            out("v16") s0, out("v17") _, out("v18") s1, out("v19") _, out("v20") s2, out("v21") _, out("v22") s3,
            out("v23") _, out("v24") s4, out("v25") _, out("v26") s5, out("v27") _, out("v28") s6, out("v29") _,
            out("v30") s7, out("v31") _,
            options(pure, readonly, nostack),
        );
    }
    [Pair(s0, s1), Pair(s2, s3), Pair(s4, s5), Pair(s6, s7)]
}

/// See [`Isa::tile_ragged`].
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
    unsafe { tile_and_steps(token, init, a, stride, k, b) }
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
            let weights = [vld1q_s8_x4(w), vld1q_s8_x4(w.add(64))];
            unroll!(R, r, {
                let x = vld4q_dup_s32(a.add(r * stride + i).cast());
                acc[r] = steps(acc[r], x.0, x.1, weights[0]);
                acc[r] = steps(acc[r], x.2, x.3, weights[1]);
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
fn steps(acc: [int32x4_t; 4], x0: int32x4_t, x1: int32x4_t, w: int8x16x4_t) -> [int32x4_t; 4] {
    // SAFETY: register operations of the baseline instruction set.
    unsafe {
        let (x0, x1) = (vreinterpretq_s8_s32(x0), vreinterpretq_s8_s32(x1));
        let (l0, l1) = (vget_low_s8(x0), vget_low_s8(x1));
        let s0 = vmlal_s8(vmull_s8(vget_low_s8(w.0), l0), vget_low_s8(w.2), l1);
        let s1 = vmlal_high_s8(vmull_high_s8(w.0, x0), w.2, x1);
        let s2 = vmlal_s8(vmull_s8(vget_low_s8(w.1), l0), vget_low_s8(w.3), l1);
        let s3 = vmlal_high_s8(vmull_high_s8(w.1, x0), w.3, x1);
        [
            vpadalq_s16(acc[0], s0),
            vpadalq_s16(acc[1], s1),
            vpadalq_s16(acc[2], s2),
            vpadalq_s16(acc[3], s3),
        ]
    }
}

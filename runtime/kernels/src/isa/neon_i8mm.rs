//! The tiles with SMMLA (ARMv8.6, FEAT_I8MM): `smmla acc.4s, x.16b, w.16b` takes 8 steps of K for two rows (one in each half of x) and two columns (one
//! in each half of w), and adds the 2 × 2 sums to acc, row by row (Arm Architecture Reference Manual, C7.2, "SMMLA (vector)").
//!
//! So operands are pairs, and neither rows nor the plan's layout are made of pairs:
//!
//! 1. 8 steps of K for 8 columns are two runs of 32 bytes, each of 4 steps. ZIP1 and ZIP2 of 32-bit lanes join them: in the tile, or before, all of
//!    them if they are small enough for a copy, else a panel at a time for some groups of rows ([`join_panel`]). Attention joins its keys and values once
//!    for a group ([`join`]).
//! 2. ZIP1 and ZIP2 of 64-bit lanes join two rows. The GEMM does it once for a group of 12 rows and all panels ([`pack_group`]).
//! 3. Sums stay in 2 × 2 blocks until they have been requantised: 16-bit lanes are split into rows by UZP1 and UZP2, half as many as 32-bit lanes take.
//! 4. The two planes of a row of exponentials are a pair of rows: they are stored as an operand of SMMLA ([`store_planes`]). With 12 query rows of few keys
//!    attention does better: see `attention`.
//!
//! One or two rows, the last 4 steps of a K and the depthwise window are left to SDOT, which wastes nothing there.

mod attention;

use core::arch::aarch64::*;
use core::arch::asm;

use super::neon::Pair;
use super::{neon_dotprod, tile_and_steps, unroll};
use crate::NeonI8mm;
use crate::gemm::{GROUP, NR, PAIRED};

pub(super) use self::attention::attend;
pub(super) use super::neon_dotprod::{
    Column, LINES, Window, load_column, load_window, tile_steps, window,
};

/// The sums of two rows and 8 columns, by pairs of columns: `[row][column]` in each register.
type Blocks = [int32x4_t; 4];

/// See [`Isa::tile`](super::Isa::tile).
#[inline(always)]
pub(super) unsafe fn tile<const R: usize>(
    token: NeonI8mm,
    init: *const i32,
    a: *const i8,
    stride: usize,
    k: usize,
    b: *const i8,
) -> [Pair<int32x4_t>; R] {
    // SAFETY: i stays below k, a multiple of 16; the caller promises k elements of every row (R is even here), 8·k weights and 8 initial values.
    unsafe {
        if R < 4 {
            return neon_dotprod::tile(token.dotprod(), init, a, stride, k, b);
        }
        let init = load_i32_pairs(init);
        let mut blocks = [[init[0].0, init[0].1, init[1].0, init[1].1]; R];
        let mut i = 0;
        while i < k {
            let w = [columns(b.add(8 * i)), columns(b.add(8 * i + 64))];
            unroll!(R, r, {
                if r.is_multiple_of(2) {
                    let row = a.add(r * stride + i);
                    let x = join_rows(vld1q_s8(row), vld1q_s8(row.add(stride)));
                    blocks[r] = smmla_blocks(smmla_blocks(blocks[r], x[0], w[0]), x[1], w[1]);
                }
            });
            i += 16;
        }
        rows_of(blocks)
    }
}

/// See [`Isa::tile_ragged`](super::Isa::tile_ragged).
#[inline(always)]
pub(super) unsafe fn tile_ragged<const R: usize>(
    token: NeonI8mm,
    init: *const i32,
    a: *const i8,
    stride: usize,
    k: usize,
    b: *const i8,
) -> [Pair<int32x4_t>; R] {
    // SAFETY: the caller's promise.
    unsafe { tile_and_steps(token, init, a, stride, k, b) }
}

/// 8 steps of K of a group: `$zip` of two rows each, the registers of whose lower 8 steps are named, to six registers, stored.
macro_rules! pack_step {
    ($zip:literal, [$($r0:literal, $r1:literal => $pair:literal),*]) => {
        concat!(
            $($zip, " ", $pair, ".2d, ", $r0, ".2d, ", $r1, ".2d\n",)*
            "st1 {{v24.2d, v25.2d, v26.2d}}, [{to}], #48\n",
            "st1 {{v27.2d, v28.2d, v29.2d}}, [{to}], #48\n",
        )
    };
}

/// The first 16 of 32 steps of K, by [`pack_step`].
macro_rules! pack_low {
    ($zip:literal) => {
        pack_step!(
            $zip,
            ["v0", "v2" => "v24", "v4", "v6" => "v25", "v8", "v10" => "v26", "v12", "v14" => "v27", "v16", "v18" => "v28", "v20", "v22" => "v29"]
        )
    };
}

/// The other 16.
macro_rules! pack_high {
    ($zip:literal) => {
        pack_step!(
            $zip,
            ["v1", "v3" => "v24", "v5", "v7" => "v25", "v9", "v11" => "v26", "v13", "v15" => "v27", "v17", "v19" => "v28", "v21", "v23" => "v29"]
        )
    };
}

/// See [`Isa::pack_group`](super::Isa::pack_group): `[K/8][6 pairs][2 rows][8]`.
///
/// ```text
/// for each 32 steps of K (and 16, if they are left):
///     load them, of all rows
///     for each 8: ZIP pairs of rows, store
/// ```
/// The pointer goes from row to row by itself, since LD1 can move it by a register.
#[inline(always)]
pub(super) unsafe fn pack_group(a: *const i8, stride: usize, k: usize, to: *mut i8) {
    // SAFETY: k is a multiple of 16; the caller promises k elements of every row, and room for as many.
    unsafe {
        asm!(
            "subs {k}, {k}, #32",
            "b.lo 3f",
            "2:",
            "ld1 {{v0.16b, v1.16b}}, [{a}], {stride}",
            "ld1 {{v2.16b, v3.16b}}, [{a}], {stride}",
            "ld1 {{v4.16b, v5.16b}}, [{a}], {stride}",
            "ld1 {{v6.16b, v7.16b}}, [{a}], {stride}",
            "ld1 {{v8.16b, v9.16b}}, [{a}], {stride}",
            "ld1 {{v10.16b, v11.16b}}, [{a}], {stride}",
            "ld1 {{v12.16b, v13.16b}}, [{a}], {stride}",
            "ld1 {{v14.16b, v15.16b}}, [{a}], {stride}",
            "ld1 {{v16.16b, v17.16b}}, [{a}], {stride}",
            "ld1 {{v18.16b, v19.16b}}, [{a}], {stride}",
            "ld1 {{v20.16b, v21.16b}}, [{a}], {stride}",
            "ld1 {{v22.16b, v23.16b}}, [{a}], {back}",
            pack_low!("zip1"),
            pack_low!("zip2"),
            pack_high!("zip1"),
            "subs {k}, {k}, #32",
            pack_high!("zip2"),
            "b.hs 2b",
            "3:",
            "tbz {k}, #4, 4f",
            "ld1 {{v0.16b}}, [{a}], {stride}",
            "ld1 {{v2.16b}}, [{a}], {stride}",
            "ld1 {{v4.16b}}, [{a}], {stride}",
            "ld1 {{v6.16b}}, [{a}], {stride}",
            "ld1 {{v8.16b}}, [{a}], {stride}",
            "ld1 {{v10.16b}}, [{a}], {stride}",
            "ld1 {{v12.16b}}, [{a}], {stride}",
            "ld1 {{v14.16b}}, [{a}], {stride}",
            "ld1 {{v16.16b}}, [{a}], {stride}",
            "ld1 {{v18.16b}}, [{a}], {stride}",
            "ld1 {{v20.16b}}, [{a}], {stride}",
            "ld1 {{v22.16b}}, [{a}]",
            pack_low!("zip1"),
            pack_low!("zip2"),
            "4:",
            a = inout(reg) a => _,
            stride = in(reg) stride,
            back = in(reg) 32_usize.wrapping_sub(stride.wrapping_mul(GROUP - 1)),
            k = inout(reg) k => _,
            to = inout(reg) to => _,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _, out("v15") _,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _, out("v29") _,
            options(nostack),
        );
    }
}

/// 8 steps of K for two rows × 8 columns: `$x` times the joined weights.
macro_rules! smmlas {
    ($x:literal, [$w0:literal, $w1:literal, $w2:literal, $w3:literal], [$a0:literal, $a1:literal, $a2:literal, $a3:literal]) => {
        concat!(
            smmlas!(@ $a0, $x, $w0),
            smmlas!(@ $a1, $x, $w1),
            smmlas!(@ $a2, $x, $w2),
            smmlas!(@ $a3, $x, $w3),
        )
    };
    (@ $acc:literal, $x:literal, $w:literal) => {
        concat!("smmla ", $acc, ".4s, ", $x, ".16b, ", $w, ".16b\n")
    };
}

/// [`smmlas`] to the blocks of a pair of rows, 0 to 5.
macro_rules! pair_smmlas {
    (0, $x:literal, $w:tt) => {
        smmlas!($x, $w, ["v8", "v9", "v10", "v11"])
    };
    (1, $x:literal, $w:tt) => {
        smmlas!($x, $w, ["v12", "v13", "v14", "v15"])
    };
    (2, $x:literal, $w:tt) => {
        smmlas!($x, $w, ["v16", "v17", "v18", "v19"])
    };
    (3, $x:literal, $w:tt) => {
        smmlas!($x, $w, ["v20", "v21", "v22", "v23"])
    };
    (4, $x:literal, $w:tt) => {
        smmlas!($x, $w, ["v24", "v25", "v26", "v27"])
    };
    (5, $x:literal, $w:tt) => {
        smmlas!($x, $w, ["v28", "v29", "v30", "v31"])
    };
}

/// 16 steps of K for 12 rows × 8 columns, of weights that are joined already.
macro_rules! step_joined {
    () => {
        step_joined!(@ ["v0", "v1", "v2", "v3"])
    };
    (@ $w:tt) => {
        concat!(
            "ld1 {{v0.16b-v3.16b}}, [{w}], #64\n",
            "ld1 {{v4.16b-v7.16b}}, [{x}], #64\n",
            pair_smmlas!(0, "v4", $w),
            pair_smmlas!(1, "v5", $w),
            pair_smmlas!(2, "v6", $w),
            pair_smmlas!(3, "v7", $w),
            "ld1 {{v4.16b-v7.16b}}, [{x}], #64\n",
            pair_smmlas!(4, "v4", $w),
            pair_smmlas!(5, "v5", $w),
            "ld1 {{v0.16b-v3.16b}}, [{w}], #64\n",
            pair_smmlas!(0, "v6", $w),
            pair_smmlas!(1, "v7", $w),
            "ld1 {{v4.16b-v7.16b}}, [{x}], #64\n",
            pair_smmlas!(2, "v4", $w),
            pair_smmlas!(3, "v5", $w),
            pair_smmlas!(4, "v6", $w),
            pair_smmlas!(5, "v7", $w),
        )
    };
}

/// The same of weights in two runs, which are joined here.
macro_rules! step_plain {
    () => {
        concat!(step_plain!(@ ["v4", "v0", "v2", "v1"]), step_plain!(@ ["v4", "v0", "v2", "v1"]))
    };
    (@ $w:tt) => {
        concat!(
            "ld1 {{v0.16b-v3.16b}}, [{w}], #64\n",
            "ld1 {{v5.16b-v7.16b}}, [{x}], #48\n",
            "zip1 v4.4s, v0.4s, v2.4s\n",
            "zip2 v0.4s, v0.4s, v2.4s\n",
            "zip1 v2.4s, v1.4s, v3.4s\n",
            "zip2 v1.4s, v1.4s, v3.4s\n",
            pair_smmlas!(0, "v5", $w),
            pair_smmlas!(1, "v6", $w),
            pair_smmlas!(2, "v7", $w),
            "ld1 {{v5.16b-v7.16b}}, [{x}], #48\n",
            pair_smmlas!(3, "v5", $w),
            pair_smmlas!(4, "v6", $w),
            pair_smmlas!(5, "v7", $w),
        )
    };
}

/// Initial values that lie in pairs, to all blocks; `$last` moves the pointer on, or not.
macro_rules! load_pairs {
    ($from:literal, $last:literal) => {
        concat!(
            load_pairs!(@ "v8.4s-v11.4s", $from, ""),
            load_pairs!(@ "v12.4s-v15.4s", $from, ""),
            load_pairs!(@ "v16.4s-v19.4s", $from, ""),
            load_pairs!(@ "v20.4s-v23.4s", $from, ""),
            load_pairs!(@ "v24.4s-v27.4s", $from, ""),
            load_pairs!(@ "v28.4s-v31.4s", $from, $last),
        )
    };
    (@ $to:literal, $from:literal, $move:literal) => {
        concat!("ld1 {{", $to, "}}, [{", $from, "}]", $move, "\n")
    };
}

/// Initial values, each pair of columns for both rows, to all blocks.
macro_rules! repeat_pairs {
    () => {
        concat!(
            "ld1r {{v8.2d}}, [{init}], #8\n",
            "ld1r {{v9.2d}}, [{init}], #8\n",
            "ld1r {{v10.2d}}, [{init}], #8\n",
            "ld1r {{v11.2d}}, [{init}], #8\n",
            "mov v12.16b, v8.16b\nmov v13.16b, v9.16b\nmov v14.16b, v10.16b\nmov v15.16b, v11.16b\n",
            "mov v16.16b, v8.16b\nmov v17.16b, v9.16b\nmov v18.16b, v10.16b\nmov v19.16b, v11.16b\n",
            "mov v20.16b, v8.16b\nmov v21.16b, v9.16b\nmov v22.16b, v10.16b\nmov v23.16b, v11.16b\n",
            "mov v24.16b, v8.16b\nmov v25.16b, v9.16b\nmov v26.16b, v10.16b\nmov v27.16b, v11.16b\n",
            "mov v28.16b, v8.16b\nmov v29.16b, v9.16b\nmov v30.16b, v10.16b\nmov v31.16b, v11.16b\n",
        )
    };
}

/// Assembly that leaves the blocks of 12 rows × 8 columns in v8–v31: its lines, its operands, and what becomes of v0–v3. Gives `[pairs of rows][2]`.
macro_rules! blocks {
    ([$($line:expr),* $(,)?], $($operand:tt)*) => {{
        let (s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11);
        let (s12, s13, s14, s15, s16, s17, s18, s19, s20, s21, s22, s23);
        asm!(
            $($line,)*
            $($operand)*
            out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") s0, out("v9") s1, out("v10") s2, out("v11") s3, out("v12") s4, out("v13") s5, out("v14") s6, out("v15") s7,
            out("v16") s8, out("v17") s9, out("v18") s10, out("v19") s11, out("v20") s12, out("v21") s13, out("v22") s14, out("v23") s15,
            out("v24") s16, out("v25") s17, out("v26") s18, out("v27") s19, out("v28") s20, out("v29") s21, out("v30") s22, out("v31") s23,
            options(pure, readonly, nostack),
        );
        [
            [Pair(s0, s1), Pair(s2, s3)],
            [Pair(s4, s5), Pair(s6, s7)],
            [Pair(s8, s9), Pair(s10, s11)],
            [Pair(s12, s13), Pair(s14, s15)],
            [Pair(s16, s17), Pair(s18, s19)],
            [Pair(s20, s21), Pair(s22, s23)],
        ]
    }};
}
use blocks;

/// 12 rows × 8 columns.
///
/// ```text
/// blocks of each pair of rows = initial values of each pair of columns, for both rows
/// for each 8 steps of K (four at a time; if K is an odd multiple of 16, from the middle on):
///     weights = two runs of 4 steps of 8 columns, joined now or before
///     for each pair of rows: SMMLA with 4 pairs of columns
/// ```
/// 1. 12 rows, not 8, because joining and loading weights costs a tile the same: it is shared by 24 SMMLA.
/// 2. Rows and weights are read by three or four registers (LD1), which move their pointer along. That keeps the load pipes as busy as LDP, and the
///    decoder half as busy (Arm Neoverse N2 Software Optimization Guide, "ASIMD load instructions").
///
/// | | v0–v3 | v4 | v5–v7 | v8–v31 |
/// |---|---|---|---|---|
/// | joined | weights | rows: four pairs | | blocks, 4 for each pair of rows |
/// | else | weights: two runs, then joined with v4 | | rows: three pairs | |
macro_rules! tile_12 {
    ($begin:expr, $step:expr, $end:expr, $packed:ident, $k:ident, $w:expr, $last:expr, $($operand:tt)*) => {
        blocks!(
            [
                $begin,
                "tbnz {k}, #4, 3f",
                "2:",
                $step,
                "3:",
                $step,
                "cmp {w}, {last}",
                "b.ne 2b",
                $end,
            ],
            x = inout(reg) *$packed,
            w = inout(reg) $w => _,
            last = in(reg) $last,
            k = in(reg) $k,
            $($operand)*
        )
    };
}

/// See [`Isa::tile_packed`](super::Isa::tile_packed).
#[inline(always)]
pub(super) unsafe fn tile_packed(
    init: *const i32,
    packed: &mut *const i8,
    k: usize,
    b: *const i8,
) -> [[Pair<int32x4_t>; 2]; GROUP / 2] {
    // SAFETY: k is a positive multiple of 16; 12·k packed elements, 8·k weights and 8 initial values are read, as promised. The caller's token proves
    // SMMLA.
    unsafe {
        tile_12!(
            repeat_pairs!(), step_plain!(), "", packed, k, b, b.add(8 * k),
            init = inout(reg) init => _,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _,
        )
    }
}

/// See [`Isa::tile_joined`](super::Isa::tile_joined).
#[inline(always)]
pub(super) unsafe fn tile_joined(
    packed: &mut *const i8,
    panel: *const i8,
    k: usize,
) -> ([[Pair<int32x4_t>; 2]; GROUP / 2], [Pair<float32x4_t>; 2]) {
    let (c0, c1, c2, c3);
    // SAFETY: k is a positive multiple of 16; 12·k packed elements and a panel (16 initial values, 8·k weights, 16 scales) are read, as promised. The
    // caller's token proves SMMLA.
    let acc = unsafe {
        tile_12!(
            load_pairs!("w", ", #64"), step_joined!(), "ld1 {{v0.4s-v3.4s}}, [{w}]",
            packed, k, panel, panel.add(PAIRED + NR * k),
            out("v0") c0, out("v1") c1, out("v2") c2, out("v3") c3,
        )
    };
    (acc, [Pair(c0, c1), Pair(c2, c3)])
}

/// As [`tile_joined`] for weights only, of keys or values; 16 initial values lie elsewhere.
///
/// # Safety
/// As [`tile_packed`], and `init` is valid for reading 16 elements.
#[inline(always)]
unsafe fn tile_packed_keys(
    init: *const i32,
    mut packed: *const i8,
    k: usize,
    b: *const i8,
) -> [[Pair<int32x4_t>; 2]; GROUP / 2] {
    let packed = &mut packed;
    // SAFETY: as in `tile_packed`, with 16 initial values.
    unsafe {
        tile_12!(
            load_pairs!("init", ""), step_joined!(), "", packed, k, b, b.add(8 * k),
            init = in(reg) init,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _,
        )
    }
}

/// See [`Isa::join_panel`](super::Isa::join_panel): `[K/8][4 pairs][2 columns][8]`.
#[inline(always)]
pub(super) unsafe fn join_panel(from: *const i8, to: *mut i8, len: usize) {
    // SAFETY: i stays below `len`, a multiple of 128; the caller promises as many elements.
    unsafe {
        let mut i = 0;
        while i < len {
            for half in [i, i + 64] {
                let [p0, p1, p2, p3] = columns(from.add(half));
                vst1q_s8_x4(to.add(half), int8x16x4_t(p0, p1, p2, p3));
            }
            i += 128;
        }
    }
}

/// See [`Isa::put_rows_sat8`](super::Isa::put_rows_sat8): two columns of a row are 16 bits. UZP1 takes the rows on even places, of both pairs.
#[inline(always)]
pub(super) unsafe fn put_rows_sat8(y: &mut *mut i8, pitch: usize, pairs: [[int16x8_t; 2]; 2]) {
    // SAFETY: the caller promises 8 elements for each of the rows.
    unsafe {
        let bytes = |pair: [int16x8_t; 2]| {
            vreinterpretq_s16_s8(vqmovn_high_s16(vqmovn_s16(pair[0]), pair[1]))
        };
        let (upper, lower) = (bytes(pairs[0]), bytes(pairs[1]));
        asm!(
            "st1 {{{even:v}.d}}[0], [{y}], {pitch}",
            "st1 {{{odd:v}.d}}[0], [{y}], {pitch}",
            "st1 {{{even:v}.d}}[1], [{y}], {pitch}",
            "st1 {{{odd:v}.d}}[1], [{y}], {pitch}",
            y = inout(reg) *y, pitch = in(reg) pitch,
            even = in(vreg) vuzp1q_s16(upper, lower), odd = in(vreg) vuzp2q_s16(upper, lower),
            options(nostack, preserves_flags),
        );
    }
}

/// See [`Isa::put_rows_i16`](super::Isa::put_rows_i16).
#[inline(always)]
pub(super) unsafe fn put_rows_i16(y: &mut *mut i16, pitch: usize, pairs: [[int16x8_t; 2]; 2]) {
    // SAFETY: the caller promises 8 elements for each of the rows.
    unsafe {
        unroll!(FOUR, row, {
            put_row(y, pitch, split_i16(pairs[row / 2])[row % 2]);
        });
    }
}

/// See [`Isa::add_rows_i16`](super::Isa::add_rows_i16).
#[inline(always)]
pub(super) unsafe fn add_rows_i16(y: &mut *mut i16, pitch: usize, pairs: [[int16x8_t; 2]; 2]) {
    // SAFETY: the caller promises 8 elements for each of the rows.
    unsafe {
        unroll!(FOUR, row, {
            let sum = vqaddq_s16(split_i16(pairs[row / 2])[row % 2], vld1q_s16(*y));
            put_row(y, pitch, sum);
        });
    }
}

/// Two pairs of rows.
const FOUR: usize = 4;

/// Stores a row and goes to the next. Assembly, because the compiler takes two instructions.
///
/// # Safety
/// `y` is valid for writing 8 elements.
#[inline(always)]
unsafe fn put_row(y: &mut *mut i16, pitch: usize, row: int16x8_t) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "st1 {{{row:v}.8h}}, [{y}], {pitch}",
            y = inout(reg) *y, pitch = in(reg) pitch * size_of::<i16>(), row = in(vreg) row,
            options(nostack, preserves_flags),
        );
    }
}

/// See [`Isa::join`](super::Isa::join): `[K/8][4 pairs][2 columns][8]`.
#[inline(always)]
pub(super) unsafe fn join(panels: *mut i8, len: usize) {
    // SAFETY: i stays below `len`, a multiple of 64; the caller promises as many elements.
    unsafe {
        let mut i = 0;
        while i < len {
            let at = panels.add(i);
            let joined = columns(at);
            for pair in 0..4 {
                vst1q_s8(at.add(16 * pair), joined[pair]);
            }
            i += 64;
        }
    }
}

/// See [`Isa::pack_queries`](super::Isa::pack_queries): `[K/8][pairs][2 rows][8]`; one row is its own partner.
#[inline(always)]
pub(super) unsafe fn pack_queries<const R: usize>(
    a: *const i8,
    stride: usize,
    k: usize,
    to: *mut i8,
) -> (*const i8, usize) {
    let step = R.next_multiple_of(2) * 8;
    // SAFETY: i stays below k, a multiple of 16; the caller promises k elements of every row, and room for as many.
    unsafe {
        let mut i = 0;
        while i < k {
            let to = to.add(i / 8 * step);
            unroll!(R, r, {
                if r.is_multiple_of(2) {
                    let row = a.add(r * stride + i);
                    let partner = if R == 1 { row } else { row.add(stride) };
                    let x = join_rows(vld1q_s8(row), vld1q_s8(partner));
                    vst1q_s8(to.add(8 * r), x[0]);
                    vst1q_s8(to.add(8 * r + step), x[1]);
                }
            });
            i += 16;
        }
        (to, step)
    }
}

/// The upper 7 bits of 8 values, and then the lower: a pair of rows for [`tile_pairs`].
///
/// # Safety
/// `to` is valid for writing 16 elements.
#[inline(always)]
pub(super) unsafe fn store_planes(to: *mut i8, v: int16x8_t) {
    // SAFETY: the caller's promise.
    unsafe {
        let low = vandq_s16(v, vdupq_n_s16(127));
        vst1q_s8(to, vmovn_high_s16(vshrn_n_s16::<7>(v), low));
    }
}

/// As [`tile`] for rows and weights that are joined: a pair of rows is `strides[0]` from the next, 8 steps of K `strides[1]`. `k` may be any number.
///
/// # Safety
/// As [`tile`] for `k` rounded up to 8.
#[inline(always)]
pub(super) unsafe fn tile_pairs<const R: usize>(
    init: *const i32,
    a: *const i8,
    strides: [usize; 2],
    k: usize,
    b: *const i8,
) -> [Pair<int32x4_t>; R] {
    // SAFETY: i stays below k rounded up to 8; the caller promises as many elements of every row, 8 weights for each, and 8 initial values.
    unsafe {
        let init = load_i32_pairs(init);
        let mut blocks = [[init[0].0, init[0].1, init[1].0, init[1].1]; R];
        let (mut a, mut i) = (a, 0);
        while i < k {
            let w = b.add(8 * i);
            let w = [
                vld1q_s8(w),
                vld1q_s8(w.add(16)),
                vld1q_s8(w.add(32)),
                vld1q_s8(w.add(48)),
            ];
            unroll!(R, r, {
                if r.is_multiple_of(2) {
                    blocks[r] = smmla_blocks(blocks[r], vld1q_s8(a.add(r / 2 * strides[0])), w);
                }
            });
            a = a.wrapping_add(strides[1]);
            i += 8;
        }
        rows_of(blocks)
    }
}

/// The rows of blocks, of which every other is used.
#[inline(always)]
fn rows_of<const R: usize>(blocks: [Blocks; R]) -> [Pair<int32x4_t>; R] {
    let mut rows = [Pair(blocks[0][0], blocks[0][1]); R];
    unroll!(R, r, {
        let [b0, b1, b2, b3] = blocks[r - r % 2];
        rows[r] = split_i32([Pair(b0, b1), Pair(b2, b3)])[r % 2];
    });
    rows
}

/// 8 values, each pair of columns for both rows of a block.
///
/// # Safety
/// `p` is valid for reading 8 elements.
#[inline(always)]
pub(super) unsafe fn load_i32_pairs(p: *const i32) -> [Pair<int32x4_t>; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let two = p.cast::<i64>();
        let twice = [
            vreinterpretq_s32_s64(vdupq_n_s64(two.read_unaligned())),
            vreinterpretq_s32_s64(vdupq_n_s64(two.add(1).read_unaligned())),
            vreinterpretq_s32_s64(vdupq_n_s64(two.add(2).read_unaligned())),
            vreinterpretq_s32_s64(vdupq_n_s64(two.add(3).read_unaligned())),
        ];
        [Pair(twice[0], twice[1]), Pair(twice[2], twice[3])]
    }
}

/// See [`Isa::load_f32_pairs`](super::Isa::load_f32_pairs).
#[inline(always)]
pub(super) unsafe fn load_f32_pairs(p: *const f32) -> [Pair<float32x4_t>; 2] {
    // SAFETY: the caller's promise; any bits are an f32.
    unsafe {
        let [low, high] = load_i32_pairs(p.cast());
        let f32s = |pair: Pair<int32x4_t>| {
            Pair(vreinterpretq_f32_s32(pair.0), vreinterpretq_f32_s32(pair.1))
        };
        [f32s(low), f32s(high)]
    }
}

/// The rows of a pair: two columns of a row are 32 bits.
#[inline(always)]
fn split_i16(pair: [int16x8_t; 2]) -> [int16x8_t; 2] {
    // SAFETY: register operations of the baseline instruction set.
    unsafe {
        let (left, right) = (
            vreinterpretq_s32_s16(pair[0]),
            vreinterpretq_s32_s16(pair[1]),
        );
        [
            vreinterpretq_s16_s32(vuzp1q_s32(left, right)),
            vreinterpretq_s16_s32(vuzp2q_s32(left, right)),
        ]
    }
}

/// See [`Isa::split_i32`](super::Isa::split_i32): two columns of a row are 64 bits.
#[inline(always)]
pub(super) fn split_i32(pair: [Pair<int32x4_t>; 2]) -> [Pair<int32x4_t>; 2] {
    // SAFETY: register operations of the baseline instruction set.
    unsafe {
        let [b0, b1, b2, b3] = [
            vreinterpretq_s64_s32(pair[0].0),
            vreinterpretq_s64_s32(pair[0].1),
            vreinterpretq_s64_s32(pair[1].0),
            vreinterpretq_s64_s32(pair[1].1),
        ];
        [
            Pair(
                vreinterpretq_s32_s64(vzip1q_s64(b0, b1)),
                vreinterpretq_s32_s64(vzip1q_s64(b2, b3)),
            ),
            Pair(
                vreinterpretq_s32_s64(vzip2q_s64(b0, b1)),
                vreinterpretq_s32_s64(vzip2q_s64(b2, b3)),
            ),
        ]
    }
}

/// 8 steps of K for 8 columns, by pairs of columns.
///
/// # Safety
/// `w` is valid for reading 64 elements.
#[inline(always)]
unsafe fn columns(w: *const i8) -> [int8x16_t; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let run = |at: usize| vreinterpretq_s32_s8(vld1q_s8(w.add(at)));
        let (first, second) = ([run(0), run(16)], [run(32), run(48)]);
        [
            vreinterpretq_s8_s32(vzip1q_s32(first[0], second[0])),
            vreinterpretq_s8_s32(vzip2q_s32(first[0], second[0])),
            vreinterpretq_s8_s32(vzip1q_s32(first[1], second[1])),
            vreinterpretq_s8_s32(vzip2q_s32(first[1], second[1])),
        ]
    }
}

/// 8 steps of K of two rows, and the next 8.
#[inline(always)]
fn join_rows(upper: int8x16_t, lower: int8x16_t) -> [int8x16_t; 2] {
    // SAFETY: register operations of the baseline instruction set.
    unsafe {
        let (upper, lower) = (vreinterpretq_s64_s8(upper), vreinterpretq_s64_s8(lower));
        [
            vreinterpretq_s8_s64(vzip1q_s64(upper, lower)),
            vreinterpretq_s8_s64(vzip2q_s64(upper, lower)),
        ]
    }
}

/// 8 steps of K for two rows × 8 columns.
#[inline(always)]
fn smmla_blocks(blocks: Blocks, x: int8x16_t, w: [int8x16_t; 4]) -> Blocks {
    // SAFETY: the caller's token proves SMMLA.
    unsafe {
        [
            smmla(blocks[0], x, w[0]),
            smmla(blocks[1], x, w[1]),
            smmla(blocks[2], x, w[2]),
            smmla(blocks[3], x, w[3]),
        ]
    }
}

/// `acc[2r + c] += Σ_i x[8r + i] · w[8c + i]`. (The intrinsic, `vmmlaq_s32`, is not stable yet.)
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn smmla(mut acc: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
    // SAFETY: one register operation; the feature is enabled on this function.
    unsafe {
        asm!(
            "smmla {acc:v}.4s, {x:v}.16b, {w:v}.16b",
            acc = inout(vreg) acc, x = in(vreg) x, w = in(vreg) w,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

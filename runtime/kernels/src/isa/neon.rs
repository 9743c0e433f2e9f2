//! ARMv8.0 Advanced SIMD.
//!
//! The tile has no SDOT. For 4 columns × 4 steps of K, a row's 4 bytes are repeated for every column (LD1R); SMULL multiplies, SMLAL adds the
//! products of the next 4 steps (two products of at most 127·128 fit an i16), SADALP adds neighbours to 32 bits. Registers for 4 rows:
//!
//! | 16 | 4 | 4 | 8 |
//! |---|---|---|---|
//! | accumulators: two partial sums for each of 4 rows × 8 columns | weights: 8 columns × 8 steps | repeated bytes of two rows | products |

use core::arch::aarch64::*;
use core::arch::asm;

use super::{Isa, Routine, neon, neon_dotprod, tile_and_steps, unroll};
use crate::{Neon, NeonDotprod};

/// 8 lanes in two registers.
#[derive(Clone, Copy)]
pub(crate) struct Pair<T>(pub(super) T, pub(super) T);

/// Methods that compute in registers.
macro_rules! neon_ops {
    ($(fn $name:ident($($arg:ident: $type:ty),*) -> $result:ty { $($body:tt)* })*) => {
        $(
            #[inline(always)]
            fn $name(self, $($arg: $type),*) -> $result {
                // SAFETY: the token proves that the CPU has the instructions.
                unsafe { $($body)* }
            }
        )*
    };
}

/// Both kernels share all but the tile and the depthwise window, which are in the module `$own`.
macro_rules! neon {
    ($token:ty, $features:literal, $rows:expr, $own:ident $(, $wide:path)?) => {
        impl Isa for $token {
            type I8 = int8x16_t;
            type I16 = int16x8_t;
            type I32 = Pair<int32x4_t>;
            type F32 = Pair<float32x4_t>;
            type Taps = int8x16_t;
            type Column = $own::Column;
            type Window = $own::Window;
            const ROWS: usize = $rows;

            #[inline(always)]
            fn call<R: Routine>(self, routine: R) -> R::Output {
                #[inline(never)]
                #[target_feature(enable = $features)]
                fn enabled<R: Routine>(token: $token, routine: R) -> R::Output {
                    routine.simd(token)
                }
                // SAFETY: the token proves that the CPU has the instructions that the callee enables.
                unsafe { enabled(self, routine) }
            }

            #[inline(always)]
            fn opaque(self, mut v: isize) -> isize {
                // SAFETY: no instruction at all.
                unsafe { asm!("/* {v} */", v = inout(reg) v, options(pure, nomem, nostack, preserves_flags)) };
                v
            }

            #[inline(always)]
            unsafe fn load_i8(self, p: *const i8) -> int8x16_t {
                // SAFETY: the caller's promise.
                unsafe { vld1q_s8(p) }
            }
            #[inline(always)]
            unsafe fn load_i8_wide(self, p: *const i8) -> int16x8_t {
                // SAFETY: the caller's promise.
                unsafe { vmovl_s8(vld1_s8(p)) }
            }
            #[inline(always)]
            unsafe fn load_i16(self, p: *const i16) -> int16x8_t {
                // SAFETY: the caller's promise.
                unsafe { vld1q_s16(p) }
            }
            #[inline(always)]
            unsafe fn load_i32(self, p: *const i32) -> Pair<int32x4_t> {
                // SAFETY: the caller's promise.
                unsafe { Pair(vld1q_s32(p), vld1q_s32(p.add(4))) }
            }
            #[inline(always)]
            unsafe fn load_f32(self, p: *const f32) -> Pair<float32x4_t> {
                // SAFETY: the caller's promise.
                unsafe { Pair(vld1q_f32(p), vld1q_f32(p.add(4))) }
            }
            #[inline(always)]
            unsafe fn store_i8(self, p: *mut i8, v: int8x16_t) {
                // SAFETY: the caller's promise.
                unsafe { vst1q_s8(p, v) }
            }
            #[inline(always)]
            unsafe fn store_i16(self, p: *mut i16, v: int16x8_t) {
                // SAFETY: the caller's promise.
                unsafe { vst1q_s16(p, v) }
            }
            #[inline(always)]
            unsafe fn store_i32(self, p: *mut i32, v: Pair<int32x4_t>) {
                // SAFETY: the caller's promise.
                unsafe {
                    vst1q_s32(p, v.0);
                    vst1q_s32(p.add(4), v.1);
                }
            }
            #[inline(always)]
            unsafe fn store_sat8(self, p: *mut i8, v: int16x8_t) {
                // SAFETY: the caller's promise.
                unsafe { vst1_s8(p, vqmovn_s16(v)) }
            }

            #[inline(always)]
            unsafe fn store_halves(self, high: *mut i8, low: *mut i8, v: int16x8_t) {
                // SAFETY: the caller's promise.
                unsafe {
                    vst1_s8(high, vshrn_n_s16::<7>(v));
                    vst1_s8(low, vmovn_s16(vandq_s16(v, vdupq_n_s16(127))));
                }
            }
            #[inline(always)]
            unsafe fn store_halves_pair(self, high: *mut i8, low: *mut i8, v: [int16x8_t; 2]) {
                // SAFETY: the caller's promise.
                unsafe {
                    vst1q_s8(high, vshrn_high_n_s16::<7>(vshrn_n_s16::<7>(v[0]), v[1]));
                    let bytes = vuzp1q_s8(vreinterpretq_s8_s16(v[0]), vreinterpretq_s8_s16(v[1]));
                    vst1q_s8(low, vandq_s8(bytes, vdupq_n_s8(127)));
                }
            }

            neon_ops! {
                fn round_floored(a: Pair<float32x4_t>, floor: i16) -> int16x8_t {
                    // Conversion and narrowing saturate, below any floor.
                    let r = vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(a.0)), vcvtnq_s32_f32(a.1));
                    vmaxq_s16(r, vdupq_n_s16(floor))
                }
                fn sqrt(v: f64) -> f64 { vget_lane_f64::<0>(vsqrt_f64(vdup_n_f64(v))) }
                fn splat_i16(v: i16) -> int16x8_t { vdupq_n_s16(v) }
                fn splat_i32(v: i32) -> Pair<int32x4_t> { Pair(vdupq_n_s32(v), vdupq_n_s32(v)) }
                fn splat_f32(v: f32) -> Pair<float32x4_t> { Pair(vdupq_n_f32(v), vdupq_n_f32(v)) }
                fn max_i8(a: int8x16_t, b: int8x16_t) -> int8x16_t { vmaxq_s8(a, b) }
                fn add_i16(a: int16x8_t, b: int16x8_t) -> int16x8_t { vaddq_s16(a, b) }
                fn add_sat_i16(a: int16x8_t, b: int16x8_t) -> int16x8_t { vqaddq_s16(a, b) }
                fn max_i16(a: int16x8_t, b: int16x8_t) -> int16x8_t { vmaxq_s16(a, b) }
                fn widen_i16(a: int16x8_t) -> Pair<int32x4_t> { Pair(vmovl_s16(vget_low_s16(a)), vmovl_high_s16(a)) }
                fn mul_wide_i16(a: int16x8_t, b: int16x8_t) -> Pair<int32x4_t> {
                    Pair(vmull_s16(vget_low_s16(a), vget_low_s16(b)), vmull_high_s16(a, b))
                }
                fn and_not_i16(a: int16x8_t, b: int16x8_t) -> int16x8_t { vbicq_s16(a, b) }
                fn and_i16(a: int16x8_t, b: int16x8_t) -> int16x8_t { vandq_s16(a, b) }
                fn mulr_i16(a: int16x8_t, b: int16x8_t) -> int16x8_t { vqrdmulhq_s16(a, b) }
                fn shift_round_i16(a: int16x8_t, n: int16x8_t) -> int16x8_t { vrshlq_s16(a, n) }
                fn add_i32(a: Pair<int32x4_t>, b: Pair<int32x4_t>) -> Pair<int32x4_t> {
                    Pair(vaddq_s32(a.0, b.0), vaddq_s32(a.1, b.1))
                }
                fn sub_i32(a: Pair<int32x4_t>, b: Pair<int32x4_t>) -> Pair<int32x4_t> {
                    Pair(vsubq_s32(a.0, b.0), vsubq_s32(a.1, b.1))
                }
                fn max_i32(a: Pair<int32x4_t>, b: Pair<int32x4_t>) -> Pair<int32x4_t> {
                    Pair(vmaxq_s32(a.0, b.0), vmaxq_s32(a.1, b.1))
                }
                fn min_i32(a: Pair<int32x4_t>, b: Pair<int32x4_t>) -> Pair<int32x4_t> {
                    Pair(vminq_s32(a.0, b.0), vminq_s32(a.1, b.1))
                }
                fn select_equal(
                    a: Pair<int32x4_t>,
                    b: Pair<int32x4_t>,
                    yes: Pair<int32x4_t>,
                    no: Pair<int32x4_t>
                ) -> Pair<int32x4_t> {
                    Pair(
                        vbslq_s32(vceqq_s32(a.0, b.0), yes.0, no.0),
                        vbslq_s32(vceqq_s32(a.1, b.1), yes.1, no.1),
                    )
                }
                fn narrow_floored(a: Pair<int32x4_t>, floor: i16) -> int16x8_t {
                    vmaxq_s16(vqmovn_high_s32(vqmovn_s32(a.0), a.1), vdupq_n_s16(floor))
                }
                fn splat_max(a: Pair<int32x4_t>) -> Pair<int32x4_t> {
                    let max = vdupq_n_s32(vmaxvq_s32(vmaxq_s32(a.0, a.1)));
                    Pair(max, max)
                }
                fn reduce_add(a: Pair<int32x4_t>) -> i32 { vaddvq_s32(vaddq_s32(a.0, a.1)) }
                fn accumulate(sum: Pair<int32x4_t>, v: int16x8_t) -> Pair<int32x4_t> { Pair(vpadalq_s16(sum.0, v), sum.1) }
                fn mul_add_i16(acc: Pair<int32x4_t>, x: int16x8_t, c: i16) -> Pair<int32x4_t> {
                    let c = vdupq_n_s16(c);
                    Pair(vmlal_s16(acc.0, vget_low_s16(x), vget_low_s16(c)), vmlal_high_s16(acc.1, x, c))
                }
                fn to_f32(a: Pair<int32x4_t>) -> Pair<float32x4_t> { Pair(vcvtq_f32_s32(a.0), vcvtq_f32_s32(a.1)) }
                fn to_f32_by_128(a: Pair<int32x4_t>) -> Pair<float32x4_t> {
                    Pair(vcvtq_n_f32_s32::<7>(a.0), vcvtq_n_f32_s32::<7>(a.1))
                }
                fn add_f32(a: Pair<float32x4_t>, b: Pair<float32x4_t>) -> Pair<float32x4_t> {
                    Pair(vaddq_f32(a.0, b.0), vaddq_f32(a.1, b.1))
                }
                fn mul_f32(a: Pair<float32x4_t>, b: Pair<float32x4_t>) -> Pair<float32x4_t> {
                    Pair(vmulq_f32(a.0, b.0), vmulq_f32(a.1, b.1))
                }
                fn min_f32(a: Pair<float32x4_t>, b: Pair<float32x4_t>) -> Pair<float32x4_t> {
                    Pair(vminq_f32(a.0, b.0), vminq_f32(a.1, b.1))
                }
                fn max_f32(a: Pair<float32x4_t>, b: Pair<float32x4_t>) -> Pair<float32x4_t> {
                    Pair(vmaxq_f32(a.0, b.0), vmaxq_f32(a.1, b.1))
                }
                fn round_i32(a: Pair<float32x4_t>) -> Pair<int32x4_t> { Pair(vcvtnq_s32_f32(a.0), vcvtnq_s32_f32(a.1)) }
                fn round_sat16(a: Pair<float32x4_t>) -> int16x8_t {
                    vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(a.0)), vcvtnq_s32_f32(a.1))
                }
            }

            #[inline(always)]
            fn shift_left_i16<const BITS: i32>(self, a: int16x8_t) -> int16x8_t {
                // SAFETY: the token proves that the CPU has the instruction.
                unsafe { vshlq_n_s16::<BITS>(a) }
            }
            #[inline(always)]
            fn shift_right_i16<const BITS: i32>(self, a: int16x8_t) -> int16x8_t {
                // SAFETY: the token proves that the CPU has the instruction.
                unsafe { vshrq_n_s16::<BITS>(a) }
            }

            #[inline(always)]
            unsafe fn sum_and_squares(self, p: *const i16, n: usize) -> (i32, u64) {
                // SAFETY: the caller's promise.
                unsafe { sum_and_squares(p, n) }
            }

            #[inline(always)]
            unsafe fn look_up(self, table: &[i8; 256], p: *mut i8, n: usize) {
                // SAFETY: the caller's promise.
                unsafe { look_up(table, p, n) }
            }

            #[inline(always)]
            unsafe fn load_taps(self, p: *const i8) -> int8x16_t {
                // SAFETY: the caller's promise.
                unsafe { vld1q_s8(p) }
            }
            #[inline(always)]
            unsafe fn tap(self, acc: [Self::I32; 2], x: *const i8, w: int8x16_t) -> [Self::I32; 2] {
                // SAFETY: the caller's promise.
                let x = unsafe { vld1q_s8(x) };
                tap(acc, x, w)
            }
            #[inline(always)]
            unsafe fn tap_pair(self, acc: [Self::I32; 2], x: [*const i8; 2], w: [int8x16_t; 2]) -> [Self::I32; 2] {
                // SAFETY: the caller's promise.
                let x = unsafe { [vld1q_s8(x[0]), vld1q_s8(x[1])] };
                tap_pair(acc, x, w)
            }

            #[inline(always)]
            unsafe fn pack_keys(self, rows: [*const i8; 4], to: *mut i8) {
                // SAFETY: the caller's promise.
                unsafe { pack_keys(rows, to) }
            }
            #[inline(always)]
            unsafe fn pack_values(self, rows: [*const i8; 4], to: [*mut i8; 2]) {
                // SAFETY: the caller's promise.
                unsafe { pack_values(rows, to) }
            }

            #[inline(always)]
            unsafe fn tile<const R: usize>(
                self,
                init: *const i32,
                a: *const i8,
                stride: usize,
                k: usize,
                b: *const i8,
            ) -> [Self::I32; R] {
                // SAFETY: the caller's promise.
                unsafe { $own::tile(self, init, a, stride, k, b) }
            }

            #[inline(always)]
            unsafe fn tile_ragged<const R: usize>(
                self,
                init: *const i32,
                a: *const i8,
                stride: usize,
                k: usize,
                b: *const i8,
            ) -> [Self::I32; R] {
                // SAFETY: the caller's promise.
                unsafe { $own::tile_ragged(self, init, a, stride, k, b) }
            }

            #[inline(always)]
            unsafe fn tile_steps<const R: usize>(
                self,
                acc: [Self::I32; R],
                a: *const i8,
                stride: usize,
                steps: usize,
                b: *const i8,
            ) -> [Self::I32; R] {
                // SAFETY: the caller's promise.
                unsafe { $own::tile_steps(acc, a, stride, steps, b) }
            }

            $(
                const WIDE: bool = true;

                #[inline(always)]
                unsafe fn tile_wide(
                    self,
                    init: *const i32,
                    a: *const i8,
                    stride: usize,
                    k: usize,
                    b: *const i8,
                ) -> [[Self::I32; 4]; 2] {
                    // SAFETY: the caller's promise.
                    unsafe { $wide(init, a, stride, k, b) }
                }
            )?

            #[inline(always)]
            unsafe fn load_column(self, rows: [*const i8; 3]) -> $own::Column {
                // SAFETY: the caller's promise.
                unsafe { $own::load_column(rows) }
            }
            #[inline(always)]
            unsafe fn load_window(self, w: *const i8, channels: usize) -> $own::Window {
                // SAFETY: the caller's promise.
                unsafe { $own::load_window(w, channels) }
            }
            #[inline(always)]
            unsafe fn window(self, acc: [Self::I32; 2], columns: [$own::Column; 3], window: &$own::Window) -> [Self::I32; 2] {
                $own::window(acc, columns, window)
            }
        }
    };
}

neon!(Neon, "neon", 4, neon);
neon!(
    NeonDotprod,
    "neon,dotprod",
    8,
    neon_dotprod,
    neon_dotprod::tile_wide
);

/// Three rows of 16 channels.
pub(super) type Column = [int8x16_t; 3];
/// Nine taps of 16 channels.
pub(super) type Window = [int8x16_t; 9];

/// See [`Isa::load_column`].
#[inline(always)]
unsafe fn load_column(rows: [*const i8; 3]) -> Column {
    // SAFETY: the caller's promise.
    unsafe { [vld1q_s8(rows[0]), vld1q_s8(rows[1]), vld1q_s8(rows[2])] }
}

/// See [`Isa::load_window`].
#[inline(always)]
unsafe fn load_window(w: *const i8, channels: usize) -> Window {
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
fn window(
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
fn tap(acc: [Pair<int32x4_t>; 2], x: int8x16_t, w: int8x16_t) -> [Pair<int32x4_t>; 2] {
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
fn tap_pair(
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

/// See [`Isa::sum_and_squares`].
#[inline(always)]
unsafe fn sum_and_squares(p: *const i16, n: usize) -> (i32, u64) {
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

/// Looks bytes up in four tables of 64: TBL gives 0 outside its table, TBX leaves what is there; the index is moved down by 64 from table to table.
///
/// # Safety
/// `p` is valid for reading and writing `n` elements.
#[inline(always)]
unsafe fn look_up(table: &[i8; 256], p: *mut i8, n: usize) {
    // SAFETY: i + 32 or i + 16 ≤ n in the loops, and the table has 256 entries.
    unsafe {
        let quarters = [0, 64, 128, 192].map(|first| table.as_ptr().add(first));
        let tables = [
            vld1q_s8_x4(quarters[0]),
            vld1q_s8_x4(quarters[1]),
            vld1q_s8_x4(quarters[2]),
            vld1q_s8_x4(quarters[3]),
        ];
        let mut i = 0;
        while i + 32 <= n {
            let at = p.add(i);
            let index = [vld1q_s8(at), vld1q_s8(at.add(16))];
            vst1q_s8(at, entries(&tables, index[0]));
            vst1q_s8(at.add(16), entries(&tables, index[1]));
            i += 32;
        }
        while i + 16 <= n {
            vst1q_s8(p.add(i), entries(&tables, vld1q_s8(p.add(i))));
            i += 16;
        }
        while i < n {
            *p.add(i) = table[usize::from(*p.add(i) as u8)];
            i += 1;
        }
    }
}

/// The entries of 16 bytes.
#[inline(always)]
fn entries(tables: &[int8x16x4_t; 4], bytes: int8x16_t) -> int8x16_t {
    // SAFETY: register operations of the baseline instruction set.
    unsafe {
        let (mut index, step) = (vreinterpretq_u8_s8(bytes), vdupq_n_u8(64));
        let mut y = vqtbl4q_s8(tables[0], index);
        index = vsubq_u8(index, step);
        y = vqtbx4q_s8(y, tables[1], index);
        index = vsubq_u8(index, step);
        y = vqtbx4q_s8(y, tables[2], index);
        index = vsubq_u8(index, step);
        vqtbx4q_s8(y, tables[3], index)
    }
}

/// See [`Isa::pack_keys`]: a transposition of 4 × 4 words.
#[inline(always)]
unsafe fn pack_keys(rows: [*const i8; 4], to: *mut i8) {
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
unsafe fn pack_values(rows: [*const i8; 4], to: [*mut i8; 2]) {
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
pub(super) fn interleave(
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
unsafe fn tile_ragged<const R: usize>(
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
unsafe fn tile_steps<const R: usize>(
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

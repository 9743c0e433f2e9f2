//! ARMv8.0 Advanced SIMD: 8 lanes in two registers. What takes more than an instruction or two per lane has a file of its own.

mod depthwise;
mod pack;
mod sums;
mod table;
mod tile;
mod weigh;

use core::arch::aarch64::*;
use core::arch::asm;

use self::depthwise::{Column, LINES, Window, load_column, load_window, tap, tap_pair, window};
use self::pack::{pack_keys, pack_values};
use self::sums::sum_and_squares;
use self::table::look_up;
use self::tile::{tile, tile_ragged, tile_steps};
use self::weigh::weigh;
use super::{Isa, Routine, neon, neon_dotprod, neon_i8mm};
use crate::attention::simd::workspace::Workspace;
use crate::attention::simd::{Group, Part};
use crate::gemm::GROUP;
use crate::requantise::scalar::MAGIC;
use crate::{Neon, NeonDotprod, NeonI8mm};

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

/// The kernels share all but the tiles and the depthwise window, which are in the module `$own`.
macro_rules! neon {
    ($token:ty, $features:literal, $rows:expr, $own:ident $(, $gain:ident or $below:ident)? $(, wide in $wide:ident)? $(; $($more:tt)*)?) => {
        impl Isa for $token {
            type I8 = int8x16_t;
            type I16 = int16x8_t;
            type I32 = Pair<int32x4_t>;
            type F32 = Pair<float32x4_t>;
            type Offset = float32x4_t;
            type Taps = int8x16_t;
            type Column = $own::Column;
            type Window = $own::Window;
            const LINES: usize = $own::LINES;
            const ROWS: usize = $rows;
            const ROUNDS_BY_ADDING: bool = true;

            #[inline(always)]
            fn call<R: Routine>(self, routine: R) -> R::Output {
                $(
                    if !R::GAINS.$gain {
                        return self.$below().call(routine);
                    }
                )?
                #[target_feature(enable = $features)]
                fn enabled<R: Routine>(token: $token, routine: R) -> R::Output {
                    routine.simd(token)
                }
                // Not on `enabled`: rustc 1.93 to 1.96 drop it from functions with target features (rust-lang/rust#145932, undone by #156242).
                #[inline(never)]
                fn apart<R: Routine>(token: $token, routine: R) -> R::Output {
                    // SAFETY: the token proves that the CPU has the instructions that the callee enables.
                    unsafe { enabled(token, routine) }
                }
                apart(self, routine)
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
            unsafe fn next_f32_pairs(self, p: [&mut *const f32; 2]) -> [[Pair<float32x4_t>; 2]; 2] {
                // SAFETY: the caller's promise.
                unsafe { next_pairs(p) }
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
                // Conversion and narrowing saturate at −2¹⁵, and SRSHL shifts by up to 128.
                fn round_floored(a: Pair<float32x4_t>, _floor: i16) -> int16x8_t {
                    vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(a.0)), vcvtnq_s32_f32(a.1))
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
                fn narrow_floored(a: Pair<int32x4_t>, _floor: i16) -> int16x8_t { vqmovn_high_s32(vqmovn_s32(a.0), a.1) }
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
                fn round_near(a: Pair<float32x4_t>) -> int16x8_t {
                    let rounded = [vcvtnq_s32_f32(a.0), vcvtnq_s32_f32(a.1)];
                    vuzp1q_s16(vreinterpretq_s16_s32(rounded[0]), vreinterpretq_s16_s32(rounded[1]))
                }
                // As the reference rounds: no fraction bits are left, ties go to even if the offset is even, and the lower half of the sum is the integer
                // (XNNPACK's requantisation with a "magic bias").
                fn offset(by: i16) -> float32x4_t { vdupq_n_f32(MAGIC + f32::from(by)) }
                fn round_offset(a: Pair<float32x4_t>, by: float32x4_t) -> int16x8_t {
                    let sums = [vaddq_f32(a.0, by), vaddq_f32(a.1, by)];
                    vuzp1q_s16(vreinterpretq_s16_f32(sums[0]), vreinterpretq_s16_f32(sums[1]))
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
                    panel: usize,
                ) -> [[Self::I32; 4]; 2] {
                    // SAFETY: the caller's promise.
                    unsafe { $wide::tile_wide(init, a, stride, k, b, panel) }
                }
                #[inline(always)]
                unsafe fn tile_wide_ragged(
                    self,
                    init: *const i32,
                    a: *const i8,
                    stride: usize,
                    k: usize,
                    b: *const i8,
                    panel: usize,
                ) -> [[Self::I32; 4]; 2] {
                    // SAFETY: the caller's promise.
                    unsafe { $wide::tile_wide_ragged(init, a, stride, k, b, panel) }
                }
            )?

            #[inline(always)]
            unsafe fn load_column(self, rows: [*const i8; 4]) -> $own::Column {
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

            $($($more)*)?
        }
    };
}

neon!(
    Neon,
    "neon",
    4,
    neon;
    const WHOLE_KEYS: usize = 1023;

    #[inline(always)]
    unsafe fn weigh<const R: usize>(self, e: *const i16, pitch: usize, keys: usize, v: *const i8) -> [Self::I32; R] {
        // SAFETY: the caller's promise.
        unsafe { weigh(e, pitch, keys, v) }
    }
);
neon!(
    NeonDotprod,
    "neon,dotprod",
    8,
    neon_dotprod,
    dot or neon,
    wide in neon_dotprod
);
neon!(
    NeonI8mm,
    "neon,dotprod,i8mm",
    8,
    neon_i8mm,
    matrix or dotprod;
    const PACKED: bool = true;

    #[inline(always)]
    unsafe fn pack_group(self, a: *const i8, stride: usize, k: usize, to: *mut i8) {
        // SAFETY: the caller's promise.
        unsafe { neon_i8mm::pack_group(a, stride, k, to) }
    }

    #[inline(always)]
    unsafe fn tile_packed(self, init: *const i32, packed: &mut *const i8, k: usize, b: *const i8) -> [[Self::I32; 2]; GROUP / 2] {
        // SAFETY: the caller's promise.
        unsafe { neon_i8mm::tile_packed(init, packed, k, b) }
    }

    #[inline(always)]
    unsafe fn tile_joined(self, packed: &mut *const i8, panel: *const i8, k: usize) -> ([[Self::I32; 2]; GROUP / 2], [Self::F32; 2]) {
        // SAFETY: the caller's promise.
        unsafe { neon_i8mm::tile_joined(packed, panel, k) }
    }

    #[inline(always)]
    unsafe fn join_panel(self, from: *const i8, to: *mut i8, len: usize) {
        // SAFETY: the caller's promise.
        unsafe { neon_i8mm::join_panel(from, to, len) }
    }

    #[inline(always)]
    unsafe fn put_rows_sat8(self, y: &mut *mut i8, pitch: usize, pairs: [[Self::I16; 2]; 2]) {
        // SAFETY: the caller's promise.
        unsafe { neon_i8mm::put_rows_sat8(y, pitch, pairs) }
    }

    #[inline(always)]
    unsafe fn put_rows_i16(self, y: &mut *mut i16, pitch: usize, pairs: [[Self::I16; 2]; 2]) {
        // SAFETY: the caller's promise.
        unsafe { neon_i8mm::put_rows_i16(y, pitch, pairs) }
    }

    #[inline(always)]
    unsafe fn add_rows_i16(self, y: &mut *mut i16, pitch: usize, pairs: [[Self::I16; 2]; 2]) {
        // SAFETY: the caller's promise.
        unsafe { neon_i8mm::add_rows_i16(y, pitch, pairs) }
    }

    #[inline(always)]
    unsafe fn join(self, panels: *mut i8, len: usize) {
        // SAFETY: the caller's promise.
        unsafe { neon_i8mm::join(panels, len) }
    }

    #[inline(always)]
    unsafe fn pack_queries<const R: usize>(
        self,
        a: *const i8,
        stride: usize,
        k: usize,
        to: *mut i8,
    ) -> (*const i8, usize) {
        // SAFETY: the caller's promise.
        unsafe { neon_i8mm::pack_queries::<R>(a, stride, k, to) }
    }

    #[inline(always)]
    unsafe fn tile_queries<const R: usize>(
        self,
        init: *const i32,
        _shifts: &[i32; R],
        a: *const i8,
        stride: usize,
        k: usize,
        b: *const i8,
    ) -> [Self::I32; R] {
        // SAFETY: the caller's promise.
        unsafe { neon_i8mm::tile_pairs(init, a, [16, stride], k, b) }
    }

    #[inline(always)]
    unsafe fn attend(self, group: &Group<'_, '_>, q: &[i8], part: &mut Part<'_>, work: &mut Workspace<'_>) -> usize {
        // SAFETY: the caller's promise.
        unsafe { neon_i8mm::attend(self, group, q, part, work) }
    }

    #[inline(always)]
    unsafe fn store_planes(self, planes: *mut i8, _pitch: usize, j: usize, v: int16x8_t) {
        // SAFETY: the caller's promise.
        unsafe { neon_i8mm::store_planes(planes.add(2 * j), v) }
    }

    #[inline(always)]
    unsafe fn store_planes_pair(self, planes: *mut i8, pitch: usize, j: usize, v: [int16x8_t; 2]) {
        // SAFETY: the caller's promise.
        unsafe {
            self.store_planes(planes, pitch, j, v[0]);
            self.store_planes(planes, pitch, j + 8, v[1]);
        }
    }

    #[inline(always)]
    unsafe fn tile_planes<const R: usize>(
        self,
        init: *const i32,
        planes: *const i8,
        pitch: usize,
        k: usize,
        b: *const i8,
    ) -> [Self::I32; R] {
        // SAFETY: the caller's promise.
        unsafe { neon_i8mm::tile_pairs(init, planes, [2 * pitch, 16], k, b) }
    }

    #[inline(always)]
    unsafe fn pair_values(self, from: *const i32, to: *mut i32) {
        // SAFETY: the caller's promise.
        unsafe {
            let [left, right] = neon_i8mm::load_i32_pairs(from);
            self.store_i32(to, left);
            self.store_i32(to.add(8), right);
        }
    }

    #[inline(always)]
    unsafe fn load_f32_pairs(self, p: *const f32) -> [Self::F32; 2] {
        // SAFETY: the caller's promise.
        unsafe { neon_i8mm::load_f32_pairs(p) }
    }

    #[inline(always)]
    fn split_i32(self, pair: [Self::I32; 2]) -> [Self::I32; 2] {
        neon_i8mm::split_i32(pair)
    }
);

/// See [`Isa::next_f32_pairs`]. Assembly, because the compiler takes two instructions for each array.
#[inline(always)]
unsafe fn next_pairs([p, q]: [&mut *const f32; 2]) -> [[Pair<float32x4_t>; 2]; 2] {
    let (p0, p1, p2, p3, q0, q1, q2, q3);
    // SAFETY: reads 16 elements of each, as the caller promises.
    unsafe {
        asm!(
            "ld1 {{v16.4s-v19.4s}}, [{p}], #64",
            "ld1 {{v20.4s-v23.4s}}, [{q}], #64",
            p = inout(reg) *p, q = inout(reg) *q,
            out("v16") p0, out("v17") p1, out("v18") p2, out("v19") p3,
            out("v20") q0, out("v21") q1, out("v22") q2, out("v23") q3,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    [[Pair(p0, p1), Pair(p2, p3)], [Pair(q0, q1), Pair(q2, q3)]]
}

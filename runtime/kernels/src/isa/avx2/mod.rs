//! x86-64 with AVX2: 8 lanes of 32 bits in a register. What takes more than an instruction or two has a file of its own.
//!
//! The kernels with VPDPBUSD are relatives: they share all but what is in the module `$own` of the macro below.

mod depthwise;
mod pack;
mod sums;
mod table;
mod tile;

use core::arch::x86_64::*;

pub(super) use self::depthwise::{Column, Window, load_column, load_window, window};
use self::depthwise::{load_wide, tap, tap_pair};
use self::pack::{pack_keys, pack_values};
use self::sums::sum_and_squares;
pub(super) use self::table::look_up;
pub(super) use self::tile::{tile, tile_ragged, tile_steps};
use super::{Isa, Routine, avx_vnni, avx2, avx512_vnni, vnni};
use crate::gemm::simd::{Panels, Rows};
use crate::requantise::simd::Form;
use crate::{Avx2, Avx512Vnni, AvxVnni};

/// Methods that compute in registers.
macro_rules! avx2_ops {
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

/// All but what is in `$own`, in `$shifted` for those that multiply unsigned bytes, and after the semicolon for one that replaces more.
macro_rules! avx2 {
    ($token:ty, $features:literal, $rows:expr, $own:ident $(, $shifted:ident)? $(; $($method:item)*)?) => {
        impl Isa for $token {
            type I8 = __m128i;
            type I16 = __m128i;
            type I32 = __m256i;
            type F32 = __m256;
            type Offset = __m128i;
            /// Widened to 16 × i16.
            type Taps = __m256i;
            type Column = $own::Column;
            type Window = $own::Window;
            const ROWS: usize = $rows;

            #[inline(always)]
            fn call<R: Routine>(self, routine: R) -> R::Output {
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

            /// Two operands and few registers: any choice of addresses will do.
            #[inline(always)]
            fn opaque(self, v: isize) -> isize {
                v
            }

            #[inline(always)]
            unsafe fn load_i8(self, p: *const i8) -> __m128i {
                // SAFETY: the caller's promise.
                unsafe { _mm_loadu_si128(p.cast()) }
            }
            #[inline(always)]
            unsafe fn load_i8_wide(self, p: *const i8) -> __m128i {
                // SAFETY: the caller's promise.
                unsafe { _mm_cvtepi8_epi16(_mm_loadl_epi64(p.cast())) }
            }
            #[inline(always)]
            unsafe fn load_i16(self, p: *const i16) -> __m128i {
                // SAFETY: the caller's promise.
                unsafe { _mm_loadu_si128(p.cast()) }
            }
            #[inline(always)]
            unsafe fn load_i32(self, p: *const i32) -> __m256i {
                // SAFETY: the caller's promise.
                unsafe { _mm256_loadu_si256(p.cast()) }
            }
            #[inline(always)]
            unsafe fn load_f32(self, p: *const f32) -> __m256 {
                // SAFETY: the caller's promise.
                unsafe { _mm256_loadu_ps(p) }
            }
            #[inline(always)]
            unsafe fn store_i8(self, p: *mut i8, v: __m128i) {
                // SAFETY: the caller's promise.
                unsafe { _mm_storeu_si128(p.cast(), v) }
            }
            #[inline(always)]
            unsafe fn store_i16(self, p: *mut i16, v: __m128i) {
                // SAFETY: the caller's promise.
                unsafe { _mm_storeu_si128(p.cast(), v) }
            }
            #[inline(always)]
            unsafe fn store_i32(self, p: *mut i32, v: __m256i) {
                // SAFETY: the caller's promise.
                unsafe { _mm256_storeu_si256(p.cast(), v) }
            }
            #[inline(always)]
            unsafe fn store_sat8(self, p: *mut i8, v: __m128i) {
                // SAFETY: the caller's promise.
                unsafe { _mm_storel_epi64(p.cast(), _mm_packs_epi16(v, v)) }
            }

            #[inline(always)]
            unsafe fn store_halves(self, high: *mut i8, low: *mut i8, v: __m128i) {
                // SAFETY: the caller's promise.
                unsafe {
                    self.store_sat8(high, _mm_srai_epi16::<7>(v));
                    self.store_sat8(low, _mm_and_si128(v, _mm_set1_epi16(127)));
                }
            }
            #[inline(always)]
            unsafe fn store_halves_pair(self, high: *mut i8, low: *mut i8, v: [__m128i; 2]) {
                // SAFETY: the caller's promise.
                unsafe {
                    self.store_halves(high, low, v[0]);
                    self.store_halves(high.add(8), low.add(8), v[1]);
                }
            }

            #[inline(always)]
            fn round_offset(self, a: __m256, by: __m128i) -> __m128i {
                self.add_sat_i16(self.round_sat16(a), by)
            }

            avx2_ops! {
                fn round_floored(a: __m256, floor: i16) -> __m128i {
                    let r = _mm256_cvtps_epi32(_mm256_max_ps(a, _mm256_set1_ps(f32::from(floor))));
                    _mm_packs_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256::<1>(r))
                }
                fn sqrt(v: f64) -> f64 {
                    let v = _mm_set_sd(v);
                    _mm_cvtsd_f64(_mm_sqrt_sd(v, v))
                }
                fn splat_i16(v: i16) -> __m128i { _mm_set1_epi16(v) }
                fn splat_i32(v: i32) -> __m256i { _mm256_set1_epi32(v) }
                fn splat_f32(v: f32) -> __m256 { _mm256_set1_ps(v) }
                fn max_i8(a: __m128i, b: __m128i) -> __m128i { _mm_max_epi8(a, b) }
                fn add_i16(a: __m128i, b: __m128i) -> __m128i { _mm_add_epi16(a, b) }
                fn add_sat_i16(a: __m128i, b: __m128i) -> __m128i { _mm_adds_epi16(a, b) }
                fn max_i16(a: __m128i, b: __m128i) -> __m128i { _mm_max_epi16(a, b) }
                fn widen_i16(a: __m128i) -> __m256i { _mm256_cvtepi16_epi32(a) }
                fn mul_wide_i16(a: __m128i, b: __m128i) -> __m256i {
                    // Pairs of a value and 0 times pairs of a value and its sign.
                    _mm256_madd_epi16(_mm256_cvtepu16_epi32(a), _mm256_cvtepi16_epi32(b))
                }
                fn and_not_i16(a: __m128i, b: __m128i) -> __m128i { _mm_andnot_si128(b, a) }
                fn and_i16(a: __m128i, b: __m128i) -> __m128i { _mm_and_si128(a, b) }
                fn mulr_i16(a: __m128i, b: __m128i) -> __m128i { _mm_mulhrs_epi16(a, b) }
                fn shift_round_i16(a: __m128i, n: __m128i) -> __m128i { $own::shift_right_round(a, _mm_sub_epi16(_mm_setzero_si128(), n)) }
                fn add_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi32(a, b) }
                fn sub_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_sub_epi32(a, b) }
                fn max_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_max_epi32(a, b) }
                fn min_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_min_epi32(a, b) }
                fn select_equal(a: __m256i, b: __m256i, yes: __m256i, no: __m256i) -> __m256i {
                    _mm256_blendv_epi8(no, yes, _mm256_cmpeq_epi32(a, b))
                }
                fn narrow_floored(a: __m256i, floor: i16) -> __m128i {
                    let a = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
                    _mm_max_epi16(a, _mm_set1_epi16(floor))
                }
                fn splat_max(a: __m256i) -> __m256i {
                    let a = _mm256_max_epi32(a, _mm256_permute2x128_si256::<1>(a, a));
                    let a = _mm256_max_epi32(a, _mm256_shuffle_epi32::<0b01_00_11_10>(a));
                    _mm256_max_epi32(a, _mm256_shuffle_epi32::<0b10_11_00_01>(a))
                }
                fn reduce_add(a: __m256i) -> i32 {
                    let a = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
                    let a = _mm_add_epi32(a, _mm_shuffle_epi32::<0b01_00_11_10>(a));
                    _mm_cvtsi128_si32(_mm_add_epi32(a, _mm_shuffle_epi32::<0b10_11_00_01>(a)))
                }
                fn accumulate(sum: __m256i, v: __m128i) -> __m256i { _mm256_add_epi32(sum, _mm256_cvtepi16_epi32(v)) }
                fn mul_add_i16(acc: __m256i, x: __m128i, c: i16) -> __m256i {
                    _mm256_add_epi32(acc, _mm256_mullo_epi32(_mm256_cvtepi16_epi32(x), _mm256_set1_epi32(i32::from(c))))
                }
                fn to_f32(a: __m256i) -> __m256 { _mm256_cvtepi32_ps(a) }
                fn to_f32_by_128(a: __m256i) -> __m256 {
                    _mm256_mul_ps(_mm256_cvtepi32_ps(a), _mm256_set1_ps(1.0 / 128.0))
                }
                fn add_f32(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
                fn mul_f32(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
                fn min_f32(a: __m256, b: __m256) -> __m256 { _mm256_min_ps(a, b) }
                fn max_f32(a: __m256, b: __m256) -> __m256 { _mm256_max_ps(a, b) }
                fn round_i32(a: __m256) -> __m256i { _mm256_cvtps_epi32(a) }
                fn offset(by: i16) -> __m128i { _mm_set1_epi16(by) }
                fn round_sat16(a: __m256) -> __m128i {
                    let r = _mm256_cvtps_epi32(a);
                    _mm_packs_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256::<1>(r))
                }
            }

            #[inline(always)]
            fn shift_left_i16<const BITS: i32>(self, a: __m128i) -> __m128i {
                // SAFETY: the token proves that the CPU has the instruction.
                unsafe { _mm_slli_epi16::<BITS>(a) }
            }
            #[inline(always)]
            fn shift_right_i16<const BITS: i32>(self, a: __m128i) -> __m128i {
                // SAFETY: the token proves that the CPU has the instruction.
                unsafe { _mm_srai_epi16::<BITS>(a) }
            }

            #[inline(always)]
            unsafe fn sum_and_squares(self, p: *const i16, n: usize) -> (i32, u64) {
                // SAFETY: the caller's promise.
                unsafe { sum_and_squares(self, p, n) }
            }
            #[inline(always)]
            unsafe fn look_up(self, table: &[i8; 256], p: *mut i8, n: usize) {
                // SAFETY: the caller's promise.
                unsafe { $own::look_up(table, p, n) }
            }

            #[inline(always)]
            unsafe fn load_taps(self, p: *const i8) -> __m256i {
                // SAFETY: the caller's promise.
                unsafe { load_wide(p) }
            }
            #[inline(always)]
            unsafe fn tap(self, acc: [__m256i; 2], x: *const i8, w: __m256i) -> [__m256i; 2] {
                // SAFETY: the caller's promise.
                unsafe { tap(acc, x, w) }
            }
            #[inline(always)]
            unsafe fn tap_pair(self, acc: [__m256i; 2], x: [*const i8; 2], w: [__m256i; 2]) -> [__m256i; 2] {
                // SAFETY: the caller's promise.
                unsafe { tap_pair(acc, x, w) }
            }

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
            unsafe fn window(self, acc: [__m256i; 2], columns: [$own::Column; 3], window: &$own::Window) -> [__m256i; 2] {
                // SAFETY: the caller's promise.
                unsafe { $own::window(acc, columns, window) }
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
            ) -> [__m256i; R] {
                // SAFETY: the caller's promise.
                unsafe { $own::tile(self, init, a, stride, k, b) }
            }

            $(
            #[inline(always)]
            unsafe fn shifts<const R: usize>(
                self,
                a: *const i8,
                stride: usize,
                k: usize,
            ) -> [i32; R] {
                // SAFETY: the caller's promise.
                unsafe { $shifted::shifts::<Self, R>(self, a, stride, k) }
            }

            #[inline(always)]
            unsafe fn tile_shifted<const R: usize>(
                self,
                init: *const i32,
                shifts: &[i32; R],
                a: *const i8,
                stride: usize,
                k: usize,
                b: *const i8,
            ) -> [__m256i; R] {
                // SAFETY: the caller's promise.
                unsafe { $shifted::tile_shifted(self, init, shifts, a, stride, k, b) }
            }

            )?

            #[inline(always)]
            unsafe fn tile_ragged<const R: usize>(
                self,
                init: *const i32,
                a: *const i8,
                stride: usize,
                k: usize,
                b: *const i8,
            ) -> [__m256i; R] {
                // SAFETY: the caller's promise.
                unsafe { $own::tile_ragged(self, init, a, stride, k, b) }
            }

            #[inline(always)]
            unsafe fn tile_steps<const R: usize>(
                self,
                acc: [__m256i; R],
                a: *const i8,
                stride: usize,
                steps: usize,
                b: *const i8,
            ) -> [__m256i; R] {
                // SAFETY: the caller's promise.
                unsafe { $own::tile_steps(self, acc, a, stride, steps, b) }
            }

            $($($method)*)?
        }
    };
}

avx2!(Avx2, "avx2", 4, avx2);
avx2!(AvxVnni, "avx2,avxvnni", 8, avx_vnni, vnni);
avx2!(
    Avx512Vnni,
    "avx2,avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi",
    8,
    avx512_vnni,
    vnni;
    #[inline(always)]
    unsafe fn wide_columns<F: Form, const R: usize>(
        self,
        panels: Panels,
        x: Rows,
        columns: usize,
        form: F,
        first: usize,
    ) -> usize {
        // SAFETY: the caller's promise.
        unsafe { avx512_vnni::wide_columns::<F, R>(self, panels, x, columns, form, first) }
    }
    #[inline(always)]
    unsafe fn store_pair<F: Form>(
        self,
        form: F,
        acc: [__m256i; 2],
        scale: [__m256; 2],
        index: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe { avx512_vnni::store_pair(self, form, acc, scale, index) }
    }
);

/// There is no 16-bit shift by lane: PMULHRSW by 2^(15−n) rounds alike. 2¹⁵ does not fit, so n = 0 is picked apart.
#[inline(always)]
pub(in crate::isa) unsafe fn shift_right_round(a: __m128i, n: __m128i) -> __m128i {
    // SAFETY: only register operations, of instructions the callers' tokens prove.
    unsafe {
        // Byte tables of 2^(15−n): low bytes for n ≥ 8, high bytes for n < 8; n = 0 is replaced below.
        let low = _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, i8::MIN, 64, 32, 16, 8, 4, 2, 1);
        let high = _mm_setr_epi8(0, 64, 32, 16, 8, 4, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0);
        // The odd bytes of the index have their top bit set, which makes PSHUFB give 0.
        let index = _mm_or_si128(n, _mm_set1_epi16(i16::MIN));
        let power = _mm_or_si128(
            _mm_shuffle_epi8(low, index),
            _mm_slli_epi16::<8>(_mm_shuffle_epi8(high, index)),
        );
        let shifted = _mm_mulhrs_epi16(a, power);
        _mm_blendv_epi8(shifted, a, _mm_cmpeq_epi16(n, _mm_setzero_si128()))
    }
}

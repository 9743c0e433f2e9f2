//! The epilogue on 512 bits.

use core::arch::x86_64::*;

use crate::Avx512Vnni;
use crate::requantise::simd::Lanes;

/// 32 lanes: two vectors of 32 bits, one of 16.
#[derive(Clone, Copy)]
pub(super) struct Lanes32(pub(super) Avx512Vnni);

/// 16 lanes: a vector of 32 bits, half of one of 16.
#[derive(Clone, Copy)]
pub(super) struct Lanes16(pub(super) Avx512Vnni);

/// Methods that compute in registers.
macro_rules! avx512_ops {
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

impl Lanes for Lanes32 {
    type I16 = __m512i;
    type I32 = [__m512i; 2];
    type F32 = [__m512; 2];
    type Offset = __m512i;

    #[inline(always)]
    fn opaque(self, v: isize) -> isize {
        crate::isa::Isa::opaque(self.0, v)
    }
    #[inline(always)]
    fn round_near(self, a: [__m512; 2]) -> __m512i {
        self.round_sat16(a)
    }
    #[inline(always)]
    fn round_offset(self, a: [__m512; 2], by: __m512i) -> __m512i {
        self.add_sat_i16(self.round_sat16(a), by)
    }

    avx512_ops! {
        fn splat_i16(v: i16) -> __m512i { _mm512_set1_epi16(v) }
        fn offset(by: i16) -> __m512i { _mm512_set1_epi16(by) }
        fn splat_f32(v: f32) -> [__m512; 2] { [_mm512_set1_ps(v); 2] }
        fn add_sat_i16(a: __m512i, b: __m512i) -> __m512i { _mm512_adds_epi16(a, b) }
        fn max_i16(a: __m512i, b: __m512i) -> __m512i { _mm512_max_epi16(a, b) }
        fn to_f32(a: [__m512i; 2]) -> [__m512; 2] { [_mm512_cvtepi32_ps(a[0]), _mm512_cvtepi32_ps(a[1])] }
        fn mul_f32(a: [__m512; 2], b: [__m512; 2]) -> [__m512; 2] { [_mm512_mul_ps(a[0], b[0]), _mm512_mul_ps(a[1], b[1])] }
        fn min_f32(a: [__m512; 2], b: [__m512; 2]) -> [__m512; 2] { [_mm512_min_ps(a[0], b[0]), _mm512_min_ps(a[1], b[1])] }
        fn max_f32(a: [__m512; 2], b: [__m512; 2]) -> [__m512; 2] { [_mm512_max_ps(a[0], b[0]), _mm512_max_ps(a[1], b[1])] }
        fn round_i32(a: [__m512; 2]) -> [__m512i; 2] { [_mm512_cvtps_epi32(a[0]), _mm512_cvtps_epi32(a[1])] }
        fn round_sat16(a: [__m512; 2]) -> __m512i {
            // 4 lanes of one vector, 4 of the other, and so on.
            let mixed = _mm512_packs_epi32(_mm512_cvtps_epi32(a[0]), _mm512_cvtps_epi32(a[1]));
            _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), mixed)
        }
    }

    #[inline(always)]
    unsafe fn load_i16(self, p: *const i16) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store_i16(self, p: *mut i16, v: __m512i) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_storeu_si512(p.cast(), v) }
    }
    #[inline(always)]
    unsafe fn store_i32(self, p: *mut i32, v: [__m512i; 2]) {
        // SAFETY: the caller's promise.
        unsafe {
            _mm512_storeu_si512(p.cast(), v[0]);
            _mm512_storeu_si512(p.add(16).cast(), v[1]);
        }
    }
    #[inline(always)]
    unsafe fn store_sat8(self, p: *mut i8, v: __m512i) {
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_si256(p.cast(), _mm512_cvtsepi16_epi8(v)) }
    }
}

impl Lanes for Lanes16 {
    type I16 = __m256i;
    type I32 = __m512i;
    type F32 = __m512;
    type Offset = __m256i;

    #[inline(always)]
    fn opaque(self, v: isize) -> isize {
        crate::isa::Isa::opaque(self.0, v)
    }
    #[inline(always)]
    fn round_near(self, a: __m512) -> __m256i {
        self.round_sat16(a)
    }
    #[inline(always)]
    fn round_offset(self, a: __m512, by: __m256i) -> __m256i {
        self.add_sat_i16(self.round_sat16(a), by)
    }

    avx512_ops! {
        fn splat_i16(v: i16) -> __m256i { _mm256_set1_epi16(v) }
        fn offset(by: i16) -> __m256i { _mm256_set1_epi16(by) }
        fn splat_f32(v: f32) -> __m512 { _mm512_set1_ps(v) }
        fn add_sat_i16(a: __m256i, b: __m256i) -> __m256i { _mm256_adds_epi16(a, b) }
        fn max_i16(a: __m256i, b: __m256i) -> __m256i { _mm256_max_epi16(a, b) }
        fn to_f32(a: __m512i) -> __m512 { _mm512_cvtepi32_ps(a) }
        fn mul_f32(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn min_f32(a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
        fn max_f32(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        fn round_i32(a: __m512) -> __m512i { _mm512_cvtps_epi32(a) }
        fn round_sat16(a: __m512) -> __m256i { _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(a)) }
    }

    #[inline(always)]
    unsafe fn load_i16(self, p: *const i16) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_si256(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store_i16(self, p: *mut i16, v: __m256i) {
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_si256(p.cast(), v) }
    }
    #[inline(always)]
    unsafe fn store_i32(self, p: *mut i32, v: __m512i) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_storeu_si512(p.cast(), v) }
    }
    #[inline(always)]
    unsafe fn store_sat8(self, p: *mut i8, v: __m256i) {
        // SAFETY: the caller's promise.
        unsafe { _mm_storeu_si128(p.cast(), _mm256_cvtsepi16_epi8(v)) }
    }
}

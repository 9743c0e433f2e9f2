//! The 3×3 depthwise window: three VPDPBUSD for 16 channels, one for each column. The three bytes of a column lie side by side, and the fourth weight
//! is 0. Pixels are the unsigned operand; what that adds, 128 times the sum of a channel's weights, is known when the weights are loaded.

use core::arch::x86_64::*;

use super::lanes::Lanes16;
use crate::Avx512Vnni;
use crate::requantise::simd::Form;

/// `[16 channels][row 0, row 1, row 2, anything]`, with 128 added.
pub(in crate::isa) type Column = __m512i;

/// Three columns of weights, with 0 for the fourth row, and what is to be subtracted.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    columns: [__m512i; 3],
    shift: __m512i,
}

/// Three rows of 16 channels to `[16][4]`.
///
/// # Safety
/// `rows` are valid for reading 16 elements; the CPU has AVX-512 VBMI.
#[inline(always)]
unsafe fn interleave(rows: [*const i8; 3]) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let row = |r: usize| _mm_loadu_si128(rows[r].cast());
        let all = _mm512_zextsi128_si512(row(0));
        let all = _mm512_inserti32x4::<1>(all, row(1));
        let all = _mm512_inserti32x4::<2>(all, row(2));
        // Byte 16·row + channel to byte 4·channel + row; row 3 is 0.
        let first = _mm512_set1_epi32(0x30_20_10_00);
        let channel = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        let channel = _mm512_mullo_epi32(channel, _mm512_set1_epi32(0x01_01_01_01));
        _mm512_permutexvar_epi8(_mm512_add_epi8(first, channel), all)
    }
}

/// See [`Isa::load_column`](crate::isa::Isa::load_column).
///
/// # Safety
/// As `interleave`.
#[inline(always)]
pub(in crate::isa) unsafe fn load_column([r0, r1, r2, _]: [*const i8; 4]) -> Column {
    // SAFETY: the caller's promise.
    unsafe { _mm512_xor_si512(interleave([r0, r1, r2]), _mm512_set1_epi8(i8::MIN)) }
}

/// See [`Isa::load_window`](crate::isa::Isa::load_window).
///
/// # Safety
/// As [`Isa::load_window`](crate::isa::Isa::load_window); the CPU has AVX-512 VNNI and VBMI.
#[inline(always)]
pub(in crate::isa) unsafe fn load_window(w: *const i8, channels: usize) -> Window {
    // SAFETY: the caller's promise; tap 3·ky + kx of 9.
    unsafe {
        let mut columns = [_mm512_setzero_si512(); 3];
        let mut shift = _mm512_setzero_si512();
        for kx in 0..3 {
            let row = |ky: usize| w.add((3 * ky + kx) * channels);
            columns[kx] = interleave([row(0), row(1), row(2)]);
            // 128, unsigned, times each.
            shift = _mm512_dpbusd_epi32(shift, _mm512_set1_epi8(i8::MIN), columns[kx]);
        }
        Window { columns, shift }
    }
}

/// See [`Isa::window`](crate::isa::Isa::window).
///
/// # Safety
/// The CPU has AVX-512 VNNI.
#[inline(always)]
pub(in crate::isa) unsafe fn window(
    acc: [__m256i; 2],
    columns: [Column; 3],
    window: &Window,
) -> [__m256i; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut acc = _mm512_sub_epi32(joined(acc), window.shift);
        for kx in 0..3 {
            acc = _mm512_dpbusd_epi32(acc, columns[kx], window.columns[kx]);
        }
        [
            _mm512_castsi512_si256(acc),
            _mm512_extracti64x4_epi64::<1>(acc),
        ]
    }
}

/// Two vectors as one.
///
/// # Safety
/// The CPU has AVX-512 F.
#[inline(always)]
unsafe fn joined(v: [__m256i; 2]) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe { _mm512_inserti64x4::<1>(_mm512_castsi256_si512(v[0]), v[1]) }
}

/// See [`Isa::store_pair`](crate::isa::Isa::store_pair): the halves that `window` has made are put together again, which costs no instruction.
///
/// # Safety
/// As [`Isa::store_pair`](crate::isa::Isa::store_pair).
#[inline(always)]
pub(in crate::isa) unsafe fn store_pair<F: Form>(
    token: Avx512Vnni,
    form: F,
    acc: [__m256i; 2],
    scale: [__m256; 2],
    index: usize,
) {
    // SAFETY: the caller's promise; the token proves the instructions.
    unsafe {
        let scale = joined([_mm256_castps_si256(scale[0]), _mm256_castps_si256(scale[1])]);
        form.store(
            Lanes16(token),
            [joined(acc)],
            _mm512_castsi512_ps(scale),
            index,
            0,
        );
    }
}

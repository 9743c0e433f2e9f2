//! Depthwise convolution, 16 channels. A 3×3 window multiplies pairs by PMADDWD: the bytes of two rows side by side, widened; the third row's with a
//! weight of 0 for its neighbour. Other windows add two products in 16 bits, where they do not overflow.

use core::arch::x86_64::*;

/// Three rows in 16 bits: pairs of the first two for channels 0–7 and 8–15, and the third with anything for the same.
pub(in crate::isa) type Column = [__m256i; 4];
/// Three columns of weights alike, with 0 for the neighbour of the third row.
pub(in crate::isa) type Window = [Column; 3];

/// See [`Isa::tap`](crate::isa::Isa::tap).
#[inline(always)]
pub(super) unsafe fn tap(acc: [__m256i; 2], x: *const i8, w: __m256i) -> [__m256i; 2] {
    // SAFETY: the caller's promise.
    unsafe { add_wide(acc, _mm256_mullo_epi16(load_wide(x), w)) }
}

/// See [`Isa::tap_pair`](crate::isa::Isa::tap_pair).
#[inline(always)]
pub(super) unsafe fn tap_pair(
    acc: [__m256i; 2],
    x: [*const i8; 2],
    w: [__m256i; 2],
) -> [__m256i; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let first = _mm256_mullo_epi16(load_wide(x[0]), w[0]);
        let second = _mm256_mullo_epi16(load_wide(x[1]), w[1]);
        add_wide(acc, _mm256_add_epi16(first, second))
    }
}

/// See [`Isa::load_column`](crate::isa::Isa::load_column).
#[inline(always)]
pub(in crate::isa) unsafe fn load_column(rows: [*const i8; 4]) -> Column {
    // SAFETY: the caller's promise.
    unsafe {
        let (first, second) = (
            _mm_loadu_si128(rows[0].cast()),
            _mm_loadu_si128(rows[1].cast()),
        );
        let third = |channel: usize| _mm_loadl_epi64(rows[2].add(channel).cast());
        [
            _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(first, second)),
            _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(first, second)),
            // The upper 16 bits are the sign: what they are does not matter.
            _mm256_cvtepi8_epi32(third(0)),
            _mm256_cvtepi8_epi32(third(8)),
        ]
    }
}

/// See [`Isa::load_window`](crate::isa::Isa::load_window).
#[inline(always)]
pub(in crate::isa) unsafe fn load_window(w: *const i8, channels: usize) -> Window {
    // SAFETY: the caller's promise; tap 3·ky + kx of 9.
    unsafe {
        let mut window = [[_mm256_setzero_si256(); 4]; 3];
        let value = _mm256_set1_epi32(0xffff);
        for kx in 0..3 {
            let row = |ky: usize| w.add((3 * ky + kx) * channels);
            let [low, high, third_low, third_high] = load_column([row(0), row(1), row(2), row(2)]);
            window[kx] = [
                low,
                high,
                _mm256_and_si256(third_low, value),
                _mm256_and_si256(third_high, value),
            ];
        }
        window
    }
}

/// See [`Isa::window`](crate::isa::Isa::window).
#[inline(always)]
pub(in crate::isa) unsafe fn window(
    mut acc: [__m256i; 2],
    columns: [Column; 3],
    window: &Window,
) -> [__m256i; 2] {
    // SAFETY: only register operations, of instructions the callers' tokens prove.
    unsafe {
        for kx in 0..3 {
            for part in 0..4 {
                let products = _mm256_madd_epi16(columns[kx][part], window[kx][part]);
                acc[part % 2] = _mm256_add_epi32(acc[part % 2], products);
            }
        }
        acc
    }
}

/// 16 bytes as 16 × i16.
///
/// # Safety
/// `p` is valid for reading 16 elements.
#[inline(always)]
pub(super) unsafe fn load_wide(p: *const i8) -> __m256i {
    // SAFETY: the caller's promise; the callers' tokens prove the instructions.
    unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(p.cast())) }
}

/// Adds 16 × i16 to 16 × i32.
#[inline(always)]
unsafe fn add_wide(acc: [__m256i; 2], v: __m256i) -> [__m256i; 2] {
    // SAFETY: only register operations, of instructions the callers' tokens prove.
    unsafe {
        let low = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(v));
        let high = _mm256_cvtepi16_epi32(_mm256_extracti128_si256::<1>(v));
        [
            _mm256_add_epi32(acc[0], low),
            _mm256_add_epi32(acc[1], high),
        ]
    }
}

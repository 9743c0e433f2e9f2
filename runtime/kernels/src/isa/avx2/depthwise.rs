//! Depthwise convolution: 16 channels, widened to 16 bits, where two products add without overflow.

use core::arch::x86_64::*;

/// Where the three rows are: there are too few registers for a window.
pub(in crate::isa) type Column = [*const i8; 3];
/// Weights widened to 16 bits.
pub(in crate::isa) type Window = [__m256i; 9];

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
pub(in crate::isa) unsafe fn load_column(rows: [*const i8; 3]) -> Column {
    rows
}
/// See [`Isa::load_window`](crate::isa::Isa::load_window).
#[inline(always)]
pub(in crate::isa) unsafe fn load_window(w: *const i8, channels: usize) -> Window {
    // SAFETY: the caller's promise.
    unsafe {
        let mut taps = [_mm256_setzero_si256(); 9];
        for tap in 0..9 {
            taps[tap] = load_wide(w.add(tap * channels));
        }
        taps
    }
}
/// See [`Isa::window`](crate::isa::Isa::window).
#[inline(always)]
pub(in crate::isa) unsafe fn window(
    mut acc: [__m256i; 2],
    [x0, x1, x2]: [Column; 3],
    w: &Window,
) -> [__m256i; 2] {
    // SAFETY: what columns point to can be read, as `load_column`'s caller promised.
    unsafe {
        acc = tap_pair(acc, [x0[0], x1[0]], [w[0], w[1]]);
        acc = tap_pair(acc, [x2[0], x0[1]], [w[2], w[3]]);
        acc = tap_pair(acc, [x1[1], x2[1]], [w[4], w[5]]);
        acc = tap_pair(acc, [x0[2], x1[2]], [w[6], w[7]]);
        tap(acc, x2[2], w[8])
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

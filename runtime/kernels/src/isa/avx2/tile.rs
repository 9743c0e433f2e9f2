//! The tile widens bytes to 16 bits and uses PMADDWD, which is exact (PMADDUBSW would saturate): for 4 columns × 4 steps of K, a row's 4 values are
//! repeated for every column; neighbouring sums are joined at the end. 4 rows take 8 accumulators of 16 registers.

use core::arch::x86_64::*;

use super::depthwise::load_wide;
use crate::Avx2;
use crate::isa::{Isa, tile_and_steps};

/// See [`Isa::tile`].
#[inline(always)]
pub(in crate::isa) unsafe fn tile<const R: usize>(
    token: Avx2,
    init: *const i32,
    a: *const i8,
    stride: usize,
    k: usize,
    b: *const i8,
) -> [__m256i; R] {
    // SAFETY: i stays below k; the caller promises k elements of every row, 8·k weights and 8 initial values.
    unsafe {
        let init = token.load_i32(init);
        let mut acc = [[_mm256_setzero_si256(); 2]; R];
        let mut i = 0;
        while i < k {
            let mut rows = [_mm256_setzero_si256(); R];
            for r in 0..R {
                rows[r] = load_wide(a.add(r * stride + i));
            }
            let w = b.add(i * 8);
            acc = step::<R, 0x00>(acc, rows, w);
            acc = step::<R, 0x55>(acc, rows, w.add(32));
            acc = step::<R, 0xaa>(acc, rows, w.add(64));
            acc = step::<R, 0xff>(acc, rows, w.add(96));
            i += 16;
        }
        let mut sums = [init; R];
        for r in 0..R {
            sums[r] = _mm256_add_epi32(init, join(acc[r][0], acc[r][1]));
        }
        sums
    }
}

/// See [`Isa::tile_ragged`].
#[inline(always)]
pub(in crate::isa) unsafe fn tile_ragged<const R: usize>(
    token: Avx2,
    init: *const i32,
    a: *const i8,
    stride: usize,
    k: usize,
    b: *const i8,
) -> [__m256i; R] {
    // SAFETY: the caller's promise.
    unsafe { tile_and_steps(token, init, a, stride, k, b) }
}

/// See [`Isa::tile_steps`].
#[inline(always)]
pub(in crate::isa) unsafe fn tile_steps<const R: usize>(
    _: Avx2,
    mut acc: [__m256i; R],
    a: *const i8,
    stride: usize,
    steps: usize,
    b: *const i8,
) -> [__m256i; R] {
    // SAFETY: the caller promises 4 elements of every row and 32 weights for each step.
    unsafe {
        for i in 0..steps {
            let (w0, w1) = (load_wide(b.add(32 * i)), load_wide(b.add(32 * i + 16)));
            for r in 0..R {
                let bytes = a.add(r * stride + 4 * i).cast::<i32>().read_unaligned();
                let x = _mm256_cvtepi8_epi16(_mm_set1_epi32(bytes));
                acc[r] = _mm256_add_epi32(
                    acc[r],
                    join(_mm256_madd_epi16(x, w0), _mm256_madd_epi16(x, w1)),
                );
            }
        }
        acc
    }
}

/// Sums of neighbours, for columns 0–3 and 4–7.
#[inline(always)]
unsafe fn join(low: __m256i, high: __m256i) -> __m256i {
    // SAFETY: only register operations, of instructions the callers' tokens prove.
    unsafe {
        // Columns 0, 1, 4, 5, 2, 3, 6, 7.
        let joined = _mm256_hadd_epi32(low, high);
        _mm256_permute4x64_epi64::<0b11_01_10_00>(joined)
    }
}

/// 4 steps of K for all rows: the quarter of `rows` that `PICK` repeats.
///
/// # Safety
/// `w` is valid for reading 32 elements.
#[inline(always)]
unsafe fn step<const R: usize, const PICK: i32>(
    mut acc: [[__m256i; 2]; R],
    rows: [__m256i; R],
    w: *const i8,
) -> [[__m256i; 2]; R] {
    // SAFETY: the caller promises 32 weights; the callers' tokens prove the instructions.
    unsafe {
        let (w0, w1) = (load_wide(w), load_wide(w.add(16)));
        for r in 0..R {
            let x = _mm256_permute4x64_epi64::<PICK>(rows[r]);
            acc[r][0] = _mm256_add_epi32(acc[r][0], _mm256_madd_epi16(x, w0));
            acc[r][1] = _mm256_add_epi32(acc[r][1], _mm256_madd_epi16(x, w1));
        }
        acc
    }
}

//! The tile with VPDPBUSD on 256 bits: 4 steps of K for 8 columns of one row. Two encodings have it, AVX-VNNI and AVX-512 VL.
//!
//! It multiplies unsigned bytes by signed ones (Intel's Software Developer's Manual, volume 2, VPDPBUSD). A plan's weights and activations are both
//! signed, so weights are made unsigned, w + 128, by flipping their top bit: once for all rows of a tile. What that adds, 128 times the sum of a row,
//! is the row's *shift*: computed once for all columns, and subtracted from the initial values.

use core::arch::asm;
use core::arch::x86_64::*;

use super::{Isa, unroll};
use crate::gemm::ROWS;

/// A CPU with VPDPBUSD.
pub(super) trait Dot: Isa<I32 = __m256i> {
    /// `acc[j] + Σ_i u[4j + i] · s[4j + i]` for unsigned u and signed s.
    fn dot(self, acc: __m256i, u: __m256i, s: __m256i) -> __m256i;
}

/// Where R rows begin, in registers: the optimiser is not to know that they are `stride` apart, or it computes an address for every load.
///
/// # Safety
/// There are R rows.
#[inline(always)]
pub(super) unsafe fn row_pointers<const R: usize>(a: *const i8, stride: usize) -> [*const i8; R] {
    let mut rows = [a; R];
    unroll!(R, r, {
        let mut offset = r * stride;
        // SAFETY: no instruction at all, and the offset of a row.
        unsafe {
            asm!("/* {offset} */", offset = inout(reg) offset, options(pure, nomem, nostack, preserves_flags));
            rows[r] = a.add(offset);
        }
    });
    rows
}

/// See [`Isa::shifts`].
///
/// # Safety
/// As [`Isa::shifts`].
#[inline(always)]
pub(super) unsafe fn shifts<D: Dot, const R: usize>(
    isa: D,
    a: *const i8,
    stride: usize,
    k: usize,
) -> [i32; R] {
    // SAFETY: i + 32 ≤ k, or i + 16 = k, which the caller promises of every row.
    unsafe {
        // 128, unsigned.
        let weight = _mm256_set1_epi8(i8::MIN);
        let mut sums = [_mm256_setzero_si256(); ROWS];
        let mut i = 0;
        while i + 32 <= k {
            unroll!(R, r, {
                let x = _mm256_loadu_si256(a.add(r * stride + i).cast());
                sums[r % ROWS] = isa.dot(sums[r % ROWS], weight, x);
            });
            i += 32;
        }
        if i < k {
            unroll!(R, r, {
                let x = _mm_loadu_si128(a.add(r * stride + i).cast());
                sums[r % ROWS] = isa.dot(sums[r % ROWS], weight, _mm256_zextsi128_si256(x));
            });
        }
        let mut all = [0; ROWS];
        isa.store_i32(all.as_mut_ptr(), join(sums));
        let mut shifts = [0; R];
        unroll!(R, r, {
            shifts[r] = all[r % ROWS];
        });
        shifts
    }
}

/// The sum of each vector's lanes.
#[inline(always)]
fn join(v: [__m256i; ROWS]) -> __m256i {
    // SAFETY: only register operations, of instructions the callers' tokens prove.
    unsafe {
        let first = join_halves(v[0], v[1], v[2], v[3]);
        let last = join_halves(v[4], v[5], v[6], v[7]);
        _mm256_add_epi32(
            _mm256_permute2x128_si256::<0x20>(first, last),
            _mm256_permute2x128_si256::<0x31>(first, last),
        )
    }
}

/// The sums of each vector's lower lanes, and those of its upper lanes.
#[inline(always)]
fn join_halves(a: __m256i, b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    // SAFETY: as in `join`.
    unsafe { _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d)) }
}

/// See [`Isa::tile_shifted`].
///
/// # Safety
/// As [`Isa::tile`].
#[inline(always)]
pub(super) unsafe fn tile_shifted<D: Dot, const R: usize>(
    isa: D,
    init: *const i32,
    shifts: &[i32; R],
    a: *const i8,
    stride: usize,
    k: usize,
    b: *const i8,
) -> [__m256i; R] {
    // SAFETY: i stays below k; the caller promises k elements of every row, 8·k weights and 8 initial values.
    unsafe {
        let flip = _mm256_set1_epi8(i8::MIN);
        let init = isa.load_i32(init);
        let mut acc = [init; R];
        unroll!(R, r, {
            acc[r] = _mm256_sub_epi32(init, _mm256_set1_epi32(shifts[r]));
        });
        let rows = row_pointers::<R>(a, stride);
        let mut i = 0;
        while i < k {
            let w = _mm256_xor_si256(flip, _mm256_loadu_si256(b.add(8 * i).cast()));
            unroll!(R, r, {
                let x = rows[r].add(i).cast::<i32>().read_unaligned();
                acc[r] = isa.dot(acc[r], w, _mm256_set1_epi32(x));
            });
            i += 4;
        }
        acc
    }
}

/// See [`Isa::tile`].
///
/// # Safety
/// As [`Isa::tile`].
#[inline(always)]
pub(super) unsafe fn tile<D: Dot, const R: usize>(
    isa: D,
    init: *const i32,
    a: *const i8,
    stride: usize,
    k: usize,
    b: *const i8,
) -> [__m256i; R] {
    // SAFETY: the caller's promise.
    unsafe {
        let shifts = shifts::<D, R>(isa, a, stride, k);
        tile_shifted(isa, init, &shifts, a, stride, k, b)
    }
}

/// See [`Isa::tile_steps`]. Rows are not negative, so they are the unsigned operand.
///
/// # Safety
/// As [`Isa::tile_steps`].
#[inline(always)]
pub(super) unsafe fn tile_steps<D: Dot, const R: usize>(
    isa: D,
    mut acc: [__m256i; R],
    a: *const i8,
    stride: usize,
    steps: usize,
    b: *const i8,
) -> [__m256i; R] {
    // SAFETY: the caller promises 4 elements of every row and 32 weights for each step.
    unsafe {
        let rows = row_pointers::<R>(a, stride);
        for i in 0..steps {
            let w = _mm256_loadu_si256(b.add(32 * i).cast());
            unroll!(R, r, {
                let x = rows[r].add(4 * i).cast::<i32>().read_unaligned();
                acc[r] = isa.dot(acc[r], _mm256_set1_epi32(x), w);
            });
        }
        acc
    }
}

/// See [`Isa::tile_ragged`].
///
/// # Safety
/// As [`Isa::tile_ragged`].
#[inline(always)]
pub(super) unsafe fn tile_ragged<D: Dot, const R: usize>(
    isa: D,
    init: *const i32,
    a: *const i8,
    stride: usize,
    k: usize,
    b: *const i8,
) -> [__m256i; R] {
    // SAFETY: the caller's promise.
    unsafe { tile_steps(isa, [isa.load_i32(init); R], a, stride, k / 4, b) }
}

//! The GEMM's tile for 32 columns: 4 panels, two in a register.

use core::arch::x86_64::*;

use super::lanes::Lanes32;
use crate::Avx512Vnni;
use crate::gemm::NR;
use crate::gemm::simd::{Panels, Rows};
use crate::isa::vnni::row_pointers;
use crate::isa::{Isa, unroll};
use crate::requantise::simd::Form;

/// Columns of a tile.
const WIDE: usize = 4 * NR;

/// See [`Isa::wide_columns`].
///
/// # Safety
/// As [`Isa::wide_columns`].
#[inline(always)]
pub(in crate::isa) unsafe fn wide_columns<F: Form, const R: usize>(
    token: Avx512Vnni,
    panels: Panels,
    x: Rows,
    columns: usize,
    form: F,
    first: usize,
) -> usize {
    let mut n = 0;
    if columns >= WIDE {
        // SAFETY: the caller's promise; `n` is the first column of 4 whole panels.
        unsafe {
            let shifts = token.shifts::<R>(x.first, x.stride, panels.k);
            while n + WIDE <= columns {
                let acc = tile(panels, x, &shifts, n);
                let scale = panels.scale.add(n);
                let scale = [_mm512_loadu_ps(scale), _mm512_loadu_ps(scale.add(16))];
                form.store(Lanes32(token), acc, scale, first + n, columns);
                n += WIDE;
            }
        }
    }
    n
}

/// ```text
/// accumulators of each row = initial values - shift of the row
/// for each 4 steps of K:
///     w = weights of 32 columns, unsigned
///     for each row: repeat its 4 bytes, VPDPBUSD for each half of the columns
/// ```
/// 1. Rows are read in place: a load repeats 4 bytes to all lanes by itself.
/// 2. 8 rows take 16 accumulators, enough to hide the latency of VPDPBUSD (5 cycles, 2 of them begin in one).
///
/// # Safety
/// `x` are R rows readable to the padded K, and there are 4 panels from column `n` on.
#[inline(always)]
unsafe fn tile<const R: usize>(
    panels: Panels,
    x: Rows,
    shifts: &[i32; R],
    n: usize,
) -> [[__m512i; 2]; R] {
    // SAFETY: i stays below K; a panel has 8·K weights, 8 initial values; the callers' token proves the instructions.
    unsafe {
        let bias = panels.bias.add(n);
        let bias = [
            _mm512_loadu_si512(bias.cast()),
            _mm512_loadu_si512(bias.add(16).cast()),
        ];
        let mut acc = [bias; R];
        let rows = row_pointers::<R>(x.first, x.stride);
        unroll!(R, r, {
            let shift = _mm512_set1_epi32(shifts[r]);
            acc[r] = [
                _mm512_sub_epi32(bias[0], shift),
                _mm512_sub_epi32(bias[1], shift),
            ];
        });
        let panel = NR * panels.k;
        let mut w = panels.weights.add(n * panels.k);
        let mut i = 0;
        while i < panels.k {
            let low = unsigned(w, w.add(panel));
            let high = unsigned(w.add(2 * panel), w.add(3 * panel));
            unroll!(R, r, {
                let x = rows[r].add(i).cast::<i32>().read_unaligned();
                let x = _mm512_set1_epi32(x);
                acc[r] = [
                    _mm512_dpbusd_epi32(acc[r][0], low, x),
                    _mm512_dpbusd_epi32(acc[r][1], high, x),
                ];
            });
            w = w.add(4 * NR);
            i += 4;
        }
        acc
    }
}

/// 32 weights of each of two panels, with 128 added.
///
/// # Safety
/// They can be read; the CPU has AVX-512 F.
#[inline(always)]
unsafe fn unsigned(first: *const i8, second: *const i8) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let first = _mm512_castsi256_si512(_mm256_loadu_si256(first.cast()));
        let both = _mm512_inserti64x4::<1>(first, _mm256_loadu_si256(second.cast()));
        _mm512_xor_si512(both, _mm512_set1_epi8(i8::MIN))
    }
}

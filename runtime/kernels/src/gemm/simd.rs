//! Rows in memory times all panels: the tile, then the epilogue.
//!
//! Rows outside, panels inside: 8 rows stay in L1 while the weights stream past. Fewer than 8 rows left run as 4, 2 and 1, not as wasted rows.

use super::{Gemm, NR, padded_k, padded_n};
use crate::isa::Isa;
use crate::requantise::simd::Target;

/// Rows of s8, `stride` apart, each readable to the padded K.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) first: *const i8,
    pub(crate) stride: usize,
}

impl Gemm<'_> {
    /// Computes `count` ≤ [`Isa::ROWS`] rows into `target[first..]`, the table included.
    ///
    /// # Safety
    /// The rows are valid for reading to the padded K, and `first..first + count·n` lies in the target.
    #[inline(always)]
    pub(crate) unsafe fn rows_simd<I: Isa>(
        &self,
        isa: I,
        x: Rows,
        count: usize,
        target: Target,
        first: usize,
    ) {
        // SAFETY: `done` plus a tile's rows never exceeds `count`.
        unsafe {
            let mut done = 0;
            if I::ROWS == 8 && count >= 8 {
                self.group::<I, 8>(isa, x, target, first);
                done = 8;
            }
            while count - done >= 4 {
                self.group::<I, 4>(isa, x.from(done), target, first + done * self.n);
                done += 4;
            }
            if count - done >= 2 {
                self.group::<I, 2>(isa, x.from(done), target, first + done * self.n);
                done += 2;
            }
            if count > done {
                self.group::<I, 1>(isa, x.from(done), target, first + done * self.n);
            }
            target.look_up(isa, &self.requantise, first, count * self.n);
        }
    }

    /// R rows times all panels.
    ///
    /// # Safety
    /// As `rows_simd`, for R rows.
    #[inline(always)]
    unsafe fn group<I: Isa, const R: usize>(&self, isa: I, x: Rows, target: Target, first: usize) {
        let k = padded_k(self.k);
        let mut n = 0;
        while n < self.n {
            // SAFETY: weights, bias and scale are padded to whole panels (`Gemm::new`).
            unsafe {
                let bias = isa.load_i32(self.requantise.bias.as_ptr().add(n));
                let scale = isa.load_f32(self.requantise.scale.as_ptr().add(n));
                let acc =
                    isa.tile::<R>(bias, x.first, x.stride, k, self.weights.as_ptr().add(n * k));
                target.store(isa, acc, scale, first + n, self.n, (self.n - n).min(NR));
            }
            n += NR;
        }
        debug_assert!(n == padded_n(self.n));
    }
}

impl Rows {
    /// The rows from row `row` on.
    ///
    /// # Safety
    /// There are that many rows.
    #[inline(always)]
    unsafe fn from(self, row: usize) -> Self {
        // SAFETY: the caller's promise.
        let first = unsafe { self.first.add(row * self.stride) };
        Self {
            first,
            stride: self.stride,
        }
    }
}

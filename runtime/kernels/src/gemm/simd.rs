//! Rows in memory times all panels: the tile, then the epilogue.
//!
//! Rows outside, panels inside: 8 rows stay in L1 while the weights stream past. Fewer than 8 rows left run as 4, 2 and 1, not as wasted rows.

use super::{Gemm, NR, padded_k};
use crate::isa::{Isa, Routine};
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
                isa.call(Group::<8> {
                    gemm: self,
                    x,
                    target,
                    first,
                });
                done = 8;
            }
            while count - done >= 4 {
                isa.call(Group::<4> {
                    gemm: self,
                    x: x.from(done),
                    target,
                    first: first + done * self.n,
                });
                done += 4;
            }
            if count - done >= 2 {
                isa.call(Group::<2> {
                    gemm: self,
                    x: x.from(done),
                    target,
                    first: first + done * self.n,
                });
                done += 2;
            }
            if count > done {
                isa.call(Group::<1> {
                    gemm: self,
                    x: x.from(done),
                    target,
                    first: first + done * self.n,
                });
            }
            target.look_up(isa, &self.requantise, first, count * self.n);
        }
    }
}

/// R rows times all panels. Whoever makes one promises what `rows_simd` asks for, for R rows.
struct Group<'g, 'a, const R: usize> {
    gemm: &'g Gemm<'a>,
    x: Rows,
    target: Target,
    first: usize,
}

impl<const R: usize> Routine for Group<'_, '_, R> {
    type Output = ();

    #[inline(always)]
    fn simd<I: Isa>(self, isa: I) {
        let Gemm {
            n: columns,
            weights,
            ref requantise,
            ..
        } = *self.gemm;
        let k = padded_k(self.gemm.k);
        let mut n = 0;
        while n < columns {
            // SAFETY: weights, bias and scale are padded to whole panels (`Gemm::new`); rows and target are promised.
            unsafe {
                let bias = isa.load_i32(requantise.bias.as_ptr().add(n));
                let scale = isa.load_f32(requantise.scale.as_ptr().add(n));
                let acc = isa.tile::<R>(
                    bias,
                    self.x.first,
                    self.x.stride,
                    k,
                    weights.as_ptr().add(n * k),
                );
                self.target.store(
                    isa,
                    acc,
                    scale,
                    self.first + n,
                    columns,
                    (columns - n).min(NR),
                );
            }
            n += NR;
        }
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

//! Two passes over a row: sums, then 16 and 8 channels at a time; the last channels, fewer than 8, as the reference does them.

use core::ops::Range;

use super::scalar::Affine;
use super::{LayerNorm, rstd};
use crate::isa::{Isa, Vectorised};
use crate::requantise::scalar::{sat8, sat16};
use crate::{Out, SizeError};

/// Channels of a vector.
const LANES: usize = 8;

/// A type of output.
pub(crate) trait Element: Copy {
    /// Stores 8 values, saturated.
    ///
    /// # Safety
    /// `y` is valid for writing 8 elements.
    unsafe fn store<I: Isa>(isa: I, y: *mut Self, v: I::I16);
    fn saturated(q: i32) -> Self;
}

impl Element for i8 {
    #[inline(always)]
    unsafe fn store<I: Isa>(isa: I, y: *mut Self, v: I::I16) {
        // SAFETY: the caller's promise.
        unsafe { isa.store_sat8(y, v) };
    }

    #[inline(always)]
    fn saturated(q: i32) -> Self {
        sat8(q)
    }
}

impl Element for i16 {
    #[inline(always)]
    unsafe fn store<I: Isa>(isa: I, y: *mut Self, v: I::I16) {
        // SAFETY: the caller's promise.
        unsafe { isa.store_i16(y, v) };
    }

    #[inline(always)]
    fn saturated(q: i32) -> Self {
        sat16(q)
    }
}

impl Vectorised for LayerNorm<'_> {
    #[inline(always)]
    fn run_simd<I: Isa>(
        &self,
        isa: I,
        rows: Range<usize>,
        x: &[i16],
        out: &mut Out<'_>,
        scratch: &mut [i8],
    ) -> Result<(), SizeError> {
        let joined = self.joined(scratch)?;
        // SAFETY: `run` checked that `out` holds `rows`, and x all rows.
        unsafe {
            match out {
                Out::S8(y) => self.rows_simd(isa, rows, x, y.as_mut_ptr(), joined),
                Out::S16(y) => self.rows_simd(isa, rows, x, y.as_mut_ptr(), joined),
                Out::S16Add(_) | Out::S32(_) => return Err(SizeError::OutType),
            }
        }
        Ok(())
    }
}

impl LayerNorm<'_> {
    /// # Safety
    /// `x` is the whole input, and `y` valid for writing `rows`.
    #[inline(always)]
    unsafe fn rows_simd<I: Isa, E: Element>(
        &self,
        isa: I,
        rows: Range<usize>,
        x: &[i16],
        mut y: *mut E,
        joined: &mut [i16],
    ) {
        let channels = self.channels;
        let affine = self.affine();
        let whole = channels - channels % LANES;
        // Moved along from row to row, if there is no gather.
        let mut next = x.as_ptr().wrapping_add(rows.start * channels);
        for row in rows {
            let mut x_row = next;
            if let Some(gather) = self.gather {
                gather.join(x, row, joined);
                x_row = joined.as_ptr();
            }
            // SAFETY: a row of the input or of scratch; `whole` and c stay within it; gamma and beta are as long (`new`), a length that fits
            // an i16.
            unsafe {
                let (mut sum, mut squares) = isa.sum_and_squares(x_row, whole);
                for c in whole..channels {
                    let v = *x_row.add(c);
                    sum += i32::from(v);
                    squares += u64::from(v.unsigned_abs()) * u64::from(v.unsigned_abs());
                }
                let (variance, shift) = self.variance(sum, squares);
                let rstd = rstd(isa.root(variance), shift);
                affine.row_simd(isa, x_row, y, sum, rstd);
            }
            next = next.wrapping_add(channels);
            y = y.wrapping_add(channels);
        }
    }
}

impl Affine<'_> {
    /// A row: 16 channels at a time, then 8, then one.
    ///
    /// # Safety
    /// `x` and `y` are valid for reading and writing a row, which is as long as gamma and beta; the factor fits an i16.
    #[inline(always)]
    pub(crate) unsafe fn row_simd<I: Isa, E: Element>(
        self,
        isa: I,
        x: *const i16,
        y: *mut E,
        mean: i32,
        rstd: f32,
    ) {
        let channels = self.gamma.len();
        let whole = channels - channels % LANES;
        // Values, which the compiler need not read again after every store.
        let (gamma, beta) = (self.gamma.as_ptr(), self.beta.as_ptr());
        // SAFETY: c + 8 ≤ `whole` ≤ channels, or c < channels: within the row, and within gamma and beta.
        unsafe {
            let block = Block {
                factor: self.factor as i16,
                gamma,
                beta,
            };
            let mut c = 0;
            while c + 2 * LANES <= whole {
                let first = block.normalise(isa, x, c, mean, rstd);
                let second = block.normalise(isa, x, c + LANES, mean, rstd);
                E::store(isa, y.add(c), first);
                E::store(isa, y.add(c + LANES), second);
                c += 2 * LANES;
            }
            if c < whole {
                E::store(isa, y.add(c), block.normalise(isa, x, c, mean, rstd));
            }
            for c in whole..channels {
                let q = self.normalised(*x.add(c), c, mean, rstd);
                *y.add(c) = E::saturated(q);
            }
        }
    }
}

/// The factor and the arrays without their lengths.
#[derive(Clone, Copy)]
struct Block {
    factor: i16,
    gamma: *const f32,
    beta: *const f32,
}

impl Block {
    /// 8 channels from `c` on of a row with that mean and reciprocal deviation, `sat16`.
    ///
    /// # Safety
    /// `c + 8` lies within the channels of the row `x`.
    #[inline(always)]
    unsafe fn normalise<I: Isa>(
        self,
        isa: I,
        x: *const i16,
        c: usize,
        mean: i32,
        rstd: f32,
    ) -> I::I16 {
        // SAFETY: the caller's promise; gamma and beta have an element for each channel.
        unsafe {
            let x = isa.load_i16(x.add(c));
            let centred = isa.to_f32(isa.mul_add_i16(isa.splat_i32(-mean), x, self.factor));
            let scaled = isa.mul_f32(
                isa.mul_f32(centred, isa.splat_f32(rstd)),
                isa.load_f32(self.gamma.add(c)),
            );
            isa.round_sat16(isa.add_f32(scaled, isa.load_f32(self.beta.add(c))))
        }
    }
}

//! Two passes over a row: sums, then 16 and 8 channels at a time; the last channels, fewer than 8, as the reference does them.

use core::ops::Range;

use super::{LayerNorm, rstd};
use crate::isa::{Isa, Vectorised};
use crate::requantise::scalar::{sat8, sat16};
use crate::scratch::carve;
use crate::{Out, SizeError};

/// Channels of a vector.
const LANES: usize = 8;

/// A type of output.
trait Element: Copy {
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
        if let Some(gather) = self.gather {
            let (joined, _) = carve::<i16>(scratch, self.channels)?;
            for (index, row) in rows.enumerate() {
                self.gather_row(gather, x, row, joined);
                // SAFETY: `joined` is a row; `run` checked that `out` holds those of `rows`.
                unsafe { self.some_rows(isa, joined.as_ptr(), 1, out, index)? };
            }
            return Ok(());
        }
        let first = x[rows.start * self.channels..].as_ptr();
        // SAFETY: `run` checked that x holds all rows, and `out` those of `rows`.
        unsafe { self.some_rows(isa, first, rows.len(), out, 0) }
    }
}

impl LayerNorm<'_> {
    /// `count` rows, to row `index` of `out` and those after it.
    ///
    /// # Safety
    /// `x` is valid for reading `count` rows; `out` has as many from `index` on.
    #[inline(always)]
    unsafe fn some_rows<I: Isa>(
        &self,
        isa: I,
        x: *const i16,
        count: usize,
        out: &mut Out<'_>,
        index: usize,
    ) -> Result<(), SizeError> {
        let first = index * self.channels;
        // SAFETY: the caller's promise.
        unsafe {
            match out {
                Out::S8(y) => self.rows_simd(isa, count, x, y.as_mut_ptr().add(first)),
                Out::S16(y) => self.rows_simd(isa, count, x, y.as_mut_ptr().add(first)),
                Out::S16Add(_) | Out::S32(_) => return Err(SizeError::OutType),
            }
        }
        Ok(())
    }

    /// # Safety
    /// `x` is valid for reading `count` rows, `y` for writing as many.
    #[inline(always)]
    unsafe fn rows_simd<I: Isa, E: Element>(
        &self,
        isa: I,
        count: usize,
        mut x: *const i16,
        mut y: *mut E,
    ) {
        let channels = self.channels;
        let affine = Affine {
            channels: channels as i16,
            gamma: self.gamma.as_ptr(),
            beta: self.beta.as_ptr(),
        };
        let whole = channels - channels % LANES;
        for _ in 0..count {
            // SAFETY: c + 8 ≤ `whole` ≤ channels, or c < channels: within the row; gamma and beta are as long (`new`).
            unsafe {
                let (mut sum, mut squares) = isa.sum_and_squares(x, whole);
                for c in whole..channels {
                    let v = *x.add(c);
                    sum += i32::from(v);
                    squares += u64::from(v.unsigned_abs()) * u64::from(v.unsigned_abs());
                }
                let (variance, shift) = self.variance(sum, squares);
                let rstd = rstd(isa.root(variance), shift);
                let mut c = 0;
                while c + 2 * LANES <= whole {
                    let first = affine.normalise(isa, x, c, sum, rstd);
                    let second = affine.normalise(isa, x, c + LANES, sum, rstd);
                    E::store(isa, y.add(c), first);
                    E::store(isa, y.add(c + LANES), second);
                    c += 2 * LANES;
                }
                if c < whole {
                    E::store(isa, y.add(c), affine.normalise(isa, x, c, sum, rstd));
                }
                for c in whole..channels {
                    *y.add(c) = E::saturated(self.normalised(*x.add(c), c, sum, rstd));
                }
                (x, y) = (x.add(channels), y.add(channels));
            }
        }
    }
}

/// The layer's arrays without their lengths: values, which the compiler need not read again after every store.
#[derive(Clone, Copy)]
struct Affine {
    channels: i16,
    gamma: *const f32,
    beta: *const f32,
}

impl Affine {
    /// 8 channels from `c` on of a row with that sum and reciprocal deviation, `sat16`.
    ///
    /// # Safety
    /// `c + 8` lies within the channels of the row `x`.
    #[inline(always)]
    unsafe fn normalise<I: Isa>(
        self,
        isa: I,
        x: *const i16,
        c: usize,
        sum: i32,
        rstd: f32,
    ) -> I::I16 {
        // SAFETY: the caller's promise; gamma and beta have an element for each channel.
        unsafe {
            let x = isa.load_i16(x.add(c));
            let centred = isa.to_f32(isa.mul_add_i16(isa.splat_i32(-sum), x, self.channels));
            let scaled = isa.mul_f32(
                isa.mul_f32(centred, isa.splat_f32(rstd)),
                isa.load_f32(self.gamma.add(c)),
            );
            isa.round_sat16(isa.add_f32(scaled, isa.load_f32(self.beta.add(c))))
        }
    }
}

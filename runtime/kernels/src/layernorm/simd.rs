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
        let mut block = Block {
            x,
            gamma: self.gamma.as_ptr(),
            beta: self.beta.as_ptr(),
            factor: self.factor as i16,
            minus_mean: isa.splat_i32(-mean),
            rstd: isa.splat_f32(rstd),
        };
        // SAFETY: `whole` / 16 times 16 channels and then 8 are no more than `whole`; c < channels.
        unsafe {
            let mut to = y;
            for _ in 0..whole / (2 * LANES) {
                let [first, second] = block.normalise_pair(isa);
                E::store(isa, to, first);
                E::store(isa, to.add(LANES), second);
                to = to.add(2 * LANES);
            }
            if !whole.is_multiple_of(2 * LANES) {
                E::store(isa, to, block.normalise(isa));
            }
            for c in whole..channels {
                let q = self.normalised(*x.add(c), c, mean, rstd);
                *y.add(c) = E::saturated(q);
            }
        }
    }
}

/// Where the next channels are, and the row's numbers.
struct Block<I: Isa> {
    x: *const i16,
    gamma: *const f32,
    beta: *const f32,
    factor: i16,
    minus_mean: I::I32,
    rstd: I::F32,
}

impl<I: Isa> Block<I> {
    /// The next 16 channels, `sat16`.
    ///
    /// # Safety
    /// The row, gamma and beta have as many left.
    #[inline(always)]
    unsafe fn normalise_pair(&mut self, isa: I) -> [I::I16; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let x = [isa.load_i16(self.x), isa.load_i16(self.x.add(LANES))];
            self.x = self.x.add(2 * LANES);
            let [gamma, beta] = isa.next_f32_pairs([&mut self.gamma, &mut self.beta]);
            [
                self.normalised(isa, x[0], gamma[0], beta[0]),
                self.normalised(isa, x[1], gamma[1], beta[1]),
            ]
        }
    }

    /// The next 8 channels, `sat16`.
    ///
    /// # Safety
    /// The row, gamma and beta have as many left.
    #[inline(always)]
    unsafe fn normalise(&self, isa: I) -> I::I16 {
        // SAFETY: the caller's promise.
        unsafe {
            let (gamma, beta) = (isa.load_f32(self.gamma), isa.load_f32(self.beta));
            self.normalised(isa, isa.load_i16(self.x), gamma, beta)
        }
    }

    #[inline(always)]
    fn normalised(&self, isa: I, x: I::I16, gamma: I::F32, beta: I::F32) -> I::I16 {
        let centred = isa.to_f32(isa.mul_add_i16(self.minus_mean, x, self.factor));
        let scaled = isa.mul_f32(isa.mul_f32(centred, self.rstd), gamma);
        isa.round_sat16(isa.add_f32(scaled, beta))
    }
}

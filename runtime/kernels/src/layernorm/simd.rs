//! Two passes over a row: sums, then 16 and 8 channels at a time; the last channels, fewer than 8, as the reference does them. Rows of whole vectors run
//! in pairs.

use core::ops::Range;

use super::scalar::Affine;
use super::{LayerNorm, rstd};
use crate::isa::{Gains, Isa, Vectorised};
use crate::requantise::scalar::{sat8, sat16};
use crate::{Out, SMALL, SizeError};

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
    const GAINS: Gains = Gains::LANES;

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
        let mut rows = rows;
        let fits = self.fits_i16();
        if self.gather.is_none() && channels.is_multiple_of(2 * LANES) && (fits || !SMALL) {
            let pairs = rows.len() / 2;
            // SAFETY: the caller's promise, for the first rows.
            y = unsafe {
                if fits || SMALL {
                    self.pairs_simd::<I, E, true>(isa, rows.start, pairs, x, y)
                } else {
                    self.pairs_simd::<I, E, false>(isa, rows.start, pairs, x, y)
                }
            };
            rows.start += 2 * pairs;
        }
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
                let (mean, rstd) = self.numbers((sum, squares), isa);
                affine.row_simd(isa, x_row, y, mean, rstd);
            }
            next = next.wrapping_add(channels);
            y = y.wrapping_add(channels);
        }
    }
}

impl LayerNorm<'_> {
    /// `pairs` times two rows from `first` on; returns where the next row goes. Rows share what is read of gamma and beta, and the loop. If NEAR, all
    /// results fit 16 bits.
    ///
    /// # Safety
    /// As `rows_simd`, for rows of the input as they are, whose length is a multiple of 16.
    #[inline(always)]
    unsafe fn pairs_simd<I: Isa, E: Element, const NEAR: bool>(
        &self,
        isa: I,
        first: usize,
        pairs: usize,
        x: &[i16],
        mut y: *mut E,
    ) -> *mut E {
        let channels = self.channels;
        let affine = self.affine();
        let mut next = x.as_ptr().wrapping_add(first * channels);
        for _ in 0..pairs {
            let rows = [next, next.wrapping_add(channels)];
            // SAFETY: two rows of the input and of the output; gamma and beta are as long, a length that fits an i16.
            unsafe {
                let numbers = [
                    self.numbers(isa.sum_and_squares(rows[0], channels), isa),
                    self.numbers(isa.sum_and_squares(rows[1], channels), isa),
                ];
                affine.pair_simd::<I, E, NEAR>(isa, rows, [y, y.wrapping_add(channels)], numbers);
            }
            next = next.wrapping_add(2 * channels);
            y = y.wrapping_add(2 * channels);
        }
        y
    }

    /// A row's sum and the reciprocal of its deviation.
    #[inline(always)]
    fn numbers<I: Isa>(&self, (sum, squares): (i32, u64), isa: I) -> (i32, f32) {
        let (variance, shift) = self.variance(sum, squares);
        (sum, rstd(isa.root(variance), shift))
    }
}

impl Affine<'_> {
    /// Two rows, 16 channels of each at a time; `numbers` are their means and reciprocal deviations. If NEAR, all results fit 16
    /// bits.
    ///
    /// # Safety
    /// As `row_simd`, for both rows, whose length is a multiple of 16.
    #[inline(always)]
    unsafe fn pair_simd<I: Isa, E: Element, const NEAR: bool>(
        self,
        isa: I,
        x: [*const i16; 2],
        y: [*mut E; 2],
        numbers: [(i32, f32); 2],
    ) {
        let [(upper, upper_rstd), (lower, lower_rstd)] = numbers;
        let upper = Row::new(isa, self, upper, upper_rstd);
        let lower = Row::new(isa, self, lower, lower_rstd);
        let (mut gamma, mut beta) = (self.gamma.as_ptr(), self.beta.as_ptr());
        let mut c = 0;
        while c < self.gamma.len() {
            // SAFETY: 16 channels from c on lie in the rows, in gamma and in beta.
            unsafe {
                let [gamma, beta] = isa.next_f32_pairs([&mut gamma, &mut beta]);
                upper.put_pair::<E, NEAR>(isa, x[0].add(c), y[0].add(c), gamma, beta);
                lower.put_pair::<E, NEAR>(isa, x[1].add(c), y[1].add(c), gamma, beta);
            }
            c += 2 * LANES;
        }
    }

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
            row: Row::new(isa, self, mean, rstd),
        };
        // SAFETY: `whole` / 16 times 16 channels and then 8 are no more than `whole`; c < channels.
        unsafe {
            let mut to = y;
            for _ in 0..whole / (2 * LANES) {
                block.put_pair(isa, to);
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
    row: Row<I>,
}

/// A row's numbers.
struct Row<I: Isa> {
    factor: i16,
    minus_mean: I::I32,
    rstd: I::F32,
}

impl<I: Isa> Block<I> {
    /// The next 16 channels, `sat16`, to `y`.
    ///
    /// # Safety
    /// The row, gamma and beta have as many left; `y` is valid for writing them.
    #[inline(always)]
    unsafe fn put_pair<E: Element>(&mut self, isa: I, y: *mut E) {
        // SAFETY: the caller's promise.
        unsafe {
            let [gamma, beta] = isa.next_f32_pairs([&mut self.gamma, &mut self.beta]);
            self.row.put_pair::<E, false>(isa, self.x, y, gamma, beta);
            self.x = self.x.add(2 * LANES);
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
            self.row
                .normalised::<false>(isa, isa.load_i16(self.x), gamma, beta)
        }
    }
}

impl<I: Isa> Row<I> {
    #[inline(always)]
    fn new(isa: I, affine: Affine<'_>, mean: i32, rstd: f32) -> Self {
        Self {
            factor: affine.factor as i16,
            minus_mean: isa.splat_i32(-mean),
            rstd: isa.splat_f32(rstd),
        }
    }

    /// 16 channels from `x` to `y`.
    ///
    /// # Safety
    /// They are valid for reading and writing as many.
    #[inline(always)]
    unsafe fn put_pair<E: Element, const NEAR: bool>(
        &self,
        isa: I,
        x: *const i16,
        y: *mut E,
        gamma: [I::F32; 2],
        beta: [I::F32; 2],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let (first, second) = (isa.load_i16(x), isa.load_i16(x.add(LANES)));
            let first = self.normalised::<NEAR>(isa, first, gamma[0], beta[0]);
            let second = self.normalised::<NEAR>(isa, second, gamma[1], beta[1]);
            E::store(isa, y, first);
            E::store(isa, y.add(LANES), second);
        }
    }

    /// 8 channels, `sat16` unless they are known to fit.
    #[inline(always)]
    fn normalised<const NEAR: bool>(
        &self,
        isa: I,
        x: I::I16,
        gamma: I::F32,
        beta: I::F32,
    ) -> I::I16 {
        let centred = isa.to_f32(isa.mul_add_i16(self.minus_mean, x, self.factor));
        let scaled = isa.mul_f32(isa.mul_f32(centred, self.rstd), gamma);
        let normalised = isa.add_f32(scaled, beta);
        if NEAR {
            isa.round_near(normalised)
        } else {
            isa.round_sat16(normalised)
        }
    }
}

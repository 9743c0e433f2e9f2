//! Normalisation of a whole s16 map: one mean and one deviation for all of it.

mod scalar;
mod simd;

use core::ops::Range;

use crate::error::{at_least, exact, length, row_range, size, values};
use crate::isa::dispatch;
use crate::layernorm::{check_affine, check_out};
use crate::{Kernel, NormOutput, Out, ParamError, SizeError};

/// Elements of a map: sums stay below 2⁴⁰, sums of squares below 2⁵⁵, and their products below 2⁷⁹.
const ELEMENTS_MAX: usize = 1 << 24;
/// Units of the mean in one of x.
const FACTOR: i32 = 256;

/// `y = (x − mean) / sqrt(variance + eps) · gamma + beta`, mean and variance over rows and channels; see "GroupNorm" in `docs/numerics.md`.
#[derive(Clone, Copy, Debug)]
pub struct GroupNorm<'a> {
    pub(crate) rows: usize,
    pub(crate) channels: usize,
    pub(crate) eps: u64,
    pub(crate) gamma: &'a [f32],
    pub(crate) beta: &'a [f32],
    pub(crate) output: NormOutput,
}

/// Sum and sum of squares of a map.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    sum: i64,
    squares: u64,
}

impl<'a> GroupNorm<'a> {
    /// `eps` is E of the contract: `round(eps·N²/s²)`, at least 1, for N = rows · channels; `gamma` and `beta` have a number for each channel.
    ///
    /// # Errors
    /// A size or an array element is outside the contract's bounds.
    pub fn new(
        rows: usize,
        channels: usize,
        eps: u64,
        gamma: &'a [f32],
        beta: &'a [f32],
        output: NormOutput,
    ) -> Result<Self, ParamError> {
        let norm = Self::new_verified(rows, channels, eps, gamma, beta, output)?;
        norm.check_elements()?;
        Ok(norm)
    }

    /// The part of `new` that reads the arrays' elements.
    ///
    /// # Errors
    /// Those of `new` that are about elements.
    pub fn check_elements(&self) -> Result<(), ParamError> {
        check_affine(self.gamma, self.beta)
    }

    /// As `new`, for arrays it has accepted before: reads no element (see the crate's documentation).
    ///
    /// # Errors
    /// Those of `new` that are not about elements.
    pub fn new_verified(
        rows: usize,
        channels: usize,
        eps: u64,
        gamma: &'a [f32],
        beta: &'a [f32],
        output: NormOutput,
    ) -> Result<Self, ParamError> {
        size("rows", rows, ELEMENTS_MAX)?;
        size("channels", channels, ELEMENTS_MAX)?;
        size("input", rows.saturating_mul(channels), ELEMENTS_MAX)?;
        values("eps", "1 to 2^62", &[eps], |e| (1..=1 << 62).contains(&e))?;
        length("gamma", gamma.len(), channels)?;
        length("beta", beta.len(), channels)?;
        Ok(Self {
            rows,
            channels,
            eps,
            gamma,
            beta,
            output,
        })
    }

    /// Token rows, or pixels.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Elements of a row.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// E of the contract.
    #[must_use]
    pub fn eps(&self) -> u64 {
        self.eps
    }

    /// Factor per channel.
    #[must_use]
    pub fn gamma(&self) -> &'a [f32] {
        self.gamma
    }

    /// Summand per channel.
    #[must_use]
    pub fn beta(&self) -> &'a [f32] {
        self.beta
    }

    /// The output's type.
    #[must_use]
    pub fn output(&self) -> NormOutput {
        self.output
    }

    /// Elements of x and of y.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.rows * self.channels
    }

    /// Scratch bytes `run` needs: none.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        0
    }

    /// Multiply-accumulates: none worth counting.
    #[must_use]
    pub fn macs(&self) -> u64 {
        0
    }

    /// Computes `rows` from the whole of `x` into `out`, which holds only those rows. Every call sums up all of x, so threads repeat that part.
    ///
    /// # Errors
    /// A buffer or the row range does not fit; nothing was written.
    pub fn run(
        &self,
        kernel: Kernel,
        rows: Range<usize>,
        x: &[i16],
        out: Out<'_>,
        scratch: &mut [i8],
    ) -> Result<(), SizeError> {
        row_range(&rows, self.rows)?;
        exact("x", x.len(), self.input_len())?;
        check_out(&out, self.output, rows.len() * self.channels)?;
        at_least("scratch", scratch.len(), self.scratch_len())?;
        dispatch(kernel, self, rows, x, out, scratch)
    }

    /// The mean in units of 1/256, to the nearest, halves up.
    fn mean(&self, sums: Sums) -> i32 {
        let n = self.input_len() as i64;
        (2 * i64::from(FACTOR) * sums.sum + n).div_euclid(2 * n) as i32
    }

    /// `N·Q − S² + E`, shifted up to 2¹²⁶..2¹²⁸ and without its lower half; and the shift, which is even.
    fn variance(&self, sums: Sums) -> (u64, u32) {
        let sum = u128::from(sums.sum.unsigned_abs());
        let v = self.input_len() as u128 * u128::from(sums.squares) - sum * sum;
        let v = v + u128::from(self.eps);
        let z = v.leading_zeros() & !1;
        (((v << z) >> 64) as u64, z)
    }

    /// The reciprocal of the deviation in units of 1/256: from the root of the shifted variance, and the shift.
    fn rstd(&self, root: u32, shift: u32) -> f32 {
        // 2^(shift/2 − 40): the root has 32 bits more than the variance's own, and the mean 8.
        let power = f32::from_bits((127 + shift / 2 - 40) << 23);
        self.input_len() as f32 / root as f32 * power
    }
}

#[cfg(test)]
mod tests {
    use super::{ELEMENTS_MAX, GroupNorm, Sums};
    use crate::{NormOutput, ParamError};

    /// The largest map of the largest values: nothing overflows, and the statistics are what they are on paper.
    #[test]
    fn extremes() -> Result<(), ParamError> {
        let norm = |eps| GroupNorm::new(ELEMENTS_MAX, 1, eps, &[1.0], &[1.0], NormOutput::S8);
        let n = ELEMENTS_MAX as i64;
        let lowest = Sums {
            sum: -32768 * n,
            squares: 32768 * 32768 * n as u64,
        };
        assert_eq!(norm(1)?.mean(lowest), -32768 * 256);
        // No variance: V = E.
        assert_eq!(norm(1)?.variance(lowest), (1 << 62, 126));
        // Half lowest, half highest: a mean of −1/2, and a deviation of 65535/2.
        let both = Sums {
            sum: -n / 2,
            squares: (32768 * 32768 + 32767 * 32767) * (n as u64 / 2),
        };
        let norm = norm(1 << 62)?;
        assert_eq!(norm.mean(both), -128);
        let (variance, shift) = norm.variance(both);
        let rstd = f64::from(norm.rstd(variance.isqrt() as u32, shift));
        assert!((rstd * 256.0 * 32767.5 - 1.0).abs() < 1e-4, "{rstd}");
        Ok(())
    }
}
